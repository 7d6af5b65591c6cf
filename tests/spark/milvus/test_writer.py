"""write_to_milvus writes to a file of milvus-lite through the driver, and to a server from the executors."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from processes import run_python
from pymilvus import DataType, MilvusClient
from pyspark.sql import functions as F
from vectors import TOLERANCE

from spark_instructor import InstructorEmbeddings, convert_vectors
from spark_instructor.milvus import InstructorEmbeddingFunction, WriteCounts, write_to_milvus, writer


@pytest.fixture(params=["file", "server"])
def uri(request, tmp_path):
    return str(tmp_path / "vectors.db") if request.param == "file" else request.getfixturevalue("server")


def vectors(spark, rows, key="long", vector="array<float>"):
    return spark.createDataFrame(rows, f"id {key}, vector {vector}")


@pytest.fixture(scope="module")
def texts(spark):
    """Return rows with a key, a text and a number; one text is null."""
    rows = [(f"k{i}", None if i == 7 else f"Text number {i}.", i) for i in range(40)]
    return spark.createDataFrame(rows, "key string, text string, number int").repartition(3)


@pytest.fixture(scope="module")
def stage(tiny):
    return InstructorEmbeddings.loadSavedModel(str(tiny)).setInputCols("text").setOutputCol("vector")


@pytest.fixture(scope="module")
def embedded(spark, texts, stage, tmp_path_factory):
    """Embed the rows once for all tests, and return them with their vectors."""
    path = str(tmp_path_factory.mktemp("embedded") / "rows.parquet")
    stage.transform(texts).write.parquet(path)
    return spark.read.parquet(path)


def test_round_trip(embedded, uri, collection, rows_of):
    expected = {row.key: row for row in embedded.collect() if row.text is not None}
    for _ in range(2):  # the second write must not duplicate rows
        counts = write_to_milvus(
            embedded, uri, collection, "key", "vector", payload_cols=["text", "number"], batch_size=7
        )
        assert counts == WriteCounts(written=39, nulls=1, invalid=0)
        rows = rows_of(uri, collection)
        assert sorted(row["key"] for row in rows) == sorted(expected)
        for row in rows:
            source = expected[row["key"]]
            assert (row["text"], row["number"]) == (source.text, source.number)
            assert np.array(row["vector"], np.float32).tobytes() == np.array(source.vector, np.float32).tobytes()


@pytest.mark.one_kind
def test_the_collection_that_is_made(embedded, uri, collection, is_real):
    index = {"index_type": "HNSW", "metric_type": "IP", "index_params": {"M": 8, "efConstruction": 64}}
    write_to_milvus(embedded, uri, collection, "key", "vector", payload_cols=["number"], **index)
    client = MilvusClient(uri)
    fields = {field["name"]: field for field in client.describe_collection(collection)["fields"]}
    description = client.describe_index(collection, "vector")
    client.close()
    assert {name: field["type"] for name, field in fields.items()} == {
        "key": DataType.VARCHAR,
        "vector": DataType.FLOAT_VECTOR,
        "number": DataType.INT32,
    }
    assert fields["key"]["is_primary"]
    assert fields["number"].get("nullable") or is_real  # since Milvus 2.5
    assert fields["vector"]["params"]["dim"] == 64
    assert (description["index_type"], description["metric_type"]) == ("HNSW", "IP")


def test_embedded_and_written_in_one_job(stage, texts, uri, collection, tiny):
    write_to_milvus(stage.transform(texts), uri, collection, "key", "vector", payload_cols=["text"])
    function = InstructorEmbeddingFunction(str(tiny), query_instruction="")
    client = MilvusClient(uri)
    client.load_collection(collection)
    queries = [f"Text number {i}." for i in (3, 11)]
    hits = client.search(collection, function.encode_queries(queries), limit=1, output_fields=["text"])
    client.close()
    assert [hit[0]["entity"]["text"] for hit in hits] == queries
    assert [hit[0]["distance"] for hit in hits] == pytest.approx([1, 1], abs=TOLERANCE)


@pytest.mark.one_kind
def test_through_the_driver(stage, texts, server, collection, monkeypatch, rows_of):
    monkeypatch.delattr(writer, "_write_on_executors")
    embedded = stage.transform(texts)
    counts = write_to_milvus(embedded, server, collection, "key", "vector", through="driver")
    assert counts == WriteCounts(written=39, nulls=1, invalid=0)
    assert len(rows_of(server, collection)) == 39


def test_doubles_are_rounded_not_reinterpreted(spark, uri, collection, rows_of):
    df = vectors(spark, [(1, [0.1, 0.2, 0.3])], vector="array<double>")
    assert write_to_milvus(df, uri, collection, "id", "vector").written == 1
    (row,) = rows_of(uri, collection)
    assert row["vector"] == np.array([0.1, 0.2, 0.3], np.float32).tolist()


@pytest.mark.one_kind
def test_output_types(embedded, server, collection, rows_of):
    """Vectors in each output type are written as floats, and the collection knows their model."""
    expected = {row.key: row.vector for row in embedded.collect() if row.text is not None}
    for output_type, tolerance in (("half", 1e-3), ("vector", 0)):
        df = convert_vectors(embedded, output_type)
        counts = write_to_milvus(df, server, collection, "key", "vector")
        assert counts == WriteCounts(written=39, nulls=1, invalid=0)
        for row in rows_of(server, collection):
            np.testing.assert_allclose(row["vector"], expected[row["key"]], atol=tolerance)
    client = MilvusClient(server)
    assert "hash" in client.describe_collection(collection)["properties"]["spark_instructor"]
    client.close()


def test_whole_numbers_beside_nulls_stay_whole(spark, uri, collection, rows_of, is_real):
    if is_real:
        pytest.skip("fields accept nulls since Milvus 2.5")
    rows = [(2**53 + 1, [1.0, 0.0], 2**53 + 1), (2, [0.0, 1.0], None)]
    df = spark.createDataFrame(rows, "id long, vector array<float>, count long")
    write_to_milvus(df, uri, collection, "id", "vector", payload_cols=["count"])
    assert {row["id"]: row["count"] for row in rows_of(uri, collection)} == {2**53 + 1: 2**53 + 1, 2: None}


@pytest.mark.one_kind
@pytest.mark.parametrize("string", ["CAST('A' AS CHAR(2))", "CAST('A' AS VARCHAR(2))", "'A' COLLATE UTF8_LCASE"])
def test_whatever_spark_treats_as_a_string(spark, tmp_path, string, rows_of):
    if spark.version < "4":
        pytest.skip("Spark 3.5 has only plain strings here")
    name, uri = "spark.sql.preserveCharVarcharTypeInfo", str(tmp_path / "x.db")
    spark.conf.set(name, "true")
    try:
        df = spark.sql(f"SELECT {string} AS id, array(1f, 2f) AS vector, {string} AS text, NULL AS nothing")
        assert write_to_milvus(df, uri, "c", "id", "vector", payload_cols=["text", "nothing"]).written == 1
        (value,) = df.select("text").first()
    finally:
        spark.conf.unset(name)
    (row,) = rows_of(uri, "c")
    assert (row["id"], row["text"], row["nothing"]) == (value, value, None)


@pytest.mark.one_kind
def test_names_that_differ_by_case(spark, tmp_path, rows_of):
    uri = str(tmp_path / "x.db")
    df = spark.sql("SELECT 1L AS ID, array(1f, 2f) AS Vector, 'x' AS TEXT")
    assert write_to_milvus(df, uri, "c", "id", "vector", payload_cols=["text"]).written == 1
    (row,) = rows_of(uri, "c")
    assert row.keys() == {"id", "vector", "text"}
    with pytest.raises(ValueError, match="a column is named twice among id, vector, Id"):
        write_to_milvus(df, uri, "c", "id", "vector", payload_cols=["Id"])


def test_invalid_vectors(spark, uri, collection, rows_of):
    rows = [(1, [1.0, 2.0]), (2, [float("nan"), 1.0]), (3, [0.0, 0.0]), (4, [1.0]), (5, None), (None, [1.0, 1.0])]
    df = vectors(spark, rows).coalesce(1)
    with pytest.raises(Exception, match=r"the row with id 2 cannot be written: 'vector' contains NaN"):
        write_to_milvus(df, uri, collection, "id", "vector")
    assert rows_of(uri, collection) == []
    counts = write_to_milvus(df, uri, collection, "id", "vector", on_invalid="skip")
    assert counts == WriteCounts(written=1, nulls=2, invalid=3)
    assert [row["id"] for row in rows_of(uri, collection)] == [1]


def test_an_empty_frame(spark, tmp_path, embedded):
    uri = str(tmp_path / "vectors.db")
    empty = vectors(spark, [])
    with pytest.raises(
        ValueError, match="column 'vector' has no vector that determines the dimension of the collection"
    ):
        write_to_milvus(empty, uri, "c", "id", "vector")
    assert write_to_milvus(empty, uri, "c", "id", "vector", dimension=2) == WriteCounts(0, 0, 0)
    # The annotator stores the dimension in the column's metadata.
    assert write_to_milvus(embedded.where("false"), uri, "d", "key", "vector") == WriteCounts(0, 0, 0)


def test_a_null_that_its_field_does_not_accept(spark, uri, collection, rows_of):
    client = MilvusClient(uri)
    schema = client.create_schema(auto_id=False)
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=2)
    schema.add_field("text", DataType.VARCHAR, max_length=10)
    client.create_collection(collection, schema=schema)
    client.close()
    rows = [(1, [1.0, 2.0], "a"), (2, [1.0, 2.0], None), (3, [1.0, 2.0], "c")]
    df = spark.createDataFrame(rows, "id long, vector array<float>, text string").coalesce(1)
    write = {"id_col": "id", "vector_col": "vector", "payload_cols": ["text"]}
    start = time.monotonic()
    with pytest.raises(Exception, match="the row with id 2 cannot be written: 'text' is null, but its field accepts"):
        write_to_milvus(df, uri, collection, **write)
    assert time.monotonic() - start < 20  # retries would take 31 s
    assert write_to_milvus(df, uri, collection, on_invalid="skip", **write) == WriteCounts(2, 0, 1)
    assert sorted(row["id"] for row in rows_of(uri, collection)) == [1, 3]


@pytest.mark.one_kind
def test_three_writers_start_at_once(spark, server, collection, rows_of):
    def write(i):
        df = spark.range(i * 20, i * 20 + 20).selectExpr("id", "array(1f, float(id)) AS vector")
        return write_to_milvus(df, server, collection, "id", "vector", dimension=2)

    with ThreadPoolExecutor(3) as writers:
        assert list(writers.map(write, range(3))) == [WriteCounts(20, 0, 0)] * 3
    assert sorted(row["id"] for row in rows_of(server, collection)) == list(range(60))


@pytest.mark.one_kind
def test_vectors_of_another_model(embedded, stage, texts, uri, collection):
    def write(df, **options):
        return write_to_milvus(df, uri, collection, "key", "vector", **options).written

    assert write(embedded) == 39
    other = stage.copy().setPrecision("bfloat16").transform(texts)
    with pytest.raises(ValueError, match=r"was embedded with .*tiny in float32, and column 'vector' with .*bfloat16"):
        write(other)
    assert write(other, check_model=False) == 39
    assert write(other.selectExpr("key", "vector || array() AS vector")) == 39  # nobody knows which model this was


SEARCH = """
import sys
from pymilvus import MilvusClient

