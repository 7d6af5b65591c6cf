"""Texts out of Arrow arrays, and vectors back into them, without a Python object per number."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from .vectors import build_cells, build_lists


class TextColumn:
    """The texts of one column, and the way back from one value per text to one value per row.

    A row is a text or a list of texts. A null text gives a null value, a null list gives a null, and a null element
    gives a null element.
    """

    def __init__(self, rows: pa.Array) -> None:
        self._is_valid = _to_numpy(rows.is_valid())
        self._lengths = count_elements(rows) if is_nested(rows.type) else None
        self._cells = rows.flatten() if is_nested(rows.type) else rows
        self._is_text = _to_numpy(self._cells.is_valid())

    def list_texts(self) -> list[str]:
        """Return the texts that are not null; raise ValueError as `list_strings` does."""
        return list_strings(self._cells.drop_null())

    def repeat_for_texts(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Take one value per row, and return the value of its row for each text that is not null."""
        of_cells = values if self._lengths is None else np.repeat(values, self._lengths)
        of_texts: npt.NDArray[Any] = of_cells[self._is_text]
        return of_texts

    def restore_rows(self, values: npt.NDArray[Any]) -> pa.Array:
        """Take a number or an encoded vector per text, and return an array with one number, cell or list per row."""
        if values.ndim == 2:
            cells = build_cells(values, self._is_text)
        else:
            numbers = np.zeros(len(self._cells), values.dtype)
            numbers[self._is_text] = values
            cells = pa.array(numbers, mask=~self._is_text)
        if self._lengths is None:
            return cells
        return build_lists(self._lengths, self._is_valid, cells, pa.list_(pa.field("element", cells.type)))

    def count_texts(self) -> npt.NDArray[np.int64]:
        """Return the number of texts in each row; a null counts as one."""
        return np.ones(len(self._cells), np.int64) if self._lengths is None else self._lengths

    def count_bytes(self) -> npt.NDArray[np.int64]:
        """Return the bytes of the texts in each row, in UTF-8."""
        sizes = _to_numpy(pc.fill_null(pc.binary_length(self._cells), 0)).astype(np.int64)
        if self._lengths is None:
            return sizes
        return np.diff(np.append(0, np.cumsum(sizes))[np.cumsum(self._lengths)], prepend=0)


def list_strings(array: pa.Array) -> list[Any]:
    """Return the strings of an array; raise ValueError if one has bytes that are not UTF-8, and say what to do."""
    try:
        strings: list[Any] = array.to_pylist()
    except UnicodeDecodeError as error:
        raise ValueError(
            f"a text has bytes that are not UTF-8 ({error}): repair it, or let InstructorEmbeddings.setErrorCol mark "
            "such rows"
        ) from error
    return strings


def is_nested(type_: pa.DataType) -> bool:
    """Return whether an Arrow type is a list."""
    return bool(pa.types.is_list(type_) or pa.types.is_large_list(type_))


def count_elements(rows: pa.Array) -> npt.NDArray[np.int64]:
    """Return the number of elements of each list; 0 for a null."""
    return _to_numpy(pc.fill_null(pc.list_value_length(rows), 0)).astype(np.int64)


def cut_rows(costs: npt.NDArray[np.int64], limit: int, max_rows: int | None = None) -> Iterator[slice]:
    """Cut rows into consecutive slices of at most ``max_rows``, which cost at most ``limit`` or are a single row."""
    ends = np.cumsum(costs)
    start = cost_before = 0
    while start < len(ends):
        fitting = int(np.searchsorted(ends, cost_before + limit, side="right"))
        stop = min(max(fitting, start + 1), start + (max_rows or len(ends)))
        yield slice(start, stop)
        start, cost_before = stop, int(ends[stop - 1])


def _to_numpy(array: pa.Array) -> npt.NDArray[Any]:
    numbers: npt.NDArray[Any] = array.to_numpy(zero_copy_only=False)
    return numbers
