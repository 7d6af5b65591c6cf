"""Vectors as the cells of a column: arrays of floats, pyspark.ml vectors, and types that take less space.

The metadata of a column says what its binaries contain, since their SQL type does not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

OUTPUT_TYPES = ("float", "vector", "half", "int8", "binary")
"""What a cell contains: float32, a pyspark.ml vector, float16, int8, or one bit per float."""

OUTPUT_TYPE = "outputType"
"""Key of the output type in the metadata of a column; it is absent for "float"."""
DIMENSION = "dimension"
"""Key of the number of floats per vector in the metadata of a column."""


def describe_type(output_type: str) -> dict[str, str]:
    """Return what the metadata of a column says about its output type."""
    return {} if output_type == "float" else {OUTPUT_TYPE: output_type}


def encode_vectors(matrix: npt.NDArray[np.float32], output_type: str) -> npt.NDArray[Any]:
    """Return one row per vector of a matrix (n, dimension), as `build_cells` takes it.

    Args:
        matrix: The vectors.
        output_type: One of `OUTPUT_TYPES`. "float" and "vector" keep the floats. "half" rounds each float to float16.
            "int8" multiplies each vector so that its greatest float becomes 127 or -127, and rounds to whole numbers,
            which keeps the direction but not the length. "binary" keeps one bit per float: whether it is positive.

    Returns:
        float32 or int8 (n, dimension); for "half" and "binary" the bytes of each cell, uint8 (n, bytes).
    """
    if output_type == "half":
        halves: npt.NDArray[np.uint8] = np.ascontiguousarray(matrix, "<f2").view(np.uint8)
        return halves
    if output_type == "int8":
        greatest = np.abs(matrix).max(axis=1, keepdims=True, initial=0)
        whole: npt.NDArray[np.int8] = np.rint(127 * (matrix / np.where(greatest > 0, greatest, 1))).astype(np.int8)
        return whole
    if output_type == "binary":
        return np.packbits(matrix > 0, axis=1)
    return matrix


def build_cells(values: npt.NDArray[Any], is_valid: npt.NDArray[np.bool_]) -> pa.Array:
    """Return an array of cells from what `encode_vectors` returns; a cell that is not valid is null."""
    width = values.shape[1]
    if values.dtype != np.uint8:
        element = pa.field("element", pa.from_numpy_dtype(values.dtype), nullable=False)
        flat = pa.array(np.ascontiguousarray(values).reshape(-1))
        return build_lists(is_valid * width, is_valid, flat, pa.list_(element))
    offsets = np.append(0, np.cumsum(is_valid * width)).astype(np.int32)
    bitmap = np.packbits(is_valid, bitorder="little")
    buffers = [pa.py_buffer(buffer) for buffer in (bitmap, offsets, np.ascontiguousarray(values))]
    return pa.Array.from_buffers(pa.binary(), len(is_valid), buffers)


def build_lists(
    lengths: npt.NDArray[Any], is_valid: npt.NDArray[np.bool_], values: pa.Array, type_: pa.DataType
) -> pa.Array:
    """Return an array of lists, which divide ``values`` among them; a list that is not valid is null."""
    offsets = np.append(0, np.cumsum(lengths)).astype(np.int32)
    # A null offset makes the list that starts there a null.
    return pa.ListArray.from_arrays(pa.array(offsets, mask=np.append(~is_valid, False)), values, type=type_)


def decode_vectors(
    cells: pa.Array, metadata: Mapping[str, Any], name: str
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Return the vectors of a column, float32 (vectors, dimension), and the indices of their rows.

    Null cells are left out. A null among the floats of a vector becomes NaN. Vectors of "int8" and "binary" are scaled
    to length 1.

    Args:
        cells: The cells, in any output type.
        metadata: The metadata of the column.
        name: The name of the column, for errors.

    Raises ValueError if the vectors differ in width, and if the metadata does not say what a binary contains.
    """
    rows = np.flatnonzero(cells.is_valid().to_numpy(zero_copy_only=False))
    cells = cells.take(pa.array(rows))
    if pa.types.is_struct(cells.type):
        cells = _read_dense(cells, name)
    is_bytes = pa.types.is_binary(cells.type) or pa.types.is_large_binary(cells.type)
    lengths = pc.binary_length(cells) if is_bytes else pc.list_value_length(cells)
    widths = lengths.unique().to_pylist()
    if len(widths) > 1:
        raise ValueError(f"column {name!r} has vectors of different widths: {', '.join(map(str, sorted(widths)))}")
    if not widths:
        return np.empty((0, 0), np.float32), rows
    if is_bytes:
        content = np.frombuffer(b"".join(cells.to_pylist()), np.uint8).reshape(len(rows), *widths)
        return _decode_bytes(content, metadata, name), rows
    values = cells.flatten().to_numpy(zero_copy_only=False).reshape(len(rows), *widths)
    return _scale(values) if pa.types.is_int8(cells.type.value_type) else values.astype(np.float32, copy=False), rows


def check_finite(numbers: npt.NDArray[np.float32], name: str) -> None:
    """Raise ValueError, naming the column, if vectors or their norms contain NaN, which a null becomes, or infinity."""
    if not np.isfinite(numbers).all():
        raise ValueError(f"column {name!r} has a vector that contains NaN, infinity or null")


def _decode_bytes(content: npt.NDArray[np.uint8], metadata: Mapping[str, Any], name: str) -> npt.NDArray[np.float32]:
    output_type = metadata.get(OUTPUT_TYPE)
    if output_type == "half" and content.shape[1] % 2 == 0:
        return content.view("<f2").astype(np.float32)
    dimension = metadata.get(DIMENSION, content.shape[1] * 8)
    if output_type == "binary" and content.shape[1] == -(-dimension // 8):
        return _scale(np.unpackbits(content, axis=1, count=dimension).astype(np.int8) * 2 - 1)
    raise ValueError(
        f"column {name!r} has binaries of {content.shape[1]} bytes, and its metadata says {OUTPUT_TYPE} "
        f"{output_type!r} and {DIMENSION} {metadata.get(DIMENSION)}, which does not fit"
    )


def _read_dense(structs: pa.StructArray, name: str) -> pa.Array:
    """Return the values of pyspark.ml vectors; raise ValueError if one is sparse."""
    fields = dict(zip([field.name for field in structs.type], structs.flatten(), strict=True))
    if pc.any(pc.equal(fields["type"], 0)).as_py():
        raise ValueError(
            f"column {name!r} has sparse vectors, expected dense ones: convert it with "
            "pyspark.ml.functions.vector_to_array"
        )
    return fields["values"]


def _scale(whole: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Return vectors of whole numbers as float32 of length 1; zeros stay zeros."""
    vectors = whole.astype(np.float32)
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    scaled: npt.NDArray[np.float32] = vectors / np.maximum(norms, 1)
    return scaled
