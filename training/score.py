"""Scores without Spark, times 100: for steering a training, and of an exported checkpoint.

    python training/score.py CHECKPOINT DATA [--test]

STS-B dev, which chooses checkpoints; with ``--test`` the test sets too, which are for the end alone.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import numpy.typing as npt
from corpus import Corpus, read_jsonl
from scipy.stats import spearmanr

Embed = Callable[[str, Sequence[str]], npt.NDArray[np.float32]]
Labelled = list[tuple[str, dict[str, str]]]

# Wordings that `instructions.py` cannot make, as whoever uses the model will have their own.
_HELD_OUT_FACETS = {
    "medquad questions": {
        "disease": "Represent the patient question so that questions about one illness are close: ",
        "question_type": "Represent the patient question so that questions asking the same thing are close: ",
    },
    "hwu64": {
        "scenario": "Represent the spoken command for telling which app should handle it: ",
        "action": "Represent the spoken command for telling what should be done: ",
    },
    "clinc150": {
        "domain": "Represent the request for routing it to the right department: ",
        "form": "Represent the request for telling whether it is a question, a command or a statement: ",
    },
}
_SGD = {
    "domain": "Represent the dialogue utterance for classifying the service domain it is about: ",
    "dialogue_act": "Represent the dialogue utterance for classifying its dialogue act: ",
}
_HELD_OUT_PAIRS = ("medquad", "acl", "openstax-philschatz", "factbook")


def similarity(embed: Embed, rows: Sequence[dict[str, Any]], instruction: str = "") -> float:
    """Spearman's correlation of cosine and judged similarity."""
    a, b = (embed(instruction, [row[side] for row in rows]) for side in ("a", "b"))
    return 100 * float(spearmanr((a * b).sum(1), [row["score"] for row in rows]).statistic)


def sensitivity(embed: Embed, labelled: Labelled, wordings: dict[str, str], triplets: int = 4000) -> dict[str, float]:
    """Accuracies under each of two instructions, and their sum less 100.

    For an anchor, p shares only the one facet and q only the other. Under an instruction the one that
    shares its facet should be nearer; an encoder that ignores instructions scores 0.
    """
    random = Random(0)
    first, second = wordings
    by_labels: dict[tuple[str, str], list[int]] = defaultdict(list)
    for i, (_, labels) in enumerate(labelled):
        by_labels[labels[first], labels[second]].append(i)
    cells = list(by_labels)
    of_first = {value: [cell for cell in cells if cell[0] == value] for value, _ in cells}
    of_second = {value: [cell for cell in cells if cell[1] == value] for _, value in cells}
    chosen = []
    for i in random.choices(range(len(labelled)), k=triplets):
        cell = labelled[i][1][first], labelled[i][1][second]
        ps = [other for other in of_first[cell[0]] if other[1] != cell[1]]
        qs = [other for other in of_second[cell[1]] if other[0] != cell[0]]
        if ps and qs:
            p = random.choice([i for other in ps for i in by_labels[other]])
            q = random.choice([i for other in qs for i in by_labels[other]])
            chosen.append((i, p, q))
    x, p, q = np.array(chosen).T
    found = {}
    for facet, (near, far) in {first: (p, q), second: (q, p)}.items():
        vectors = embed(wordings[facet], [text for text, _ in labelled])
        right = (vectors[x] * vectors[near]).sum(1) > (vectors[x] * vectors[far]).sum(1)
        found[facet] = 100 * float(right.mean())
    return found | {"sensitivity": sum(found.values()) - 100}


def retrieval(
    embed: Embed, queries: Sequence[str], passages: Sequence[str], right: Sequence[set[int]]
) -> dict[str, float]:
    """Shares of the queries with one of their right passages first, and among the first ten."""
    best = np.argsort(-(embed("", queries) @ embed("", passages).T), axis=1)[:, :10]
    hits = np.array([[passage in some for passage in row] for row, some in zip(best, right, strict=True)])
    return {"hit@1": 100 * float(hits[:, 0].mean()), "hit@10": 100 * float(hits.any(1).mean())}


