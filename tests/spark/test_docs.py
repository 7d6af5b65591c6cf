"""Every code block of the README and of docs/, run as it stands: a page's blocks in their order, in one folder."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from pages import PAGES, ROOT, list_blocks
from processes import changed_environment, run_python

from spark_instructor.models.registry import checkpoint_folder

pytestmark = pytest.mark.one_kind  # the pages start sessions of their own

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


@pytest.fixture
def folder(tmp_path):
    """A folder for each page, with the passages; the packaged model stands in for the hub's."""
    for name in PAGES:
        for parent in ("hkunlp", "path/to"):
            (tmp_path / name / parent).mkdir(parents=True)
            (tmp_path / name / parent / "instructor-base").symlink_to(PACKAGED)
        shutil.copy(ROOT / "examples/passages.jsonl", tmp_path / name)
        shutil.copytree(ROOT / "examples", tmp_path / name / "examples")
    return tmp_path


def test_python_blocks(folder):
    blocks = {name: list_blocks(page, "python") for name, page in PAGES.items()}
    text = json.dumps(blocks).replace("instructor_base", "instructor_tiny")
    (folder / "blocks.json").write_text(text, "utf-8")
    (folder / "runner.py").write_text(RUNNER, "utf-8")
    printed = run_python("runner.py", cwd=folder)
    assert "What is inflation? 384" in printed
    assert "WriteCounts(written=288, nulls=0, invalid=0)" in printed
    assert list(folder.glob("README/embedded.parquet/*.parquet"))
    assert (folder / "README/pipeline_with_model/stages").is_dir()


@pytest.mark.exhaustive
def test_shell_blocks(folder):
    for name, page in PAGES.items():
        script = "".join(code for _, code in list_blocks(page, "sh"))
        environment = changed_environment(PATH=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
        command = ["bash", "-euxo", "pipefail", "-c", script]
        ran = subprocess.run(command, cwd=folder / name, env=environment, capture_output=True, text=True)
        assert ran.returncode == 0, ran.stderr
    assert list(folder.glob("docs-command-line/embedded-bf16.parquet/*.parquet"))
