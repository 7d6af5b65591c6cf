"""Scores for steering a training, by the metrics of `benchmarks/evaluate.py`."""

from __future__ import annotations

import sys
from pathlib import Path
from random import Random

from corpus import Corpus, read_jsonl

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))

import evaluate

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


def score_for_steering(embed: evaluate.Embed, data: Path, corpus: Corpus) -> dict[str, float]:
    """STS-B dev, and on held-out training data instruction sensitivity and retrieval.

    SGD's training utterances, which nothing is trained on, are looked at too.
    """
    scores = {"stsb_dev": evaluate.similarity(embed, list(read_jsonl(data / "eval" / "sts.stsb.dev.jsonl.gz")))}
    held_out = corpus.draws["held_out"]
    for source, wordings in _HELD_OUT_FACETS.items():
        group = held_out["facets"][source]
        labelled = [
            {"text": corpus.texts[row], **labels}
            for row, labels in zip(group["rows"], group["labels"], strict=True)
            if wordings.keys() <= labels.keys()
        ]
        scores[f"sensitivity {source}"] = evaluate.sensitivity(embed, labelled[:1000], wordings)["sensitivity"]
    sgd = [row for row in read_jsonl(data / "train" / "labelled.sa.jsonl.gz") if row["source"] == "sgd"]
    labelled = [{"text": row["text"], **row["labels"]} for row in Random(0).sample(sgd, 1000)]
    found = evaluate.sensitivity(embed, labelled, _SGD)
    scores |= {f"sgd {name}": value for name, value in found.items()}
    for name, group in held_out["pairs"].items():
        if (source := name.split(":")[0]) in _HELD_OUT_PAIRS:
            pairs = dict(group["rows"][:250])  # each query once
            passages = list(dict.fromkeys(pairs.values()))
            found = evaluate.retrieval(
                embed("", [corpus.texts[row] for row in pairs]),
                embed("", [corpus.texts[row] for row in passages]),
                [{passages.index(row)} for row in pairs.values()],
            )
            scores[f"hit@1 {source}"] = found["hit@1"]
    return {name: round(value, 1) for name, value in scores.items()}
