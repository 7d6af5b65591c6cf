"""The rows of an Arrow batch: which of them a collection can hold, how many bytes they take, and cutting them up."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ..arrays import count_elements, cut_rows, is_nested
from ..vectors import decode_vectors
from .vectors import measure_lengths

MAX_STRING_BYTES = 65_535
"""Maximum number of bytes of a string field in Milvus."""

_VALUE_BYTES = 16
"""More than a number takes in a request, and more than protobuf adds to a string or a vector."""


@dataclasses.dataclass(frozen=True)
class RowCheck:
    """What a collection expects of a row, as it travels to the executors.

    The first column of a batch holds the ids, the second the vectors.
    """

    dimension: int
    vector_type: str
    max_bytes: dict[str, int]
    """Maximum number of bytes of each string field."""
    required: list[str]
    """Fields that must not be null."""
    dynamic: list[str]
    """Columns without a field of their own: their values go to the dynamic field, as JSON."""
    skip_invalid: bool
    """Whether to skip an invalid row, or else to fail."""

    def select_valid(self, batch: pa.RecordBatch) -> tuple[pa.RecordBatch, int, int]:
        """Return the rows to write, and the numbers of rows that are skipped as nulls and as invalid.

        Raises ValueError with the id and the reason for an invalid row, unless invalid rows are to be skipped.
        """
        complete = batch.filter(pc.and_(pc.is_valid(batch.column(0)), pc.is_valid(batch.column(1))))
        problems = self._find_problems(complete)
        invalid = np.flatnonzero(problems)
        if len(invalid) and not self.skip_invalid:
            others = f" ({len(invalid)} such rows among {batch.num_rows})" if len(invalid) > 1 else ""
            raise ValueError(
                f"write_to_milvus: the row with {batch.schema.names[0]} {complete.column(0)[invalid[0]].as_py()!r} "
                f'cannot be written: {problems[invalid[0]]}{others}. Correct it, or pass on_invalid="skip"'
            )
        return complete.filter(pa.array(problems == "")), batch.num_rows - complete.num_rows, len(invalid)

    def _find_problems(self, batch: pa.RecordBatch) -> npt.NDArray[np.object_]:
        """Return for each row the reason why it cannot be written, or an empty string."""
        name, vectors = batch.schema.names[1], batch.column(1)
        problems = np.full(batch.num_rows, "", object)
        widths = pc.list_value_length(vectors).to_numpy(zero_copy_only=False)
        fitting = np.flatnonzero(widths == self.dimension)
        matrix, _ = decode_vectors(vectors.take(pa.array(fitting)), {}, name)
        lengths = measure_lengths(matrix, self.vector_type)
        problems[fitting[~((lengths > 0) & (lengths < np.inf))]] = (
            f"{name!r} as a {self.vector_type} has a length that is 0 or infinite in float32: scale your vectors"
        )
        problems[fitting[~matrix.any(axis=1)]] = f"{name!r} is zero, so it has no direction"
        problems[fitting[~np.isfinite(matrix).all(axis=1)]] = f"{name!r} contains NaN, an infinity or null"
        for row in np.flatnonzero(widths != self.dimension):
            problems[row] = f"{name!r} has {widths[row]} floats, but the collection's vectors have {self.dimension}"
        for name, values in zip(batch.schema.names, batch.columns, strict=True):
            if name in self.required:
                problems[pc.is_null(values).to_numpy(zero_copy_only=False)] = (
                    f"{name!r} is null, but its field accepts no null (before Milvus 2.5, no field does)"
                )
            if name in self.dynamic and pa.types.is_floating(values.type):
                is_finite = pc.fill_null(pc.is_finite(values), True).to_numpy(zero_copy_only=False)
                problems[~is_finite] = f"{name!r} is NaN or an infinity, which the dynamic field would turn into null"
            if _is_string(values):
                max_bytes = self.max_bytes.get(name, MAX_STRING_BYTES)
                sizes = pc.fill_null(pc.binary_length(values), 0).to_numpy(zero_copy_only=False)
                for row in np.flatnonzero(sizes > max_bytes):
                    problems[row] = f"{name!r} has {sizes[row]:,} bytes, but its field holds at most {max_bytes:,}"
        return problems


def split_batch(batch: pa.RecordBatch, max_rows: int, max_bytes: int) -> Iterator[pa.RecordBatch]:
    """Cut a batch into pieces of at most ``max_rows`` rows and ``max_bytes`` bytes; a larger row is a piece of its own.

    The bytes are those that the rows take in a request, or a few more.
    """
    for rows in cut_rows(_measure_rows(batch), max_bytes, max_rows):
        yield batch.slice(rows.start, rows.stop - rows.start)


def _measure_rows(batch: pa.RecordBatch) -> npt.NDArray[np.int64]:
    """Return the number of bytes of each row."""
    sizes = np.zeros(batch.num_rows, np.int64)
    for values in batch.columns:
        sizes += _VALUE_BYTES
        if _is_string(values):
            sizes += pc.fill_null(pc.binary_length(values), 0).to_numpy(zero_copy_only=False)
        elif is_nested(values.type):
            sizes += count_elements(values) * np.dtype(np.float32).itemsize
    return sizes


def _is_string(values: pa.Array) -> bool:
    return bool(pa.types.is_string(values.type) or pa.types.is_large_string(values.type))
