"""Places in a text: where white space and characters end, and lengths in UTF-16 units, as Java counts."""

from __future__ import annotations

import re
import unicodedata

_NOT_BLANK = re.compile(r"\S")
_ZERO_WIDTH_JOINER = "\u200d"


def count_utf16_units(text: str) -> int:
    """Return the length of a text in UTF-16 units."""
    return len(text) if text.isascii() else len(text.encode("utf-16-le", "surrogatepass")) // 2


def skip_utf16_units(text: str, start: int, units: int) -> int:
    """Return the last place of a text that has at most so many UTF-16 units between ``start`` and it."""
    stop = min(start + units, len(text))
    while (excess := count_utf16_units(text[start:stop]) - units) > 0:
        stop -= (excess + 1) // 2  # a character has at most two units
    return stop


def skip_blanks(text: str, start: int, maximum: int) -> int:
    """Return the place of the first character from ``start`` on that is not white space; at most ``maximum``."""
    match = _NOT_BLANK.search(text, start, maximum)
    return match.start() if match else max(start, min(maximum, len(text)))


def skip_blanks_back(text: str, stop: int, minimum: int) -> int:
    """Return the place after the last character before ``stop`` that is not white space; at least ``minimum``."""
    while stop > minimum and text[stop - 1].isspace():
        stop -= 1
    return stop


def step_out_of_character(text: str, minimum: int, stop: int) -> int:
    """Return the last place in a range that is not inside an emoji or between a letter and its accents."""
    for place in range(stop, minimum - 1, -1):
        character = text[place]
        is_modifier = unicodedata.category(character)[0] == "M" or "\U0001f3fb" <= character <= "\U0001f3ff"
        if not is_modifier and _ZERO_WIDTH_JOINER not in text[place - 1 : place + 1]:
            return place
    return stop
