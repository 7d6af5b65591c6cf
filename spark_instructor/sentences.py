"""Finding the sentences of a text by rules, in linear time.

The rules are our own: pysbd, the best-known library without a model, has had no release since 2021 and is slow.
"""

from __future__ import annotations

import dataclasses
import heapq
import re
from collections.abc import Iterator
from typing import NamedTuple

from .characters import count_utf16_units, skip_blanks, skip_blanks_back, skip_utf16_units, step_out_of_character

STRATEGIES = ("none", "prepend", "append")
"""What happens to a custom bound: it is left out, it begins the next sentence, or it ends the one before it."""

# At most three closing quotes and brackets: with any number of them, a long run would take quadratic time.
SENTENCE_END = re.compile(r"(?<=[.!?…؟۔।॥])[\"'”’»)\]]{0,3}(?=\s)|[。！？｡]+[\"'”’」』】》）)]{0,3}")
"""A match ends where a sentence may end: before white space, or anywhere after a full stop of Chinese or Japanese."""

_BLANK_LINE = re.compile(r"(?<=\n)[^\S\n]*\n")
_LIST_ITEM = re.compile(r"(?<=\n)(?=[^\S\n]{0,20}(?:[-*•–]|(?:\d{1,3}|[a-z])[.)]|[A-Z]\))[^\S\n])")
_ITEM_NUMBER = re.compile(r"\(?(?:\d{1,3}|[A-Za-z])[.)]{1,2}")
_LAST_WORD = re.compile(r"[^\s\"'“‘«(\[]+\Z")
_NEXT_WORD = re.compile(r"\s*[\"'“‘«(\[]{0,3}(\w+)")
_LONE_MARK = re.compile(r"\s+[.!?…]{1,9}(?!\S)")
_INITIALS = re.compile(r"(?:[^\W\d_]\.)+")  # J. and U.S. and e.g.
_CLOSERS = "\"'”’»)]」』】》）"
_MAX_WORD = 40  # only so many characters are read in front of a full stop, so that the time is linear

_NEVER_LAST = frozenset([
    "adm", "brig", "capt", "cf", "cmdr", "comdr", "cpl", "dr", "eg", "esp", "gov", "hon", "ie", "lt", "maj", "messrs",
    "mlle", "mme", "mr", "mrs", "ms", "msgr", "nos", "pp", "pres", "prof", "pvt", "reps", "rev", "sen", "sens", "sgt",
    "supt", "viz", "vs",
])  # fmt: skip
"""Abbreviations after which a sentence goes on, in lower case and without their full stops."""

_OFTEN_LAST = frozenset([
    "al", "approx", "apr", "art", "assn", "aug", "ave", "blvd", "bros", "ch", "chap", "co", "col", "corp", "dec",
    "dept", "ed", "eds", "eq", "eqs", "est", "etc", "ex", "ext", "feb", "fig", "figs", "gen", "inc", "incl", "jan",
    "jr", "jul", "jun", "ltd", "mar", "mfg", "misc", "mt", "nov", "oct", "op", "phd", "plc", "pt", "rd", "rep", "sec",
    "sect", "sep", "sept", "sr", "st", "tab", "univ", "vol", "vols",
])  # fmt: skip
"""Abbreviations that end a sentence only if the next word often begins one."""

_STARTERS = frozenset([
    "A", "According", "After", "All", "Although", "An", "And", "Another", "Are", "As", "At", "Because", "Before",
    "Both", "But", "By", "Can", "Do", "Does", "Each", "For", "From", "Had", "Has", "He", "Her", "His", "How",
    "However", "I", "If", "In", "Is", "It", "Its", "Many", "Most", "My", "No", "Not", "Of", "On", "One", "Our", "She",
    "Since", "So", "Some", "That", "The", "Their", "Then", "There", "These", "They", "This", "Those", "Though", "Thus",
    "To", "Today", "Was", "We", "Were", "What", "When", "Where", "Which", "While", "Who", "Why", "With", "Yes", "Yet",
    "You", "Your",
])  # fmt: skip
"""Words that often begin a sentence."""


class Sentence(NamedTuple):
    """A sentence of a text."""

    text: str
    begin: int
    """Index of the first character in the text, in UTF-16 units as Java counts."""
    end: int
    """Index of the last character in the text, in UTF-16 units."""


