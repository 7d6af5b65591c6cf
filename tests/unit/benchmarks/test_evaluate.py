"""The metrics of benchmarks/evaluate.py, on vectors for which the correct values are known."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("scipy")
pytest.importorskip("sklearn")
sys.path.append(str(Path(__file__).parents[3] / "benchmarks"))

from evaluate import Classification, Clustering, Retrieval, evaluate, read_tasks, sensitivity, similarity

COLORS, SHAPES = ["red", "green", "blue"], ["ring", "cube", "star", "cone"]
LABELS = [{"color": color, "shape": shape} for color in COLORS for shape in SHAPES for _ in range(3)]
ROWS = [{"text": f"{i} {labels['color']} {labels['shape']}", **labels} for i, labels in enumerate(LABELS)]
WORDINGS = {"color": "by color: ", "shape": "by shape: "}


def perfect(instruction, texts):
    """Encode only the color of each text if the instruction asks for the color; otherwise encode only the shape."""
    place = 1 if "color" in instruction else 2
    words = [text.split()[place] for text in texts]
    return np.array([[word == known for known in COLORS + SHAPES] for word in words], np.float32)


def blind(_, texts):
    return np.random.default_rng(0).normal(size=(len(texts), 8)).astype(np.float32)


def test_sensitivity_of_perfect_and_blind_encoders():
    assert sensitivity(perfect, ROWS, WORDINGS) == {"color": 100, "shape": 100, "sensitivity": 100}
    assert sensitivity(blind, ROWS, WORDINGS)["sensitivity"] == pytest.approx(0)


def test_similarity_is_a_correlation_of_ranks():
    angles = {"same": 0.0, "near": 0.3, "far": 0.9, "other": 1.5}

    def embed(instruction, texts):
        assert instruction == "Represent: "
        return np.array([[np.cos(angles[text]), np.sin(angles[text])] for text in texts], np.float32)

    rows = [{"a": "same", "b": b, "score": score} for b, score in (("same", 5), ("near", 4), ("far", 1), ("other", 0))]
    assert similarity(embed, rows, "Represent: ") == pytest.approx(100)
    assert similarity(embed, [row | {"score": -row["score"]} for row in rows], "Represent: ") == pytest.approx(-100)


def test_tasks_run_without_and_with_their_instructions(tmp_path):
    """The labels are colors, which this encoder encodes only if the instruction asks for them."""
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    tasks = [
        Classification("classes", "rows.jsonl", "rows.jsonl", "color", WORDINGS["color"]),
        Clustering("clusters", "rows.jsonl", "color", WORDINGS["color"]),
    ]
    results = {row["figure"]: row for row in evaluate(tasks, tmp_path, perfect)}
    assert set(results) == {"5 nearest", "logistic regression", "v-measure"}
    for figures in results.values():
        assert figures["with"] == pytest.approx(100)
        assert figures["without"] < 60


def test_retrieval_finds_the_passages_by_their_ids(tmp_path):
    """Under the instruction, the nearest passage is the one of the query's color."""
    passages = [{"id": color, "text": f"0 {color} ring"} for color in COLORS]
    (tmp_path / "passages.jsonl").write_text("".join(json.dumps(row) + "\n" for row in passages))
    queries = [{"text": f"1 {color} cube", "pos": [color]} for color in COLORS]
    (tmp_path / "queries.jsonl").write_text("".join(json.dumps(row) + "\n" for row in queries))
    task = Retrieval("finding", "queries.jsonl", "passages.jsonl", WORDINGS["color"], WORDINGS["color"])
    results = {row["figure"]: row for row in evaluate([task], tmp_path, perfect)}
    assert {name: row["with"] for name, row in results.items()} == {"hit@1": 100, "hit@10": 100, "nDCG@10": 100}
    assert results["hit@1"]["without"] < 60


@pytest.mark.parametrize(
    ("described", "words"),
    [
        ({"name": "x", "kind": "poetry"}, "of kind 'poetry', expected one of similarity, retrieval"),
        ({"name": "x", "kind": "similarity"}, r"expected \['instruction', 'name', 'pairs'\]"),
        ({"name": "x", "kind": "clustering", "text": 1, "texts": 2, "label": 3, "instruction": 4}, "expected"),
    ],
)
def test_task_that_is_not_described_as_it_has_to_be(tmp_path, described, words):
    path = tmp_path / "tasks.json"
    path.write_text(json.dumps([described]))
    with pytest.raises(SystemExit, match=words):
        read_tasks(path)


def test_own_tasks_are_read():
    names = [task.name for task in read_tasks(Path(__file__).parents[3] / "benchmarks" / "tasks.json")]
    assert len(set(names)) == len(names) > 5
