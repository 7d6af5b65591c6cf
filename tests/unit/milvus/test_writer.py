"""How an executor writes a batch of rows to Milvus and retries, tested without Spark and without a server."""

import dataclasses

import numpy as np
import pyarrow as pa
import pytest
from pymilvus import MilvusClient
from pymilvus.exceptions import DataNotMatchException, MilvusException
from pyspark.sql.types import ArrayType, FloatType, LongType, StructType

from spark_instructor.milvus import writer as milvus_writer
from spark_instructor.milvus.writer import WriteCounts, _create, _Target, write_batches

VECTOR = pa.list_(pa.float32())
NAN, INFINITY = float("nan"), float("inf")


class FakeClient:
    """A client that raises the given errors, one per request, and then records the rows of each request."""

    def __init__(self, failures=()):
        self.failures = list(failures)
        self.requests = []
        self.closed = False

    def upsert(self, collection, rows, **_):
        if self.failures:
            raise self.failures.pop(0)
        self.requests.append(rows)

    def close(self):
        self.closed = True


@pytest.fixture
def target():
    return _Target(
        uri="http://host:1",
        token="",
        db_name="",
        collection="c",
        dimension=2,
        max_bytes={"text": 5},
        batch_size=2,
        skip_invalid=True,
        retries=3,
    )


@pytest.fixture
def use(monkeypatch):
    def put(client):
        monkeypatch.setattr(milvus_writer, "_open", lambda *_: client)
        return client

    return put


@pytest.fixture
def waits(monkeypatch):
    seconds = []
    monkeypatch.setattr(milvus_writer.time, "sleep", seconds.append)
    return seconds


def batch(rows):
    ids, vectors, texts = zip(*rows, strict=True)
    return pa.RecordBatch.from_arrays(
        [pa.array(ids), pa.array(vectors, VECTOR), pa.array(texts, pa.string())], ["id", "vector", "text"]
    )


GOOD = [(1, [0.1, 0.2], "a"), (2, [1.0, 0.0], None), (3, [-1.0, 3.0], "c")]


def test_requests(target, use):
    client = use(FakeClient())
    assert list(target.write([batch(GOOD)])) == [WriteCounts(2, 0, 0), WriteCounts(1, 0, 0)]
    assert [[row["id"] for row in request] for request in client.requests] == [[1, 2], [3]]
    first = client.requests[0][0]
    assert first["text"] == "a" and client.requests[0][1]["text"] is None
    assert first["vector"].dtype == np.float32
    assert first["vector"].tolist() == np.array([0.1, 0.2], np.float32).tolist()
    assert client.closed


def test_a_sliced_batch_keeps_vectors_with_their_ids(target, use):
    client = use(FakeClient())
    list(target.write([batch(GOOD).slice(1)]))
    assert {row["id"]: row["vector"].tolist() for row in client.requests[0]} == {2: [1.0, 0.0], 3: [-1.0, 3.0]}


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ((7, [NAN, 1.0], "a"), "'vector' contains NaN"),
        ((7, [1.0, -INFINITY], "a"), "'vector' contains NaN, an infinity"),
        ((7, [None, 1.0], "a"), "'vector' contains NaN, an infinity or null"),
        ((7, [0.0, -0.0], "a"), "'vector' is zero"),
        ((7, [1.0], "a"), "'vector' has 1 floats, but the collection's vectors have 2"),
        ((7, [], "a"), "'vector' has 0 floats"),
        ((7, [1.0, 1.0], "ééé"), "'text' has 6 bytes, but its field holds at most 5"),
    ],
)
def test_invalid_rows(target, use, row, says):
    client = use(FakeClient())
    rows = batch([GOOD[0], row])
    assert list(target.write([rows])) == [WriteCounts(1, 0, 1)]
    assert [[sent["id"] for sent in request] for request in client.requests] == [[1]]

    client = use(FakeClient())
    strict = dataclasses.replace(target, skip_invalid=False)
    with pytest.raises(ValueError, match=rf"the row with id 7 cannot be written: {says}"):
        list(strict.write([rows]))
    assert not client.requests and client.closed


def test_nulls_are_left_out(target, use):
    client = use(FakeClient())
    rows = batch([(None, [1.0, 1.0], "a"), (2, None, "b"), GOOD[0], (None, None, None)])
    assert list(target.write([rows])) == [WriteCounts(0, 2, 0), WriteCounts(1, 1, 0)]
    assert [[row["id"] for row in request] for request in client.requests] == [[1]]


def test_an_id_twice_in_a_request_goes_once(target, use):
    client = use(FakeClient())
    list(target.write([batch([GOOD[0], (1, [5.0, 5.0], "z")])]))
    assert [[(row["id"], row["text"]) for row in request] for request in client.requests] == [[(1, "z")]]


def test_retries(target, use, waits):
    busy = MilvusException(message="busy")
    client = use(FakeClient([busy] * 3))
    assert sum(counts.written for counts in target.write([batch(GOOD)])) == 3
    assert waits == [1, 2, 4]

    use(FakeClient([busy] * 4))
    with pytest.raises(MilvusException, match="busy"):
        list(target.write([batch(GOOD)]))
    assert client.closed


def test_what_cannot_pass_is_not_retried(target, use, waits):
    use(FakeClient([DataNotMatchException(message="no such field")]))
    with pytest.raises(DataNotMatchException):
        list(target.write([batch(GOOD)]))
    assert not waits


def test_index_parameters_reach_milvus():
    class Creating:
        create_schema = staticmethod(MilvusClient.create_schema)
        prepare_index_params = staticmethod(MilvusClient.prepare_index_params)

        def create_collection(self, name, schema):
            assert [field.name for field in schema.fields] == ["id", "vector"]

        def create_index(self, name, index_params):
            self.made = (name, [params.to_dict() for params in index_params])

        def load_collection(self, name):
            assert name == self.made[0]

    client = Creating()
    columns = StructType().add("id", LongType()).add("vector", ArrayType(FloatType()))
    index = {"index_type": "HNSW", "metric_type": "L2", "params": {"M": 8, "efConstruction": 64}}
    _create(client, "c", columns, 2, index)
    expected = {"field_name": "vector", "index_name": "", "index_type": "HNSW", "metric_type": "L2"}
    assert client.made == ("c", [{**expected, "M": 8, "efConstruction": 64}])


def test_an_executor_without_a_network(target, monkeypatch, waits):
    def fail(*_):
        raise MilvusException(2, "Fail connecting to server")

    monkeypatch.setattr(milvus_writer, "_open", fail)
    with pytest.raises(ConnectionError, match=r"cannot reach Milvus at .*Fail connecting.*through=\"driver\""):
        next(write_batches(dataclasses.asdict(target), iter([batch(GOOD)])))
    assert waits == [1, 2, 4]


def test_counts_of_a_task(target, use):
    use(FakeClient())
    batches = list(write_batches(dataclasses.asdict(target), iter([batch(GOOD), batch(GOOD[:1])])))
    assert pa.Table.from_batches(batches).to_pydict() == {"written": [2, 1, 1], "nulls": [0] * 3, "invalid": [0] * 3}
