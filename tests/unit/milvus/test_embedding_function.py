"""InstructorEmbeddingFunction has the interface of pymilvus and uses our encoder."""

import inspect
import os

import numpy as np
import pytest
from pymilvus.model.base import BaseEmbeddingFunction
from pymilvus.model.dense import InstructorEmbeddingFunction as Theirs
from vectors import TOLERANCE

from spark_instructor.encoder import InstructorModel
from spark_instructor.milvus import InstructorEmbeddingFunction


@pytest.fixture(scope="module")
def model(tiny):
    return InstructorModel.from_pretrained(tiny)


@pytest.fixture(scope="module")
def function(tiny):
    return InstructorEmbeddingFunction(str(tiny))


def test_interface_is_theirs(function):
    assert isinstance(function, BaseEmbeddingFunction)
    ours, theirs = (inspect.signature(cls).parameters.values() for cls in (InstructorEmbeddingFunction, Theirs))
    positional = [(param.name, param.default) for param in ours if param.kind is param.POSITIONAL_OR_KEYWORD]
    assert positional == [(param.name, param.default) for param in theirs if param.kind is not param.VAR_KEYWORD]


def test_vectors_are_the_encoders(function, model):
    texts = ["What is inflation?", "  A text with blanks around it. ", ""]
    for vectors, instruction in [
        (function.encode_documents(texts), "Represent the document for retrieval:"),
        (function(texts), "Represent the document for retrieval:"),
        (function.encode_queries(texts), "Represent the question for retrieval:"),
    ]:
        assert isinstance(vectors, list)
        assert [(vector.dtype, vector.shape) for vector in vectors] == [(np.dtype("float32"), (function.dim,))] * 3
        np.testing.assert_allclose(vectors, model.encode(instruction, texts), atol=TOLERANCE)


def test_settings(tiny, model):
    function = InstructorEmbeddingFunction(
        str(tiny),
        batch_size=1,
        query_instruction="Ask: ",
        doc_instruction="Tell: ",
        normalize_embeddings=False,
        precision="bfloat16",
    )
    narrow = InstructorModel.from_pretrained(tiny, precision="bfloat16")
    for encode, instruction in [(function.encode_queries, "Ask: "), (function.encode_documents, "Tell: ")]:
        expected = narrow.encode(instruction, ["one", "another"], normalize=False)
        np.testing.assert_allclose(encode(["one", "another"]), expected, atol=1e-4)
        assert not np.allclose(np.linalg.norm(expected, axis=1), 1, atol=0.01)


def test_what_theirs_passes_to_sentence_transformers(tiny, model, tmp_path):
    function = InstructorEmbeddingFunction(str(tiny), device=None, cache_folder=str(tmp_path), trust_remote_code=True)
    assert isinstance(function.model, InstructorModel)
    np.testing.assert_allclose(function.encode_queries(["a"]), function.model.encode(function.query_instruction, ["a"]))
    with pytest.raises(TypeError, match="unexpected keyword argument 'truncate_dim'"):
        InstructorEmbeddingFunction(str(tiny), truncate_dim=3)


def test_lists_only(function):
    assert function.encode_documents([]) == function.encode_queries([]) == function([]) == []
    with pytest.raises(TypeError, match="pass a list"):
        function.encode_queries("What is inflation?")
    with pytest.raises(TypeError, match="text 1 is a NoneType"):
        function.encode_documents(["a", None])


def test_packaged_name():
    assert InstructorEmbeddingFunction("instructor_tiny").dim == len(
        InstructorEmbeddingFunction("instructor_tiny").encode_queries(["a"])[0]
    )


@pytest.mark.skipif("INSTRUCTOR_XL" not in os.environ, reason="set INSTRUCTOR_XL to the folder of hkunlp/instructor-xl")
def test_vectors_that_milvus_prints():
    """The vectors are those of https://milvus.io/docs/embed-with-instructor.md; the test needs 5 GB of weights."""
    function = InstructorEmbeddingFunction(os.environ["INSTRUCTOR_XL"])
    assert function.dim == 768
    (document,) = function.encode_documents(["Artificial intelligence was founded as an academic discipline in 1956."])
    (query,) = function.encode_queries(["When was artificial intelligence founded"])
    np.testing.assert_allclose(document[:4], [0.0108575663, 0.00387877878, 0.0318090729, -0.0812458917], atol=1e-4)
    np.testing.assert_allclose(query[:3], [0.0121721877, 0.00188485277, 0.0301732980], atol=1e-4)