(hits,) = MilvusClient(sys.argv[1]).search(sys.argv[2], [[0.1, 0.9]], limit=1, consistency_level="Strong")
print([hit["id"] for hit in hits])
"""


@pytest.mark.one_kind
def test_a_search_in_a_new_process(spark, server, collection, tmp_path):
    """A server keeps the collection loaded; docs/milvus.md shows what a file of milvus-lite needs."""
    write_to_milvus(vectors(spark, [(1, [1.0, 0.0]), (2, [0.0, 1.0])]), server, collection, "id", "vector")
    assert run_python("-c", SEARCH, server, collection, cwd=tmp_path).strip() == "[2]"


@pytest.mark.one_kind
def test_a_collection_without_an_index_can_be_searched(spark, server, collection):
    client = MilvusClient(server)
    schema = client.create_schema(auto_id=False)
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=2)
    client.create_collection(collection, schema=schema)
    write_to_milvus(vectors(spark, [(1, [1.0, 0.0]), (2, [0.0, 1.0])]), server, collection, "id", "vector")
    (hits,) = client.search(collection, [[0.1, 0.9]], limit=1, consistency_level="Strong")
    client.close()
    assert [hit["id"] for hit in hits] == [2]


@pytest.mark.one_kind
@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"vector_type": "FLOAT"}, "vector_type is 'FLOAT', expected one of FLOAT_VECTOR, FLOAT16_VECTOR"),
        ({"id_col": "nope"}, "there is no column 'nope'"),
        ({"id_col": "flag"}, "column 'flag' is boolean, expected string or tinyint"),
        ({"vector_col": "flag"}, "column 'flag' is boolean, expected vectors: array<float>"),
        ({"payload_cols": ["when"]}, "column 'when' is date, expected string"),
        ({"payload_cols": ["a b"]}, "no field named 'a b'"),
        ({"payload_cols": ["id"]}, "a column is named twice"),
        ({"through": "workers"}, "through is 'workers', expected one of executors, driver"),
        ({"uri": "vectors"}, "uri is 'vectors', expected the address of a server"),
        ({"uri": "file:///tmp/x.db"}, "uri is 'file:///tmp/x.db', expected .* or the local path of a file"),
        ({"uri": "s3://bucket/x.db"}, "uri is 's3://bucket/x.db', expected .* or the local path of a file"),
        ({"on_invalid": "drop"}, "on_invalid is 'drop', expected one of error, skip"),
        ({"batch_size": 0}, "batch_size is 0"),
    ],
)
def test_what_the_driver_sees_at_once(spark, tmp_path, change, says):
    df = spark.sql("SELECT 1L AS id, array(1f, 2f) AS vector, true AS flag, current_date() AS when, 'x' AS `a b`")
    arguments = {"uri": str(tmp_path / "x.db"), "collection": "c", "id_col": "id", "vector_col": "vector", **change}
    with pytest.raises(ValueError, match=says):
        write_to_milvus(df, **arguments)


@pytest.mark.one_kind
@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ("'a' AS id, array(1f, 2f) AS vector", "column 'id' is string, which its field cannot hold"),
        ("1L AS id, array(1f, 2f) AS vec", "there is no field for column 'vec'; rename .* id INT64, vector FLOAT_VEC"),
        ("1L AS id, array(1f, 2f) AS vector, 'x' AS extra", "there is no field for column 'extra'"),
        ("1L AS id, array(1f, 2f) AS vector", "there is no column for the field 'must'"),
        ("1L AS id, array(1f, 2f) AS vector, 1.5D AS must", "column 'must' is double, which its field cannot hold"),
        ("1L AS must, array(1f, 2f) AS vector, 1L as id", "'must' must be the primary key"),
    ],
)
def test_a_collection_that_does_not_fit(spark, tmp_path, columns, says):
    uri = str(tmp_path / "x.db")
    client = MilvusClient(uri)
    schema = client.create_schema(auto_id=False)
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=2)
    schema.add_field("must", DataType.INT64)
    client.create_collection("c", schema=schema)
    client.close()
    df = spark.sql(f"SELECT {columns}")
    key, vector, *payload = df.columns
    with pytest.raises(ValueError, match=says):
        write_to_milvus(df, uri, "c", key, vector, payload_cols=payload)


@pytest.mark.one_kind
def test_a_collection_of_another_width(embedded, tmp_path):
    uri = str(tmp_path / "x.db")
    client = MilvusClient(uri)
    client.create_collection("c", dimension=8, primary_field_name="key", id_type="string", max_length=100)
    client.close()
    with pytest.raises(ValueError, match="column 'vector' has vectors of 64 floats, but its field has vectors of 8"):
        write_to_milvus(embedded, uri, "c", "key", "vector")


@pytest.mark.one_kind
def test_into_pymilvus_own_collection(spark, tmp_path, rows_of):
    """A collection made by `create_collection(name, dimension)` accepts any payload as a dynamic field."""
    uri = str(tmp_path / "x.db")
    client = MilvusClient(uri)
    client.create_collection("c", dimension=2)
    client.close()
    df = vectors(spark, [(1, [1.0, 2.0]), (2, [1.0, 2.0])]).withColumn("text", F.lit("hello"))
    df = df.selectExpr("*", "IF(id = 2, double('NaN'), 0.5D) AS score")
    write = {"payload_cols": ["text", "score"], "on_invalid": "skip"}
    assert write_to_milvus(df, uri, "c", "id", "vector", **write) == WriteCounts(1, 0, 1)
    (row,) = rows_of(uri, "c")
    assert (row["text"], row["score"]) == ("hello", 0.5)


@pytest.mark.one_kind
def test_an_upsert_that_would_erase_fields(spark, uri, collection, is_real, rows_of):
    """Once a collection has rows, each of its fields needs a column."""
    if is_real:
        pytest.skip("fields accept nulls since Milvus 2.5")
    client = MilvusClient(uri)
    schema = client.create_schema(auto_id=False, enable_dynamic_field=True)
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=2)
    schema.add_field("note", DataType.VARCHAR, max_length=10, nullable=True)
    schema.add_field("count", DataType.INT64, default_value=5)
    client.create_collection(collection, schema=schema)
    client.close()
    df = spark.sql("SELECT 1L AS id, array(1f, 2f) AS vector, 'a' AS note, 7L AS count")
    write = {"id_col": "id", "vector_col": "vector"}
    assert write_to_milvus(df, uri, collection, **write).written == 1  # there is nothing to lose yet
    assert write_to_milvus(df, uri, collection, payload_cols=["note", "count"], **write).written == 1
    with pytest.raises(
        ValueError, match=r"no columns for its fields 'note'\. An upsert would set them to null .* payload_cols"
    ):
        write_to_milvus(df, uri, collection, payload_cols=["count"], **write)
    with pytest.raises(ValueError, match="no columns for its fields 'note', 'count'"):
        write_to_milvus(df, uri, collection, **write)
    assert [(row["note"], row["count"]) for row in rows_of(uri, collection)] == [("a", 7)]


@pytest.mark.one_kind
def test_an_index_that_cannot_be(spark, uri, collection):
    """If the index cannot be created, the next call creates it."""
    rows = vectors(spark, [(1, []), (2, [1.0, 0.0])])
    write = {"id_col": "id", "vector_col": "vector", "on_invalid": "skip"}
    with pytest.raises(Exception, match="COSIN"):
        write_to_milvus(rows, uri, collection, metric_type="cosin", **write)
    counts = write_to_milvus(rows, Path(uri) if uri.endswith(".db") else uri, collection, metric_type="L2", **write)
    assert counts == WriteCounts(written=1, nulls=0, invalid=1)
    client = MilvusClient(uri)
    (index,) = client.list_indexes(collection)
    assert client.describe_index(collection, index)["metric_type"] == "L2"
    client.close()


@pytest.mark.one_kind
def test_payload_cols_as_a_str(embedded, uri, collection):
    with pytest.raises(TypeError, match="payload_cols is the str 'text', expected a list of columns"):
        write_to_milvus(embedded, uri, collection, "key", "vector", payload_cols="text")
