"""Vectors in the form of each type of vector field: what a request contains, and how well it can be searched."""

import json
import re

import numpy as np
import pytest
import torch
from pages import PAGES, ROOT
from pymilvus import DataType
from pymilvus.client.prepare import Prepare

from spark_instructor.encoder import InstructorModel
from spark_instructor.milvus.vectors import VECTOR_TYPES, check_vector_type, convert_vectors, measure_lengths


def send_and_decode(matrix, vector_type):
    """Convert vectors, let pymilvus put them into a request, and return them as float32, with their bytes per vector.

    For BINARY_VECTOR, the floats are 1 and -1.
    """
    fields = [
        {"name": "id", "type": DataType.INT64, "is_primary": True, "params": {}},
        {"name": "vector", "type": DataType[vector_type], "params": {"dim": matrix.shape[1]}},
    ]
    rows = [{"id": i, "vector": vector} for i, vector in enumerate(convert_vectors(matrix, vector_type))]
    request = Prepare.row_upsert_param("c", rows, "", fields)
    (sent,) = (field.vectors for field in request.fields_data if field.field_name == "vector")
    assert sent.dim == matrix.shape[1]
    if vector_type == "FLOAT_VECTOR":
        vectors = np.array(sent.float_vector.data, np.float32).reshape(matrix.shape)
        return vectors, vectors[0].nbytes
    content = getattr(sent, vector_type.lower())
    if vector_type == "BINARY_VECTOR":
        vectors = np.unpackbits(np.frombuffer(content, np.uint8)).astype(np.float32) * 2 - 1
    else:
        dtype = {"FLOAT16_VECTOR": torch.float16, "BFLOAT16_VECTOR": torch.bfloat16, "INT8_VECTOR": torch.int8}
        vectors = torch.frombuffer(bytearray(content), dtype=dtype[vector_type]).float().numpy()
    return vectors.reshape(matrix.shape), len(content) // len(matrix)


@pytest.fixture(scope="module")
def matrix():
    """Return vectors with numbers of all sizes, and some that lie exactly between two numbers of bfloat16."""
    random = np.random.default_rng(0)
    matrix = random.normal(size=(50, 16)).astype(np.float32) * np.logspace(-6, 4, 50, dtype=np.float32)[:, None]
    matrix[0, :4] = [1 + 2**-8, 1 + 3 * 2**-8, -1 - 2**-8, 0]
    return matrix


def test_floats_are_rounded_to_the_nearest(matrix):
    for vector_type, dtype in [
        ("FLOAT_VECTOR", torch.float32),
        ("FLOAT16_VECTOR", torch.float16),
        ("BFLOAT16_VECTOR", torch.bfloat16),
    ]:
        expected = torch.from_numpy(matrix).to(dtype).float().numpy()
        np.testing.assert_array_equal(send_and_decode(matrix, vector_type)[0], expected)


def test_int8_keeps_the_direction(matrix):
    vectors, _ = send_and_decode(matrix, "INT8_VECTOR")
    assert (np.abs(vectors).max(axis=1) == 127).all()
    scales = np.abs(matrix).max(axis=1, keepdims=True) / 127
    assert (np.abs(vectors * scales - matrix) <= scales * 0.5001).all()


def test_binary_keeps_the_signs(matrix):
    np.testing.assert_array_equal(send_and_decode(matrix, "BINARY_VECTOR")[0], np.where(matrix > 0, 1, -1))


@pytest.mark.parametrize(
    ("vector_type", "wrong"),
    [
        ("FLOAT_VECTOR", [0, 1, 4]),
        ("FLOAT16_VECTOR", [0, 1, 2, 3, 4]),
        ("BFLOAT16_VECTOR", [0, 1, 4]),
        ("INT8_VECTOR", []),
        ("BINARY_VECTOR", []),
    ],
)
def test_vectors_whose_length_a_field_cannot_hold(vector_type, wrong):
    rows = [[1e-30, 0], [1e30, 1e30], [70_000, 1], [1e-9, 0], [3.4e38, -3.4e38], [3, 4]]
    lengths = measure_lengths(np.array(rows, np.float32), vector_type)
    assert [row for row in range(len(rows)) if not 0 < lengths[row] < np.inf] == wrong
    assert wrong == [] or lengths[5] == 5


@pytest.mark.parametrize("vector_type", VECTOR_TYPES)
def test_no_vectors(vector_type):
    assert list(convert_vectors(np.empty((0, 8), np.float32), vector_type)) == []


def test_a_type_that_does_not_exist():
    with pytest.raises(ValueError, match="vector_type is 'FLOAT', expected one of FLOAT_VECTOR, FLOAT16_VECTOR, BF"):
        check_vector_type("FLOAT")


def test_the_table_of_the_documentation_is_what_is_measured():
    """The bytes and the recall@10 of each type in docs/milvus.md are those of the packaged model and passages."""
    texts = [json.loads(line)["text"] for line in (ROOT / "examples/passages.jsonl").open(encoding="utf-8")]
    model = InstructorModel.from_pretrained("instructor_tiny")
    documents = model.encode("Represent the document for retrieval: ", texts)
    questions = model.encode(
        "Represent the question for retrieving supporting documents: ", [text.split(". ")[0] for text in texts]
    )
    nearest = find_nearest(documents, questions)
    rows = re.findall(r"^\| `(\w+)` \| ([\d,]+) \| ([\d.]+) \|", PAGES["docs-milvus"].read_text("utf-8"), re.MULTILINE)
    assert [name for name, *_ in rows] == list(VECTOR_TYPES)
    for vector_type, size, recall in rows:
        stored, bytes_per_vector = send_and_decode(documents, vector_type)
        found = find_nearest(stored, send_and_decode(questions, vector_type)[0])
        measured = np.mean([len(np.intersect1d(*pair)) / 10 for pair in zip(nearest, found, strict=True)])
        assert bytes_per_vector == int(size.replace(",", ""))
        assert measured == pytest.approx(float(recall), abs=0.0015), vector_type


def find_nearest(documents, questions):
    documents = documents / np.linalg.norm(documents, axis=1, keepdims=True)
    return np.argsort(-(questions @ documents.T), axis=1, kind="stable")[:, :10]
