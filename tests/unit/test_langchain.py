"""InstructorEmbeddings for LangChain: LangChain's own standard tests, and the arguments of langchain-community."""

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from vectors import assert_close

pytest.importorskip("langchain_tests", reason="the environments of older Sparks lack LangChain")

from langchain_tests.integration_tests import EmbeddingsIntegrationTests
from langchain_tests.unit_tests import EmbeddingsUnitTests

from spark_instructor.encoder import InstructorModel
from spark_instructor.langchain import InstructorEmbeddings

DATA = Path(__file__).parents[1] / "data"
DOCUMENTS = "Represent the document for retrieval: "
QUESTIONS = "Represent the question for retrieving supporting documents: "


# langchain-tests expects a setting of pytest-asyncio, which not every environment of these tests has.
for coroutine in (EmbeddingsIntegrationTests.test_aembed_query, EmbeddingsIntegrationTests.test_aembed_documents):
    pytest.mark.asyncio(coroutine)


class _Standard:
    @property
    def embeddings_class(self):
        return InstructorEmbeddings

    @property
    def embedding_model_params(self):
        return {"model_name": "instructor_tiny"}


class TestUnit(_Standard, EmbeddingsUnitTests):
    pass


class TestIntegration(_Standard, EmbeddingsIntegrationTests):
    pass


def test_vectors():
    """Each side has its instruction, and outer blanks of a text do not matter."""
    embeddings = InstructorEmbeddings(model_name="instructor_tiny")
    model = InstructorModel.from_pretrained("instructor_tiny")
    assert_close(np.array(embeddings.embed_documents([" a text\n", "b"])), model.encode(DOCUMENTS, ["a text", "b"]))
    assert_close(np.array([embeddings.embed_query("a text ")]), model.encode(QUESTIONS, ["a text"]))
    assert embeddings.embed_documents([]) == []


def test_vectors_are_theirs(tiny):
    """A store that was filled with HuggingFaceInstructEmbeddings can be searched."""
    theirs = json.loads((DATA / "instructor_embedding.json").read_text("utf-8"))
    embeddings = InstructorEmbeddings(model_name=str(tiny))
    assert_close(np.array(embeddings.embed_documents(theirs["texts"])), theirs["documents"])
    assert_close(np.array([embeddings.embed_query(text) for text in theirs["texts"]]), theirs["queries"])


def test_arguments(tiny, capsys):
    embeddings = InstructorEmbeddings(
        model_name=str(tiny),
        cache_folder="somewhere",
        model_kwargs={"device": "cpu", "precision": "bfloat16"},
        encode_kwargs={"normalize_embeddings": False, "batch_size": 2, "max_length": 20},
        embed_instruction="Document: ",
        query_instruction="Question: ",
        show_progress=True,
    )
    model = InstructorModel.from_pretrained(tiny, precision="bfloat16")
    text = "a long text " * 20
    assert embeddings.client.prepared.precision == "bfloat16"
    assert_close(np.array(embeddings.embed_documents([text])), model.encode("Document: ", [text], max_length=20))
    assert "1/1" in capsys.readouterr().err
    assert_close(np.array([embeddings.embed_query(text)]), model.encode("Question: ", [text], max_length=20))


@pytest.mark.parametrize("texts", ["a text", ["a", None]])
def test_no_list_of_texts(tiny, texts):
    with pytest.raises(TypeError, match=r"texts is a single str|text 1 is a NoneType"):
        InstructorEmbeddings(model_name=str(tiny)).embed_documents(texts)


@pytest.mark.parametrize("argument", ["model_kwargs", "encode_kwargs"])
def test_unknown_argument(tiny, argument):
    with pytest.raises(TypeError, match="unexpected keyword argument 'prompts'"):
        InstructorEmbeddings(model_name=str(tiny), **{argument: {"prompts": {}}}).embed_query("a text")


def test_without_langchain(monkeypatch):
    monkeypatch.setitem(sys.modules, "langchain_core.embeddings", None)
    monkeypatch.delitem(sys.modules, "spark_instructor.langchain")
    with pytest.raises(ImportError, match=r"pip install 'spark-instructor-embeddings\[langchain\]'"):
        importlib.import_module("spark_instructor.langchain")
