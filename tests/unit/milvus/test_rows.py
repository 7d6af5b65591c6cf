"""Batches are cut into requests by rows and by bytes."""

import pyarrow as pa
import pytest

from spark_instructor.milvus.rows import split_batch

TEXTS = ["a", "b" * 1000, None, "c" * 10, "d" * 3000, "e"]
BATCH = pa.RecordBatch.from_pydict(
    {"id": range(6), "vector": pa.array([[1.0, 2.0]] * 5 + [None], pa.list_(pa.float32())), "text": TEXTS}
)


@pytest.mark.parametrize(
    ("max_rows", "max_bytes", "expected"),
    [
        (10, 1 << 20, [[0, 1, 2, 3, 4, 5]]),
        (4, 1 << 20, [[0, 1, 2, 3], [4, 5]]),
        (10, 1150, [[0, 1], [2, 3], [4], [5]]),  # a row is sent even if it takes more
        (1, 1 << 20, [[0], [1], [2], [3], [4], [5]]),
        (10, 1, [[0], [1], [2], [3], [4], [5]]),
    ],
)
def test_split(max_rows, max_bytes, expected):
    for batch in (BATCH, pa.concat_tables([pa.Table.from_batches([BATCH])] * 2).to_batches()[1]):
        assert [part.column("id").to_pylist() for part in split_batch(batch, max_rows, max_bytes)] == expected


def test_a_sliced_batch_is_measured_from_its_own_start():
    parts = list(split_batch(BATCH.slice(2), 10, 1150))
    assert [part.column("id").to_pylist() for part in parts] == [[2, 3], [4], [5]]


def test_large_types_are_measured_too():
    schema = pa.schema({"id": pa.int64(), "vector": pa.large_list(pa.float32()), "text": pa.large_string()})
    batch = pa.Table.from_batches([BATCH]).cast(schema).to_batches()[0]
    assert [part.num_rows for part in split_batch(batch, 10, 1150)] == [2, 2, 1, 1]


def test_no_rows():
    assert list(split_batch(BATCH.slice(0, 0), 10, 10)) == []
