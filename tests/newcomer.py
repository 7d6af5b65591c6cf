"""The first hour of a newcomer: commands, snippets and a notebook, each in a process of its own, in an empty folder.

`make newcomer` runs this script with the Python of an environment into which pip installed the package and its extras.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from pages import PAGES, ROOT, list_blocks

BIN = Path(sys.executable).parent
QUESTION = "Why do my ears hurt when a plane climbs?"
EMBED = "embed passages.jsonl --model instructor_tiny"

# A newcomer has not activated the environment, has no model, and no access to the hub.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYSPARK_PYTHON")}


def run(folder, command, code=0, within=None):
    """Run a command and return its output and what it wrote to stderr; check its exit code and the seconds it took."""
    start = time.monotonic()
    process = subprocess.run(command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=300)
    seconds = time.monotonic() - start
    print(f"{seconds:6.1f} s  {' '.join(map(str, command))[:110]}", flush=True)
    assert process.returncode == code, f"exit code {process.returncode}\n{process.stdout}\n{process.stderr}"
    assert within is None or seconds < within, f"took {seconds:.0f} s, expected less than {within}"
    return process.stdout, process.stderr


def spark_instructor(folder, arguments, *words, **expected):
    return run(folder, [BIN / "spark-instructor", *arguments.split(), *words], **expected)


def assert_one_line(err, says):
    assert err.count("\n") == 1 and says in err, err


def run_commands(folder):
    assert re.fullmatch(r"spark-instructor \d+\.\d+\.\d+\n", spark_instructor(folder, "--version")[0])
    _, err = spark_instructor(folder, "", code=2)
    assert "examples:" in err
    assert "instructor_tiny" in spark_instructor(folder, "models")[0]
    # Spark would take longer than this to start.
    _, err = spark_instructor(folder, f"{EMBED} --text-col body --output out", code=1, within=10)
    assert_one_line(err, "there is no column 'body'; the columns are 'id', 'text', 'source'")
    _, err = spark_instructor(folder, "embed passage.jsonl --output out", code=1, within=10)
    assert_one_line(err, "there is no file or folder passage.jsonl")
    out, err = spark_instructor(folder, f"{EMBED} --output embedded.parquet")
    assert out.endswith("Wrote embedded.parquet\n") and "rows               288" in out
    assert "WARN" not in err, err
    _, err = spark_instructor(folder, f"{EMBED} --output embedded.parquet", code=1, within=10)
    assert_one_line(err, "embedded.parquet exists already")
    out, _ = spark_instructor(folder, "search embedded.parquet --k 1", QUESTION)
    assert "medlineplus-008" in out
    spark_instructor(folder, f"{EMBED} --key id --output updated.parquet")
    assert "medlineplus-008" in spark_instructor(folder, "search updated.parquet --k 1", QUESTION)[0]
    out, _ = spark_instructor(
        folder, f"{EMBED} --milvus passages.db --collection passages --id-col id --payload-cols text,source"
    )
    assert "Wrote 288 rows to collection passages" in out
    spark_instructor(folder, "prepare instructor_tiny --precision bfloat16 --into tiny-bf16")
    _, err = spark_instructor(folder, "search embedded.parquet --model tiny-bf16", QUESTION, code=1)
    assert_one_line(err, "vectors of different models cannot be compared")


def run_snippets(folder):
    """Run snippets of the pages as scripts, which a newcomer starts on different days."""
    readme = [code for _, code in list_blocks(PAGES["README"], "python")]
    milvus = [code for _, code in list_blocks(PAGES["docs-milvus"], "python") if "MilvusClient" in code]
    search = next(code for code in milvus if ".search(" in code)
    without_spark = next(code for code in readme if "InstructorModel" in code)
    for name, code in {"spark": readme[0], "without_spark": without_spark, "milvus": search}.items():
        (folder / f"{name}.py").write_text(code.replace("instructor_base", "instructor_tiny"), "utf-8")
        run(folder, [sys.executable, f"{name}.py"])


def run_notebook(folder):
    (folder / "notebooks").mkdir()
    shutil.copy(ROOT / "notebooks/quickstart.ipynb", folder / "notebooks")
    shutil.copytree(ROOT / "examples", folder / "examples")
    run(folder / "notebooks", [BIN / "jupyter-execute", "--inplace", "quickstart.ipynb"])
    cells = json.loads((folder / "notebooks/quickstart.ipynb").read_text("utf-8"))["cells"]
    assert any(cell.get("outputs") for cell in cells)


def main():
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        ENVIRONMENT.update(HF_HOME=str(folder / "hf_home"), HF_HUB_OFFLINE="1", MPLBACKEND="agg")
        (folder / "empty").mkdir()
        where, _ = run(
            folder / "empty", [sys.executable, "-c", "import spark_instructor; print(spark_instructor.__file__)"]
        )
        assert Path(sys.prefix) in Path(where).parents, f"{where} is not the installed package"
        shutil.copy(ROOT / "examples/passages.jsonl", folder / "empty")
        run_commands(folder / "empty")
        run_snippets(folder / "empty")
        run_notebook(folder / "empty")
    print(f"{time.monotonic() - start:6.1f} s  in all")


if __name__ == "__main__":
    main()
