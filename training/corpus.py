"""Build the corpus of a run: each text once, as token ids, and the groups of texts that training draws.

    python training/corpus.py DATA RUN

The script reads the open training files of ``DATA`` and ``RUN/spiece.model``, and writes ``RUN/corpus/``: texts.jsonl,
tokens.npy with offsets.npy, and draws.json. The last refers to texts by their row numbers:

- families: for each source, groups of up to four rows with similar texts, for distillation;
- pairs: for each source, its instructions and row pairs of question and passage, title and abstract, ...;
- facets: for each source, rows and the labels of each row by facet, for the grids;
- contrasts: for each kind, four rows: a sentence, one that follows from it, and two that contradict it;
- held_out: pairs, facets, contrasts and changed sentences (each with its copy) in the same form. Training never draws
  these; `score.py` uses them.
"""

from __future__ import annotations

import argparse
import gzip
import json
import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from random import Random
from typing import Any
from zlib import crc32

import facets
import minimal_pairs
import numpy as np
import numpy.typing as npt
import sentencepiece
from phrases import (
    FAMILY,
    Contrast,
    Sentence,
    compose_contrasts,
    compose_dialogue_families,
    compose_headline_families,
    compose_remark_families,
    compose_scene_families,
)

MAX_FAMILIES_PER_SOURCE = 6_000  # 24,000 texts; not all, because the teacher must embed each one
VARIED_SENTENCES = 20_000
MINIMAL_PAIRS = {
    "negation": 14_000,
    "roles": 12_000,
    "order": 5_000,
    "opposites": 8_000,
    "numbers": 5_000,
    "names": 5_000,
}
CONTRASTS = 20_000
COMPOSED_FAMILIES = {"dialogues": 10_000, "captions": 10_000, "headlines": 5_000, "remarks": 3_000}
FACET_TEXTS_PER_SOURCE = 20_000
HELD_OUT = 20  # one text or pair in this many is held out
_SHORT_SOURCES = (
    "disflqa",
    "fewrel",
    "goemotions",
    "medquad",
    "movie_reviews",
    "nltk-state_union",
    "openstax-philschatz",
    "selfdialogue",
    "sentence_polarity",
    "taskmaster",
    "triviaqa-questions",
    "wordnet",
)

# The facets that rules add to each source, besides those that the source is labeled with.
_RULES: dict[str, tuple[str, ...]] = {
    "acl": ("paper_topic", "paper_role"),
    "clinc150": ("form", "act", "person"),
    "disflqa": ("question_word", "tense"),
    "fewrel": ("tense", "numbers"),
    "goemotions": ("form", "person", "tense", "negation"),
    "hwu64": ("form", "act", "when"),
    "movie_reviews": ("film_aspect", "person", "form", "negation"),
    "pros_cons": ("product_aspect", "length"),
    "selfdialogue": ("chat_topic", "act", "person", "tense"),
    "sentence_polarity": ("film_aspect", "negation", "person"),
    "snips": ("form", "act", "when"),
    "taskmaster": ("chat_topic", "act", "form", "numbers"),
    "tldr": ("command_action", "command_object"),
    "triviaqa-questions": ("trivia_topic", "question_word"),
}
# Rules that apply to every source, for grids whose other facet is the source itself.
_COMMON_RULES = ("form", "person", "tense", "negation", "numbers", "length", "question_word")


class Corpus:
    """A corpus that this script has written."""

    def __init__(self, run: Path) -> None:
        folder = run / "corpus"
        with (folder / "texts.jsonl").open(encoding="utf-8") as file:
            self.texts: list[str] = [json.loads(line) for line in file]
        self._tokens = np.load(folder / "tokens.npy", mmap_mode="r")
        self._offsets = np.load(folder / "offsets.npy")
        self.draws: dict[str, Any] = json.loads((folder / "draws.json").read_text("utf-8"))
        self._processor = sentencepiece.SentencePieceProcessor(model_file=str(run / "spiece.model"))
        self._instruction_tokens = lru_cache(maxsize=1 << 16)(self.encode)

    def tokens(self, row: int) -> npt.NDArray[np.uint16]:
        """Return the token ids of a text in the corpus, without ``</s>``."""
        return self._tokens[self._offsets[row] : self._offsets[row + 1]]

    def pieces(self) -> list[str]:
        """Return the pieces of the vocabulary as text."""
        processor = self._processor
        return [processor.id_to_piece(i).replace("▁", " ").strip() for i in range(processor.vocab_size())]

    def encode(self, text: str) -> npt.NDArray[np.uint16]:
        """Return the token ids of any text, without ``</s>``."""
        return np.array(self._processor.encode(text), np.uint16)

    def encode_with_instruction(
        self, instruction: str, text: str
    ) -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.uint16]]:
        """Tokenize an instruction and a text together, and return the ids of each.

        The ids are split after as many tokens as the instruction has on its own.
        """
        before = self._instruction_tokens(instruction)
        both = self.encode(instruction + text)
        return both[: len(before)], both[len(before) :]

    def encode_row(self, instruction: str, row: int) -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.uint16]]:
        """Return the same ids for a text of the corpus.

        Its stored tokens are used unless the end of the instruction can merge with the beginning of the text.
        """
        if instruction and not instruction.endswith(" "):
            return self.encode_with_instruction(instruction, self.texts[row])
        return self._instruction_tokens(instruction), self.tokens(row)


