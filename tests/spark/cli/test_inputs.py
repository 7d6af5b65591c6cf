"""The formats that `spark-instructor embed` reads, and what it says about input that it cannot read."""

import bz2
import gzip
import json
import re

import pytest

from spark_instructor import cli

pytestmark = pytest.mark.one_kind  # Spark reads the files in the same way on every kind of session


@pytest.fixture
def embed(spark, capsys, tiny, tmp_path):
    """Return a function that embeds an input, and returns the texts that were embedded or the line of the error."""

    def run(path, *arguments):
        output = tmp_path / "out"
        options = ["--model", str(tiny), "--instruction", "", "--output", str(output), "--overwrite"]
        code = cli.main(["embed", str(path), *arguments, *options])
        err = re.sub(r"\d+%, .* rows.*\n", "", capsys.readouterr().err)  # the progress, if the machine is busy
        if code:
            assert err.count("\n") == 1, err
            return err
        rows = spark.read.parquet(str(output)).collect()
        assert all((row.vector is None) == (row.text is None) for row in rows)
        return sorted(row.text for row in rows if row.text is not None), err

    return run


CAFES = ["café au lait", "two words", "œufs"]

FILES = {
    "lines.txt": ("\n".join(CAFES), []),
    "latin.txt": ("\r\n".join(CAFES), ["--encoding", "cp1252"]),
    "rows.csv": ("id,text\n" + "\n".join(f"{i},{text}" for i, text in enumerate(CAFES)), []),
    "bom.csv": ("\ufefftext,id\n" + "\n".join(f"{text},1" for text in CAFES), []),
    "rows.tsv": ("id\ttext\n" + "\n".join(f"{i}\t{text}" for i, text in enumerate(CAFES)), []),
    "semicolons.csv": ("text;id\n" + "\n".join(f"{text};1" for text in CAFES), ["--delimiter", ";"]),
    "tabs.data": ("text\tid\n" + "\n".join(f"{t}\t1" for t in CAFES), ["--format", "csv", "--delimiter", "\\t"]),
    "latin.csv": ("text\n" + "\n".join(CAFES), ["--encoding", "cp1252"]),
    "utf-16.csv": ("text,id\n" + "\n".join(f"{text},1" for text in CAFES), ["--encoding", "utf-16"]),
    "rows.jsonl": ("\n".join(json.dumps({"text": text}) for text in CAFES), []),
    "lines.json": ("\n".join(json.dumps({"text": text}) for text in CAFES), []),
    "latin.jsonl": (
        "\n".join(json.dumps({"text": text}, ensure_ascii=False) for text in CAFES),
        ["--encoding", "cp1252"],
    ),
    "array.json": (json.dumps([{"text": text} for text in CAFES]), []),
    "pretty.json": (json.dumps([{"text": text} for text in CAFES], indent=2), []),
    "array.jsonl": (json.dumps([{"text": text} for text in CAFES], indent=2), ["--format", "json"]),
    "b[1].jsonl": ("\n".join(json.dumps({"text": text}) for text in CAFES), []),
}


# One file of each format; the others repeat a format with another encoding, delimiter or layout.
QUICK = ("lines.txt", "rows.csv", "rows.tsv", "utf-16.csv", "rows.jsonl", "array.json", "b[1].jsonl")


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.exhaustive) for name in FILES]
)
def test_formats(embed, tmp_path, name):
    content, arguments = FILES[name]
    encoding = arguments[arguments.index("--encoding") + 1] if "--encoding" in arguments else "utf-8"
    path = tmp_path / name
    path.write_bytes(content.encode(encoding))
    assert embed(path, *arguments) == (CAFES, "")


def test_folders(spark, embed, tmp_path):
    for i, text in enumerate(CAFES):
        (tmp_path / "letters").mkdir(exist_ok=True)
        (tmp_path / "letters" / f"{i}.txt").write_text(f"{text}\nYours", "cp1252")
    whole = sorted(f"{text}\nYours" for text in CAFES)
    assert embed(tmp_path / "letters", "--whole-files", "--encoding", "cp1252") == (whole, "")
    paths = [row.path for row in spark.read.parquet(str(tmp_path / "out")).collect()]
    assert sorted(path.rpartition("/")[2] for path in paths) == ["0.txt", "1.txt", "2.txt"]
    rows = spark.createDataFrame([(text,) for text in CAFES], "text string")
    for kind in ("orc", "parquet", "json"):
        rows.write.format(kind).save(str(tmp_path / kind))
        assert embed(tmp_path / kind) == (CAFES, "")
    (tmp_path / "zipped").mkdir()
    lines = "\n".join(json.dumps({"text": text}) for text in CAFES[:2]).encode()
    (tmp_path / "zipped" / "a.jsonl.gz").write_bytes(gzip.compress(lines))
    (tmp_path / "zipped" / "b.jsonl.bz2").write_bytes(bz2.compress(json.dumps({"text": CAFES[2]}).encode()))
    assert embed(tmp_path / "zipped") == (CAFES, "")


