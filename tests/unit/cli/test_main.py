"""The commands that need no Spark: search, models, prepare, package; help and errors."""

import json
import os
import re
import shutil
from contextlib import nullcontext

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from processes import run_python
from wheels import install_wheel

import spark_instructor
from spark_instructor import cli
from spark_instructor.cli.embed import UnfinishedError, _check_overwrite, _write_milvus
from spark_instructor.cli.main import _create_parser, _summarize
from spark_instructor.encoder import InstructorModel, prepare
from spark_instructor.milvus.writer import WriteCounts
from spark_instructor.models.prepared import read_prepared

TEXTS = ["prices rise", "cells divide", "water boils", "prices fall"]


def run(capsys, *arguments):
    code = cli.main([str(argument) for argument in arguments])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


@pytest.fixture(scope="module")
def model(tiny):
    return InstructorModel.from_pretrained(tiny)


def write_vectors(folder, vectors, provenance=None):
    """Write two Parquet files as Spark does, with the metadata of the columns in their footers; return the folder."""
    field = {"name": "vector", "type": "array", "nullable": True, "metadata": {"spark_instructor": provenance or {}}}
    footer = {"org.apache.spark.sql.parquet.row.metadata": json.dumps({"type": "struct", "fields": [field]})}
    table = pa.table({"id": range(len(vectors)), "text": TEXTS, "vector": pa.array(vectors, pa.list_(pa.float32()))})
    folder.mkdir()
    for i in range(2):
        pq.write_table(table.slice(i * 2, 2).replace_schema_metadata(footer), folder / f"part-{i}.parquet")
    (folder / "_SUCCESS").touch()
    return folder


@pytest.fixture
def vectors(model, tiny, tmp_path):
    """Write the vectors of `TEXTS`, and return their folder."""
    provenance = {"model": str(tiny), "precision": "float32", "hash": model.prepared.hash}
    return write_vectors(tmp_path / "vectors.parquet", list(model.encode("", TEXTS)), provenance)


def test_search(capsys, vectors, model):
    code, out, _ = run(capsys, "search", vectors, "water boils", "--instruction", "", "--k", 3)
    assert code == 0
    similar = model.encode("", TEXTS) @ model.encode("", ["water boils"])[0]
    best = np.argsort(-similar)[:3]
    assert [int(row) for row in re.findall(r"id: (\d)", out)] == best.tolist()
    scores = [float(score) for score in re.findall(r"\d\. (-?\d\.\d+)", out)]
    assert scores == pytest.approx(similar[best], abs=1e-3)
    assert "text: water boils" in out and "vector" not in out


def test_search_skips_nulls_and_zeros(capsys, model, tiny, tmp_path):
    first, second, *_ = model.encode("", TEXTS)
    folder = write_vectors(tmp_path / "x", [first, None, np.zeros(model.dimension, np.float32), second])
    code, out, _ = run(capsys, "search", folder, "a", "--model", tiny)
    assert code == 0
    assert len(re.findall("id: ", out)) == 2


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (["--vector-col", "v"], "has no column 'v'; it has 'id', 'text', 'vector'"),
        (["--precision", "bfloat16"], "vectors of different models cannot be compared"),
        (["--model", "instructor_tiny"], "was embedded with"),
    ],
)
def test_search_of_something_else(capsys, vectors, change, says):
    code, out, err = run(capsys, "search", vectors, "a", *change)
    assert (code, out) == (1, "")
    assert says in err and err.count("\n") == 1


def test_search_of_what_does_not_say_its_model(capsys, model, tiny, tmp_path):
    folder = write_vectors(tmp_path / "x", list(model.encode("", TEXTS)))
    assert "does not say which model embedded it; pass --model" in run(capsys, "search", folder, "a")[2]
    assert run(capsys, "search", folder, "a", "--model", tiny)[0] == 0
    narrow = write_vectors(tmp_path / "y", [[1.0, 2.0]] * 4)
    assert "have 2 floats and those of the model 64" in run(capsys, "search", narrow, "a", "--model", tiny)[2]


