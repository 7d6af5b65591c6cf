"""What a task does: it sends its rows to a collection in requests."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import pyarrow as pa

from ..vectors import decode_vectors
from .client import connect, import_pymilvus, is_permanent, retry
from .rows import RowCheck, split_batch
from .vectors import convert_vectors

MAX_REQUEST_BYTES = 1 << 25
"""Half of what servers accept by default."""


class WriteCounts(NamedTuple):
    """Numbers of rows that `write_to_milvus` handled; their sum is the number of all rows."""

    written: int
    """Rows that were written."""
    nulls: int
    """Rows that were skipped because their id or their vector is null."""
    invalid: int
    """Rows that ``on_invalid="skip"`` skipped."""


@dataclasses.dataclass(frozen=True)
class Target:
    """A collection to write to, as it travels to the executors."""

    uri: str
    token: str
    db_name: str
    collection: str
    check: RowCheck
    batch_size: int
    retries: int

    def write(self, batches: Iterable[pa.RecordBatch]) -> Iterator[WriteCounts]:
        """Write batches; their first column holds the ids and their second the vectors."""
        with connect(self.uri, self.token, self.db_name, self.retries) as client:
            for batch in batches:
                for request in split_batch(batch, self.batch_size, MAX_REQUEST_BYTES):
                    yield self._upsert(client, request)

    def _upsert(self, client: Any, batch: pa.RecordBatch) -> WriteCounts:
        valid, nulls, invalid = self.check.select_valid(batch)
        # If a request contains an id twice, a server may keep both rows.
        row_by_id = dict(zip(valid.column(0).to_pylist(), self._build_rows(valid), strict=True))
        if row_by_id:
            rows = list(row_by_id.values())
            try:
                # pymilvus's own retries would take minutes before each of these.
                retry(lambda: client.upsert(self.collection, rows, retry_times=1), self.retries)
            except import_pymilvus().exceptions.MilvusException as error:
                if not is_permanent(error):
                    raise
                raise ValueError(
                    f"write_to_milvus: Milvus refused a request of {len(rows)} rows, the first of which has "
                    f"{batch.schema.names[0]} {next(iter(row_by_id))!r}: {error.message}"
                ) from error
        return WriteCounts(written=valid.num_rows, nulls=nulls, invalid=invalid)

    def _build_rows(self, batch: pa.RecordBatch) -> Iterator[dict[str, Any]]:
        """Yield the rows in the form that pymilvus takes."""
        names = batch.schema.names
        ids, vectors, *payload = batch.columns
        matrix, _ = decode_vectors(vectors, {}, names[1])
        columns = [
            ids.to_pylist(),
            convert_vectors(matrix, self.check.vector_type),
            *(values.to_pylist() for values in payload),
        ]
        return (dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True))


def write_batches(arguments: dict[str, Any], batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Write the batches of a task, on an executor, and yield the `WriteCounts` of each request."""
    target = Target(**{**arguments, "check": RowCheck(**arguments["check"])})
    for counts in target.write(batches):
        yield pa.RecordBatch.from_pylist([counts._asdict()])


def check_batches(arguments: dict[str, Any], batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a task that can be written, on an executor; see `RowCheck`."""
    check = RowCheck(**arguments)
    for batch in batches:
        yield check.select_valid(batch)[0]
