"""Compute the scores that steer a training, with the metrics of `benchmarks/evaluate.py`."""

from __future__ import annotations

import statistics
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from corpus import Corpus, read_jsonl
from sklearn.cluster import KMeans
from sklearn.metrics import roc_auc_score, v_measure_score

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))

import evaluate

from spark_instructor.evaluation import score_retrieval

# Wordings that `instructions.py` cannot compose, from similar to very different ones, because users of the model will
# write their own. The two facets of a source have the same number of wordings.
WORDINGS: dict[str, dict[str, tuple[str, ...]]] = {
    "sgd": {
        "domain": (
            "Represent the dialogue for domain classification: ",
            "Represent the sentence spoken by the user for clustering by domain:",
            "Represent the utterance for identifying which service the user is dealing with: ",
            "Represent the customer's line so that requests to the same kind of shop or agency meet: ",
            "Which industry is this customer talking to? ",
            "Represent the turn for assigning it to the flights, hotels, music or restaurant team: ",
            "Represent the remark for a catalog of assistants' skills:",
            "Bring together lines about the same line of business: ",
            "Represent the spoken line to find the app that deals with such things; ",
        ),
        "dialogue_act": (
            "Represent the dialogue for dialogue act classification: ",
            "Represent the sentence spoken by the user for clustering by dialogue act:",
            "Represent the utterance for identifying which dialogue act the user performs: ",
            "Represent the customer's line so that two thank-yous meet, and so do two refusals: ",
            "Is the customer asking, choosing, refusing or saying farewell? ",
            "Represent the turn for annotating its role in the exchange: ",
            "Represent the remark for a study of how people negotiate:",
            "Bring together lines that serve the same conversational end: ",
            "Represent the spoken line to see what it contributes to the talk; ",
        ),
    },
    "medquad questions": {
        "disease": (
            "Represent the patient question so that questions about one illness are close: ",
            "Represent the patient's message for the right specialist:",
            "Index by what ails the person: ",
        ),
        "question_type": (
            "Represent the patient question so that questions asking the same thing are close: ",
            "Represent the patient's message for choosing the right chapter of the leaflet:",
            "Index by causes, symptoms, treatment or outlook: ",
        ),
    },
    "hwu64": {
        "scenario": (
            "Represent the spoken command for telling which app should handle it: ",
            "Hand it to the alarm clock, the mail program, the radio or the lights:",
            "Represent the sentence by the gadget or program it is meant for: ",
        ),
        "action": (
            "Represent the spoken command for telling what should be done: ",
            "Does it set something, remove something or only inquire?",
            "Represent the sentence by the verb that the machine should carry out: ",
        ),
    },
    "clinc150": {
        "domain": (
            "Represent the request for routing it to the right department: ",
            "Is this for the bank, the kitchen, the garage or the travel desk?",
            "Represent the sentence by the general region of daily life: ",
        ),
        "form": (
            "Represent the request by its grammar and not by what it is on: ",
            "Question mark, imperative or plain assertion?",
            "Represent the sentence by its syntax: ",
        ),
    },
}
# Sensible instructions; none of them should make a figure worse.
_INTENT_WORDINGS = (
    "Represent the customer request for intent recognition: ",
    "Represent the sentence for finding requests with the same aim:",
    "Represent the question for retrieval:",
)
_TOPIC_WORDINGS = (
    "Represent the quiz question for grouping with questions of its category: ",
    "Represent the sentence by theme:",
    "Represent the question for retrieval:",
)
_SIMILARITY_WORDINGS = ("Represent the sentence for judging how alike two sentences are: ", "Represent the text:")
_RETRIEVAL_WORDINGS = ("Represent the question for retrieval:", "Represent the document for retrieval:")
_HELD_OUT_PAIRS = ("medquad", "acl", "openstax-philschatz", "factbook")
_MAX_TEXTS = 1000
_MAX_CONTRASTS = 300

Scores = dict[str, float]


def score_for_steering(embed: evaluate.Embed, data: Path, corpus: Corpus) -> Scores:
    """Return scores of similarity, contrasts, sensitivity and retrieval, and the cost of instructions, times 100.

    The scores use STS-B dev, held-out training texts, and two sources that are excluded from training because their
    license is CC BY-SA: SGD's training utterances and OpenTriviaQA's questions. The cost of instructions is the figure
    without an instruction minus the worst figure with a sensible one.
    """
    held_out = corpus.draws["held_out"]
    share_alike: dict[str, list[dict[str, Any]]] = {"sgd": [], "opentrivia": []}
    for row in read_jsonl(data / "train" / "labelled.sa.jsonl.gz"):
        share_alike[row["source"]].append({"text": row["text"], **row["labels"]})
    labeled = {
        source: [
            {"text": corpus.texts[row], **labels} for row, labels in zip(group["rows"], group["labels"], strict=True)
        ]
        for source, group in held_out["facets"].items()
    } | {source: Random(0).sample(rows, 3 * _MAX_TEXTS) for source, rows in share_alike.items()}

    scores = _score_similarity(embed, list(read_jsonl(data / "eval" / "sts.stsb.dev.jsonl.gz")))
    scores |= score_contrasts(embed, corpus)
    for source, wordings in WORDINGS.items():
        rows = [row for row in labeled[source] if wordings.keys() <= row.keys()][:_MAX_TEXTS]
        scores |= {f"{source} {name}": score for name, score in _score_sensitivity(embed, rows, wordings).items()}
    for source in ("clinc150", "hwu64"):
        rows = [row for row in labeled[source] if "intent" in row]
        scores |= _score_with_cost(f"1-NN {source}", _make_nearest_scorer(embed, rows, "intent"), _INTENT_WORDINGS)
    scores |= _score_with_cost(
        "opentrivia", _make_cluster_scorer(embed, labeled["opentrivia"], "topic"), _TOPIC_WORDINGS
    )
    for name, group in held_out["pairs"].items():
        if (source := name.split(":")[0]) in _HELD_OUT_PAIRS:
            scores |= _score_retrieval(embed, source, corpus.texts, dict(group["rows"][:250]))  # each query once
    return {name: round(float(value), 1) for name, value in scores.items()}


