"""Minimal pairs: a sentence and its copy with one small change that changes what it says.

`negated`, `exchanged`, `reordered`, `opposed`, `renumbered` and `renamed` make the change by rule, on sentences of any
source. Each returns None if it finds nothing to change. The rules know no grammar, so a few copies are odd; the teacher
judges every copy as it is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from random import Random

Change = Callable[[str, Random], str | None]

_WORDS = json.loads(Path(__file__).with_suffix(".json").read_text("utf-8"))

_AUXILIARY = r"is|are|was|were|can|could|will|would|should|must|may|might|do|does|did|has|have|had"
_NEGATED_AUXILIARY = re.compile(rf"\b({_AUXILIARY}) not\b", re.IGNORECASE)
_CONTRACTED = re.compile(
    r"\b(is|are|was|were|could|would|should|must|do|does|did|has|have|had)n['’]?t\b", re.IGNORECASE
)
_IRREGULAR_CONTRACTIONS = {r"\bcan['’]?t\b": "can", r"\bcannot\b": "can", r"\bwon['’]t\b": "will"}
_NEVER = re.compile(r"\bnever ", re.IGNORECASE)
_THERE_IS_NO = re.compile(r"\bthere (is|are|was|were) no\b", re.IGNORECASE)
_THERE_IS = re.compile(r"\bthere (is|are|was|were) (?:an?|some|many|several|two|three)\b", re.IGNORECASE)
_TO_NEGATE = re.compile(
    # Not at the beginning, where it asks; "have" and "do" are auxiliaries only before a participle or a verb.
    r"(?<=\w )(?:is|are|was|were|can|could|will|would|should|must|may|might|(?:has|have|had)(?= (?:been|\w+ed)\b))"
    r"(?! not\b| n['’]t)(?=[ ,.])"
)
_ATTITUDE = re.compile(
    r"(?:^|[.,;!?] |\b(?:and|but|that|because) )(?:i|we|you|they) "
    r"(?=(?:like|love|want|need|think|know|believe|agree|understand|remember|care|see|mean|play|watch|"
    r"eat|drink|read|use|work|live|go|get|have) )",
    re.IGNORECASE,
)

_FUNCTION_WORD = (
    r"of|in|on|at|to|for|from|with|by|as|than|into|onto|over|under|after|before|between|during|while|when|where|that|"
    r"which|who|whose|but|is|are|was|were|has|have|had|will|would|can|could|should|may|might|must|do|does|did|about|"
    r"against|through|near|behind|because|if"
)
_NOUN = re.compile(
    r"\b(?P<article>the|an?|his|her|its|their|our|my|your|this|that|one|some|every|each) (?P<noun>[a-z]{3,})"
    rf"(?= (?:{_FUNCTION_WORD}|\w\w+ed)\b|[,.;:?!]|$)",
    re.IGNORECASE,
)
_NOT_NOUNS = frozenset(_WORDS["not nouns"])
_NAME = re.compile(r"(?<=[a-z,] )[A-Z][a-z]{2,}(?: [A-Z][a-z]+)*\b")
_DAYS_AND_MONTHS = frozenset(_WORDS["days and months"])

_FROM_TO = re.compile(r"\bfrom (?P<first>(?:the )?\w{4,}) to (?P<second>(?:the )?\w{4,})\b")
_TIME_WORDS = re.compile(r"\b(before|after)\b", re.IGNORECASE)
_THAN = re.compile(r"\b(more|less|fewer|greater|higher|lower|larger|smaller|better|worse|older|younger)(?=\b.* than\b)")

_OPPOSITES = dict(_WORDS["opposites"])
_OPPOSITES |= {second: first for first, second in _OPPOSITES.items() if second not in _OPPOSITES}
_WORD = re.compile(r"[A-Za-z]+")

_DIGITS = re.compile(r"\d+")
_NUMBER_WORDS = _WORDS["numbers"]
_NUMBER_WORD = re.compile(rf"\b(?:{'|'.join(_NUMBER_WORDS)})\b", re.IGNORECASE)


def negated(text: str, random: Random) -> str | None:
    """The sentence with a "not" more, or with one less."""
    for pattern, with_it in (
        (_NEGATED_AUXILIARY, r"\1"),
        (_CONTRACTED, r"\1"),
        *((re.compile(pattern, re.IGNORECASE), without) for pattern, without in _IRREGULAR_CONTRACTIONS.items()),
        (_NEVER, ""),
        (_THERE_IS_NO, r"there \1 some"),
    ):
        if pattern.search(text):
            return _capitalized_as(text, pattern.sub(with_it, text, count=1))
    if _THERE_IS.search(text):
        return _capitalized_as(text, _THERE_IS.sub(r"there \1 no", text, count=1))
    if found := _TO_NEGATE.search(text):
        return f"{text[: found.end()]} not{text[found.end() :]}"
    if found := _ATTITUDE.search(text):
        return text[: found.end()] + random.choice(("do not ", "don't ")) + text[found.end() :]
    return None


def exchanged(text: str, random: Random) -> str | None:
    """The sentence with two of its nouns, or two of its names, in each other's place."""
    nouns = [match.span("noun") for match in _NOUN.finditer(text) if match["noun"].lower() not in _NOT_NOUNS]
    names = [match.span() for match in _names(text)]
    pairs = [
        (first, second)
        for spans in (nouns, names)
        for first, second in combinations(spans, 2)
        if text[slice(*first)].lower() != text[slice(*second)].lower() and text[first[1] : second[0]] not in _LISTED
    ]
    if not pairs:
        return None
    (a, b), (c, d) = random.choice(pairs)
    return _with_articles(text[:a] + text[c:d] + text[b:c] + text[a:b] + text[d:])


