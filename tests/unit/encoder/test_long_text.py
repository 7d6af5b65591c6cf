"""long_text="average": overlapping windows, each with the instruction, averaged by the number of pooled tokens."""

import numpy as np
import pytest
from checkpoints import write_checkpoint
from vectors import TOLERANCE

from spark_instructor.encoder import InstructorModel
from spark_instructor.encoder import model as model_module

INSTRUCTION = "title: "  # 2 tokens
INSTRUCTION_TOKENS = 2


@pytest.fixture(scope="module")
def words(tiny_model):
    """Return words that are one token each, also within a text, so that a test can cut windows out of the text."""
    candidates = [
        "the",
        "of",
        "and",
        "to",
        "in",
        "is",
        "that",
        "for",
        "it",
        "as",
        "was",
        "with",
        "be",
        "on",
        "by",
        "an",
    ]
    token_counts = tiny_model.encode_counted("", candidates).tokens
    single = [word for word, tokens in zip(candidates, token_counts, strict=True) if tokens == 2]
    assert len(single) >= 10
    return single * (2000 // len(single))


def text_of(words):
    return " ".join(words)


def average(model, texts, **settings):
    return model.encode_counted(INSTRUCTION, texts, long_text="average", **settings)


@pytest.mark.parametrize(
    ("max_length", "count", "windows"),
    [
        # A window holds max_length - 1 - INSTRUCTION_TOKENS words and overlaps the next one by a tenth of them.
        (23, 20, [(0, 20)]),
        (23, 21, [(0, 20), (18, 21)]),
        (23, 38, [(0, 20), (18, 38)]),
        (23, 50, [(0, 20), (18, 38), (36, 50)]),
        (8, 12, [(0, 5), (5, 10), (10, 12)]),
        (4, 3, [(0, 1), (1, 2), (2, 3)]),
        (512, 1000, [(0, 509), (459, 968), (918, 1000)]),
    ],
)
@pytest.mark.parametrize("batch_size", [1, None])
def test_average_by_hand(tiny_model, words, max_length, count, windows, batch_size):
    encoded = average(tiny_model, [text_of(words[:count])], max_length=max_length, batch_size=batch_size)
    vectors = tiny_model.encode(INSTRUCTION, [text_of(words[start:stop]) for start, stop in windows])
    pooled = [stop - start + 1 for start, stop in windows]  # + 1 for </s>
    expected = np.average(vectors, axis=0, weights=pooled)
    np.testing.assert_allclose(encoded.vectors[0], expected / np.linalg.norm(expected), atol=TOLERANCE, rtol=0)
    assert encoded.tokens.tolist() == [INSTRUCTION_TOKENS + count + 1]
    assert not encoded.truncated.any()


def test_one_window_equals_truncate(tiny_model, cases):
    """A text that fits into one window has the same vector and token count in both modes."""
    short = [case for case in cases if case["n_tokens"] < 512]
    arguments = [case["instruction"] for case in short], [case["text"] for case in short]
    cut, averaged = tiny_model.encode_counted(*arguments), tiny_model.encode_counted(*arguments, long_text="average")
    np.testing.assert_allclose(averaged.vectors, cut.vectors, atol=TOLERANCE, rtol=0)
    assert averaged.tokens.tolist() == cut.tokens.tolist()
    assert not averaged.truncated.any()


def test_long_and_short_together(tiny_model, words):
    """Windows of different texts share batches, but each is averaged into the vector of its own text."""
    texts = [text_of(words[:count]) for count in (3, 900, 0, 40, 1500, 509, 510)]
    together = average(tiny_model, texts)
    alone = [average(tiny_model, [text]) for text in texts]
    np.testing.assert_allclose(together.vectors, np.concatenate([encoded.vectors for encoded in alone]), atol=TOLERANCE)
    assert together.tokens.tolist() == [encoded.tokens[0] for encoded in alone]
    np.testing.assert_allclose(np.linalg.norm(together.vectors, axis=1), 1, atol=TOLERANCE)


def test_end_of_the_text_counts(tiny_model, words):
    """Words beyond the limit change the average, although truncation ignores them."""
    texts = [text_of(words[:600]), text_of(words[:510] + ["capital"] * 90)]
    cut = tiny_model.encode(INSTRUCTION, texts)
    np.testing.assert_allclose(cut[0], cut[1], atol=TOLERANCE)
    averaged = average(tiny_model, texts).vectors
    assert np.abs(averaged[0] - averaged[1]).max() > 1e-3


def test_not_normalized(tiny_model, words):
    windows = [text_of(words[:20]), text_of(words[18:30])]
    expected = np.average(tiny_model.encode(INSTRUCTION, windows, normalize=False), axis=0, weights=[21, 13])
    actual = average(tiny_model, [text_of(words[:30])], max_length=23, normalize=False).vectors[0]
    np.testing.assert_allclose(actual, expected, atol=TOLERANCE)


def test_cap_on_windows(monkeypatch, tiny_model, words):
    """Words after the last window are cut off, and the text is flagged as truncated."""
    monkeypatch.setattr(model_module, "MAX_WINDOWS", 3)
    # The first window holds 20 words, and each later window adds 18.
    texts = [text_of(words[:count]) for count in (56, 57, 500)]
    encoded = average(tiny_model, texts, max_length=23)
    assert encoded.truncated.tolist() == [False, True, True]
    assert encoded.tokens.tolist() == [INSTRUCTION_TOKENS + 57, INSTRUCTION_TOKENS + 57, INSTRUCTION_TOKENS + 57]
    np.testing.assert_allclose(encoded.vectors[2], encoded.vectors[1], atol=TOLERANCE)


@pytest.mark.parametrize("long_text", ["truncate", "average"])
def test_instruction_that_fills_the_limit(tiny_model, words, long_text):
    """Only `</s>` is left to pool: the vector is finite, the text is flagged, and `cut_windows` terminates."""
    encoded = tiny_model.encode_counted(
        text_of(words[:30]), [text_of(words[30:400]), ""], max_length=20, long_text=long_text
    )
    assert encoded.tokens.tolist() == [20, 20]
    assert encoded.truncated.all()
    np.testing.assert_allclose(encoded.vectors[0], encoded.vectors[1], atol=TOLERANCE)
    np.testing.assert_allclose(np.linalg.norm(encoded.vectors, axis=1), 1, atol=TOLERANCE)


def test_instruction_that_leaves_one_token(tiny_model, words):
    encoded = tiny_model.encode_counted(
        text_of(words[:18]), [" " + text_of(words[18:21])], max_length=20, long_text="average"
    )
    assert encoded.tokens.tolist() == [22]
    assert not encoded.truncated.any()


def test_zero_vectors_stay_zero(tiny_model):
    """An instruction that covers every token of a text gives a zero vector, also in a batch with other texts."""
    vectors = tiny_model.encode(["Cha", "", "Cha"], ["nge", "text", "nge"], long_text="average")
    assert [bool(vector.any()) for vector in vectors] == [False, True, False]


def test_random_model_without_dense(tmp_path, words):
    """The same rule holds for a model without a Dense layer."""
    model = InstructorModel.from_pretrained(write_checkpoint(tmp_path / "model", dimension=None, max_length=23))
    actual = average(model, [text_of(words[:38])]).vectors[0]
    expected = model.encode(INSTRUCTION, [text_of(words[:20]), text_of(words[18:38])]).sum(axis=0)
    np.testing.assert_allclose(actual, expected / np.linalg.norm(expected), atol=TOLERANCE)