def test_texts_in_another_encoding(embed, tmp_path):
    """They have the same rows as in UTF-8, the only encoding that Spark's reader of texts knows."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "empty.txt").touch()
    text = "café\rtwo\r\n\nend\n"
    for encoding in ("utf-8", "cp1252"):
        (tmp_path / "in" / "text.txt").write_bytes(text.encode(encoding))
        assert embed(tmp_path / "in", "--encoding", encoding) == (["", "café", "end", "two"], "")
        assert embed(tmp_path / "in", "--encoding", encoding, "--whole-files") == ([text], "")
    (tmp_path / "in" / "text.txt.gz").write_bytes(gzip.compress(text.encode("cp1252")))
    failed = embed(f"{tmp_path}/in/*.gz", "--format", "text", "--encoding", "cp1252")
    assert "in/text.txt.gz is compressed, and Spark reads compressed text in utf-8 only, not in cp1252" in failed


def test_arrays_of_texts(spark, embed, tmp_path):
    (tmp_path / "lists.jsonl").write_text(json.dumps({"text": ["a", "b"]}))
    assert embed(tmp_path / "lists.jsonl") == ([["a", "b"]], "")


BAD = {
    "broken.jsonl": (
        '{"id": 1, "text": "fine"}\n{"id": 2, "text": "broken\n{"id": 3, "text": "fine too"}\n\nnothing\n',
        r"2 lines of .*broken.jsonl that could not be read: line 2 of broken.jsonl \('\{\"id\": 2, .*line 5 of broken",
        ["fine", "fine too"],
    ),
    "ragged.csv": (
        'id,text\n1,fine\n2,"one\nfine",too many\n3\n4,fine too\n',
        r"2 lines of .*ragged.csv that could not be read: line 3 of ragged.csv .*, line 5 of ragged.csv \('3'\)",
        ["fine", "fine too"],
    ),
    "kinds.jsonl": (
        '[{"text": "fine"}, {"text": "fine too"}]\n5\n"text"\n',
        r"2 lines of .*kinds.jsonl that could not be read: line 2 of kinds.jsonl \('5'\), line 3 of kinds.jsonl",
        ["fine", "fine too"],
    ),
    "all.jsonl": (json.dumps([{"text": "a"}], indent=2), "If a file is one JSON document, pass --format json", None),
    "broken.json": ('[{"text": "a"},\n{"text"}]', "1 files of .*broken.json that could not be read: broken.json", None),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_lines(embed, tmp_path, name):
    content, message, others = BAD[name]
    (tmp_path / name).write_text(content)
    failed = embed(tmp_path / name)
    assert re.search(message, failed) and failed.endswith("or pass --bad-lines skip to embed the others\n"), failed
    assert not (tmp_path / "out").exists()
    if others is None:
        assert embed(tmp_path / name, "--bad-lines", "skip") == failed
    else:
        texts, err = embed(tmp_path / name, "--bad-lines", "skip")
        assert texts == others and err.startswith("spark-instructor: warning: skipped 2 lines of")


def test_a_line_of_28_megabytes(embed, tmp_path):
    (tmp_path / "x.jsonl").write_text('{"text": "short"}\n{"text": "' + "x" * 28_000_000 + '"}\n')
    assert (
        "1 lines of" in (failed := embed(tmp_path / "x.jsonl")) and "line 2 of x.jsonl" in failed and len(failed) < 500
    )


def test_warnings(embed, tmp_path):
    (tmp_path / "n.csv").write_text("id,text\n1,4.5\n2,5\n")
    assert "warning: all texts of the column 'text' are numbers" in embed(tmp_path / "n.csv")[1]
    (tmp_path / "latin.csv").write_bytes("text\ncafé\ntea".encode("latin-1"))
    assert "warning: 1 texts contain U+FFFD" in embed(f"{tmp_path}/latin*.csv")[1]  # of a pattern, no file is checked


@pytest.mark.parametrize("name", ["nothing", "nothing_to_see", "a.b.c"])
def test_no_such_table(embed, name):
    assert f"there is no file, folder or table {name}" in embed(name)


def test_no_rows(spark, embed, tmp_path):
    (tmp_path / "x.csv").write_text("id,text\n")
    assert "the input is empty" in embed(tmp_path / "x.csv")
    spark.createDataFrame([], "text string").write.parquet(str(tmp_path / "x.parquet"))
    assert "the input is empty" in embed(tmp_path / "x.parquet")