def score_contrasts(embed: evaluate.Embed, corpus: Corpus) -> Scores:
    """Return the AUC of each kind of contrast, and the mean cosine of sentences and their copies for each change.

    The AUC compares across premises: it is how often a sentence that follows from its premise is nearer to that premise
    than a sentence that contradicts its premise is to its own.
    """
    scores = {}
    for kind, families in corpus.draws["held_out"]["contrasts"].items():
        premise, entailed, *contradicted = _embed_columns(embed, corpus, families)
        near, *far = ((premise * other).sum(1) for other in (entailed, *contradicted))
        labels = [1] * len(near) + [0] * sum(map(len, far))
        scores[f"AUC {kind}"] = 100 * roc_auc_score(labels, np.concatenate([near, *far]))
    for change, families in corpus.draws["held_out"]["changed"].items():
        sentence, copy = _embed_columns(embed, corpus, families)
        scores[f"cosine {change}"] = 100 * (sentence * copy).sum(1).mean()
    return scores


def _embed_columns(embed: evaluate.Embed, corpus: Corpus, families: list[list[int]]) -> list[evaluate.Vectors]:
    """Return the vectors of the first texts of the families, those of the second texts, and so on."""
    columns = zip(*families[:_MAX_CONTRASTS], strict=True)
    return [embed("", [corpus.texts[row] for row in column]) for column in columns]


def _score_similarity(embed: evaluate.Embed, rows: list[dict[str, Any]]) -> Scores:
    return _score_with_cost("stsb_dev", lambda wording: evaluate.similarity(embed, rows, wording), _SIMILARITY_WORDINGS)


def _score_sensitivity(
    embed: evaluate.Embed, rows: list[dict[str, Any]], wordings: dict[str, tuple[str, ...]]
) -> Scores:
    """Return the median and the worst sensitivity over the wordings; the n-th wordings of both facets are paired."""
    found = [
        evaluate.sensitivity(embed, rows, dict(zip(wordings, pair, strict=True)))["sensitivity"]
        for pair in zip(*wordings.values(), strict=True)
    ]
    return {"sensitivity": statistics.median(found), "worst sensitivity": min(found)}


def _make_nearest_scorer(embed: evaluate.Embed, rows: list[dict[str, Any]], label: str) -> Callable[[str], float]:
    """Return a function that computes how often a text's nearest neighbor has the same label.

    Labels that only one text has are left out.
    """
    count = Counter(row[label] for row in rows)
    rows = [row for row in rows if count[row[label]] > 1]
    labels = np.array([row[label] for row in rows])

    def score(wording: str) -> float:
        vectors = embed(wording, [row["text"] for row in rows])
        similarities = vectors @ vectors.T
        np.fill_diagonal(similarities, -1)
        return 100 * float((labels[similarities.argmax(1)] == labels).mean())

    return score


def _make_cluster_scorer(embed: evaluate.Embed, rows: list[dict[str, Any]], label: str) -> Callable[[str], float]:
    """Return a function that computes the v-measure of k-means clusters."""
    labels = [row[label] for row in rows]

    def score(wording: str) -> float:
        vectors = embed(wording, [row["text"] for row in rows])
        found = (KMeans(len(set(labels)), random_state=seed).fit_predict(vectors) for seed in evaluate.SEEDS)
        return 100 * statistics.mean(v_measure_score(labels, clusters) for clusters in found)

    return score


def _score_retrieval(embed: evaluate.Embed, source: str, texts: Sequence[str], pairs: dict[int, int]) -> Scores:
    passages = list(dict.fromkeys(pairs.values()))
    right = [{passages.index(row)} for row in pairs.values()]

    def score(query_wording: str, passage_wording: str) -> float:
        queries = embed(query_wording, [texts[row] for row in pairs])
        scores = score_retrieval(queries, embed(passage_wording, [texts[row] for row in passages]), right)
        return 100 * float(scores["hit@1"].mean())

    plain = score("", "")
    return {f"hit@1 {source}": plain, f"cost hit@1 {source}": plain - score(*_RETRIEVAL_WORDINGS)}


def _score_with_cost(name: str, score: Callable[[str], float], wordings: Sequence[str]) -> Scores:
    plain = score("")
    return {name: plain, f"cost {name}": plain - min(map(score, wordings))}
