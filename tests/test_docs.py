"""Every code block of the README and of docs/, run as it stands: a page's blocks in their order, in one folder."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from processes import changed_environment, run_python

from spark_instructor import DocumentAssembler, EmbeddingsFinisher, InstructorEmbeddings
from spark_instructor.models.registry import checkpoint_folder

ROOT = Path(__file__).parents[1]
PAGES = {"README": ROOT / "README.md"} | {f"docs-{page.stem}": page for page in sorted((ROOT / "docs").glob("*.md"))}
BLOCK = re.compile(r"^(<!-- not run: .+ -->\n)?```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
PACKAGED = checkpoint_folder("instructor_tiny")

# One process for all pages, as each would start a Spark of its own; names are a page's own.
RUNNER = """
import json, os, sys
for page, blocks in json.load(open("blocks.json")).items():
    os.chdir(page)
    names = {"__name__": page}
    for line, code in blocks:
        exec(compile("\\n" * line + code, page, "exec"), names)
    os.chdir("..")
"""


def blocks_of(page, language):
    """(line, code) of a page's blocks that are to be run."""
    text = page.read_text("utf-8")
    for match in BLOCK.finditer(text):
        not_run, found, code = match.groups()
        if found == language and not not_run:
            yield text[: match.start()].count("\n") + 1, code


@pytest.fixture
def folder(tmp_path):
    """A folder for each page, with the passages; the packaged model stands in for the hub's."""
    for name in PAGES:
        for parent in ("hkunlp", "path/to"):
            (tmp_path / name / parent).mkdir(parents=True)
            (tmp_path / name / parent / "instructor-base").symlink_to(PACKAGED)
        shutil.copy(ROOT / "examples/passages.jsonl", tmp_path / name)
    return tmp_path


def test_every_block_is_run_or_says_why_not():
    for page in PAGES.values():
        for _, language, _ in BLOCK.findall(page.read_text("utf-8")):
            assert language in {"python", "sh", "text", ""}, (
                f"{page.name} has a block of {language}, which nothing runs"
            )
    assert sum(1 for page in PAGES.values() for language in ("python", "sh") for _ in blocks_of(page, language)) > 25


@pytest.mark.spark
def test_python_blocks(folder):
    blocks = {name: list(blocks_of(page, "python")) for name, page in PAGES.items()}
    text = json.dumps(blocks).replace("instructor_base", "instructor_tiny")
    (folder / "blocks.json").write_text(text, "utf-8")
    (folder / "runner.py").write_text(RUNNER, "utf-8")
    printed = run_python("runner.py", cwd=folder)
    assert "What is inflation? 384" in printed
    assert "WriteCounts(written=288, nulls=0, invalid=0)" in printed
    assert list(folder.glob("README/embedded.parquet/*.parquet"))
    assert (folder / "README/pipeline_with_model/stages").is_dir()


@pytest.mark.spark
def test_shell_blocks(folder):
    for name, page in PAGES.items():
        script = "".join(code for _, code in blocks_of(page, "sh"))
        environment = changed_environment(PATH=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
        command = ["bash", "-euxo", "pipefail", "-c", script]
        ran = subprocess.run(command, cwd=folder / name, env=environment, capture_output=True, text=True)
        assert ran.returncode == 0, ran.stderr
    assert list(folder.glob("docs-command-line/embedded-bf16.parquet/*.parquet"))


def test_links_lead_somewhere():
    for page in PAGES.values():
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text("utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_parameters_are_listed():
    text = (ROOT / "docs/parameters.md").read_text("utf-8")
    for stage in (InstructorEmbeddings(), DocumentAssembler(), EmbeddingsFinisher()):
        section = text.split(f"## {type(stage).__name__}\n")[1].split("\n## ")[0]
        first_column = re.findall(r"^\| (.*?) \|", section.strip().split("\n\n")[0], re.MULTILINE)
        named = set(re.findall(r"`(\w+)`", "\n".join(first_column)))
        assert named == {param.name for param in stage.params}, type(stage).__name__


def test_messages_are_those_of_the_code():
    """What docs/troubleshooting.md quotes, but for what comes from Spark, Java and the system."""
    sources = " ".join(path.read_text("utf-8") for path in (ROOT / "spark_instructor").rglob("*.py"))
    code = re.sub(r"""["']\s*\n\s*f?["']""", "", sources)
    rows = re.findall(r"^\| (`.+?`.*?) \|", (ROOT / "docs/troubleshooting.md").read_text("utf-8"), re.MULTILINE)
    others = ("JAVA_GATEWAY", "java does not run", "CANNOT_INFER", "No module", "UDF_PYSPARK", "Permission denied")
    quoted = [part.strip() for row in rows for one in re.findall(r"`(.+?)`", row) for part in one.split("...")]
    quoted = [part for part in quoted if part and not part.startswith((*others, "/tmp"))]
    assert len(quoted) > 15
    assert [part for part in quoted if part not in code] == []


def test_faults_are_tested():
    """Each test that docs/faults.md names is there."""
    named = re.findall(r"`([\w/]+\.py)(?:::(\w+))?`", (ROOT / "docs/faults.md").read_text("utf-8"))
    assert len(named) > 25
    for path, test in named:
        assert f"def {test}" in (ROOT / "tests" / path).read_text("utf-8"), f"{path} has no {test}"
