"""InstructorEmbeddingFunction has the interface of pymilvus and uses our encoder."""

import inspect
import json
import os
import shutil

import numpy as np
import pytest
from pymilvus.model.base import BaseEmbeddingFunction
from pymilvus.model.dense import InstructorEmbeddingFunction as Theirs
from vectors import TOLERANCE

from spark_instructor.encoder import InstructorModel
from spark_instructor.milvus import InstructorEmbeddingFunction
from spark_instructor.milvus.provenance import create_properties


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
        precision="bfloat16",
        device=None,
        trust_remote_code=True,
    )
    narrow = InstructorModel.from_pretrained(tiny, precision="bfloat16")
    for encode, instruction in [(function.encode_queries, "Ask: "), (function.encode_documents, "Tell: ")]:
        np.testing.assert_allclose(
            encode(["one", "another"]), narrow.encode(instruction, ["one", "another"]), atol=1e-4
        )
    assert function.model.prepared.precision == "bfloat16"


@pytest.mark.parametrize("has_normalize", [True, False])
def test_vectors_that_are_not_normalized(tiny, tmp_path, has_normalize):
    """A Normalize module runs whatever the argument says, as in pymilvus.model."""
    folder = shutil.copytree(tiny, tmp_path / "checkpoint")
    if not has_normalize:
        modules = json.loads((folder / "modules.json").read_text())
        (folder / "modules.json").write_text(json.dumps(modules[:-1]))
    function = InstructorEmbeddingFunction(str(folder), normalize_embeddings=False)
    again = InstructorEmbeddingFunction(str(function.model.prepared.path), normalize_embeddings=False)
    for vectors in (function.encode_queries(["one", "another"]), again.encode_queries(["one", "another"])):
        assert np.allclose(np.linalg.norm(vectors, axis=1), 1) == has_normalize


def test_strip(tiny, model):
    """pymilvus.model strips the instruction and each text before it joins them."""
    texts = ["  What is inflation?\n", "plain"]
    instruction = "Represent the question: "
    ours, theirs = (
        InstructorEmbeddingFunction(str(tiny), query_instruction=instruction, strip=strip).encode_queries(texts)
        for strip in (False, True)
    )
    np.testing.assert_allclose(ours, model.encode(instruction, texts), atol=TOLERANCE)
    expected = model.encode(instruction.strip(), [text.strip() for text in texts])
    np.testing.assert_allclose(theirs, expected, atol=TOLERANCE)
    assert not np.allclose(ours, theirs, atol=0.01)
    with pytest.raises(TypeError, match="text 1 is a NoneType"):
        InstructorEmbeddingFunction(str(tiny), strip=True).encode_documents(["a", None])


@pytest.mark.parametrize(
    ("argument", "says"),
    [
        ({"token": "x"}, "no argument 'token': set HF_TOKEN"),
        ({"prompts": {}}, "no argument 'prompts': use doc_instruction"),
        ({"truncate_dim": 3}, "no argument 'truncate_dim'$"),
    ],
)
def test_arguments_of_others(tiny, argument, says):
    with pytest.raises(TypeError, match=says):
        InstructorEmbeddingFunction(str(tiny), **argument)


class Describing:
    """A client that describes a collection."""

    def __init__(self, provenance):
        self.description = {"collection_name": "c", "properties": create_properties(provenance)}

    def describe_collection(self, name):
        assert name == "c"
        return self.description


def test_a_collection_of_another_model(function, tiny):
    prepared = function.model.prepared
    same = {"model": "x", "precision": prepared.precision, "hash": prepared.hash}
    for provenance in ({}, same):
        function.check_collection(Describing(provenance), "c")
    narrow = InstructorEmbeddingFunction(str(tiny), precision="bfloat16")
    with pytest.raises(
        ValueError, match=r"'c' was embedded with x in float32, and the questions with .*tiny in bfloat16.*precision"
    ):
        narrow.check_collection(Describing(same), "c")


def test_what_theirs_passes_to_sentence_transformers(tiny, model, tmp_path):
    function = InstructorEmbeddingFunction(str(tiny), device=None, cache_folder=str(tmp_path), trust_remote_code=True)
    assert isinstance(function.model, InstructorModel)
    np.testing.assert_allclose(function.encode_queries(["a"]), function.model.encode(function.query_instruction, ["a"]))


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
