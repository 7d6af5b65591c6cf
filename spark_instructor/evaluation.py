"""Choosing an instruction: how well the vectors of several do on a labeled sample, and whether they really differ."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

if TYPE_CHECKING:
    from .encoder import InstructorModel

Vectors = npt.NDArray[np.float32]
Scores = npt.NDArray[np.float64]

_BLOCK = 1000  # the number of texts that are compared with all texts at once


@dataclasses.dataclass(frozen=True, repr=False)
class InstructionComparison:
    """The scores of several instructions on one sample. ``print`` shows them as a table."""

    instructions: dict[str, list[str]]
    """The compared instructions: a list ``instruction``, or ``query_instruction`` and ``passage_instruction``."""
    scores: dict[str, Scores]
    """By metric, the score of each text or query under each instruction: float64 (instructions, texts)."""

    def to_pandas(self) -> pd.DataFrame:
        """Return a row per metric and instruction.

        ``score`` is the mean over the texts, from 0 to 1. ``difference`` is this score minus that of the first
        instruction. ``standard_error`` is the standard error of the difference. All instructions have the same texts,
        so it is computed from the difference of each text (a paired comparison).
        """
        return pd.concat([self._summarize(metric) for metric in self.scores], ignore_index=True)

    def _summarize(self, metric: str) -> pd.DataFrame:
        scores = self.scores[metric]
        differences = scores - scores[0]
        errors = differences.std(axis=1, ddof=1) / np.sqrt(scores.shape[1])
        columns = {"score": scores.mean(axis=1), "difference": differences.mean(axis=1), "standard_error": errors}
        return pd.DataFrame({"metric": metric, **columns, **self.instructions})

    def __repr__(self) -> str:
        rows = [["metric", "score", "difference", *self.instructions]]
        for metric in self.scores:
            for i, row in self._summarize(metric).iterrows():
                difference = f"{row['difference']:+.3f} ± {row['standard_error']:.3f}" if i else ""
                instructions = [repr(row[name]) for name in self.instructions]
                rows.append([metric, f"{row['score']:.3f}", difference, *instructions])
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
        size = next(iter(self.scores.values())).shape[1]
        return "\n".join([*lines, f"n = {size:,}. Differences are to the first, ± one standard error."])


def compare_instructions(
    model: InstructorModel, instructions: Sequence[str], texts: Iterable[str], labels: Iterable[Any], *, k: int = 5
) -> InstructionComparison:
    """Compare instructions by whether texts with the same label are near each other.

    The metric is the leave-one-out accuracy of a nearest-neighbor classifier: the k texts that are most similar to a
    text vote on its label, and copies of the text itself do not vote. It serves classification and clustering.

    Args:
        model: The model that embeds the texts, on the driver.
        instructions: At least two. The first is the baseline; ``""`` means no instruction.
        texts: The sample.
        labels: One label per text: strings, numbers or whatever else can be sorted.
        k: The number of neighbors that vote. If several labels get the most votes, the one that sorts first wins.

    Raises TypeError if ``model`` is not loaded, and ValueError if there are fewer than two instructions, if the sample
    is empty, if there are not as many labels as texts, if a label is missing, if all labels are equal, if a label
    belongs to a single text, or if there are fewer than k other texts.
    """
    _check_model(model)
    _check_instructions(instructions, "''")
    texts, labels = list(texts), list(labels)
    _check_pairs("texts", texts, "labels", labels)
    ids = {text: i for i, text in enumerate(dict.fromkeys(texts))}
    text_ids = np.array([ids[text] for text in texts])
    label_ids = _number_labels(labels, text_ids)
    others = len(texts) - int(np.bincount(text_ids).max())
    if not 1 <= k <= others:
        raise ValueError(f"k is {k}, expected from 1 to {others}, the number of other texts that can vote")
    correct = [
        _find_correct(model.encode(instruction, texts), text_ids, label_ids, k).astype(float)
        for instruction in instructions
    ]
    return InstructionComparison({"instruction": list(instructions)}, {"accuracy": np.stack(correct)})


def compare_retrieval_instructions(
    model: InstructorModel,
    instructions: Sequence[tuple[str, str]],
    queries: Iterable[str],
    passages: Iterable[str],
    *,
    corpus: Iterable[str] = (),
) -> InstructionComparison:
    """Compare pairs of instructions by whether each query finds the passages that answer it.

    The metrics are those of `score_retrieval`.

    Args:
        model: The model that embeds the texts, on the driver.
        instructions: At least two pairs of an instruction for queries and one for passages. The first pair is the
            baseline; ``("", "")`` means no instructions.
        queries: The queries. If several passages answer a query, list it once per passage.
        passages: For each query, a passage that answers it.
        corpus: Further passages to search. Without them, each query is compared with the ``passages`` alone, and finds
            the right one more easily than it will among all of yours.

    Raises TypeError if ``model`` is not loaded, and ValueError if there are fewer than two pairs of instructions, if
    one is not a pair, if the sample is empty, if there are not as many passages as queries, or if there is a single
    query or a single passage.
    """
    _check_model(model)
    _check_instructions(instructions, "('', '')")
    for pair in instructions:
        if isinstance(pair, str) or len(pair) != 2:
            raise ValueError(f"{pair!r} is not a pair of an instruction for queries and one for passages")
    queries, passages = list(queries), list(passages)
    _check_pairs("queries", queries, "passages", passages)
    places = {passage: i for i, passage in enumerate(dict.fromkeys([*passages, *corpus]))}
    relevant: dict[str, set[int]] = {}
    for query, passage in zip(queries, passages, strict=True):
        relevant.setdefault(query, set()).add(places[passage])
    if len(relevant) < 2 or len(places) < 2:
        raise ValueError(
            f"found {len(relevant)} distinct queries and {len(places)} distinct passages, expected at least 2 of each"
        )

    @cache
    def embed(instruction: str, of_queries: bool) -> Vectors:
        return model.encode(instruction, list(relevant if of_queries else places))

    found = [
        score_retrieval(embed(one, True), embed(other, False), [*relevant.values()]) for one, other in instructions
    ]
    query_instructions, passage_instructions = map(list, zip(*instructions, strict=True))
    return InstructionComparison(
        {"query_instruction": query_instructions, "passage_instruction": passage_instructions},
        {metric: np.stack([scores[metric] for scores in found]) for metric in found[0]},
    )


def vote(similarities: Vectors, labels: npt.NDArray[np.intp], k: int) -> npt.NDArray[np.intp]:
    """Return the label that most of the k most similar neighbors have; if several do, the smallest.

    Args:
        similarities: (texts, neighbors)
        labels: The labels of the neighbors as numbers from 0, (neighbors,).
        k: The number of neighbors that vote.

    Returns:
        A label for each text, (texts,).
    """
    nearest = np.argpartition(-similarities, k - 1, axis=1)[:, :k]
    votes = np.zeros((len(similarities), labels.max() + 1), np.intp)
    np.add.at(votes, (np.arange(len(similarities))[:, None], labels[nearest]), 1)
    winners: npt.NDArray[np.intp] = votes.argmax(axis=1)
    return winners


def score_retrieval(queries: Vectors, passages: Vectors, relevant: Sequence[set[int]]) -> dict[str, Scores]:
    """Return hit@1, hit@10 and nDCG@10 of each query, from 0 to 1.

    hit@k is 1 if a relevant passage is among the k most similar ones, and nDCG@10 also counts at which rank.

    Args:
        queries: Unit vectors, (queries, dimension).
        passages: Unit vectors, (passages, dimension).
        relevant: For each query, the numbers of the passages that answer it.
    """
    ranked = np.argsort(-(queries @ passages.T), axis=1)[:, :10]
    hits = np.array([[passage in some for passage in row] for row, some in zip(ranked, relevant, strict=True)])
    gains = 1 / np.log2(np.arange(hits.shape[1]) + 2)
    ideal = np.array([gains[: len(some)].sum() for some in relevant])
    return {
        "hit@1": hits[:, 0].astype(float),
        "hit@10": hits.any(axis=1).astype(float),
        "nDCG@10": hits @ gains / ideal,
    }


def _find_correct(
    vectors: Vectors, text_ids: npt.NDArray[np.intp], label_ids: npt.NDArray[np.intp], k: int
) -> npt.NDArray[np.bool_]:
    """Return for each text whether its k nearest neighbors vote for its label."""
    found = []
    for start in range(0, len(vectors), _BLOCK):
        block = slice(start, start + _BLOCK)
        similarities = vectors[block] @ vectors.T
        similarities[text_ids[block, None] == text_ids] = -np.inf  # a text and its copies would tell the label
        found.append(vote(similarities, label_ids, k) == label_ids[block])
    return np.concatenate(found)


def _check_model(model: object) -> None:
    if isinstance(model, str):
        raise TypeError(f"model is a str, expected a loaded model: InstructorModel.from_pretrained({model!r})")


def _check_instructions(instructions: Sequence[Any], none: str) -> None:
    if isinstance(instructions, str) or len(instructions) < 2:
        raise ValueError(
            f"instructions is {instructions!r}, expected a list of at least two. The first is the baseline; {none} "
            "means no instruction"
        )


def _check_pairs(name: str, values: list[Any], other: str, others: list[Any]) -> None:
    if len(values) != len(others):
        raise ValueError(
            f"there are {len(values):,} {name} and {len(others):,} {other}, expected as many {other} as {name}"
        )
    if not values:
        raise ValueError(f"{name} is empty, expected a sample with {other}")


def _number_labels(labels: list[Any], text_ids: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    """Return the place of each label among the sorted labels.

    Raises ValueError if a label is missing, if all labels are equal, or if a label belongs to a single text, and
    TypeError if the labels cannot be sorted.
    """
    for i, label in enumerate(labels):
        if pd.isna(label):
            raise ValueError(f"text {i} has the label {label}: leave texts without a label out of the sample")
    try:
        names = sorted(set(labels))
    except TypeError as error:
        raise TypeError(f"the labels cannot be sorted ({error}): convert them to strings") from error
    places = {name: i for i, name in enumerate(names)}
    label_ids = np.array([places[label] for label in labels])
    if len(names) == 1:
        raise ValueError(f"all texts have the label {labels[0]!r}: expected at least two labels to tell apart")
    # A text whose copies alone share its label can never be classified correctly.
    counts = Counter(label for _, label in {*zip(text_ids.tolist(), label_ids.tolist(), strict=True)})
    rare = [repr(names[label]) for label, count in sorted(counts.items()) if count == 1]
    if rare:
        raise ValueError(
            f"each of these labels belongs to only one text: {', '.join(rare[:5])}{' ...' if len(rare) > 5 else ''}, "
            "so no other text can vote for it. Add texts, or leave these out of the sample"
        )
    return label_ids
