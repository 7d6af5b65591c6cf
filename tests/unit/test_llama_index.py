"""InstructorEmbedding for LlamaIndex."""

import asyncio
import importlib
import json
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
from vectors import assert_close

pytest.importorskip("llama_index.core", reason="the environments of older Sparks lack LlamaIndex")

from llama_index.core.embeddings import BaseEmbedding

from spark_instructor.encoder import InstructorModel
from spark_instructor.llama_index import InstructorEmbedding

DATA = Path(__file__).parents[1] / "data"
DOCUMENTS = "Represent the document for retrieval: "
QUESTIONS = "Represent the question for retrieving supporting documents: "


def test_vectors():
    """Each side has its instruction, and outer blanks of a text do not matter."""
    embedding = InstructorEmbedding("instructor_tiny", embed_batch_size=2)
    assert isinstance(embedding, BaseEmbedding)
    assert (embedding.class_name(), embedding.model_name) == ("InstructorEmbedding", "instructor_tiny")
    model = InstructorModel.from_pretrained("instructor_tiny")
    texts = [" a text\n", "b", "c"]
    documents = model.encode(DOCUMENTS, ["a text", "b", "c"])
    assert_close(np.array(embedding.get_text_embedding_batch(texts)), documents)
    assert_close(np.array(asyncio.run(embedding.aget_text_embedding_batch(texts))), documents)
    assert_close(np.array([embedding.get_text_embedding(texts[0])]), documents[:1])
    question = model.encode(QUESTIONS, ["a text"])
    assert_close(np.array([embedding.get_query_embedding("a text ")]), question)
    assert_close(np.array([asyncio.run(embedding.aget_query_embedding("a text"))]), question)


def test_vectors_are_theirs(tiny):
    """An index that was built with llama-index-embeddings-instructor can be searched."""
    theirs = json.loads((DATA / "instructor_embedding.json").read_text("utf-8"))
    embedding = InstructorEmbedding(str(tiny))
    assert_close(np.array(embedding.get_text_embedding_batch(theirs["texts"])), theirs["documents"])
    assert_close(np.array([embedding.get_query_embedding(text) for text in theirs["texts"]]), theirs["queries"])


def test_arguments(tiny):
    embedding = InstructorEmbedding(str(tiny), "Question: ", "Document: ", cache_folder="somewhere", device="cpu")
    model = InstructorModel.from_pretrained(tiny)
    assert_close(np.array([embedding.get_query_embedding("a")]), model.encode("Question: ", ["a"]))
    assert_close(np.array([embedding.get_text_embedding("a")]), model.encode("Document: ", ["a"]))
    assert embedding.to_dict()["cache_folder"] == "somewhere"
    assert pickle.loads(pickle.dumps(embedding)).device == "cpu"


def test_without_llama_index(monkeypatch):
    monkeypatch.setitem(sys.modules, "llama_index.core.embeddings", None)
    monkeypatch.delitem(sys.modules, "spark_instructor.llama_index")
    with pytest.raises(ImportError, match=r"pip install 'spark-instructor-embeddings\[llama-index\]'"):
        importlib.import_module("spark_instructor.llama_index")
