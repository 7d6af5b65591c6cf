"""Draw the texts that the model is trained on.

Every draw has texts for distillation and contrasts; even draws also have pairs, and odd draws have grids. A draw
depends only on the seed and its number, so a run can resume at any step.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import permutations
from random import Random
from typing import Any

import instructions
import numpy as np
import numpy.typing as npt
from corpus import Corpus
from model import MAX_TOKENS, Padded, Padding, pad

FAMILIES_PER_DRAW = 40
GRIDS_PER_DRAW = 2
GRID = (6, 5)  # the number of values of each of the two facets
GRID_TEXTS = 60  # two texts per cell, or more if a facet has fewer values
TEXTS_OUTSIDE = 2  # texts per value of a crossed grid that lack the other facet
CONTRASTS_PER_DRAW = 10
NESTED_GRID = (3, 4)  # values of the wide facet, and values of the narrow facet within each of them
NESTED_SHARE = 0.4  # share of nested grids, for sources that have a facet nested within another
PAIR_TOKENS = 4096  # approximate number of tokens of a batch of pairs, both sides together
PLAIN_SHARE = 0.5  # share of distilled families, contrasts, pairs and groups by intent that get no instruction

# How often each source's families are drawn. Short and varied texts, questions and dialogue are drawn more often than
# their number alone would suggest.
_FAMILY_WEIGHTS = {
    "acl": 5, "captions": 7, "clinc150": 2, "covid-qa": 1, "dialogues": 4, "disflqa": 3, "factbook": 2, "fewrel": 5,
    "goemotions": 4, "gsm8k": 1, "headlines": 5, "hwu64": 2, "medquad": 5, "movie_reviews": 4, "nltk-inaugural": 1,
    "nltk-product_reviews_1": 0.02, "nltk-product_reviews_2": 0.5, "nltk-state_union": 3, "openstax": 7,
    "openstax-philschatz": 9, "peps": 2, "pros_cons": 2, "scitldr": 2, "selfdialogue": 6, "sentence_polarity": 2,
    "remarks": 2, "snips": 2, "subjectivity": 2, "taskmaster": 3, "tldr": 2, "triviaqa-questions": 6, "variants": 12,
    "wordnet": 8, "names": 6, "negation": 36, "numbers": 9, "opposites": 12, "order": 9, "roles": 24,
}  # fmt: skip
_MINIMAL = {"names", "negation", "numbers", "opposites", "order", "roles"}  # sources whose families are minimal pairs
_CONTRAST_WEIGHTS = {"deeds": 3, "events": 1, "exchanges": 2, "routes": 1, "scenes": 3}
_PAIR_WEIGHTS = {
    "acl": 3, "covid-faq": 0.1, "covid-qa": 1, "disflqa": 1, "factbook": 2, "medquad": 4, "openstax": 2,
    "openstax-glossary": 1, "openstax-philschatz": 3, "openstax-philschatz-glossary": 2, "peps": 0.3, "scitldr": 1,
    "tldr": 1, "wordnet": 3,
}  # fmt: skip
_FACET_WEIGHTS = {
    "acl": 1, "any source": 2, "captions": 2, "clinc150": 4, "dialogues": 16, "disflqa": 0.5, "factbook": 1.5,
    "fewrel": 1, "goemotions": 1.5, "headlines": 1, "hwu64": 4, "medquad questions": 2, "movie_reviews": 1,
    "pros_cons": 1, "selfdialogue": 3, "sentence_polarity": 0.5, "snips": 1.5, "taskmaster": 4, "tldr": 1,
    "triviaqa-questions": 1,
}  # fmt: skip

# Facets that describe a text's form or single words in it. They are asked for less often than what a text is about or
# does, and a grid rarely crosses two of them.
_MINOR = {
    "city", "day", "form", "length", "negation", "numbers", "person", "question_word", "tense", "time", "when",
}  # fmt: skip
# Facets that describe what a text is about; the teacher distinguishes these too.
_CONTENT = {
    "chat_topic", "country", "deed", "disease", "domain", "event", "intent", "paper_topic", "scenario", "service",
    "subject", "trivia_topic",
}  # fmt: skip


@dataclass(frozen=True)
class Distilled:
    """Rows whose vectors should match the teacher's.

    ``families`` holds the number of each row's family, and ``are_minimal`` tells whether that family consists of
    minimal pairs.
    """

    rows: npt.NDArray[np.int64]
    families: npt.NDArray[np.int64]
    are_minimal: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Contrasts:
    """Rows of shape (contrasts, 4): a sentence, one that follows from it, and two that contradict it."""

    rows: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Grid:
    """Rows embedded under two instructions: first all rows under one, then all rows under the other.

    ``labels`` holds the labels of the rows for each instruction, and ``is_content`` tells for each instruction whether
    it asks what the text is about.
    """

    rows: npt.NDArray[np.int64]
    labels: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]
    is_content: tuple[bool, bool]


@dataclass(frozen=True)
class Pairs:
    """Rows of queries, followed by the rows of their passages in the same order."""

    rows: npt.NDArray[np.int64]


Part = Distilled | Contrasts | Grid | Pairs
Line = tuple[str, int]  # an instruction and the row of a text
Drawn = tuple[dict[str, list[str]], list[int], tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]


class Batches:
    """Draw from a corpus."""

    def __init__(self, corpus: Corpus, *, grids: bool, seed: int = 0) -> None:
        self._corpus, self._grids, self._seed = corpus, grids, seed
        draws = corpus.draws
        self._families = _Weighted(draws["families"], _FAMILY_WEIGHTS)
        self._contrasts = _Weighted(draws["contrasts"], _CONTRAST_WEIGHTS)
        self._pairs = _Weighted(draws["pairs"], _PAIR_WEIGHTS)
        self._facets = _Weighted(
            {source: FacetTexts(**group) for source, group in draws["facets"].items()}, _FACET_WEIGHTS
        )

    def draw(self, number: int) -> list[tuple[Part, list[Line]]]:
        """Return the parts of a draw, each with its sequences."""
        random = Random(f"{self._seed} {number}")
        parts = [self._draw_distilled(random), self._draw_contrasts(random)]
        if number % 2 == 0:
            parts.append(self._draw_pairs(random))
        elif self._grids:
            parts += [self._draw_grid(random) for _ in range(GRIDS_PER_DRAW)]
        return parts

    def pad(self, sequences: Sequence[Line], padding: Padding) -> Padded:
        """Tokenize the sequences and pad them."""
        before, after = zip(*(self._corpus.encode_row(*sequence) for sequence in sequences), strict=True)
        return pad(before, after, padding)

    def _draw_distilled(self, random: Random) -> tuple[Part, list[Line]]:
        drawn: dict[int, tuple[str, int, bool]] = {}
        for number in range(FAMILIES_PER_DRAW):
            source, families = self._families.draw(random)
            instruction = "" if random.random() < PLAIN_SHARE else instructions.compose_general(source, random)
            drawn |= dict.fromkeys(random.choice(families), (instruction, number, source in _MINIMAL))
        drawn_instructions, numbers, are_minimal = zip(*drawn.values(), strict=True)
        part = Distilled(np.array(list(drawn)), np.array(numbers), np.array(are_minimal))
        return part, list(zip(drawn_instructions, drawn, strict=True))

    def _draw_contrasts(self, random: Random) -> tuple[Part, list[Line]]:
        rows, sequences = [], []
        for _ in range(CONTRASTS_PER_DRAW):
            kind, contrasts = self._contrasts.draw(random)
            rows.append(random.choice(contrasts))
            instruction = "" if random.random() < PLAIN_SHARE else instructions.compose_general(kind, random)
            sequences += [(instruction, row) for row in rows[-1]]
        return Contrasts(np.array(rows)), sequences

    def _draw_pairs(self, random: Random) -> tuple[Part, list[Line]]:
        _, group = self._pairs.draw(random)
        chosen: dict[int, int] = {}
        tokens = 0
        while tokens < PAIR_TOKENS and len(chosen) < 128:
            query, passage = random.choice(group["rows"])
            chosen[query] = passage
            tokens += sum(min(len(self._corpus.tokens(row)), MAX_TOKENS) for row in (query, passage))
        if random.random() < PLAIN_SHARE:
            before = ("", "")
        else:
            before = tuple(instructions.reword(instruction, random) for instruction in group["instructions"])
        sequences = [(before[0], row) for row in chosen] + [(before[1], row) for row in chosen.values()]
        return Pairs(np.array([row for _, row in sequences])), sequences

    def _draw_grid(self, random: Random) -> tuple[Part, list[Line]]:
        source, texts = self._facets.draw(random)
        values, rows, labels = texts.draw_grid(random)
        first, second = values
        sequences = []
        for facet in (first, second):
            is_plain = facet == "intent" and random.random() < PLAIN_SHARE  # it is what a request means
            instruction = "" if is_plain else instructions.compose_for_facet(source, facet, values[facet], random)
            sequences += [(instruction, row) for row in rows]
        is_content = (first in _CONTENT, second in _CONTENT)
        return Grid(np.array(rows), labels, is_content), sequences


class FacetTexts:
    """The texts of a source, indexed by their labels."""

    def __init__(self, rows: list[int], labels: list[dict[str, str]]) -> None:
        self._rows, self._labels = rows, labels
        self._by_label: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
        for i, found in enumerate(labels):
            for facet, label in found.items():
                self._by_label[facet][label].append(i)
        self.crossings = self._find_crossings()
        self.nestings = self._find_nestings()
        self._weights = [0.2 ** sum(facet in _MINOR for facet in crossing) for crossing in self.crossings]

    def _find_crossings(self) -> list[tuple[str, str]]:
        """Return the pairs of facets that cross, that is, neither facet determines the other."""
        names = sorted(self._by_label)
        crossings = []
        for n, a in enumerate(names):
            for b in names[n + 1 :]:
                cells = {(found[a], found[b]) for found in self._labels if a in found and b in found}
                counts = (Counter(value for value, _ in cells), Counter(value for _, value in cells))
                if all(sum(number > 1 for number in count.values()) > 1 for count in counts):
                    crossings.append((a, b))
        return crossings

    def _find_nestings(self) -> list[tuple[str, str]]:
        """Return the pairs of a narrow facet and a wide facet that it determines, such as intent and domain.

        The wide facet must have enough values for a nested grid, and each of those must contain enough narrow values
        with enough texts.
        """
        wide_values, narrow_values = NESTED_GRID
        nestings = []
        for narrow, wide in permutations(sorted(self._by_label), 2):
            followed: dict[str, set[str]] = defaultdict(set)
            for found in self._labels:
                if narrow in found and wide in found:
                    followed[found[narrow]].add(found[wide])
            if any(len(values) > 1 for values in followed.values()):
                continue
            within = Counter(
                next(iter(values)) for value, values in followed.items() if self._is_frequent(narrow, value)
            )
            if sum(count >= narrow_values for count in within.values()) >= wide_values:
                nestings.append((narrow, wide))
        return nestings

    def _is_frequent(self, facet: str, value: str) -> bool:
        return len(self._by_label[facet][value]) >= GRID_TEXTS // (NESTED_GRID[0] * NESTED_GRID[1])

    def draw_grid(self, random: Random) -> Drawn:
        """Return some values of two facets, the rows of a grid over them, and the labels of the rows in each facet."""
        if self.nestings and (not self.crossings or random.random() < NESTED_SHARE):
            return self._draw_nested_grid(random)
        return self._draw_crossed_grid(random)

    def _draw_nested_grid(self, random: Random) -> Drawn:
        """Draw some values of a wide facet, and some narrow values within each.

        Under the instruction for the narrow facet, the model must separate texts that share the wide value.
        """
        narrow, wide = random.choice(self.nestings)
        within: dict[str, list[str]] = defaultdict(list)
        for value, texts in self._by_label[narrow].items():
            if self._is_frequent(narrow, value) and wide in (found := self._labels[texts[0]]):
                within[found[wide]].append(value)
        wide_values, narrow_values = NESTED_GRID
        texts_per_value = GRID_TEXTS // (wide_values * narrow_values)
        enough = [some for some in within.values() if len(some) >= narrow_values]
        rows, narrow_labels, wide_labels = [], [], []
        chosen = [random.sample(values, narrow_values) for values in random.sample(enough, wide_values)]
        for column, values in enumerate(chosen):
            for line, value in enumerate(values):
                for i in random.sample(self._by_label[narrow][value], texts_per_value):
                    rows.append(self._rows[i])
                    narrow_labels.append(column * narrow_values + line)
                    wide_labels.append(column)
        names = {
            narrow: [value for values in chosen for value in values],
            wide: [self._labels[self._by_label[narrow][values[0]][0]][wide] for values in chosen],
        }
        return names, rows, (np.array(narrow_labels), np.array(wide_labels))

    def _draw_crossed_grid(self, random: Random) -> Drawn:
        """Draw some values of two facets that cross.

        Cells without texts stay empty. A value that would be alone in its row or column is not drawn. Some texts lack
        one of the facets, such as a reply that names no service. In that facet, each has a label of its own, so the
        loss keeps the other texts away from it.
        """
        a, b = random.choices(self.crossings, self._weights)[0]
        if random.random() < 0.5:
            a, b = b, a
        cells: dict[tuple[Hashable, Hashable], list[int]] = defaultdict(list)
        a_values = self._draw_values(a, random, GRID[0])
        for value in a_values:
            for i in self._by_label[a][value]:
                if b in self._labels[i]:
                    cells[value, self._labels[i][b]].append(i)
        in_column = Counter(b_value for _, b_value in cells)
        shared = [b_value for b_value, count in in_column.items() if count > 1]
        if len(a_values) < 2 or len(shared) < 2:
            return self._draw_crossed_grid(random)
        # Prefer values that cross many rows, in an order that differs from grid to grid.
        shared.sort(key=lambda b_value: in_column[b_value] * (0.3 + random.random()), reverse=True)
        del shared[GRID[1] :]
        chosen, labels_a, labels_b = [], [], []
        texts_per_cell = max(2, GRID_TEXTS // (len(a_values) * len(shared)))
        for column, b_value in enumerate(shared):
            for line, a_value in enumerate(a_values):
                texts = cells.get((a_value, b_value), [])
                for i in random.sample(texts, min(texts_per_cell, len(texts))):
                    chosen.append(self._rows[i])
                    labels_a.append(line)
                    labels_b.append(column)
        for (facet, other), values, labels, other_labels in (
            ((a, b), a_values, labels_a, labels_b),
            ((b, a), shared, labels_b, labels_a),
        ):
            for line, value in enumerate(values):
                outside = [i for i in self._by_label[facet][value] if other not in self._labels[i]]
                for i in random.sample(outside, min(TEXTS_OUTSIDE, len(outside))):
                    chosen.append(self._rows[i])
                    labels.append(line)
                    other_labels.append(-len(chosen))
        return {a: a_values, b: shared}, chosen, (np.array(labels_a), np.array(labels_b))

    def _draw_values(self, facet: str, random: Random, most: int) -> list[str]:
        """Draw some values of a facet; values with many texts are more likely."""
        values = list(self._by_label[facet])
        values.sort(
            key=lambda value: min(len(self._by_label[facet][value]), 200) ** 0.5 * random.random(), reverse=True
        )
        return values[:most]


class _Weighted:
    """Draw groups in proportion to the weights of their sources."""

    def __init__(self, groups: dict[str, Any], weights: dict[str, float]) -> None:
        self._names = list(groups)
        self._groups = groups
        self._cumulative = np.cumsum([weights[name.split(":")[0]] for name in self._names]).tolist()

    def draw(self, random: Random) -> tuple[str, Any]:
        name = random.choices(self._names, cum_weights=self._cumulative)[0]
        return name, self._groups[name]
