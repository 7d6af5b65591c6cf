"""`spark-instructor embed` on every kind of session."""

import json
import re

import numpy as np
import pytest
from pyspark.sql import functions as F
from vectors import TOLERANCE

from spark_instructor import cli
from spark_instructor.encoder import InstructorModel

ROWS = [
    {"id": i, "text": text} for i, text in enumerate(["water boils", 'prices, "they" say,\nrise', None, "", "cells"])
]


@pytest.fixture(scope="module")
def expected(tiny):
    """Return the vectors for the instruction "I: ", by id."""
    model = InstructorModel.from_pretrained(tiny)
    return {row["id"]: None if row["text"] is None else model.encode("I: ", [row["text"]])[0] for row in ROWS}


@pytest.fixture
def jsonl(tmp_path):
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


@pytest.fixture
def embed(spark, capsys, tiny):
    """Return a function that runs the command in this process, on the session of the tests."""

    def run(*arguments):
        code = cli.main(["embed", *map(str, arguments), "--model", str(tiny), "--instruction", "I: "])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def assert_vectors(rows, expected):
    assert sorted(row.id for row in rows) == sorted(expected)
    for row in rows:
        assert (row.vector is None) == (expected[row.id] is None)
        if row.vector is not None:
            np.testing.assert_allclose(row.vector, expected[row.id], atol=TOLERANCE, rtol=0)


def test_json_lines_to_parquet_to_search(spark, embed, capsys, jsonl, expected, tmp_path):
    output = tmp_path / "out.parquet"
    code, out, err = embed(jsonl, "--output", output)
    assert code == 0, err
    assert_vectors(spark.read.parquet(str(output)).collect(), expected)
    counts = dict(re.findall(r"^  (\w+) +([\d,.]+)", out, re.MULTILINE))
    assert {name: counts[name] for name in ("rows", "nulls", "unknown", "truncated", "distinct")} == {
        "rows": "5",
        "nulls": "1",
        "unknown": "0",
        "truncated": "0",
        "distinct": "4",
    }
    assert int(counts["tokens"]) > 10 and float(counts["seconds"]) > 0
    assert out.endswith(f"Wrote {output}\n")

    assert cli.main(["search", str(output), "cells", "--instruction", "I: ", "--k", "1"]) == 0
    assert re.match(r" +1\. 1\.000  id: 4\n +text: cells\n", capsys.readouterr().out)

    code, _, err = embed(jsonl, "--output", output)
    assert code == 1 and "exists already" in err and err.count("\n") == 1
    assert embed(jsonl, "--output", output, "--overwrite", "--partitions", 2)[0] == 0
    assert len(list(output.glob("*.parquet"))) <= 2


@pytest.mark.one_kind
@pytest.mark.parametrize("kind", ["csv", "parquet", "table"])
def test_other_inputs(spark, embed, expected, tmp_path, kind):
    rows = spark.createDataFrame([(row["id"], row["text"]) for row in ROWS], "id long, text string")
    path = str(tmp_path / "in")
    if kind == "csv":
        rows.coalesce(1).write.csv(path, header=True, escape='"', quoteAll=True, nullValue="\\N", emptyValue="")
        expected = {id_: vector for id_, vector in expected.items() if id_ not in (2, 3)}  # CSV has no null
    elif kind == "parquet":
        rows.write.parquet(path)
    else:
        rows.createOrReplaceTempView(path := "passages_to_embed")
    output = str(tmp_path / "out")
    code, _, err = embed(path, "--output", output, *(["--format", "csv"] if kind == "csv" else []))
    assert code == 0, err
    embedded = spark.read.parquet(output).withColumn("id", F.col("id").cast("long")).collect()
    assert len(embedded) == len(ROWS)
    assert_vectors([row for row in embedded if row.id in expected], expected)


@pytest.mark.one_kind
def test_estimate(spark, embed, tiny, tmp_path):
    (tmp_path / "in.csv").write_text('text\na text\n""\nanother text\n')
    code, printed, error = embed(tmp_path / "in.csv", "--estimate")
    assert code == 0, error
    assert printed.startswith(f"Estimate for {tmp_path / 'in.csv'} with {tiny} in float32: 64 floats per text")
    assert "core-hours" in printed
    assert [path.name for path in tmp_path.iterdir()] == ["in.csv"]
    code, _, error = embed(tmp_path / "in.csv", "--estimate", "--overwrite")
    assert (code, "--estimate writes nothing" in error) == (1, True)


@pytest.mark.exhaustive
@pytest.mark.one_kind
def test_split(spark, embed, tiny, tmp_path):
    """A row per chunk, with the columns of its document and its place; the key of a row is completed by the chunk."""
    text = "The cat sat on a mat. 😀 Żółć!\n\n" * 20
    document = tmp_path / "in.jsonl"
    rows = [{"id": "a", "text": text}, {"id": "b", "text": " "}, {"id": "c", "text": None}, {"id": "d", "text": "end"}]
    document.write_text("".join(json.dumps(row) + "\n" for row in rows))
    output = tmp_path / "out.parquet"
    code, _, err = embed(document, "--output", output, "--split", "60:10", "--key", "id")
    assert code == 0, err
    found = sorted(spark.read.parquet(str(output)).collect(), key=lambda row: (row.id, row.chunk))
    assert [row.id for row in found] == ["a"] * (len(found) - 1) + ["d"] and len(found) > 5
    model = InstructorModel.from_pretrained(tiny)
    for row in found:
        original = text if row.id == "a" else "end"
        place = original.encode("utf-16-le")[2 * row.begin : 2 * row.end + 2].decode("utf-16-le")
        assert row.text == place and row.chunks == (len(found) - 1 if row.id == "a" else 1)
        np.testing.assert_allclose(row.vector, model.encode("I: ", [row.text])[0], atol=TOLERANCE, rtol=0)
    code, again, err = embed(document, "--output", output, "--split", "60:10", "--key", "id")
    assert code == 0 and re.search(rf"unchanged +{len(found)}$", again, re.MULTILINE), err
    code, _, err = embed(output, "--output", tmp_path / "other.parquet", "--split", "60", "--vector-col", "v")
    assert code == 1 and "--split: the output column 'chunk' exists already" in err


