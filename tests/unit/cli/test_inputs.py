"""What `spark-instructor embed` finds out about its input before it starts Spark."""

import pyarrow as pa
import pytest
from pyarrow import orc, parquet

from spark_instructor import cli


@pytest.fixture(autouse=True)
def no_spark(monkeypatch, tmp_path):
    """Fail if a check needs Spark."""

    def start(_):
        raise AssertionError("Spark was started")

    monkeypatch.setattr("spark_instructor.cli.embed.start_session", start)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def embed(capsys, tiny):
    def run(*arguments):
        code = cli.main(["embed", *map(str, arguments), "--model", str(tiny), "--output", "out"])
        captured = capsys.readouterr()
        assert (code, captured.out) == (1, "") and captured.err.count("\n") == 1
        return captured.err

    return run


FORMATS = "one of csv, json, jsonl, orc, parquet, table, text (known suffixes are .csv, .json, .jsonl, .ndjson, .orc,"


@pytest.mark.parametrize(
    ("files", "arguments", "message"),
    [
        ({}, ["nothing.jsonl"], "there is no file or folder nothing.jsonl"),
        ({}, ["./nothing"], "there is no file or folder ./nothing"),
        ({"in/.hidden": b"x"}, ["in"], "the input is empty: in has no files"),
        ({"x.csv": b""}, ["x.csv"], "the input is empty: x.csv"),
        ({"x.html": b"a"}, ["x.html"], f"the name of x.html does not imply its format: pass --format, {FORMATS}"),
        ({"in/x.html": b"a"}, ["in"], f"the name of in does not imply its format: pass --format, {FORMATS}"),
        ({"in/x.csv": b"a", "in/x.txt": b"a"}, ["in"], "in has files of several formats (.csv, .txt): pass --format"),
        (
            {"x.csv": b"id, text\n1,a"},
            ["x.csv"],
            "no column 'text'; the columns are 'id', ' text'. Name one: --text-col",
        ),
        ({"x.tsv": b"id\tbody\n1,a"}, ["x.tsv"], "there is no column 'text'; the columns are 'id', 'body'"),
        ({"x.jsonl": b'{"id": 1}\n{"body": "a"}'}, ["x.jsonl"], "no column 'text'; the columns are 'id', 'body'"),
        (
            {"x.csv": "text\ncafé".encode("latin-1")},
            ["x.csv"],
            "x.csv is not in utf-8 (unexpected end of data): pass its",
        ),
        (
            {"x.jsonl": b'{"id": 1}\n[{"body": "a"}]\n5\nnull\n"text"'},
            ["x.jsonl"],
            "no column 'text'; the columns are 'id', 'body'",
        ),
        (
            {"in/a.csv": b"text,id\na,1", "in/b.csv": b"id,text\n2,b"},
            ["in"],
            "in/a.csv has the columns 'text', 'id' and in/b.csv has 'id', 'text', but Spark reads columns by their pos",
        ),
        (
            {"in/a.csv": b"text\na", "in/b.csv": "text\ncafé".encode("latin-1")},
            ["in"],
            "in/b.csv is not in utf-8",
        ),
        (
            {"in/y.txt": b"a", "in/a/x.txt": b"a"},
            ["in"],
            "in has files in subfolders, such as in/a/x.txt, but Spark reads the files of one folder",
        ),
        ({"in/a/b/x.txt": b"a"}, ["in/"], "Pass a pattern for the files of one level, such as 'in/*/*/*.txt'"),
        ({"in/y.txt": b"a", "in/k=1/x.txt": b"a"}, ["in"], "one level, such as 'in/*/*.txt'"),
        ({"x.parquet": b"text"}, ["x.parquet"], "x.parquet is not parquet: pass its --format, one of csv, json"),
        ({"x.csv": b"text\na", "out/part-0": b"a"}, ["x.csv"], "out exists already: name another --output, or pass"),
        (
            {"x.csv": b"text\na"},
            ["x.csv", "--whole-files"],
            "--whole-files is for text, but the format of x.csv is csv",
        ),
        ({"x.txt.gz": b"a"}, ["x.txt.gz", "--encoding", "latin-1"], "x.txt.gz is compressed, and Spark reads"),
        (
            {"x.jsonl": "{}".encode("utf-16")},
            ["x.jsonl", "--encoding", "utf-16"],
            "Spark cannot read lines of JSON in utf-16; convert x.jsonl to utf-8",
        ),
        ({"_x.txt": b"a"}, ["_x.txt"], "Spark ignores files whose names begin with a dot or an underscore; rename _x"),
        ({"x.txt": b"a"}, ["x.txt", "--delimiter", ";"], "--delimiter is for csv, but the format of x.txt is text"),
        ({"x.txt": b"a"}, ["x.txt", "--key", "id", "--overwrite"], "--key keeps the rows that the output already has"),
    ],
)
def test_errors(embed, tmp_path, files, arguments, message):
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    assert message in embed(*arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--table", "db.vectors"], "--table needs --key, the columns that identify a row"),
        (["--table", "db.vectors", "--key", "id", "--overwrite"], "so --overwrite cannot be combined with it"),
        (["--output", "out", "--key", "id", "--delete-absent"], "--provider and --delete-absent need a --table"),
        (["--output", "out", "--provider", "delta"], "--provider and --delete-absent need a --table"),
        (["--output", "out", "--key", "id", "--partitions", "2"], "so --partitions cannot be combined with it"),
        (["--output", "out", "--collection", "c"], "--collection needs --milvus"),
        (["--output", "out", "--id-col", "id"], "--id-col needs --milvus"),
        (["--output", "out", "--payload-cols", "id"], "--payload-cols needs --milvus"),
        (["--output", "out", "--token", "secret"], "--token needs --milvus"),
        (["--estimate", "--on-invalid", "error"], "--on-invalid needs --milvus"),
        (["--milvus", "x", "--collection", "c", "--id-col", "id", "--overwrite"], "so --overwrite cannot be combined"),
        (["--output", "out"], "there is no file or folder x.jsonl"),
    ],
)
def test_options_that_do_not_belong_together(capsys, monkeypatch, arguments, message):
    monkeypatch.setenv("MILVUS_TOKEN", "secret")  # it is not an option
    assert cli.main(["embed", "x.jsonl", *arguments]) == 1
    assert message in (err := capsys.readouterr().err) and err.count("\n") == 1


