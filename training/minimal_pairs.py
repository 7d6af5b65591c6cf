"""Make minimal pairs: a sentence and a copy whose meaning differs through one small change.

`negate`, `exchange`, `reorder`, `replace_with_opposite`, `renumber` and `rename` change sentences of any source by
rule. Each returns None if it finds nothing to change. The rules do not parse grammar, so a few copies are odd; that
matters little, because the target of each copy is the teacher's vector of exactly that copy.
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
    # Not at the beginning, because that is a question; "have" is an auxiliary only before a participle.
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


def negate(text: str, random: Random) -> str | None:
    """Add a negation to the sentence, or remove one."""
    for pattern, with_it in (
        (_NEGATED_AUXILIARY, r"\1"),
        (_CONTRACTED, r"\1"),
        *((re.compile(pattern, re.IGNORECASE), without) for pattern, without in _IRREGULAR_CONTRACTIONS.items()),
        (_NEVER, ""),
        (_THERE_IS_NO, r"there \1 some"),
    ):
        if pattern.search(text):
            return _copy_capitalization(text, pattern.sub(with_it, text, count=1))
    if _THERE_IS.search(text):
        return _copy_capitalization(text, _THERE_IS.sub(r"there \1 no", text, count=1))
    if found := _TO_NEGATE.search(text):
        return f"{text[: found.end()]} not{text[found.end() :]}"
    if found := _ATTITUDE.search(text):
        return text[: found.end()] + random.choice(("do not ", "don't ")) + text[found.end() :]
    return None


def exchange(text: str, random: Random) -> str | None:
    """Exchange two nouns or two names of the sentence."""
    nouns = [match.span("noun") for match in _NOUN.finditer(text) if match["noun"].lower() not in _NOT_NOUNS]
    names = [match.span() for match in _match_names(text)]
    pairs = [
        (first, second)
        for spans in (nouns, names)
        for first, second in combinations(spans, 2)
        if text[slice(*first)].lower() != text[slice(*second)].lower() and text[first[1] : second[0]] not in _LISTED
    ]
    if not pairs:
        return None
    (a, b), (c, d) = random.choice(pairs)
    return _fix_articles(text[:a] + text[c:d] + text[b:c] + text[a:b] + text[d:])


_LISTED = (" and ", " or ", ", ", ", and ")  # items of a list can be exchanged without changing the meaning


def reorder(text: str, random: Random) -> str | None:
    """Reverse a temporal order, a direction or a comparison in the sentence."""
    if found := _FROM_TO.search(text):
        return f"{text[: found.start()]}from {found['second']} to {found['first']}{text[found.end() :]}"
    if found := _TIME_WORDS.search(text):
        return text[: found.start()] + _find_opposite(found[0]) + text[found.end() :]
    if found := _THAN.search(text):
        other = {"fewer": "more", "greater": "smaller"}.get(found[0]) or _find_opposite(found[0])
        return text[: found.start()] + other + text[found.end() :]
    return None


def replace_with_opposite(text: str, random: Random) -> str | None:
    """Replace one word of the sentence with its opposite."""
    found = [match for match in _WORD.finditer(text) if match[0].lower() in _OPPOSITES]
    if not found:
        return None
    word = random.choice(found)
    return text[: word.start()] + _find_opposite(word[0]) + text[word.end() :]


def renumber(text: str, random: Random) -> str | None:
    """Replace a number with another one of as many digits, or a number word with another one."""
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


def rename(text: str, names: list[str], random: Random) -> str | None:
    """Replace one name in the sentence with one of ``names``."""
    found = _match_names(text)
    if not found:
        return None
    name, other = random.choice(found), random.choice(names)
    return None if name[0] == other else text[: name.start()] + other + text[name.end() :]


def find_names(text: str) -> list[str]:
    """Return the names of one or more capitalized words, except at the beginning of a sentence."""
    return [match[0] for match in _match_names(text)]


def make_families(bases: list[str], most: dict[str, int], random: Random) -> dict[str, list[list[str]]]:
    """Make up to ``most[change]`` families for each change.

    A family is a sentence, its copy with that change, and up to two copies with other changes.
    """
    names = [name for base in bases for name in find_names(base)]
    changes: dict[str, Change] = {
        "negation": negate,
        "roles": exchange,
        "order": reorder,
        "opposites": replace_with_opposite,
        "numbers": renumber,
        "names": lambda text, random: rename(text, names, random),
    }
    made: dict[str, list[list[str]]] = {change: [] for change in most}
    for base in random.sample(bases, len(bases)):
        copies = {change: copy for change, make in changes.items() if (copy := make(base, random)) not in (None, base)}
        wanted = [change for change in most if change in copies and len(made[change]) < most[change]]
        if wanted:
            change = min(wanted, key=lambda one: len(made[one]) / most[one])  # the change that lacks the most families
            others = [copy for other, copy in copies.items() if other != change]
            made[change].append([base, copies[change], *random.sample(others, min(2, len(others)))])
    return made


def _match_names(text: str) -> list[re.Match[str]]:
    return [match for match in _NAME.finditer(text) if match[0] not in _DAYS_AND_MONTHS]


def _find_opposite(word: str) -> str:
    other = _OPPOSITES[word.lower()]
    return other.capitalize() if word[0].isupper() else other


def _copy_capitalization(text: str, other: str) -> str:
    return other[0].upper() + other[1:] if text[0].isupper() else other


def _fix_articles(text: str) -> str:
    """Choose "a" or "an" to fit the word that follows."""
    text = re.sub(r"\b(a) (?=[aeio])", r"\1n ", text, flags=re.IGNORECASE)
    return re.sub(r"\b(a)n (?=[bcdfgjklmnpqrstvwxyz])", r"\1 ", text, flags=re.IGNORECASE)
