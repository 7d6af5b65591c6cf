"""Compose sentences from this project's own phrases (phrases.json): task dialogues, scenes and headlines.

The open sources contain few texts of these kinds. The sentences come in families of four that differ in one part, so
that each batch contains similar texts with graded similarities from the teacher. Each `Sentence` has its parts as
facets.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

FAMILY = 4
_PHRASES = json.loads(Path(__file__).with_suffix(".json").read_text("utf-8"))


@dataclass(frozen=True)
class Sentence:
    text: str
    facets: dict[str, str] = field(default_factory=dict)


def compose_dialogue_families(random: Random, families: int) -> Iterator[list[Sentence]]:
    """Yield families of utterances: two others share the service with the first, and two share its speech act."""
    services, acts = list(_PHRASES["services"]), list(_PHRASES["acts"])
    for _ in range(families):
        service, act = random.choice(services), random.choice(acts)
        other_service, other_act = random.choice(services), random.choice(acts)
        yield [
            _compose_utterance(*parts, random)
            for parts in ((service, act), (service, other_act), (other_service, act), (service, act))
        ]


def _compose_utterance(service: str, act: str, random: Random) -> Sentence:
    phrases = _PHRASES["services"][service]
    text = random.choice(_PHRASES["acts"][act])
    one = phrases["one"]
    parts = _draw_fillers(random) | {
        "goal": random.choice(phrases["goals"]),
        "one": one,
        "a one": f"{'an' if one[0] in 'aeiou' else 'a'} {one}",
        "many": phrases["many"],
        "item": random.choice(phrases["items"]),
    }
    parts["question"], parts["question2"] = random.sample(phrases["questions"], 2)
    parts["detail"], parts["detail2"] = random.sample(phrases["details"], 2)
    parts["answer"], parts["answer2"] = random.sample(phrases["answers"], 2)
    return _fill(text, parts, {"service": service, "act": act}, random)


def compose_remark_families(random: Random, families: int) -> Iterator[list[Sentence]]:
    """Yield families of utterances that name no service, like most replies in a dialogue: two for each of two acts."""
    remarks: dict[str, list[str]] = _PHRASES["remarks"]
    for _ in range(families):
        acts = random.sample(list(remarks), 2)
        yield [_compose_remark(act, random) for act in acts * 2]


def _compose_remark(act: str, random: Random) -> Sentence:
    remarks = random.sample(_PHRASES["remarks"][act], 1 if random.random() < 0.7 else 2)
    return _fill(" ".join(remarks), _draw_fillers(random), {"act": act}, random)


def _draw_fillers(random: Random) -> dict[str, str]:
    """Draw two cities, days, ... that any utterance may name."""
    drawn = {name: random.sample(values, 2) for name, values in _PHRASES["fillers"].items()}
    return {
        f"{name}{number}": value for name, pair in drawn.items() for number, value in zip(("", "2"), pair, strict=True)
    }


def _fill(text: str, parts: dict[str, str], facets: dict[str, str], random: Random) -> Sentence:
    """Replace the names in braces by their parts; a city, day, time or person that stands alone becomes a facet."""
    used = set()
    while match := re.search(r"\{([\w ]+)\}", text):
        used.add(match[1])
        text = text[: match.start()] + parts[match[1]] + text[match.end() :]
    single = (name for name in ("city", "day", "time", "person") if name in used and f"{name}2" not in used)
    return Sentence(_imitate_typing(text, random), facets | {name: parts[name] for name in single})


def _imitate_typing(text: str, random: Random) -> str:
    """Vary the text as people type it.

    It may lack the capital at the beginning, the final punctuation or the apostrophes, and it may begin with a filler.
    """
    text = text[0].upper() + text[1:] if random.random() < 0.7 else text
    if random.random() < 0.3:
        text = text.rstrip(".?")
    if random.random() < 0.1:
        text = text.replace("'", "")
    return random.choice(_PHRASES["openers"]) + text if random.random() < 0.12 else text


def compose_scene_families(random: Random, families: int) -> Iterator[list[Sentence]]:
    """Yield families of captions: one changes who is shown, one what they do, and one the place or the wording."""
    phrases = _PHRASES["scenes"]
    people = (phrases["people"], phrases["deeds"], phrases["places"], phrases["frames"])
    animals = (phrases["animals"], phrases["animal deeds"], phrases["places"], phrases["frames"])
    things = (phrases["things"], [""], phrases["thing places"], phrases["thing frames"])
    for _ in range(families):
        whos, deeds, places, frames = random.choice((people, people, animals, things))
        who, deed, place = random.choice(whos), random.choice(deeds), random.choice(places)
        family = [(who, deed, place), (random.choice(whos), deed, place), (who, random.choice(deeds), place)]
        family.append((who, deed, random.choice((place, random.choice(places)))))
        yield [_compose_scene(*parts, random.choice(frames)) for parts in family]


def _compose_scene(who: str, deed: str, place: str, frame: str) -> Sentence:
    text = frame.format(who=who, deed=deed, place=place)
    if re.match("two |three |some |several |a couple", who):
        text = text.replace(" is ", " are ", 1)
    facets = {"who": who}
    facets |= {"deed": deed} if deed else {}
    facets |= {"place": place} if "{place}" in frame else {}
    return Sentence(text[0].upper() + text[1:], facets)


def compose_headline_families(random: Random, families: int, countries: list[str]) -> Iterator[list[Sentence]]:
    """Yield families of headlines: each headline is the previous one with one part drawn again."""
    phrases = _PHRASES["headlines"]
    draws = {
        "country": lambda: random.choice(countries),
        "country2": lambda: random.choice(countries),
        "actor": lambda: random.choice(phrases["actors"]),
        "n": lambda: str(random.randint(2, 60)),
        "company": lambda: random.choice(phrases["companies"]),
        "moved": lambda: random.choice(phrases["moves"]),
        "price": lambda: f"{random.randint(5, 120)}.{random.randint(10, 99)}",
        "quarter": lambda: random.choice(("first", "second", "third", "fourth")),
    }
    for _ in range(families):
        kind = random.choice(("politics", "politics", "disaster", "business"))
        event = {name: random.choice(phrases[name]) for name in ("politics", "disaster", "business")}[kind]
        frame = "{country} {actor} " + event if kind == "politics" else event
        parts = {name: draw() for name, draw in draws.items()}
        used = [name for name in parts if f"{{{name}}}" in frame]
        sentences = []
        for _ in range(FAMILY):
            text = frame.format(**parts)
            facets = {"kind": kind, "event": event} | {
                name: parts[name] for name in ("country", "company") if name in used
            }
            sentences.append(Sentence(text[0].upper() + text[1:], facets))
            changed = random.choice(used)
            parts[changed] = draws[changed]()
        yield sentences


@dataclass(frozen=True)
class Contrast:
    """A sentence, one that follows from it, and two that share its words and contradict it."""

    kind: str
    premise: str
    entailed: str
    contradicted: list[str]

    @property
    def texts(self) -> list[str]:
        return [self.premise, self.entailed, *self.contradicted]


def compose_contrasts(random: Random, number: int) -> Iterator[Contrast]:
    """Yield contrasts about two participants, two events, two places or a scene."""
    kinds = {
        "deeds": _compose_deed,
        "exchanges": _compose_exchange,
        "events": _compose_events,
        "routes": _compose_route,
        "scenes": _compose_scene_contrast,
    }
    for _ in range(number):
        (kind,) = random.choices(list(kinds), (3, 2, 1, 1, 3))
        premise, entailed, contradicted = kinds[kind](_PHRASES["encounters"], random)
        full = random.random() < 0.7  # with capitals and periods, or with neither
        texts = (f"{text[0].upper()}{text[1:]}." if full else text for text in (premise, entailed, *contradicted))
        yield Contrast(kind, next(texts), next(texts), list(texts))


_Told = tuple[str, str, list[str]]


def _compose_deed(phrases: dict[str, Any], random: Random) -> _Told:
    """Contrast active and passive, which mean the same, with exchanged participants and a negation, which do not."""
    article, other_article = random.choice((("the", "the"), ("a", "a"), ("the", "a"), ("a", "the")))
    first, second = random.sample(phrases["agents"], 2)
    a, b = _add_article(article, first), _add_article(other_article, second)
    base, third, past, participle, gerund = random.choice(phrases["deeds"]).split("/")
    active, passive, negated = random.choice(
        (
            (f"{{}} {third} {{}}", f"{{}} is {participle} by {{}}", f"{{}} does not {base} {{}}"),
            (f"{{}} {past} {{}}", f"{{}} was {participle} by {{}}", f"{{}} did not {base} {{}}"),
            (f"{{}} is {gerund} {{}}", f"{{}} is being {participle} by {{}}", f"{{}} is not {gerund} {{}}"),
            (f"{{}} has {participle} {{}}", f"{{}} has been {participle} by {{}}", f"{{}} has not {participle} {{}}"),
        )
    )
    contradicted = [active.format(b, a), random.choice((negated.format(a, b), passive.format(a, b)))]
    return active.format(a, b), passive.format(b, a), contradicted


def _compose_exchange(phrases: dict[str, Any], random: Random) -> _Told:
    """Contrast two verbs for one exchange, such as sell and buy, with exchanged participants."""
    here, there = random.choice(phrases["exchanges"])
    if random.random() < 0.5:
        a, b = (f"the {one}" for one in random.sample(phrases["agents"], 2))
    else:
        a, b = random.sample(_PHRASES["fillers"]["person"], 2)
    thing = random.choice(phrases["things"])
    same, *turned = (
        frame.format(a=one, b=other, thing=thing) for frame, one, other in ((there, a, b), (here, b, a), (there, b, a))
    )
    return here.format(a=a, b=b, thing=thing), same, turned


def _compose_events(phrases: dict[str, Any], random: Random) -> _Told:
    """Contrast two wordings of the order of two events with its reversal."""
    first, second = (" ".join(event) for event in random.sample(phrases["events"], 2))
    same_order = [f"{first} before {second}", f"{second} after {first}"]
    same_order += [f"before {second}, {first}", f"after {first}, {second}"]
    premise, same = random.sample(same_order, 2)
    turned = [f"{second} before {first}", f"{first} after {second}", f"before {first}, {second}"]
    return premise, same, random.sample(turned, 2)


def _compose_route(phrases: dict[str, Any], random: Random) -> _Told:
    """Contrast two wordings of a trip between two cities with the trip back."""
    x, y = random.sample(_PHRASES["fillers"]["city"], 2)
    mover, there, again = (random.choice(phrases[name]) for name in ("movers", "routes", "returns"))
    here, same, turned, other = (
        frame.format(mover=mover, x=one, y=another)
        for frame, one, another in ((there, x, y), (again, x, y), (there, y, x), (again, y, x))
    )
    return here, same, [turned, other]


def _compose_scene_contrast(phrases: dict[str, Any], random: Random) -> _Told:
    """Contrast a caption that follows from another with two that deny it."""
    scenes = _PHRASES["scenes"]
    who = random.choice(list(phrases["broader"]))
    deed = random.choice(scenes["deeds"] if who in scenes["people"] else scenes["animal deeds"])
    place = random.choice(scenes["places"])
    be = "are" if re.match("two|some", who) else "is"
    broader = phrases["broader"][who]
    bare = re.sub("^(?:an?|some) ", "", who)
    entailed = random.choice(
        (f"{broader} {be} {deed}", f"{broader} {be} {deed} {place}", f"there {be} {broader} {deed}", f"{who} {deed}")
    )
    contradicted = [
        f"{who} {be} not {deed} {place}",
        f"there {be} no {bare} {deed} {place}",
        f"nobody is {deed} {place}",
    ]
    return f"{who} {be} {deed} {place}", entailed, random.sample(contradicted, 2)


def _add_article(article: str, noun: str) -> str:
    return f"an {noun}" if article == "a" and noun[0] in "aeiou" else f"{article} {noun}"
