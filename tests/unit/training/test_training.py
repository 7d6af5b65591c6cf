"""Parts of the packaged model's training code that are easy to get wrong."""

import sys
from pathlib import Path
from random import Random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from checkpoints import TINY
from vectors import TOLERANCE

from spark_instructor.encoder import InstructorModel, prepare

pytest.importorskip("scipy")
pytest.importorskip("sentencepiece")
sys.path.insert(0, str(Path(__file__).parents[3] / "training"))

from batches import Batches, FacetTexts, Grid
from export import export
from model import Shape, Student, padded

COLORS, SHAPES = ["red", "green", "blue"], ["ring", "cube", "star", "cone"]
TINY_SHAPE = Shape(vocab_size=1024, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=3, dimension=24)


def make_group(copies):
    """Return rows and labels with all combinations of two facets, and a third facet that the first determines."""
    labels = [
        {"color": color, "shape": shape, "hue": f"hue of {color}"}
        for color in COLORS
        for shape in SHAPES
        for _ in range(copies)
    ]
    return {"rows": list(range(100, 100 + len(labels))), "labels": labels}


def test_grid_fills_every_cell_alike():
    group = make_group(copies=20)
    texts = FacetTexts(**group)
    assert set(texts.crossings) == {("color", "shape"), ("hue", "shape")}
    for seed in range(10):
        (a, b), rows, (labels_a, labels_b) = texts.grid(Random(seed))
        assert len(set(rows)) == len(rows)
        cells = np.zeros((labels_a.max() + 1, labels_b.max() + 1), int)
        np.add.at(cells, (labels_a, labels_b), 1)
        assert cells.size == 12
        assert (cells == 5).all()  # 60 texts in 12 cells
        for facet, numbers in ((a, labels_a), (b, labels_b)):
            names = [group["labels"][row - 100][facet] for row in rows]
            assert len(set(zip(names, numbers.tolist(), strict=True))) == len(set(names))


def test_grid_survives_empty_cells():
    group = make_group(copies=2)
    kept = [i for i, label in enumerate(group["labels"]) if (label["color"], label["shape"]) != ("red", "ring")]
    texts = FacetTexts([group["rows"][i] for i in kept], [group["labels"][i] for i in kept])
    _, rows, (labels_a, labels_b) = texts.grid(Random(0))
    assert len(rows) == len(labels_a) == len(labels_b) == 22


@pytest.fixture
def corpus():
    draws = {
        "families": {"captions": [[0, 1, 2, 3]]},
        "pairs": {"acl: a": {"instructions": ["Represent the title: ", "Represent the text: "], "rows": [[4, 5]]}},
        "facets": {"dialogues": {"rows": [10, 11, 12, 13], "labels": [
            {"service": service, "act": act} for service in ("trains", "hotels") for act in ("asking", "thanking")
        ]}},
    }  # fmt: skip
    return SimpleNamespace(draws=draws, tokens=lambda row: np.full(2000, row, np.uint16))


def test_grid_puts_the_same_texts_under_both_instructions(corpus):
    parts = Batches(corpus, grids=True).step(1)
    grid, lines = parts[1]
    assert isinstance(grid, Grid)
    (first, rows), (second, again) = (zip(*half, strict=True) for half in (lines[:4], lines[4:]))
    assert sorted(rows) == [10, 11, 12, 13]
    assert rows == again
    assert len({*first}) == len({*second}) == 1
    assert first[0] != second[0]
    assert all(instruction.endswith(" ") for instruction in first + second)


def test_step_follows_from_its_number_alone(corpus):
    ran, resumed = (Batches(corpus, grids=True) for _ in range(2))
    for number in range(6):
        ran.step(number)
    assert [lines for _, lines in ran.step(6)] == [lines for _, lines in resumed.step(6)]
    assert [len(Batches(corpus, grids=False).step(number)) for number in (0, 1)] == [2, 1]


def test_exported_student_embeds_as_the_student(tmp_path):
    torch.manual_seed(0)
    student = Student(TINY_SHAPE)
    with torch.no_grad():
        for (
            parameter
        ) in student.parameters():  # vary all weights, even zeros and ones; round to float16, as the export does
            parameter.copy_((parameter + 0.1 * torch.randn_like(parameter)).half())
    export(student, TINY / "spiece.model", tmp_path / "exported")
    model = InstructorModel.load(prepare(tmp_path / "exported", into=tmp_path / "prepared"))

    instruction, texts = "Represent the sentence: ", ["A dog.", "Two cats sleep on a red sofa.", "", "Yes " * 60]
    before, *after = (ids[:-1].astype(np.uint16) for ids in model._tokenizer.encode([instruction, *texts]))
    batches, back = padded([before] * len(texts), after)
    with torch.inference_mode():
        student_vectors = student(batches)[back].numpy()
    np.testing.assert_allclose(student_vectors, model.encode(instruction, texts), atol=TOLERANCE)
