"""The README's code blocks, run in their order, with the packaged model in place of those that need a network."""

import re
from pathlib import Path

import pytest

README = Path(__file__).parents[2] / "README.md"
BLOCK = re.compile(r"^(<!-- not run.*-->\n)?```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


def test_readme(spark, tmp_path, monkeypatch, tiny, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "path/to").mkdir(parents=True)
    (tmp_path / "path/to/instructor-base").symlink_to(tiny)
    blocks = [code for not_run, code in BLOCK.findall(README.read_text("utf-8")) if not not_run]
    assert len(blocks) >= 6
    namespace = {}
    for code in blocks:
        code = code.replace("instructor_base", "instructor_tiny").replace("hkunlp/instructor-base", "instructor_tiny")
        exec(compile(code, str(README), "exec"), namespace)
    assert "What is inflation? 64" in capsys.readouterr().out
    assert namespace["same"].stages[1].getInstruction() == "Represent the document for retrieval: "
    assert spark.read.parquet("embedded.parquet").count() == 2


@pytest.mark.parametrize("stage", ["InstructorEmbeddings"])
def test_parameters_are_listed(stage):
    import spark_instructor

    section = README.read_text("utf-8").split(f"## Parameters of {stage}")[1].split("\n## ")[0]
    named = set(re.findall(r"`(\w+)`", "\n".join(re.findall(r"^\| (.*?) \|", section, re.MULTILINE))))
    assert named == {param.name for param in getattr(spark_instructor, stage)().params}