@pytest.mark.one_kind
def test_split_of_blank_texts(embed, tmp_path):
    (tmp_path / "in.jsonl").write_text('{"text": " "}\n{"text": null}\n')
    code, out, err = embed(tmp_path / "in.jsonl", "--output", tmp_path / "out", "--split", "60")
    assert (code, out) == (1, "") and err.count("\n") == 1
    assert f"there is nothing to embed: all texts of {tmp_path / 'in.jsonl'} are null, empty or blank" in err
    assert not (tmp_path / "out").exists()


def test_milvus(embed, jsonl, expected, tmp_path):
    from pymilvus import MilvusClient

    uri = str(tmp_path / "x.db")
    code, out, err = embed(jsonl, "--milvus", uri, "--collection", "c", "--id-col", "id", "--payload-cols", " text, ")
    assert code == 0, err
    assert out.endswith(f"Wrote 4 rows to collection c of {uri}, skipped 1 nulls and 0 invalid rows\n")
    client = MilvusClient(uri)
    rows = client.query("c", filter="", output_fields=["*"], limit=10)
    client.close()
    assert {row["id"]: row["text"] for row in rows} == {
        row["id"]: row["text"] for row in ROWS if row["text"] is not None
    }
    for row in rows:
        np.testing.assert_allclose(row["vector"], expected[row["id"]], atol=TOLERANCE)


@pytest.mark.one_kind
def test_milvus_is_checked_before_anything_is_embedded(spark, embed, jsonl, tmp_path, monkeypatch):
    from pymilvus import MilvusClient

    monkeypatch.delattr(type(spark.range(1)), "persist")
    uri = str(tmp_path / "x.db")
    client = MilvusClient(uri)
    client.create_collection("c", dimension=8)
    client.close()
    for target, id_col, says in [
        (uri, "nope", "there is no column 'nope'"),
        (uri, "id", "column 'vector' has vectors of 64 floats, but its field has vectors of 8"),
        (tmp_path / "nowhere/x.db", "id", f"there is no folder {tmp_path / 'nowhere'} for the file"),
    ]:
        code, _, err = embed(jsonl, "--milvus", target, "--collection", "c", "--id-col", id_col)
        assert code == 1 and says in err and err.count("\n") == 1


@pytest.mark.one_kind
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--text-col", "body"], "there is no column 'body'; the columns are 'id', 'text'"),
        (["--text-col", "id"], "column 'id' is bigint, expected string"),
        (["--max-length", "9999"], "maxSentenceLength is 9999, but"),
    ],
)
def test_errors_are_one_line(embed, jsonl, tmp_path, arguments, says):
    code, out, err = embed(jsonl, "--output", tmp_path / "out", *arguments)
    assert (code, out) == (1, "")
    assert says in err and err.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.one_kind
def test_names_that_differ_by_case(spark, embed, tmp_path):
    """They are those of Spark, which ignores case."""
    path, output = tmp_path / "in.csv", tmp_path / "out"
    path.write_text("ID,TEXT\n1,water\n")
    assert embed(path, "--output", output)[0] == 0
    assert spark.read.parquet(str(output)).columns == ["ID", "TEXT", "vector"]
    path.write_text("id,text,Vector\n1,water,x\n")
    code, _, err = embed(path, "--output", tmp_path / "no")
    assert code == 1 and "'vector' exists already as 'Vector'" in err and err.count("\n") == 1


@pytest.mark.one_kind
def test_an_output_that_holds_the_input(spark, embed, jsonl, tmp_path):
    code, out, err = embed(jsonl, "--output", tmp_path, "--overwrite")
    assert (code, out) == (1, "")
    assert f"--overwrite would delete the input {jsonl}" in err and err.count("\n") == 1
    folder = tmp_path / "of a table"
    spark.read.json(str(jsonl)).write.parquet(str(folder))
    spark.read.parquet(str(folder)).createOrReplaceTempView("passages_in_a_folder")
    assert (
        "--overwrite would delete the input file:"
        in embed("passages_in_a_folder", "--output", folder, "--overwrite")[2]
    )
    assert jsonl.exists() and spark.read.parquet(str(folder)).count() == len(ROWS)
    assert embed(tmp_path / "*.jsonl", "--output", tmp_path / "out", "--overwrite")[0] == 0


@pytest.mark.one_kind
def test_milvus_needs_its_names(embed, jsonl):
    assert "--milvus needs --collection and --id-col" in embed(jsonl, "--milvus", "x.db")[2]


@pytest.mark.one_kind
@pytest.mark.parametrize("table", [["lake.db.vectors"], ["vectors", "--provider", "nonsense"]])
def test_a_table_without_delta_and_iceberg(embed, jsonl, table):
    code, out, err = embed(jsonl, "--key", "id", "--table", *table)
    assert (code, out) == (1, "") and err.count("\n") == 1
    assert f"Spark cannot find or create the table {table[0]}: [" in err
    assert "by spark-submit with --packages and --conf; docs/incremental.md shows how" in err