def test_search_of_what_holds_no_vectors(capsys, model, tiny, tmp_path):
    def says(folder):
        code, out, err = run(capsys, "search", folder, "a", "--model", tiny)
        assert (code, out) == (1, "") and err.count("\n") == 1
        return err

    width = model.dimension
    ragged = write_vectors(tmp_path / "ragged", [[1.0] * width, [1.0] * 2, [1.0] * 3, None])
    assert f"column 'vector' has vectors of different widths: 2, {width}" in says(ragged)
    nulls = write_vectors(tmp_path / "nulls", [None] * 4)
    assert "has no vectors in the column 'vector', so nothing is found" in says(nulls)
    pq.write_table(pa.table({"vector": ["[1, 2]"]}), tmp_path / "json.parquet")
    assert "json.parquet is string, expected vectors, such as lists of floats" in says(tmp_path / "json.parquet")
    (tmp_path / "x.csv").write_text("vector\n1")
    assert "x.csv is not Parquet: search what 'spark-instructor embed' wrote" in says(tmp_path / "x.csv")
    (tmp_path / "empty").mkdir()
    assert "has no column 'vector'; it has no columns" in says(tmp_path / "empty")


@pytest.mark.parametrize("number", [None, float("nan")])
def test_search_of_vectors_that_cannot_be_compared(capsys, model, tiny, tmp_path, number):
    vectors = model.encode("", TEXTS).tolist()
    vectors[1][0] = number
    code, _, err = run(capsys, "search", write_vectors(tmp_path / "x", vectors), "a", "--model", tiny)
    assert code == 1 and "column 'vector' has a vector that contains NaN, infinity or null" in err


def test_a_question_without_quotation_marks(capsys, vectors):
    assert run(capsys, "search", vectors, "water", "boils") == run(capsys, "search", vectors, "water boils")


@pytest.mark.parametrize(("options", "token"), [([], "of the environment"), (["--token", "given"], "given")])
def test_milvus_token(monkeypatch, options, token):
    def write(*_, token, on_invalid, **__):
        written.append((token, on_invalid))
        return WriteCounts(1, 0, 0)

    written = []
    monkeypatch.setenv("MILVUS_TOKEN", "of the environment")
    monkeypatch.setattr("spark_instructor.milvus.writer.write_to_milvus", write)
    parsed = _create_parser().parse_args(["embed", "x", "--milvus", "http://host", "--collection", "c", *options])
    assert _write_milvus(None, parsed).startswith("Wrote 1 rows to collection c")
    assert written == [(token, "error")]


def test_names_of_columns(capsys):
    parse = _create_parser().parse_args
    names = parse(["embed", "x", "--output", "y", "--key", "id, lang", "--payload-cols", " text ,a b, "])
    assert (names.key, names.payload_cols) == (["id", "lang"], ["text", "a b"])
    with pytest.raises(SystemExit):
        parse(["embed", "x", "--output", "y", "--key", " ,"])
    assert "--key: ' ,', expected names of columns, separated by commas" in capsys.readouterr().err


def test_version(capsys):
    with pytest.raises(SystemExit) as exited:
        cli.main(["--version"])
    assert exited.value.code == 0
    assert capsys.readouterr().out == f"spark-instructor {spark_instructor.__version__}\n"


def test_no_command_shows_the_commands(capsys):
    with pytest.raises(SystemExit):
        cli.main([])
    assert "embed " in (err := capsys.readouterr().err) and "examples:" in err


def test_a_full_disk_is_one_line():
    error = UnfinishedError("out was not written. Run the same command again")
    error.__cause__ = Exception("Job aborted.\n\tat X\nCaused by: java.io.IOException: No space left on device\n\tat Y")
    assert _summarize(error) == (
        "a disk is full, that of the output or that of Spark's temporary files (SPARK_LOCAL_DIRS). "
        "out was not written. Run the same command again"
    )


