"""The README's code blocks, run in their order by a new process in a new folder."""

import re
import sys
from pathlib import Path

import pytest
from processes import run_python

import spark_instructor

README = (Path(__file__).parents[1] / "README.md").read_text("utf-8")
BLOCK = re.compile(r"^(<!-- not run.*-->\n)?```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


@pytest.mark.spark
def test_code_blocks(tmp_path, tiny):
    blocks = [code for not_run, code in BLOCK.findall(README) if not not_run]
    assert len(blocks) >= 6
    # The packaged model stands in for those that need a network.
    script = (
        "\n".join(blocks).replace("instructor_base", "instructor_tiny").replace("hkunlp/instructor-base", str(tiny))
    )
    (tmp_path / "blocks.py").write_text(script, "utf-8")
    (tmp_path / "path/to").mkdir(parents=True)
    (tmp_path / "path/to/instructor-base").symlink_to(tiny)
    printed = run_python("blocks.py", cwd=tmp_path, PYSPARK_PYTHON=sys.executable)
    assert "What is inflation? 64" in printed
    assert list(tmp_path.glob("embedded.parquet/*.parquet"))
    assert (tmp_path / "pipeline_with_model/stages").is_dir()


def test_parameters_are_listed():
    section = README.split("## Parameters of InstructorEmbeddings")[1].split("\n## ")[0]
    named = set(re.findall(r"`(\w+)`", "\n".join(re.findall(r"^\| (.*?) \|", section, re.MULTILINE))))
    assert named == {param.name for param in spark_instructor.InstructorEmbeddings().params}