@dataclasses.dataclass(frozen=True)
class SentenceFinder:
    """Finds the sentences of texts; the fields are the Params of `SentenceDetector`."""

    custom_bounds: tuple[str, ...] = ()
    use_custom_bounds_only: bool = False
    custom_bounds_strategy: str = "none"
    use_abbreviations: bool = True
    detect_lists: bool = True
    split_length: int | None = None
    min_length: int = 0
    max_length: int | None = None

    def find(self, text: str) -> Iterator[Sentence]:
        """Yield the sentences of a text in order, without the white space around them; none if the text is blank."""
        previous = begin = 0
        for start, stop in self._locate(text):
            for piece_start, piece_stop in self._cut_long(text, start, stop):
                piece = text[piece_start:piece_stop]
                begin += count_utf16_units(text[previous:piece_start])
                previous = piece_start
                length = count_utf16_units(piece)
                if self.min_length <= length and (self.max_length is None or length <= self.max_length):
                    yield Sentence(piece, begin, begin + length - 1)

    def _locate(self, text: str) -> Iterator[tuple[int, int]]:
        """Yield the start of each sentence and the place after it."""
        for start, stop in self._cut_at_custom_bounds(text):
            start = skip_blanks(text, start, stop)
            for place, is_certain in self._list_places(text, start, stop):
                if place > start and (
                    is_certain or is_sentence_end(text, start, place, self.use_abbreviations, self.detect_lists)
                ):
                    yield start, skip_blanks_back(text, place, start)
                    start = skip_blanks(text, place, stop)

    def _cut_at_custom_bounds(self, text: str) -> Iterator[tuple[int, int]]:
        """Yield the ranges of a text between its custom bounds; of bounds that overlap, only the first counts."""
        start = previous = 0
        matches = [re.finditer(pattern, text) for pattern in self.custom_bounds]
        for bound in heapq.merge(*matches, key=re.Match.start):
            if bound.start() >= previous:
                previous = bound.end()
                yield start, bound.end() if self.custom_bounds_strategy == "append" else bound.start()
                start = bound.start() if self.custom_bounds_strategy == "prepend" else bound.end()
        yield start, len(text)

    def _list_places(self, text: str, start: int, stop: int) -> list[tuple[int, bool]]:
        """Return the places of a range at which a sentence may end, and whether it certainly does."""
        places = [(stop, True)]
        if not self.use_custom_bounds_only:
            places += [(match.end(), False) for match in SENTENCE_END.finditer(text, start, stop)]
            places += [(match.start(), True) for match in _BLANK_LINE.finditer(text, start, stop)]
            if self.detect_lists:
                places += [(match.start(), True) for match in _LIST_ITEM.finditer(text, start, stop)]
        return sorted(places)

    def _cut_long(self, text: str, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """Yield a sentence in pieces of at most ``split_length``; a word is cut only if it is longer than that."""
        if self.split_length is not None:
            while (reach := max(skip_utf16_units(text, start, self.split_length), start + 1)) < stop:
                place = reach
                while place > start and not text[place].isspace():
                    place -= 1
                if place == start:
                    place = step_out_of_character(text, start + 1, reach)
                yield start, skip_blanks_back(text, place, start)
                start = skip_blanks(text, place, stop)
        yield start, stop


def is_sentence_end(
    text: str, start: int, place: int, use_abbreviations: bool = True, detect_lists: bool = True
) -> bool:
    """Return whether the sentence that begins at ``start`` ends at ``place``, where a match of `SENTENCE_END` ends."""
    before = text[max(start, place - _MAX_WORD) : place]
    if detect_lists and _ITEM_NUMBER.fullmatch(text, start, place):
        return False
    if _LONE_MARK.match(text, place, place + _MAX_WORD):  # So . . . what?
        return False
    following = _NEXT_WORD.match(text, place, place + _MAX_WORD)
    next_word = following[1] if following else ""
    if before[-1] in _CLOSERS or before.endswith(("…", "..", ". .")):  # "Really?" he asked. Wait... what?
        return not next_word[:1].islower()
    if before[-1] != ".":
        return True
    match = _LAST_WORD.search(before)
    word = match[0] if match else ""
    if _INITIALS.fullmatch(word):
        return next_word in _STARTERS and not (len(word) == 2 and next_word in ("A", "I"))
    if not use_abbreviations:
        return True
    abbreviation = word[:-1].replace(".", "").lower()
    if abbreviation == "no":
        return not next_word[:1].isdigit()
    return abbreviation not in _NEVER_LAST and (abbreviation not in _OFTEN_LAST or next_word in _STARTERS)
