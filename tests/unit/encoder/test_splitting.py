"""Chunks fit the model, cover the text, are cut from the original, and take linear time, whatever the text is."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spark_instructor.encoder.splitting import MIN_TOKENS, TokenSplitter
from spark_instructor.encoder.tokenizer import replace_surrogates

INSTRUCTION = "Represent the document for retrieval: "
PIECES = [
    "the cat sat on a mat",
    "the",
    "x" * 40,
    "Übergrößenträger",
    "漢字かな。",
    "ﷺ",
    "½",
    "e\u0301\u0302",
    "👩‍👩‍👧‍👦",
    "👍🏽",
    "\u200b\u200b",
    "\x01\x02",
    "</s>",
    "<pad><extra_id_0>",
    ".",
    "!?",
    '."',
    "。」",
    " ",
    "  \t",
    "\n",
    "\r\n\r\n",
    "\n \n",
    "\u00a0",
    "\u3000",
    "\x1c",
    "\x85",
    "\ud800",
    "\ud83d\ude00",
]
texts = st.lists(
    st.one_of(st.sampled_from(PIECES), st.text(st.characters(codec=None), max_size=8), st.just(" " * 100)), max_size=60
).map("".join)
repetitions = st.builds(
    lambda pattern, times: pattern * times, st.text("ab \n.\u0301漢😀", max_size=12), st.integers(1, 200)
)


@pytest.fixture(scope="module")
def t5(tiny_model):
    return tiny_model._tokenizer


def read(text, chunk):
    """Return the text between begin and end, in UTF-16 units."""
    return text.encode("utf-16-le")[2 * chunk.begin : 2 * chunk.end + 2].decode("utf-16-le")


def count(t5, text):
    return len(next(t5.encode([text]))) - 1


def to_characters(text, units):
    return len(text.encode("utf-16-le")[: 2 * units].decode("utf-16-le"))


@settings(max_examples=300)
@given(
    text=st.one_of(texts, repetitions),
    instruction=st.sampled_from(["", INSTRUCTION, "joined", "\ud800"]),
    num_tokens=st.integers(MIN_TOKENS, 60),
    overlap_share=st.floats(0, 0.99),
    trims=st.booleans(),
)
def test_chunks_of_any_text(t5, text, instruction, num_tokens, overlap_share, trims):
    overlap = int(num_tokens * overlap_share)
    chunks = list(TokenSplitter(t5, instruction, num_tokens, overlap, trims).split(text))
    text = replace_surrogates(text)
    assert bool(chunks) == bool(text.strip())

    limit = t5.count_instruction_tokens(instruction) + num_tokens
    covered = previous_start = previous_stop = 0
    for chunk in chunks:
        assert count(t5, instruction + chunk.text) <= limit
        assert chunk.tokens == count(t5, instruction + chunk.text) - t5.count_instruction_tokens(instruction)
        assert read(text, chunk) == chunk.text
        start, stop = to_characters(text, chunk.begin), to_characters(text, chunk.end + 1)
        assert not text[covered:start].strip() and (trims or start <= covered)
        assert stop > covered and (start > previous_start or previous_stop == 0)
        if trims:
            assert chunk.text == chunk.text.strip()
        if not overlap:
            assert start >= covered
        covered, previous_start, previous_stop = stop, start, stop
    assert not text[covered:].strip()
    if not trims and not overlap and chunks:
        assert "".join(chunk.text for chunk in chunks) == text


WORDS = st.lists(st.sampled_from(["the", "cat", "sat", "inflation", "organelles", "x" * 30]), min_size=1, max_size=200)


@settings(max_examples=100)
@given(words=WORDS, num_tokens=st.integers(40, 60), overlap=st.integers(0, 35))
def test_overlap_has_as_many_words_as_fit(t5, words, num_tokens, overlap):
    """No word here is longer than a chunk, so an overlap consists of whole words, as many as have its tokens.

    There is none if the next word would not fit after it.
    """
    text = " ".join(words)
    starts = [0, *(place + 1 for place, character in enumerate(text) if character == " "), len(text) + 1]
    chunks = list(TokenSplitter(t5, INSTRUCTION, num_tokens, overlap).split(text))
    for before, chunk in pairwise(chunks):
        stop = before.end + 1
        fitting = [start for start in starts if before.begin < start < stop and count(t5, text[start:stop]) <= overlap]
        start = fitting[0] if fitting else stop + 1
        next_stop = starts[starts.index(stop + 1) + 1] - 1
        if count(t5, text[start:next_stop]) > num_tokens:
            start = stop + 1
        assert chunk.begin == start


@pytest.mark.parametrize(
    ("text", "last_words"),
    [
        pytest.param(("the cat sat. " * 4 + "the\n \nmat " + "cat sat. ") * 20, {"the"}, id="paragraph"),
        pytest.param("the cat sat on a mat and the cat sat. " * 40, {"sat."}, id="sentence"),
        pytest.param('the cat said: "the cat sat!" The cat ' * 20, {'sat!"'}, id="quotation"),
        pytest.param("the cat saw Dr. Mat. The cat sat on a mat, e.g. on a " * 20, {"Mat."}, id="abbreviations"),
        pytest.param("漢字かな。漢字かな" * 2000, {"。"}, id="without blanks"),
        pytest.param("the cat organelles " * 100, {"the", "cat", "organelles"}, id="word"),
    ],
)
def test_where_chunks_end(t5, text, last_words):
    chunks = list(TokenSplitter(t5, INSTRUCTION, 80).split(text))
    assert len(chunks) > 3
    for chunk in chunks[:-1]:
        assert any(chunk.text.endswith(word) for word in last_words), chunk.text


@pytest.mark.parametrize("unit", ["e\u0301", "👍🏽", "👩‍👩‍👧‍👦"], ids=ascii)
def test_no_cut_inside_a_character(t5, unit):
    chunks = list(TokenSplitter(t5, "", MIN_TOKENS).split((unit + "xyz") * 400))
    assert len(chunks) > 10
    assert all(chunk.text[0] == unit[0] or chunk.text[0] in "xyz" for chunk in chunks)


def test_only_a_word_that_is_too_long_is_cut(t5):
    text = "the cat " + "sat" * 200 + " on a mat"
    first, *inside, last = TokenSplitter(t5, INSTRUCTION, 40).split(text)
    assert first.text == "the cat"
    assert len(inside) > 3 and all(set(chunk.text) <= set("sat") for chunk in inside)
    assert last.text.endswith(" on a mat")


class CountingTokenizer:
    """A tokenizer that counts the characters that it reads."""

    def __init__(self, tokenizer):
        self._tokenizer = tokenizer
        self.count_instruction_tokens = tokenizer.count_instruction_tokens
        self.characters = self.longest = 0

    def locate_tokens(self, text):
        self.characters += len(text)
        self.longest = max(self.longest, len(text))
        return self._tokenizer.locate_tokens(text)


SHAPES = {
    "prose": "the cat sat on a mat. " * 9 + "\n\n",
    "blanks": "the" + " " * 10_000,
    "one word": "abcd",
    "lines": "a\n",
    "no letters": "\x01\u200b",
    "kanji": "漢字",
    "closing brackets": ".)))))",
    "accents": "\u0301",
    "joined emoji": "👩\u200d",
    "special tokens": "</s>",
}


def split_long(t5, unit, characters, **options):
    """Split a long text; return the number of characters that the tokenizer read per character of the text."""
    counting = CountingTokenizer(t5)
    text = unit * (characters // len(unit))
    splitter = TokenSplitter(counting, INSTRUCTION, 100, **options)
    assert sum(1 for _ in splitter.split(text)) > 0
    assert counting.longest < 20_000
    return counting.characters / len(text)


@pytest.mark.parametrize("trims", [True, False], ids=["trimmed", "untrimmed"])
@pytest.mark.parametrize("unit", SHAPES.values(), ids=SHAPES)
def test_linear_time_in_bounded_memory(t5, unit, trims):
    """The tokenizer reads each character a few times, and never a long piece, however long the text is."""
    assert split_long(t5, unit, 40_000, trim_whitespace=trims) < 4
    assert split_long(t5, unit, 40_000, trim_whitespace=trims, token_overlap=50) < 10


@pytest.mark.exhaustive
@pytest.mark.parametrize("unit", SHAPES.values(), ids=SHAPES)
def test_ten_megabytes(t5, unit):
    assert split_long(t5, unit, 10_000_000 // len(unit[0].encode())) < 4