def test_search_of_two_models(capsys, vectors, model):
    def search_with(*fingerprints):
        for i, file in enumerate(sorted(vectors.glob("*.parquet"))):
            table = pq.read_table(file).select(["id", "text", "vector"])
            pq.write_table(table.append_column("fingerprint", pa.array(fingerprints[i * 2 : i * 2 + 2])), file)
        return run(capsys, "search", vectors, "a")

    own, other = model.prepared.hash[:16] + "-" + "0" * 64, "f" * 16 + "-" + "0" * 64
    assert search_with(own, own, own, None)[0] == 0
    code, out, err = search_with(own, own, own, other)
    assert (code, out) == (1, "")
    assert "contains rows of more than one model" in err and "Run embed_changes again" in err
    assert search_with("a column", "of", "this name", "of another")[0] == 0
    assert search_with(1, 2, 3, 4)[0] == 0


def test_search_without_a_file(capsys, tmp_path):
    code, _, err = run(capsys, "search", tmp_path / "nope", "a")
    assert (code, err) == (1, f"spark-instructor: there is no file or folder {tmp_path}/nope\n")


def test_prepare_and_models(capsys, tiny, tmp_path):
    code, out, _ = run(capsys, "prepare", tiny, "--precision", "int8", "--into", tmp_path / "int8")
    assert code == 0
    assert read_prepared(tmp_path / "int8").precision == "int8"
    assert out.startswith(f"{tmp_path}/int8\ntiny in int8, 64 floats per text")

    made = prepare(tiny, "bfloat16")
    _, table, _ = run(capsys, "models")
    assert "instructor_base   hkunlp/instructor-base        768    440  no " in table
    assert re.search(r"instructor_tiny +packaged .* yes ", table)
    assert re.search(rf"  tiny +bfloat16 +\d+ MB  {made}\n", table)
    _, listed, _ = run(capsys, "models", "--json")
    assert str(made) in [model["path"] for model in json.loads(listed)["prepared"]]


def test_package_and_models(capsys, tiny, tmp_path, monkeypatch):
    code, out, _ = run(capsys, "package", tiny, "--precision", "bfloat16", "--output", tmp_path / "dist")
    (wheel,) = (tmp_path / "dist").iterdir()
    assert code == 0
    assert out.startswith(f"{wheel}\n") and out.endswith("it is the model 'tiny'.\n")
    assert "installed" not in run(capsys, "models")[1]
    install_wheel(wheel, tmp_path / "site")
    monkeypatch.syspath_prepend(tmp_path / "site")
    folder = tmp_path / "site" / "spark_instructor_tiny"
    assert re.search(rf"installed as wheels:\n  tiny +bfloat16 +\d+ MB  {folder}\n", run(capsys, "models")[1])
    (listed,) = json.loads(run(capsys, "models", "--json")[1])["installed"]
    assert (listed["name"], listed["precision"], listed["path"]) == ("tiny", "bfloat16", str(folder))
    # A prepared folder keeps its precision, here as in a stage.
    assert run(capsys, "package", "tiny", "--output", tmp_path / "again")[0] == 0
    assert [path.name for path in (tmp_path / "again").iterdir()] == [wheel.name]


def test_as_a_module(tmp_path):
    assert "instructor_base" in run_python("-m", "spark_instructor", "models", cwd=tmp_path)


def test_unknown_model(capsys):
    code, out, err = run(capsys, "prepare", "instructor_huge")
    assert (code, out) == (1, "")
    assert err.startswith("spark-instructor: unknown model 'instructor_huge': expected one of instructor_tiny")
    with pytest.raises(ValueError, match="unknown model"):
        cli.main(["prepare", "instructor_huge", "--traceback"])


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["embed"],
        ["embed", "x"],
        ["embed", "x", "--output", "y", "--partitions", "0"],
        ["embed", "x", "--output", "y", "--table", "z"],
        ["search", "x"],
        ["search", "x", "a", "--k", "0"],
        ["search", "x", "a", "--k", "-1"],
        ["prepare", "x", "--precision", "a"],
    ],
)
def test_misuse(capsys, arguments):
    with pytest.raises(SystemExit) as exited:
        cli.main(arguments)
    assert exited.value.code == 2
    assert "usage: spark-instructor" in capsys.readouterr().err