def read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a gzipped jsonl file."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        yield from map(json.loads, file)


class _Builder:
    """Collect texts, each once, and the groups that training draws from them."""

    def __init__(self, evaluated: set[str]) -> None:
        self._evaluated = evaluated
        self._rows: dict[str, int] = {}
        self.families: dict[str, list[list[int]]] = {}
        self.pairs: dict[str, dict[str, Any]] = {}
        self.facets: dict[str, dict[str, Any]] = {}
        self.contrasts: dict[str, list[list[int]]] = {}
        self.held_out: dict[str, dict[str, Any]] = {"pairs": {}, "facets": {}, "contrasts": {}, "changed": {}}

    @property
    def texts(self) -> list[str]:
        return list(self._rows)

    def add_text(self, text: str) -> int:
        return self._rows.setdefault(text, len(self._rows))

    def add_families(self, source: str, families: Iterable[list[str]]) -> None:
        """Add families without the sentences that the evaluation uses, which may leave a family shorter."""
        for family in families:
            kept = [self.add_text(text) for text in dict.fromkeys(family) if _normalize(text) not in self._evaluated]
            if len(kept) > 1:
                self.families.setdefault(source, []).append(kept)

    def add_changed(self, change: str, families: Iterable[list[str]]) -> None:
        """Add families of a sentence, its changed copy and others; a held-out family keeps only the first two."""
        for family in families:
            if not _is_held_out(family[0]):
                self.add_families(change, [family])
            elif not self._evaluated.intersection(map(_normalize, family)):
                self.held_out["changed"].setdefault(change, []).append([self.add_text(text) for text in family[:2]])

    def add_contrast(self, contrast: Contrast) -> None:
        if not self._evaluated.intersection(map(_normalize, contrast.texts)):
            part = self.held_out["contrasts"] if _is_held_out(contrast.premise) else self.contrasts
            part.setdefault(contrast.kind, []).append([self.add_text(text) for text in contrast.texts])

    def add_pair(self, source: str, instructions: list[str], texts: tuple[str, str]) -> None:
        part = self.held_out["pairs"] if _is_held_out(texts[0]) else self.pairs
        group = part.setdefault(f"{source}: {instructions[0]}", {"instructions": instructions, "rows": []})
        group["rows"].append([self.add_text(text) for text in texts])

    def add_facets(self, source: str, sentences: Iterable[Sentence]) -> None:
        for sentence in sentences:
            if not sentence.facets or _normalize(sentence.text) in self._evaluated:
                continue
            part = self.held_out["facets"] if _is_held_out(sentence.text) else self.facets
            group = part.setdefault(source, {"rows": [], "labels": []})
            group["rows"].append(self.add_text(sentence.text))
            group["labels"].append(sentence.facets)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("run", type=Path)
    arguments = parser.parse_args()
    builder = build(arguments.data)
    _write(builder, arguments.run)


def build(data: Path) -> _Builder:
    builder = _Builder(set(_read_evaluation_sentences(data / "eval")))
    random = Random(0)
    texts: dict[str, list[str]] = {}
    for row in read_jsonl(data / "train" / "texts.open.jsonl.gz"):
        texts.setdefault(row["source"], []).append(row["text"])
    labeled: dict[str, list[Sentence]] = {}
    for row in read_jsonl(data / "train" / "labelled.open.jsonl.gz"):
        labeled.setdefault(row["source"], []).append(Sentence(row["text"], row["labels"]))

    for source, some in texts.items():
        neighbors = [some[i : i + FAMILY] for i in range(0, len(some), FAMILY)]
        builder.add_families(source, _sample(neighbors, MAX_FAMILIES_PER_SOURCE, random))
    bases = [text for source in _SHORT_SOURCES for text in texts[source] if 30 <= len(text) <= 160]
    builder.add_families("variants", _make_variants(_sample(bases, VARIED_SENTENCES, random), bases, random))
    for row in read_jsonl(data / "train" / "pairs.open.jsonl.gz"):
        builder.add_pair(row["source"], [row["instruction_a"], row["instruction_b"]], (row["text_a"], row["text_b"]))

    countries = sorted({sentence.facets["country"].title() for sentence in labeled["factbook"]})
    for source, families in {
        "dialogues": compose_dialogue_families(random, COMPOSED_FAMILIES["dialogues"]),
        "captions": compose_scene_families(random, COMPOSED_FAMILIES["captions"]),
        "headlines": compose_headline_families(random, COMPOSED_FAMILIES["headlines"], countries),
    }.items():
        composed = list(families)
        builder.add_families(source, ([sentence.text for sentence in family] for family in composed))
        builder.add_facets(source, {sentence.text: sentence for family in composed for sentence in family}.values())

    for source, rules in _RULES.items():
        known = labeled.get(source) or [Sentence(text) for text in texts[source] if len(text) <= 200]
        ruled = (_apply_rules(sentence, rules) for sentence in _sample(known, FACET_TEXTS_PER_SOURCE, random))
        builder.add_facets(source, map(_add_action, ruled))
    builder.add_facets("medquad questions", labeled["medquad"])
    builder.add_facets("factbook", labeled["factbook"])
    builder.add_facets("any source", _sample_sources(texts, random))

    for change, changed in minimal_pairs.make_families(bases, MINIMAL_PAIRS, random).items():
        builder.add_changed(change, changed)
    for contrast in compose_contrasts(random, CONTRASTS):
        builder.add_contrast(contrast)
    remarks = list(compose_remark_families(random, COMPOSED_FAMILIES["remarks"]))
    builder.add_families("remarks", ([sentence.text for sentence in family] for family in remarks))
    builder.add_facets("dialogues", {sentence.text: sentence for family in remarks for sentence in family}.values())
    return builder


