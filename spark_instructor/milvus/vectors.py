"""Vectors in the form that each type of vector field takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..vectors import encode_vectors

VECTOR_TYPES = ("FLOAT_VECTOR", "FLOAT16_VECTOR", "BFLOAT16_VECTOR", "INT8_VECTOR", "BINARY_VECTOR")
"""The types of vector fields that can hold an embedding, by their names in ``pymilvus.DataType``."""


def check_vector_type(vector_type: str) -> None:
    """Raise ValueError if a vector type is none of `VECTOR_TYPES`."""
    if vector_type not in VECTOR_TYPES:
        raise ValueError(f"vector_type is {vector_type!r}, expected one of {', '.join(VECTOR_TYPES)}")


def convert_vectors(matrix: npt.NDArray[np.float32], vector_type: str) -> Sequence[Any]:
    """Return a vector per row of a matrix, as pymilvus takes it for a field of a type, to store or to search.

    Args:
        matrix: The vectors, float32 (n, dimension).
        vector_type: One of `VECTOR_TYPES`. FLOAT_VECTOR keeps the floats, bit for bit; FLOAT16_VECTOR and
            BFLOAT16_VECTOR round each float to the nearest. INT8_VECTOR and BINARY_VECTOR are "int8" and "binary" of
            `encode_vectors`.

    Returns:
        For BFLOAT16_VECTOR and BINARY_VECTOR the bytes of each vector, because numpy has no such type; otherwise an
        array per vector.
    """
    if vector_type == "FLOAT16_VECTOR":
        return list(matrix.astype(np.float16))
    if vector_type == "BFLOAT16_VECTOR":
        return [row.tobytes() for row in _round_to_bfloat16(matrix)]
    if vector_type == "INT8_VECTOR":
        return list(encode_vectors(matrix, "int8"))
    if vector_type == "BINARY_VECTOR":
        return [row.tobytes() for row in encode_vectors(matrix, "binary")]
    return list(matrix)


def measure_lengths(matrix: npt.NDArray[np.float32], vector_type: str) -> npt.NDArray[np.floating[Any]]:
    """Return the length of each vector as a field of a type stores it, computed in float32, as Milvus does.

    The length is infinite or 0 if the floats of the field, or their squares, overflow or underflow.

    Args:
        matrix: The vectors, float32 (n, dimension).
        vector_type: One of `VECTOR_TYPES`. INT8_VECTOR and BINARY_VECTOR scale the vectors, so that no length
            is 0 or infinite unless the vector itself is zero or not finite.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        if vector_type == "FLOAT16_VECTOR":
            matrix = matrix.astype(np.float16).astype(np.float32)
        elif vector_type == "BFLOAT16_VECTOR":
            matrix = (_round_to_bfloat16(matrix).astype(np.uint32) << 16).view(np.float32)
        elif vector_type != "FLOAT_VECTOR":
            matrix = encode_vectors(matrix, "int8")
        lengths: npt.NDArray[np.floating[Any]] = np.linalg.norm(matrix, axis=1)
    return lengths


def _round_to_bfloat16(matrix: npt.NDArray[np.float32]) -> npt.NDArray[np.uint16]:
    """Return the upper half of each float32, rounded to the nearest, and to an even number if two are equally near."""
    bits = np.ascontiguousarray(matrix, np.float32).view(np.uint32)
    upper: npt.NDArray[np.uint16] = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2")
    return upper