def test_clean_models(capsys, tiny, tmp_path, monkeypatch):
    """`models --clean` deletes the models of this user's executors and keeps the prepared ones."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    copy = shutil.copytree(prepare(tiny), tmp_path / f"spark_instructor-{os.getuid()}" / "model")
    code, printed, _ = run(capsys, "models", "--clean")
    assert (code, copy.exists()) == (0, False) and re.fullmatch(rf"deleted +\d+ MB  {copy}\n", printed)
    assert run(capsys, "models", "--clean")[1].startswith("nothing to delete")
    read_prepared(prepare(tiny)).verify()


@pytest.mark.parametrize("command", ["embed", "search", "models", "prepare", "package"])
def test_help_teaches_by_example(capsys, command):
    with pytest.raises(SystemExit) as exited:
        cli.main([command, "--help"])
    assert exited.value.code == 0
    assert f"examples:\n  spark-instructor {command}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("output", "source", "removed"),
    [
        ("a", "a", True),
        ("a", "a/x.jsonl", True),
        ("a", "a/*.jsonl", True),
        ("./b/../a/", "file:{cwd}/a/x y.jsonl", True),
        ("file://{cwd}/a", "a/x.jsonl", True),
        ("link", "a/x.jsonl", True),
        ("s3://bucket/a", "s3://bucket/a/x.jsonl", True),
        ("/a", "hdfs://host:8020/a/x.jsonl", True),
        ("s3://other/a", "s3://bucket/a/x.jsonl", False),
        ("a/out", "a/x.jsonl", False),
        ("a", "ab/x.jsonl", False),
    ],
)
def test_what_an_overwrite_would_remove(tmp_path, monkeypatch, output, source, removed):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a").mkdir()
    (tmp_path / "link").symlink_to("a")
    output, source = output.format(cwd=tmp_path), source.format(cwd=tmp_path)
    with pytest.raises(ValueError, match="--overwrite would delete the input") if removed else nullcontext():
        _check_overwrite(output, [source])


def test_one_line_of_a_spark_error():
    said = """An exception was thrown from the Python worker. Please see the stack trace below.
Traceback (most recent call last):
  File "worker.py", line 1, in main
RuntimeError: device is 'cuda', but torch
"""
    assert _summarize(Exception(said)) == "device is 'cuda', but torch"
    jvm = "An error occurred while calling o31.load.\n: org.apache.spark.SparkException: Not a Parquet file.\nMend it."
    for stack in (
        "\n\tat org.apache.spark.X\n\tat java.Y",
        "\n\nJVM stacktrace:\norg.apache.spark.SparkException\n\tat X",
    ):
        assert _summarize(Exception(jvm + stack)) == " ".join(jvm.split())
    cause = "\n\tat X\nCaused by: java.lang.RuntimeException: in.txt is not a Parquet file\n\tat Y\n\t... 1 more"
    assert _summarize(Exception(jvm + cause)) == "in.txt is not a Parquet file"
    assert "JDK 17" in _summarize(Exception("[JAVA_GATEWAY_EXITED] Java gateway process exited"))


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("many", "'many', expected the number of tokens per chunk, and an overlap after a colon"),
        ("256:", "'256:', expected the number of tokens per chunk"),
        ("1.5", "expected the number of tokens per chunk"),
        ("8", "numTokens is 8, expected at least 16"),
        ("9999", "numTokens is 9999, but after the instruction and"),
        ("32:32", "tokenOverlap is 32, expected less than numTokens, which is 32"),
        ("32 --milvus x.db --collection c --id-col id", "Milvus needs an id per row"),
    ],
)
def test_bad_splits(monkeypatch, capsys, tiny, tmp_path, value, says):
    """They are found before Spark starts."""
    monkeypatch.setattr("spark_instructor.cli.embed.start_session", None)
    (tmp_path / "in.jsonl").write_text(json.dumps({"text": "a"}))
    output = [] if "--milvus" in value else ["--output", tmp_path / "out"]
    arguments = ["embed", tmp_path / "in.jsonl", "--model", tiny, *output, "--split", *value.split()]
    try:
        code = cli.main([str(one) for one in arguments])
    except SystemExit as usage:
        code = usage.code
    assert code in (1, 2)
    assert says in capsys.readouterr().err
