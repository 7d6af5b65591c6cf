"""Splitting a long text into chunks that a model reads whole, counted in the model's own tokens.

This module needs neither torch nor Spark, so the workers that split texts load the tokenizer alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from ..characters import count_utf16_units, skip_blanks, skip_blanks_back, step_out_of_character
from ..sentences import SENTENCE_END, is_sentence_end
from .tokenizer import T5Tokenizer, replace_surrogates

MIN_TOKENS = 16
"""The smallest limit of tokens. Any character fits: the one with the most tokens, U+FDFA, has 15."""

_CHARACTERS_PER_TOKEN = 8  # more than in English, so that the first prefix usually has enough tokens
_MAX_CHARACTERS_PER_TOKEN = 64  # bounds the memory for texts with few tokens, such as long runs of blanks
_GROWTH = 2

_PARAGRAPH_END = re.compile(r"\n[^\S\n]*\n")
_WORD_START = re.compile(r"(?<!\S)\S")


class Chunk(NamedTuple):
    """A piece of a text."""

    text: str
    begin: int
    """Index of the first character in the text, in UTF-16 units as Java counts."""
    end: int
    """Index of the last character in the text, in UTF-16 units."""
    tokens: int
    """The number of tokens that the chunk adds to the instruction."""


class TokenSplitter:
    """Splits texts into chunks of at most ``num_tokens`` tokens, counted after the instruction.

    If a paragraph ends in the second half of what fits, the chunk ends with it. Otherwise, the chunk ends with a
    sentence if one ends there, and with a word if none does. A word is cut only if it is longer than a chunk.

    Args:
        tokenizer: The tokenizer of the model.
        instruction: The instruction that the model reads in front of each chunk.
        num_tokens: The maximum number of tokens per chunk, without the instruction and ``</s>``; at least
            `MIN_TOKENS`.
        token_overlap: The maximum number of tokens that a chunk repeats from the previous chunk; only whole words are
            repeated. It must be less than ``num_tokens``.
        trim_whitespace: Whether to leave out white space around the chunks. Otherwise it belongs to the chunk before
            it, so that the chunks without an overlap add up to the text.
    """

    def __init__(
        self,
        tokenizer: T5Tokenizer,
        instruction: str,
        num_tokens: int,
        token_overlap: int = 0,
        trim_whitespace: bool = True,
    ) -> None:
        self._tokenizer = tokenizer
        self._instruction = replace_surrogates(instruction)
        self._instruction_tokens = tokenizer.count_instruction_tokens(instruction)
        self._limit = self._instruction_tokens + num_tokens
        self._token_overlap = token_overlap
        self._trims = trim_whitespace

    def split(self, text: str) -> Iterator[Chunk]:
        """Yield the chunks of a text in order; none if it is empty or blank.

        The time is linear in the length of the text, and the memory beside the text does not grow with it.
        """
        text = replace_surrogates(text)
        text_stop = len(text.rstrip())
        if text_stop == 0:
            return
        start = self._skip_blanks(text, 0)
        if not self._trims:
            text_stop = len(text)
        first = begin = stop = 0
        size = self._limit * _CHARACTERS_PER_TOKEN
        while stop < text_stop:
            reach = self._find_reach(text, start, text_stop, size)
            size = (reach - start) * 3 // 2 + 1  # the next chunk will probably have as many characters per token
            fitting = self._fit(text, start, reach, stop, text_stop)
            if fitting is None:
                start = self._skip_blanks(text, stop)
                continue
            stop, spans = fitting
            chunk = text[start:stop]
            begin += count_utf16_units(text[first:start])
            first = start
            yield Chunk(chunk, begin, begin + count_utf16_units(chunk) - 1, len(spans) - self._instruction_tokens)
            start = self._find_next_start(text, start, stop, spans)

    def _skip_blanks(self, text: str, start: int) -> int:
        """Return the first place from ``start`` on at which a chunk may begin."""
        return skip_blanks(text, start, len(text)) if self._trims else start

    def _locate(self, text: str, start: int, stop: int) -> list[tuple[int, int]]:
        """Return the places in the text of the tokens of a chunk; the tokens of the instruction come first."""
        shift = start - len(self._instruction)
        spans = self._tokenizer.locate_tokens(self._instruction + text[start:stop])
        return [(first + shift, last + shift) for first, last in spans]

    def _find_reach(self, text: str, start: int, text_stop: int, size: int) -> int:
        """Return about how far a chunk can go: the end of the last token that fits, in a prefix of the text."""
        max_size = self._limit * _MAX_CHARACTERS_PER_TOKEN
        while True:
            stop = min(start + min(size, max_size), text_stop)
            spans = self._locate(text, start, stop)
            if len(spans) > self._limit:
                stop = max(spans[self._limit - 1][1], start + 1)
            elif stop < text_stop and size < max_size:
                size *= _GROWTH
                continue
            return stop

    def _fit(
        self, text: str, start: int, reach: int, previous_stop: int, text_stop: int
    ) -> tuple[int, list[tuple[int, int]]] | None:
        """Return the end of the chunk at ``start`` and the places of its tokens.

        The tokens at the end of a prefix may differ from those of a chunk that ends there, so the chunk is encoded,
        and shortened if it has too many. The result is None if an overlap leaves no room for more text or for a word.
        """
        minimum = self._skip_blanks(text, max(start, previous_stop)) + 1
        while True:
            if self._trims:
                reach = skip_blanks_back(text, reach, start + 1)
            if reach < minimum:
                return None
            stop = reach if reach == text_stop else self._choose_stop(text, start, reach, minimum)
            if stop is None and start < previous_stop and text[previous_stop].isspace():
                return None  # without the overlap, the next word may fit
            if stop is None:
                stop = step_out_of_character(text, minimum, reach)
            spans = self._locate(text, start, stop)
            if len(spans) <= self._limit or stop == start + 1:
                return stop, spans
            reach = min(spans[self._limit - 1][1], stop - 1, reach - 1)
            if start >= previous_stop:
                reach = max(reach, minimum)

    def _choose_stop(self, text: str, start: int, reach: int, minimum: int) -> int | None:
        """Return the best place from ``minimum`` to ``reach`` for the end of a chunk; None if no word ends there."""
        half = max(minimum, start + (reach - start) // 2)
        stop = (
            _find_paragraph_end(text, half, reach)
            or _find_sentence_end(text, start, half, reach)
            or _find_word_end(text, minimum, reach)
        )
        if stop is None or self._trims:
            return stop
        return skip_blanks(text, stop, stop + self._limit * _MAX_CHARACTERS_PER_TOKEN)

    def _find_next_start(self, text: str, start: int, stop: int, spans: list[tuple[int, int]]) -> int:
        """Return the start of the chunk after the one from ``start`` to ``stop``."""
        after = self._skip_blanks(text, stop)
        if not self._token_overlap:
            return after
        index = max(len(spans) - self._token_overlap, 0)
        first = spans[index][0] if spans else stop
        if index and spans[index - 1][0] == first:  # the first character has more tokens than fit
            first += 1
        overlap_start = max(first, stop - self._token_overlap * _MAX_CHARACTERS_PER_TOKEN, start + 1)
        word = _WORD_START.search(text, overlap_start, stop)
        if word:
            return word.start()
        is_inside_word = not text[stop - 1].isspace() and not text[stop : stop + 1].isspace()
        return overlap_start if is_inside_word and overlap_start < stop else after


def _find_paragraph_end(text: str, minimum: int, maximum: int) -> int | None:
    """Return the last place of a range at which a blank line follows; None if there is none."""
    stop = None
    for match in _PARAGRAPH_END.finditer(text, minimum, maximum + 8):  # the blank line may come after the range
        stop = match.start()
    if stop is None:
        return None
    stop = skip_blanks_back(text, stop, minimum)
    return stop if stop <= maximum and not text[stop - 1].isspace() else None


def _find_sentence_end(text: str, start: int, minimum: int, maximum: int) -> int | None:
    """Return the last place of a range at which a sentence of the chunk at ``start`` ends; None if there is none."""
    places = [match.end() for match in SENTENCE_END.finditer(text, minimum, maximum + 1) if match.end() <= maximum]
    return next((place for place in reversed(places) if is_sentence_end(text, start, place)), None)


def _find_word_end(text: str, minimum: int, maximum: int) -> int | None:
    """Return the last place of a range at which white space follows a word; None if there is none."""
    stop = maximum
    if not text[stop : stop + 1].isspace():
        while stop > minimum and not text[stop - 1].isspace():
            stop -= 1
    stop = skip_blanks_back(text, stop, minimum)
    return stop if not text[stop - 1].isspace() and text[stop].isspace() else None