def _read_evaluation_sentences(folder: Path) -> Iterator[str]:
    """Yield every text of the evaluation sets except those of CLINC150's training split."""
    for path in sorted(folder.glob("*.jsonl.gz")):
        if ".train." not in path.name or path.name.startswith("sts"):
            for row in read_jsonl(path):
                yield from (_normalize(row[name]) for name in ("a", "b", "text") if name in row)


def _normalize(text: str) -> str:
    return re.sub(r"\W+", " ", text.lower()).strip()


def _is_held_out(text: str) -> bool:
    return crc32(text.encode()) % HELD_OUT == 0


def _sample(items: list[Any], most: int, random: Random) -> list[Any]:
    return items if len(items) <= most else random.sample(items, most)


def _make_variants(bases: list[str], others: list[str], random: Random) -> Iterator[list[str]]:
    """Yield each sentence with three variants: words dropped, words replaced, and one half joined to part of another.

    Similarity benchmarks consist of pairs that share most of their words and still differ; random pairs of texts never
    do.
    """
    for base in bases:
        words, foreign = base.split(), random.choice(others).split()
        start = random.randrange(max(1, len(words) - 2))
        dropped = words[:start] + words[start + random.randint(1, 3) :]
        replaced = [random.choice(foreign) if random.random() < 0.2 else word for word in words]
        half = len(words) // 2
        joined = words[:half] + foreign[len(foreign) // 2 :] if random.random() < 0.5 else words[half:] + foreign[:4]
        yield [" ".join(some) for some in (words, dropped, replaced, joined)]


def _apply_rules(sentence: Sentence, rules: tuple[str, ...]) -> Sentence:
    found = {name: getattr(facets, name)(sentence.text) for name in rules}
    return Sentence(sentence.text, sentence.facets | {name: label for name, label in found.items() if label})


def _add_action(sentence: Sentence) -> Sentence:
    """Add the action as a facet to HWU64's sentences.

    Its intents are named scenario_action, such as calendar_set, and the same actions occur in several scenarios.
    """
    labels = dict(sentence.facets)
    if "scenario" in labels and "_" in labels["intent"]:
        labels["action"] = labels["intent"].split("_", 1)[1]
    return Sentence(sentence.text, labels)


def _sample_sources(texts: dict[str, list[str]], random: Random) -> Iterator[Sentence]:
    for source, some in texts.items():
        short = [text for text in some if len(text) <= 120]
        for text in _sample(short, 1500, random):
            yield _apply_rules(Sentence(text, {"kind of text": source}), _COMMON_RULES)


def _write(builder: _Builder, run: Path) -> None:
    folder = run / "corpus"
    folder.mkdir(exist_ok=True)
    texts = builder.texts
    with (folder / "texts.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(text, ensure_ascii=False) + "\n" for text in texts)
    processor = sentencepiece.SentencePieceProcessor(model_file=str(run / "spiece.model"))
    ids = [np.array(processor.encode(text), np.uint16) for text in texts]
    np.save(folder / "tokens.npy", np.concatenate(ids))
    np.save(folder / "offsets.npy", np.cumsum([0, *map(len, ids)]))
    draws = {name: getattr(builder, name) for name in ("families", "contrasts", "pairs", "facets", "held_out")}
    (folder / "draws.json").write_text(json.dumps(draws), "utf-8")
    print(f"{len(texts)} texts, {sum(map(len, ids))} tokens")
    for name, families in (builder.families | builder.contrasts).items():
        print(f"families {name}: {len(families)}")
    for name, group in (*builder.pairs.items(), *builder.facets.items()):
        print(f"{name}: {len(group['rows'])}")


if __name__ == "__main__":
    main()
