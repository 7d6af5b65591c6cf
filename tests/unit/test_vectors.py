"""Vectors as cells of each output type, and back."""

import numpy as np
import pyarrow as pa
import pytest

from spark_instructor.vectors import OUTPUT_TYPES, build_cells, decode_vectors, describe_type, encode_vectors

DIMENSION = 20  # no multiple of 8

ARROW_TYPES = {
    "float": pa.list_(pa.field("element", pa.float32(), nullable=False)),
    "vector": pa.list_(pa.field("element", pa.float32(), nullable=False)),
    "half": pa.binary(),
    "int8": pa.list_(pa.field("element", pa.int8(), nullable=False)),
    "binary": pa.binary(),
}
BYTES = {"float": 80, "vector": 80, "half": 40, "int8": 20, "binary": 3}


def draw_vectors(rows):
    matrix = np.random.default_rng(1).standard_normal((rows, DIMENSION)).astype(np.float32)
    return matrix / np.linalg.norm(matrix, axis=1, keepdims=True)


def metadata_of(output_type):
    return {"dimension": DIMENSION, **describe_type(output_type)}


@pytest.mark.parametrize("output_type", OUTPUT_TYPES)
def test_round_trip(output_type):
    """Cells keep their rows and, as exactly as their type allows, their vectors."""
    vectors, is_valid = draw_vectors(4), np.array([True, False, True, False, True, True])
    encoded = encode_vectors(vectors, output_type)
    assert encoded[0].nbytes == BYTES[output_type]
    cells = build_cells(encoded, is_valid)
    cells.validate(full=True)
    assert cells.type == ARROW_TYPES[output_type]
    assert [cell is None for cell in cells.to_pylist()] == (~is_valid).tolist()
    for read in (cells, pa.concat_arrays([cells[:1], cells]).slice(1)):
        decoded, rows = decode_vectors(read, metadata_of(output_type), "v")
        assert (decoded.dtype, rows.tolist()) == (np.float32, [0, 2, 4, 5])
        if output_type == "binary":
            np.testing.assert_allclose(decoded, np.where(vectors > 0, 1, -1) / np.sqrt(DIMENSION), rtol=1e-6)
        else:
            tolerance = {"half": 3e-4, "int8": 1 / 127}.get(output_type, 0)
            np.testing.assert_allclose(decoded, vectors, atol=tolerance)
            np.testing.assert_allclose(np.linalg.norm(decoded, axis=1), 1, atol=1e-3)
    again = encode_vectors(decoded, output_type)
    np.testing.assert_array_equal(again, encoded)


@pytest.mark.parametrize("output_type", OUTPUT_TYPES)
def test_no_vectors(output_type):
    cells = build_cells(encode_vectors(np.empty((0, DIMENSION), np.float32), output_type), np.array([False] * 2))
    assert cells.to_pylist() == [None, None]
    vectors, rows = decode_vectors(cells, metadata_of(output_type), "v")
    assert (len(vectors), len(rows)) == (0, 0)


def test_zeros():
    """A vector of zeros stays one, except in "binary", which has no zero."""
    zeros = np.zeros((1, DIMENSION), np.float32)
    for output_type in ("half", "int8"):
        cells = build_cells(encode_vectors(zeros, output_type), np.array([True]))
        assert not decode_vectors(cells, metadata_of(output_type), "v")[0].any()


def test_pyspark_vectors():
    """The structs of pyspark.ml vectors are read if they are dense."""
    dense = {"type": 1, "size": None, "indices": None, "values": [1.0, 2.0]}
    vectors, rows = decode_vectors(pa.array([None, dense]), {}, "v")
    assert (vectors.tolist(), rows.tolist()) == ([[1, 2]], [1])
    sparse = {"type": 0, "size": 9, "indices": [3, 4], "values": [1.0, 2.0]}
    with pytest.raises(ValueError, match=r"column 'v' has sparse vectors, expected dense ones: .*vector_to_array"):
        decode_vectors(pa.array([dense, sparse]), {}, "v")


@pytest.mark.parametrize(
    ("content", "metadata"),
    [
        (b"1234", {}),
        (b"123", {"outputType": "half"}),
        (b"123", {"outputType": "binary", "dimension": 25}),
        (b"12", {"outputType": "int8", "dimension": 2}),
    ],
)
def test_binaries_that_do_not_fit_their_metadata(content, metadata):
    with pytest.raises(ValueError, match=rf"column 'v' has binaries of {len(content)} bytes, and its metadata says"):
        decode_vectors(pa.array([content]), metadata, "v")
    with pytest.raises(ValueError, match="column 'v' has vectors of different widths: 1, 4"):
        decode_vectors(pa.array([b"1", b"1234"]), metadata, "v")
