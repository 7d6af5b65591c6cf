"""Run every code block of README.md and docs/ unchanged: the blocks of a page in order, in one folder per page.

The blocks of a page share a process until one is marked as that of a new process.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from pages import PAGES, ROOT, list_blocks, list_processes
from processes import changed_environment, run_python

from spark_instructor.models.registry import find_checkpoint

pytestmark = pytest.mark.one_kind  # the pages start their own sessions

PACKAGED = find_checkpoint("instructor_tiny")

# One process runs all pages, because otherwise each page would start Spark. Each page has its own namespace.
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
    """Create a folder for each page with the example passages; the packaged model replaces the hub's models."""
    for name in PAGES:
        for parent in ("hkunlp", "path/to"):
            (tmp_path / name / parent).mkdir(parents=True)
            (tmp_path / name / parent / "instructor-base").symlink_to(PACKAGED)
        shutil.copy(ROOT / "examples/passages.jsonl", tmp_path / name)
        shutil.copytree(ROOT / "examples", tmp_path / name / "examples")
    return tmp_path


@pytest.mark.exhaustive
def test_python_blocks_of_the_readme(folder):
    printed = run_python_blocks(folder, ["README"])
    assert "What is inflation? 384" in printed
    assert list(folder.glob("README/embedded.parquet/*.parquet"))
    assert (folder / "README/pipeline_with_model/stages").is_dir()


@pytest.mark.exhaustive
@pytest.mark.timeout(1200)
def test_python_blocks_of_the_pages(folder):
    pages = [name for name in PAGES if name != "README"]
    assert "WriteCounts(written=288, nulls=0, invalid=0)" in run_python_blocks(folder, pages)


def run_python_blocks(folder, names):
    """Run the blocks of some pages, those of all first processes in one process and so on, and return what they print.

    A page whose process is the second one finds what its first one has written.
    """
    (folder / "runner.py").write_text(RUNNER, "utf-8")
    processes = {name: list_processes(PAGES[name], "python") for name in names}
    printed = ""
    for number in range(max(map(len, processes.values()))):
        blocks = {name: lists[number] for name, lists in processes.items() if number < len(lists)}
        text = json.dumps(blocks).replace("instructor_base", "instructor_tiny")
        (folder / "blocks.json").write_text(text, "utf-8")
        printed += run_python("runner.py", cwd=folder, timeout=1000)
    return printed


@pytest.mark.exhaustive
@pytest.mark.timeout(1200)
def test_shell_blocks(folder):
    for name, page in PAGES.items():
        script = "".join(code for _, code in list_blocks(page, "sh"))
        environment = changed_environment(PATH=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
        command = ["bash", "-euxo", "pipefail", "-c", script]
        process = subprocess.run(command, cwd=folder / name, env=environment, capture_output=True, text=True)
        assert process.returncode == 0, process.stderr
    assert list(folder.glob("docs-command-line/embedded-bf16.parquet/*.parquet"))