def nearest_neighbours(embed: Embed, train: Labelled, test: Labelled, facet: str, k: int = 5) -> float:
    """Accuracy of the vote of the k nearest."""
    known, asked = (embed("", [text for text, _ in some]) for some in (train, test))
    labels = np.array([found[facet] for _, found in train])
    right = 0
    for row, (_, found) in zip(np.argsort(-(asked @ known.T), axis=1)[:, :k], test, strict=True):
        names, votes = np.unique(labels[row], return_counts=True)
        right += names[votes.argmax()] == found[facet]
    return 100 * right / len(test)


def score_for_steering(embed: Embed, data: Path, corpus: Corpus) -> dict[str, float]:
    """STS-B dev, and on held-out training data instruction sensitivity and retrieval.

    SGD's training utterances, which nothing is trained on, are looked at too.
    """
    scores = {"stsb_dev": similarity(embed, list(read_jsonl(data / "eval" / "sts.stsb.dev.jsonl.gz")))}
    held_out = corpus.draws["held_out"]
    for source, wordings in _HELD_OUT_FACETS.items():
        group = held_out["facets"][source]
        labelled = [
            (corpus.texts[row], labels)
            for row, labels in zip(group["rows"], group["labels"], strict=True)
            if wordings.keys() <= labels.keys()
        ]
        scores[f"sensitivity {source}"] = sensitivity(embed, labelled[:1000], wordings)["sensitivity"]
    sgd = [row for row in read_jsonl(data / "train" / "labelled.sa.jsonl.gz") if row["source"] == "sgd"]
    found = sensitivity(embed, [(row["text"], row["labels"]) for row in Random(0).sample(sgd, 1000)], _SGD)
    scores |= {f"sgd {name}": value for name, value in found.items()}
    for name, group in held_out["pairs"].items():
        if (source := name.split(":")[0]) in _HELD_OUT_PAIRS:
            pairs = dict(group["rows"][:250])  # each query once
            passages = list(dict.fromkeys(pairs.values()))
            found = retrieval(
                embed,
                [corpus.texts[row] for row in pairs],
                [corpus.texts[row] for row in passages],
                [{passages.index(row)} for row in pairs.values()],
            )
            scores[f"hit@1 {source}"] = found["hit@1"]
    return {name: round(value, 1) for name, value in scores.items()}


def score_tests(embed: Embed, data: Path) -> dict[str, float]:
    """The figures of the model card, but for what needs Spark."""

    def rows(name: str) -> list[dict[str, Any]]:
        return list(read_jsonl(data / "eval" / f"{name}.jsonl.gz"))

    scores = {"STS-B test": similarity(embed, rows("sts.stsb.test"))}
    years = rows("sts.sts12-16")
    for year in sorted({row["year"] for row in years}):
        scores[f"STS {year}"] = similarity(embed, [row for row in years if row["year"] == year])
    corpus, queries = rows("ret.nq_qed.corpus"), rows("ret.nq_qed.queries")
    place = {row["id"]: i for i, row in enumerate(corpus)}
    found = retrieval(
        embed,
        [row["text"] for row in queries],
        [row["text"] for row in corpus],
        [{place[name] for name in row["pos"]} for row in queries],
    )
    scores |= {f"NQ-QED {name}": value for name, value in found.items()}
    train, test = (_labelled(rows(f"cls.clinc150.{split}")) for split in ("train", "test"))
    scores["CLINC150 intent kNN"] = nearest_neighbours(embed, train, test, "intent")
    found = sensitivity(embed, _labelled(rows("facet.sgd_test")), _SGD)
    return scores | {f"SGD test {name}": value for name, value in found.items()}


def _labelled(rows: Iterable[dict[str, Any]]) -> Labelled:
    return [(row["text"], row) for row in rows]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--test", action="store_true")
    arguments = parser.parse_args()

    from spark_instructor.encoder import InstructorModel, prepare

    model = InstructorModel.load(prepare(arguments.checkpoint))
    scores = {
        "STS-B dev": similarity(model.encode, list(read_jsonl(arguments.data / "eval" / "sts.stsb.dev.jsonl.gz")))
    }
    if arguments.test:
        scores |= score_tests(model.encode, arguments.data)
    print(json.dumps({name: round(value, 2) for name, value in scores.items()}, indent=2))


if __name__ == "__main__":
    main()
