"""How a task writes batches of rows to Milvus and retries, tested without Spark and without a server."""

import dataclasses

import numpy as np
import pyarrow as pa
import pytest
from pymilvus.exceptions import DataNotMatchException, DescribeCollectionException, MilvusException, ParamError

from spark_instructor.milvus import client as milvus_client
from spark_instructor.milvus.requests import MAX_REQUEST_BYTES, Target, WriteCounts, write_batches
from spark_instructor.milvus.rows import RowCheck

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
    return Target(
        uri="http://host:1",
        token="",
        db_name="",
        collection="c",
        check=RowCheck(
            dimension=2,
            vector_type="FLOAT_VECTOR",
            max_bytes={"text": 5},
            required=["id", "vector"],
            dynamic=[],
            skip_invalid=True,
        ),
        batch_size=2,
        retries=3,
    )


def change_check(target, **changes):
    return dataclasses.replace(target, check=dataclasses.replace(target.check, **changes))


@pytest.fixture
def use(monkeypatch):
    def put(client):
        monkeypatch.setattr(milvus_client, "open_client", lambda *_: client)
        return client

    return put


@pytest.fixture
def waits(monkeypatch):
    seconds = []
    monkeypatch.setattr(milvus_client.time, "sleep", seconds.append)
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
        ((7, [1e-30, 0.0], "a"), "'vector' as a FLOAT_VECTOR has a length that is 0 or infinite in float32"),
        ((7, [1e30, 1e30], "a"), "'vector' as a FLOAT_VECTOR has a length that is 0 or infinite in float32"),
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
    strict = change_check(target, skip_invalid=False)
    with pytest.raises(ValueError, match=rf"the row with id 7 cannot be written: {says}"):
        list(strict.write([rows]))
    assert not client.requests and client.closed


def test_vectors_are_checked_as_they_are_stored(target, use):
    client = use(FakeClient())
    rows = batch([(1, [70_000.0, 1.0], "a"), (2, [1e-9, 0.0], "b"), (3, [1.0, 1e-9], "c")])
    half = dataclasses.replace(change_check(target, vector_type="FLOAT16_VECTOR"), batch_size=3)
    assert list(half.write([rows])) == [WriteCounts(1, 0, 2)]
    assert [row["id"] for row in client.requests[0]] == [3]


def test_numbers_that_the_dynamic_field_cannot_hold(target, use):
    client = use(FakeClient())
    scores = pa.array([0.5, None, NAN, INFINITY], pa.float64())
    rows = pa.RecordBatch.from_arrays(
        [pa.array([1, 2, 3, 4]), pa.array([[1.0, 2.0]] * 4, VECTOR), scores], ["id", "vector", "score"]
    )
    dynamic = dataclasses.replace(change_check(target, dynamic=["score"]), batch_size=4)
    assert list(dynamic.write([rows])) == [WriteCounts(2, 0, 2)]
    assert [row["score"] for row in client.requests[0]] == [0.5, None]
    with pytest.raises(ValueError, match="the row with id 3 cannot be written: 'score' is NaN or an infinity"):
        list(change_check(dynamic, skip_invalid=False).write([rows]))
    assert list(dataclasses.replace(target, batch_size=4).write([rows])) == [WriteCounts(4, 0, 0)]  # a field keeps them


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


@pytest.mark.parametrize(
    "error",
    [
        DataNotMatchException(message="no such field"),
        ParamError(message="no such field"),
        MilvusException(1100, "no such field"),
        MilvusException(6, "no such field"),
    ],
    ids=repr,
)
def test_what_cannot_pass_is_reported_at_once(target, use, waits, error):
    use(FakeClient([error]))
    with pytest.raises(ValueError, match="refused a request of 2 rows, the first of which has id 1: no such field"):
        list(target.write([batch(GOOD)]))
    assert not waits


def test_a_server_that_is_still_starting(target, use, waits):
    client = use(FakeClient([DescribeCollectionException(1, "service not ready"), MilvusException(65535, "who knows")]))
    assert sum(counts.written for counts in target.write([batch(GOOD)])) == 3
    assert len(client.requests) == 2 and waits == [1, 2]


def test_a_null_that_its_field_does_not_accept(target, use, waits):
    client = use(FakeClient())
    target = change_check(target, required=["id", "vector", "text"])
    assert list(target.write([batch(GOOD[:2])])) == [WriteCounts(1, 0, 1)]
    assert [[row["id"] for row in request] for request in client.requests] == [[1]]
    with pytest.raises(ValueError, match=r"the row with id 2 cannot be written: 'text' is null, but its field accepts"):
        list(change_check(target, skip_invalid=False).write([batch(GOOD[:2])]))
    assert not waits


def test_requests_are_cut_by_their_bytes(target, use):
    client = use(FakeClient())
    target = dataclasses.replace(change_check(target, max_bytes={}), batch_size=1000)
    rows = batch([(i, [1.0, 2.0], "x" * 60_000) for i in range(1200)])
    counts = list(target.write([rows]))
    assert sum(count.written for count in counts) == 1200
    assert [row["id"] for request in client.requests for row in request] == list(range(1200))
    sizes = [sum(len(row["text"]) for row in request) for request in client.requests]
    assert 0.9 * MAX_REQUEST_BYTES < max(sizes) < MAX_REQUEST_BYTES


def test_an_executor_without_a_network(target, monkeypatch, waits):
    def fail(*_):
        raise MilvusException(2, "Fail connecting to server")

    monkeypatch.setattr(milvus_client, "open_client", fail)
    with pytest.raises(ConnectionError, match=r"cannot reach Milvus at .*Fail connecting.*through=\"driver\""):
        next(write_batches(dataclasses.asdict(target), iter([batch(GOOD)])))
    assert waits == [1, 2, 4]


def test_a_connection_that_fails_at_first(target, monkeypatch, waits):
    failures = [MilvusException(2, "Fail connecting to server")] * 2

    def open_client(*_):
        if failures:
            raise failures.pop()
        return FakeClient()

    monkeypatch.setattr(milvus_client, "open_client", open_client)
    with milvus_client.connect(target.uri, "", "", retries=2) as client:
        assert not client.closed
    assert client.closed and waits == [1, 2]


def test_counts_of_a_task(target, use):
    use(FakeClient())
    batches = list(write_batches(dataclasses.asdict(target), iter([batch(GOOD), batch(GOOD[:1])])))
    assert pa.Table.from_batches(batches).to_pydict() == {"written": [2, 1, 1], "nulls": [0] * 3, "invalid": [0] * 3}
