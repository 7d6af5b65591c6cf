"""The packaged model: whether what the model card and the demo say about it is true."""

import json
from pathlib import Path

import numpy as np
import pytest
from vectors import TOLERANCE

from spark_instructor.encoder import InstructorModel
from spark_instructor.models.registry import find_checkpoint

EXAMPLES = Path(__file__).parents[3] / "examples"
FOLDER = find_checkpoint("instructor_tiny")


@pytest.fixture(scope="module")
def model():
    return InstructorModel.from_pretrained(FOLDER)


def rows(name):
    return [json.loads(line) for line in (EXAMPLES / name).read_text("utf-8").splitlines()]


@pytest.mark.oracle
def test_same_vectors_in_sentence_transformers(model):
    """sentence-transformers needs no settings: the configuration says float32 and not to pool the instruction."""
    sentence_transformers = pytest.importorskip("sentence_transformers")
    peer = sentence_transformers.SentenceTransformer(str(FOLDER), device="cpu")
    texts = ["", "  blank  ", "Ünïcode ＡＢＣ ß", "word " * 700, *(row["text"] for row in rows("passages.jsonl")[::10])]
    for instruction in ("", "Represent the Science title: ", "Represent the question for retrieval: "):
        expected = peer.encode(texts, prompt=instruction, batch_size=8)
        np.testing.assert_allclose(model.encode(instruction, texts), expected, atol=TOLERANCE, rtol=0)


def test_is_small():
    """The model and its card take less than 16 MB, because every installation contains them."""
    assert sum(file.stat().st_size for file in FOLDER.rglob("*")) < 16e6


def test_answers_the_demos_questions(model):
    passages, questions = rows("passages.jsonl"), rows("questions.jsonl")
    documents = model.encode("Represent the document for retrieval: ", [row["text"] for row in passages])
    asked = model.encode(
        "Represent the question for retrieving supporting documents: ", [row["text"] for row in questions]
    )
    found = [passages[i]["id"] for i in (asked @ documents.T).argmax(1)]
    right = [passage == row["answer"] for passage, row in zip(found, questions, strict=True)]
    assert sum(right) >= 11


@pytest.mark.parametrize(("precision", "least"), [("bfloat16", 0.999), ("int8", 0.995)])
def test_narrow_precisions_stay_close(model, precision, least):
    """A trained model has channels that are much larger than the others, unlike the random weights of other tests."""
    texts = [row["text"] for row in rows("passages.jsonl")[::3]]
    instruction = "Represent the document for retrieval: "
    vectors = InstructorModel.from_pretrained(FOLDER, precision=precision).encode(instruction, texts)
    assert (vectors * model.encode(instruction, texts)).sum(axis=1).min() >= least


@pytest.mark.parametrize(("precision", "most"), [("float32", 1e-6), ("bfloat16", 1e-3), ("int8", 1e-6)])
def test_the_batch_changes_last_digits_only(precision, most):
    texts = [row["text"] for row in rows("passages.jsonl")[::3]]
    instruction = "Represent the document for retrieval: "
    narrow = InstructorModel.from_pretrained(FOLDER, precision=precision)
    vectors = narrow.encode(instruction, texts)
    for start in range(0, len(texts), 12):
        assert np.abs(narrow.encode(instruction, [texts[start]]) - vectors[start]).max() < most


@pytest.mark.parametrize(
    ("instruction", "asked_for", "other"),
    [
        ("Represent the utterance for classifying the service it is about: ", "service", "act"),
        ("Represent the utterance for classifying its dialogue act: ", "act", "service"),
    ],
)
def test_instruction_decides_what_is_near(model, instruction, asked_for, other):
    utterances = rows("utterances.jsonl")
    vectors = model.encode(instruction, [row["text"] for row in utterances])
    similarities = vectors @ vectors.T
    np.fill_diagonal(similarities, -1)
    nearest = [utterances[i] for i in similarities.argmax(1)]
    shares = {
        label: np.mean([row[label] == near[label] for row, near in zip(utterances, nearest, strict=True)])
        for label in (asked_for, other)
    }
    assert shares[asked_for] > 0.75
    assert shares[other] < 0.5