_LISTED = (" and ", " or ", ", ", ", and ")  # what these join may change places without changing what is said


def reordered(text: str, random: Random) -> str | None:
    """The sentence with time, direction or comparison turned round."""
    if found := _FROM_TO.search(text):
        return f"{text[: found.start()]}from {found['second']} to {found['first']}{text[found.end() :]}"
    if found := _TIME_WORDS.search(text):
        return text[: found.start()] + _opposite(found[0]) + text[found.end() :]
    if found := _THAN.search(text):
        other = {"fewer": "more", "greater": "smaller"}.get(found[0]) or _opposite(found[0])
        return text[: found.start()] + other + text[found.end() :]
    return None


def opposed(text: str, random: Random) -> str | None:
    """The sentence with one word's opposite in its place."""
    found = [match for match in _WORD.finditer(text) if match[0].lower() in _OPPOSITES]
    if not found:
        return None
    word = random.choice(found)
    return text[: word.start()] + _opposite(word[0]) + text[word.end() :]


def renumbered(text: str, random: Random) -> str | None:
    """The sentence with another number of as many digits, or another number's word."""
    found = [*_DIGITS.finditer(text), *_NUMBER_WORD.finditer(text)]
    if not found:
        return None
    number = random.choice(found)
    if number[0].isdigit():
        digits = len(number[0])
        others = (str(random.randrange(10 ** (digits - 1), 10**digits)) for _ in range(20))
    else:
        others = iter(random.sample(_NUMBER_WORDS, 2))
    other = next((one for one in others if one != number[0].lower()), None)
    return None if other is None else text[: number.start()] + other + text[number.end() :]


def renamed(text: str, names: list[str], random: Random) -> str | None:
    """The sentence with one name replaced by one of ``names``."""
    found = _names(text)
    if not found:
        return None
    name, other = random.choice(found), random.choice(names)
    return None if name[0] == other else text[: name.start()] + other + text[name.end() :]


def names_in(text: str) -> list[str]:
    """Names of one or more capitalized words, those at the sentence's beginning left out."""
    return [match[0] for match in _names(text)]


def families(bases: list[str], most: dict[str, int], random: Random) -> dict[str, list[list[str]]]:
    """For each change, up to ``most[change]`` families: a sentence, its changed copy, and up to two other copies."""
    names = [name for base in bases for name in names_in(base)]
    changes: dict[str, Change] = {
        "negation": negated,
        "roles": exchanged,
        "order": reordered,
        "opposites": opposed,
        "numbers": renumbered,
        "names": lambda text, random: renamed(text, names, random),
    }
    made: dict[str, list[list[str]]] = {change: [] for change in most}
    for base in random.sample(bases, len(bases)):
        copies = {change: copy for change, make in changes.items() if (copy := make(base, random)) not in (None, base)}
        wanted = [change for change in most if change in copies and len(made[change]) < most[change]]
        if wanted:
            change = min(wanted, key=lambda one: len(made[one]) / most[one])  # the one that lacks the most sentences
            others = [copy for other, copy in copies.items() if other != change]
            made[change].append([base, copies[change], *random.sample(others, min(2, len(others)))])
    return made


def _names(text: str) -> list[re.Match[str]]:
    return [match for match in _NAME.finditer(text) if match[0] not in _DAYS_AND_MONTHS]


def _opposite(word: str) -> str:
    other = _OPPOSITES[word.lower()]
    return other.capitalize() if word[0].isupper() else other


def _capitalized_as(text: str, other: str) -> str:
    return other[0].upper() + other[1:] if text[0].isupper() else other


def _with_articles(text: str) -> str:
    """With "a" and "an" as the words after them want."""
    text = re.sub(r"\b(a) (?=[aeio])", r"\1n ", text, flags=re.IGNORECASE)
    return re.sub(r"\b(a)n (?=[bcdfgjklmnpqrstvwxyz])", r"\1 ", text, flags=re.IGNORECASE)