def test_columns_of_binary_files(embed, tmp_path):
    table = pa.table({"id": [1], "body": ["a"]})
    parquet.write_table(table, tmp_path / "x.parquet")
    orc.write_table(table, tmp_path / "x.orc")
    for name in ("x.parquet", "x.orc"):
        assert "there is no column 'text'; the columns are 'id', 'body'" in embed(name)


@pytest.mark.parametrize(
    ("files", "arguments"),
    [
        ({"in/text=a/x.parquet": None}, ["in"]),
        ({"in/k=1/i=1/x.csv": b"text\na", "in/k=1/i=2/x.csv": b"text\na"}, ["in"]),
        ({"x.csv": b"id,TEXT\n1,a"}, ["x.csv"]),
        ({"in/a.csv": b"", "in/b.csv": b"id,text\n1,a", "in/c.csv": b"ID,Text\n2,a"}, ["in"]),
        ({"x.jsonl": b"broken"}, ["x.jsonl"]),
        ({"x.jsonl": b"5"}, ["x.jsonl"]),
        ({"x.jsonl": b'[{"text": "a"}]'}, ["x.jsonl"]),
        ({"x.csv.gz": b"not read here"}, ["x.csv.zst", "--format", "csv"]),
        ({"x.csv": b"text\na", "out/_temporary/0": b"a"}, ["x.csv"]),
        ({}, ["s3://bucket/x.jsonl"]),
        ({}, ["nothing.jsonl", "--remote", "sc://host"]),
        ({}, ["nothing.jsonl", "--master", "yarn"]),
        ({}, ["*.jsonl"]),
        ({}, ["schema.table"]),
    ],
)
def test_what_only_spark_knows(capsys, tiny, tmp_path, files, arguments):
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            parquet.write_table(pa.table({"id": [1]}), tmp_path / name)
        else:
            (tmp_path / name).write_bytes(content)
    if arguments[0].endswith(".zst"):
        (tmp_path / "x.csv.zst").write_bytes(b"not read here")
    with pytest.raises(AssertionError, match="Spark was started"):
        cli.main(["embed", *arguments, "--model", str(tiny), "--output", "out", "--traceback"])
