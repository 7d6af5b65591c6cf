"""write_to_milvus and a server that is killed, and what only a real server shows (`make test-milvus`)."""

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from processes import free_port
from pymilvus import DataType, MilvusClient

from spark_instructor.milvus import WriteCounts, write_to_milvus
from spark_instructor.milvus.vectors import convert_vectors

pytestmark = [pytest.mark.one_kind, pytest.mark.exhaustive]

ROWS = 1000


@pytest.fixture
def slow_rows(spark):
    """Return rows that take at least 5 seconds to compute, in Arrow batches of 20 rows."""

    def slow_down(batches):
        for batch in batches:
            time.sleep(0.1)
            yield batch

    spark.conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", 20)
    rows = spark.range(ROWS, numPartitions=1).selectExpr("id", "array(1f, float(id)) AS vector", "string(id) AS text")
    yield rows.mapInArrow(slow_down, rows.schema)
    spark.conf.unset("spark.sql.execution.arrow.maxRecordsPerBatch")


# The first test here, since the etcd of a real server has a fixed port: the server of the other tests must not run yet.
def test_a_server_is_killed_and_restarted_while_it_is_written_to(slow_rows, run_server, rows_of, tmp_path):
    port = free_port()
    uri = f"http://127.0.0.1:{port}"
    with ThreadPoolExecutor(1) as thread:
        with run_server(tmp_path / "milvus", port) as kill:
            writing = thread.submit(
                write_to_milvus, slow_rows, uri, "c", "id", "vector", payload_cols=["text"], dimension=2
            )
            wait_for_rows(uri, writing)
            kill()
        with run_server(tmp_path / "milvus", port):
            assert writing.result() == WriteCounts(written=ROWS, nulls=0, invalid=0)
            rows = {row["id"]: (row["vector"], row["text"]) for row in rows_of(uri, "c")}
    assert rows == {i: ([1.0, i], str(i)) for i in range(ROWS)}


def wait_for_rows(uri, writing):
    """Wait until the collection of a writer has rows, while it is still writing."""
    client = MilvusClient(uri)
    rows = []
    while not rows:
        time.sleep(0.1)
        assert not writing.done(), writing.result()
        if client.has_collection("c") and client.list_indexes("c", field_name="vector"):
            client.load_collection("c")
            rows = client.query("c", filter="id >= 0", limit=1, output_fields=["id"], consistency_level="Strong")
    client.close()


def test_rows_that_would_be_too_many_bytes_for_a_request(spark, server, collection, is_real):
    if not is_real:
        pytest.skip("milvus-lite accepts requests of any size")
    texts = [f"repeat('x', 30000) AS text{i}" for i in range(3)]
    df = spark.range(1000, numPartitions=1).selectExpr("id", "array(1f, float(id)) AS vector", *texts)
    counts = write_to_milvus(df, server, collection, "id", "vector", payload_cols=["text0", "text1", "text2"])
    assert counts == WriteCounts(written=1000, nulls=0, invalid=0)


def test_bulk_import(spark, server, collection, is_real, rows_of, tmp_path):
    if not is_real:
        pytest.skip("milvus-lite has no bulk import")
    client = MilvusClient(server)
    schema = client.create_schema(auto_id=False)
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=4)
    schema.add_field("text", DataType.VARCHAR, max_length=100)
    schema.add_field("number", DataType.INT64)
    schema.add_field("flag", DataType.BOOL)
    client.create_collection(collection, schema=schema)
    random = np.random.default_rng(0)
    vectors = random.normal(size=(600, 4)).astype(np.float32)
    rows = [(i, vectors[i].tolist(), f"text {i}", i, i % 2 == 0) for i in range(600)]
    rows += [(600, [0.0] * 4, "zero", 0, True), (601, None, "null", 0, True), (602, [1.0] * 4, None, 0, True)]
    df = spark.createDataFrame(rows, "id int, vector array<float>, text string, number int, flag boolean")
    folder = tmp_path / "import"
    counts = write_to_milvus(
        df.repartition(2),
        server,
        collection,
        "id",
        "vector",
        payload_cols=["text", "number", "flag"],
        on_invalid="skip",
        import_folder=str(folder),
    )
    assert counts == WriteCounts(written=600, nulls=1, invalid=2)

    # MilvusClient has no method for it, and the functions of pymilvus.bulk_writer need Milvus 2.4.
    connection = client._get_connection()
    tasks = [connection.do_bulk_insert(collection, "", [str(path)]) for path in folder.glob("*.parquet")]
    assert len(tasks) == 2
    for task in tasks:
        while (state := connection.get_bulk_insert_state(task)).state_name != "Completed":
            assert not state.state_name.startswith("Failed"), state
            time.sleep(0.2)
    client.refresh_load(collection)
    client.close()
    found = {row["id"]: row for row in rows_of(server, collection)}
    assert len(found) == 600
    for id_, _, text, number, flag in rows[:600]:
        assert (found[id_]["text"], found[id_]["number"], found[id_]["flag"]) == (text, number, flag)
        assert np.array(found[id_]["vector"], np.float32).tobytes() == vectors[id_].tobytes()


def test_fields_that_import_files_cannot_fill(spark, tmp_path):
    uri, df = str(tmp_path / "x.db"), spark.sql("SELECT 1L AS id, array(1f, 2f) AS vector, 'a' AS text")
    client = MilvusClient(uri)
    client.create_collection("c", dimension=2)
    client.close()
    with pytest.raises(ValueError, match=r"cannot write column 'text' to files for import, .* goes to a dynamic field"):
        write_to_milvus(df, uri, "c", "id", "vector", payload_cols=["text"], import_folder=str(tmp_path / "import"))
    assert not (tmp_path / "import").exists()


@pytest.mark.parametrize("vector_type", ["FLOAT16_VECTOR", "BINARY_VECTOR"])
def test_smaller_vectors(spark, server, collection, is_real, rows_of, vector_type):
    if not is_real:
        pytest.skip("milvus-lite has only FLOAT_VECTOR")
    vectors = np.random.default_rng(0).normal(size=(100, 16)).astype(np.float32)
    df = spark.createDataFrame(list(enumerate(vectors.tolist())), "id long, vector array<float>")
    write_to_milvus(df, server, collection, "id", "vector", vector_type=vector_type)
    converted = convert_vectors(vectors, vector_type)
    stored = {row["id"]: row["vector"] for row in rows_of(server, collection)}
    assert len(stored) == 100
    for i in range(100):
        assert b"".join(map(bytes, stored[i])) == bytes(converted[i])
    client = MilvusClient(server)
    hits = client.search(collection, converted[:20], limit=1, consistency_level="Strong")
    client.close()
    assert [hit[0]["id"] for hit in hits] == list(range(20))
    with pytest.raises(ValueError, match=f"its field cannot hold as FLOAT_VECTOR.* vector {vector_type}"):
        write_to_milvus(df, server, collection, "id", "vector")
