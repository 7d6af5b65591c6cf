"""What is easy to get wrong in the training of the packaged model."""

import json
import re
import sys
from collections import Counter
from pathlib import Path
from random import Random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from checkpoints import TINY
from vectors import TOLERANCE

from spark_instructor.encoder import InstructorModel, prepare

pytest.importorskip("sentencepiece")
pytest.importorskip("sklearn")
sys.path.insert(0, str(Path(__file__).parents[3] / "training"))

import average
import minimal_pairs
import score
import sentencepiece
from batches import Batches, FacetTexts, Grid
from corpus import Corpus
from export import export, read_checkpoint
from instructions import EVALUATED, compose_for_facet, compose_general, strip_form
from losses import WIDENING, WIDEST, family_distance_error, family_error, meaning_contrast
from model import PADDINGS, Shape, Student, pad
from phrases import compose_contrasts, compose_remark_families
from train import CHECKPOINT

COLOURS, SHAPES = ["red", "green", "blue"], ["ring", "cube", "star", "cone"]
TINY_SHAPE = Shape(vocab_size=1024, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=3, dimension=24)


def label_rows(copies):
    """Return rows and labels with all combinations of two facets, and one facet that follows from the other."""
    labels = [
        {"colour": colour, "shape": shape, "hue": f"hue of {colour}"}
        for colour in COLOURS
        for shape in SHAPES
        for _ in range(copies)
    ]
    return {"rows": list(range(100, 100 + len(labels))), "labels": labels}


def test_grid_fills_every_cell_alike():
    group = label_rows(copies=20)
    texts = FacetTexts(**group)
    assert set(texts.crossings) == {("colour", "shape"), ("hue", "shape")}
    for seed in range(10):
        values, rows, (labels_a, labels_b) = texts.draw_grid(Random(seed))
        assert len(set(rows)) == len(rows)
        cells = np.zeros((labels_a.max() + 1, labels_b.max() + 1), int)
        np.add.at(cells, (labels_a, labels_b), 1)
        assert cells.size == 12
        assert (cells == 5).all()  # 60 texts
        for facet, numbers in zip(values, (labels_a, labels_b), strict=True):
            names = [group["labels"][row - 100][facet] for row in rows]
            assert names == [values[facet][number] for number in numbers]


def test_grid_survives_empty_cells():
    group = label_rows(copies=2)
    kept = [i for i, found in enumerate(group["labels"]) if (found["colour"], found["shape"]) != ("red", "ring")]
    texts = FacetTexts([group["rows"][i] for i in kept], [group["labels"][i] for i in kept])
    _, rows, (labels_a, labels_b) = texts.draw_grid(Random(0))
    assert len(rows) == len(labels_a) == len(labels_b) == 22


def test_grid_has_texts_that_lack_one_of_its_facets():
    group = label_rows(copies=2)
    for colour in COLOURS:
        group["labels"] += [{"colour": colour}] * 3
    texts = FacetTexts(list(range(len(group["labels"]))), group["labels"])
    seen = set()
    for seed in range(10):
        values, rows, labels = texts.draw_grid(Random(seed))
        assert len(set(rows)) == len(rows)
        for facet, numbers in zip(values, labels, strict=True):
            without = [number for row, number in zip(rows, numbers, strict=True) if facet not in group["labels"][row]]
            assert len(set(without)) == len(without)
            assert all(number < 0 for number in without)
            seen.add((facet, len(without)))
    assert {("shape", 6), ("colour", 0)} <= seen


@pytest.fixture
def corpus():
    draws = {
        "families": {"captions": [[0, 1, 2, 3]]},
        "pairs": {"acl: a": {"instructions": ["Represent the title: ", "Represent the text: "], "rows": [[4, 5]]}},
        "facets": {"dialogues": {"rows": [10, 11, 12, 13], "labels": [
            {"service": service, "act": act} for service in ("trains", "hotels") for act in ("asking", "thanking")
        ]}},
        "contrasts": {"deeds": [[6, 7, 8, 9]]},
    }  # fmt: skip
    return SimpleNamespace(draws=draws, tokens=lambda row: np.full(2000, row, np.uint16))


def test_grid_puts_the_same_texts_under_both_instructions(corpus):
    parts = Batches(corpus, grids=True).draw(1)
    grid, lines = parts[2]
    assert isinstance(grid, Grid)
    (first, rows), (second, again) = (zip(*half, strict=True) for half in (lines[:4], lines[4:]))
    assert sorted(rows) == [10, 11, 12, 13]
    assert rows == again
    assert len({*first}) == len({*second}) == 1
    assert first[0] != second[0]
    assert grid.rows.tolist() == list(rows)
    assert sorted(grid.is_content) == [False, True]  # the act is not what a text is about, the service is


def test_step_follows_from_its_number_alone(corpus):
    ran, resumed = (Batches(corpus, grids=True) for _ in range(2))
    for number in range(6):
        ran.draw(number)
    assert [lines for _, lines in ran.draw(6)] == [lines for _, lines in resumed.draw(6)]
    assert [len(Batches(corpus, grids=False).draw(number)) for number in (0, 1)] == [3, 2]


def test_nested_grid_parts_the_narrow_labels_within_the_wide_ones():
    labels = [{"intent": f"{domain} {n}", "domain": domain} for domain in "abcd" for n in range(5) for _ in range(8)]
    labels.append({"intent": "rare", "domain": "a"})
    texts = FacetTexts(list(range(len(labels))), labels)
    assert texts.nestings == [("intent", "domain")]
    assert texts.crossings == []
    for seed in range(10):
        values, rows, (intents, domains) = texts.draw_grid(Random(seed))
        assert [*values] == ["intent", "domain"]
        assert len(set(rows)) == len(rows) == 60
        assert np.bincount(domains).tolist() == [20] * 3
        assert np.bincount(intents).tolist() == [5] * 12
        for facet, numbers in zip(values, (intents, domains), strict=True):
            assert [labels[row][facet] for row in rows] == [values[facet][number] for number in numbers]


def test_family_error_is_of_what_parts_a_family():
    torch.manual_seed(0)
    teacher = torch.randn(6, 8)
    families = torch.tensor([0, 0, 0, 2, 2, 5])  # the last is alone, 1, 3 and 4 are empty
    assert family_error(teacher, teacher, families) == pytest.approx(0, abs=1e-6)
    moved = teacher + torch.randn(3, 8)[[0, 0, 0, 1, 1, 2]]  # each family as a whole
    assert family_error(moved, teacher, families) == pytest.approx(0, abs=1e-6)
    one_vector = torch.randn(3, 8)[[0, 0, 0, 1, 1, 2]]
    assert family_error(one_vector, teacher, families) == pytest.approx(1, abs=0.05)
    assert family_error(2 * teacher, teacher, families) == pytest.approx(1, abs=0.05)


def test_family_distance_error_is_relative_and_within_families():
    torch.manual_seed(0)
    teacher = torch.nn.functional.normalize(torch.randn(5, 8), dim=-1)
    families = torch.tensor([0, 0, 0, 2, 2])
    are_minimal = torch.zeros(5, dtype=torch.bool)
    turn = torch.linalg.qr(torch.randn(8, 8)).Q
    assert family_distance_error(teacher @ turn, teacher, families, are_minimal) == pytest.approx(0, abs=1e-6)
    one_vector = teacher[[0, 0, 0, 3, 3]]  # all distances are zero, so the relative error is nearly 1
    assert family_distance_error(one_vector, teacher, families, are_minimal) == pytest.approx(1, abs=0.1)


def test_minimal_pairs_should_be_farther_apart_than_the_teacher_places_them():
    teacher = place_two(0.02)
    families = torch.tensor([0, 0])
    are_minimal = torch.tensor([True, True])
    assert family_distance_error(place_two(WIDENING * 0.02), teacher, families, are_minimal) == pytest.approx(
        0, abs=1e-4
    )
    assert family_distance_error(teacher, teacher, families, are_minimal) > 0.1
    for distance, wanted in ((0.08, WIDEST), (0.3, 0.3)):  # a distance above the limit is the teacher's
        error = family_distance_error(place_two(wanted), place_two(distance), families, are_minimal)
        assert error == pytest.approx(0, abs=1e-4)


def place_two(distance):
    """Return two unit vectors with this distance, which is 1 - the cosine."""
    cosine = 1 - distance
    return torch.tensor([[1.0, 0.0], [cosine, (1 - cosine**2) ** 0.5]])


def test_meaning_contrast_prefers_what_follows():
    premise, near, far = torch.eye(3)
    right, wrong = (
        torch.stack([premise, premise + 0.1 * near, *others]) for others in ((far, far), (premise, premise))
    )
    right, wrong = (torch.nn.functional.normalize(vectors, dim=-1) for vectors in (right, wrong))
    assert meaning_contrast(right, right, 1)["contrast"] < 0.01
    assert meaning_contrast(wrong, wrong, 1)["contrast"] > 1
    assert meaning_contrast(right, right, 1)["contrasts' cosine"] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("change", "sentence", "changed"),
    [
        (minimal_pairs.negate, "The door is open.", "The door is not open."),
        (minimal_pairs.negate, "It has been seen.", "It has not been seen."),
        (minimal_pairs.negate, "They do not agree.", "They do agree."),
        (minimal_pairs.negate, "She can't swim.", "She can swim."),
        (minimal_pairs.negate, "I haven't seen it.", "I have seen it."),
        (minimal_pairs.negate, "He never called.", "He called."),
        (minimal_pairs.negate, "There is no bread.", "There is some bread."),
        (minimal_pairs.negate, "There is a dog in the yard.", "There is no dog in the yard."),
        (minimal_pairs.negate, "Is it raining?", None),  # what asks has no negation that says otherwise
        (minimal_pairs.exchange, "The dog chased a man.", "The man chased a dog."),
        (minimal_pairs.exchange, "An owl is near the cat.", "A cat is near the owl."),
        (minimal_pairs.exchange, "We drove by car to Rome, not to Milan.", "We drove by car to Milan, not to Rome."),
        (minimal_pairs.exchange, "I like the dog and the cat.", None),
        (minimal_pairs.reorder, "a flight from Boston to Denver", "a flight from Denver to Boston"),
        (minimal_pairs.reorder, "After lunch she left.", "Before lunch she left."),
        (minimal_pairs.reorder, "It is larger than mine.", "It is smaller than mine."),
        (minimal_pairs.replace_with_opposite, "The shop opened.", "The shop closed."),
        (minimal_pairs.replace_with_opposite, "Cheap paper", "Expensive paper"),
        (minimal_pairs.renumber, "No number", None),
        (minimal_pairs.rename, "she met Anna Smith in March", "she met Berlin in March"),
    ],
)
def test_minimal_pair(change, sentence, changed):
    arguments = (["Berlin"],) if change is minimal_pairs.rename else ()
    assert change(sentence, *arguments, Random(0)) == changed


def test_changed_number_has_as_many_digits():
    for seed in range(20):
        changed = minimal_pairs.renumber("It took 250 days.", Random(seed))
        assert re.fullmatch(r"It took [1-9]\d\d days\.", changed)
        assert changed != "It took 250 days."
        assert minimal_pairs.renumber("Two dogs", Random(seed)) not in ("Two dogs", None)


def test_families_of_minimal_pairs_share_out_the_sentences():
    bases = [f"The dog is {n} years old, and the man was here before the cat." for n in range(20, 60)]
    made = minimal_pairs.make_families(bases, {"negation": 5, "numbers": 10, "names": 3}, Random(0))
    assert {change: len(families) for change, families in made.items()} == {"negation": 5, "numbers": 10, "names": 0}
    firsts = [family[0] for families in made.values() for family in families]
    assert len(set(firsts)) == len(firsts) == 15
    assert all(family[0] not in family[1:] for families in made.values() for family in families)
    assert {len(family) for families in made.values() for family in families} == {4}


def test_contrasts_turn_the_premise_round():
    for contrast in compose_contrasts(Random(0), 300):
        assert len({*contrast.texts}) == 4
        if contrast.kind in ("deeds", "exchanges", "events", "routes"):
            words = [sorted(re.findall(r"\w+", text.lower())) for text in (contrast.premise, *contrast.contradicted)]
            assert words[0] == words[1] or words[0] == words[2] or contrast.kind == "events"
    kinds = Counter(contrast.kind for contrast in compose_contrasts(Random(0), 300))
    assert min(kinds.values()) > 10
    assert len(kinds) == 5


def test_scores_of_contrasts_and_changed_copies():
    vectors = np.array([[1, 0, 0], [0.8, 0.6, 0], [0.6, 0.8, 0], [0.6, 0, 0.8], [0, 1, 0], [0, 0.9, 0.1**0.5]])
    held_out = {"contrasts": {"deeds": [[0, 1, 2, 3], [4, 5, 1, 1]]}, "changed": {"negation": [[0, 1], [0, 2]]}}
    corpus = SimpleNamespace(texts=list("012345"), draws={"held_out": held_out})
    scores = score.score_contrasts(lambda _, texts: vectors[list(map(int, texts))], corpus)
    assert scores == pytest.approx({"AUC deeds": 100, "cosine negation": 70})
    held_out["contrasts"]["deeds"].append([0, 3, 1, 1])  # what contradicts is nearer than what follows
    scores = score.score_contrasts(lambda _, texts: vectors[list(map(int, texts))], corpus)
    assert scores["AUC deeds"] == pytest.approx(100 * 13 / 18)  # of 18 comparisons, ties as halves


def test_cost_is_of_the_worst_wording():
    figures = {"": 80.0, "by topic: ": 82.0, "theme:": 77.0}
    assert score._score_with_cost("news", figures.__getitem__, ["by topic: ", "theme:"]) == {"news": 80, "cost news": 3}


def test_each_wording_has_one_of_the_other_facet():
    for wordings in score.WORDINGS.values():
        first, second = map(len, wordings.values())
        assert first == second >= 3


def test_instructions_of_the_evaluation_and_of_steering_are_never_made():
    random = Random(0)
    steering = {strip_form(one) for wordings in score.WORDINGS.values() for some in wordings.values() for one in some}
    assert strip_form("Represent the statement: ") in EVALUATED
    assert strip_form("Represent the Wikipedia document for retrieval; Input: ") in EVALUATED
    made = {
        strip_form(compose_general(source, random)) for source in ("clinc150", "headlines", "any") for _ in range(3000)
    }
    for source, facet, values in (
        ("dialogues", "service", ["hotels", "trains", "films"]),
        ("dialogues", "act", ["thanking", "greeting", "asking for information"]),
        ("clinc150", "intent", ["book_flight", "play_music", "pay_bill"]),
        ("goemotions", "emotion", ["joy", "anger", "fear"]),
    ):
        made |= {strip_form(compose_for_facet(source, facet, values, random)) for _ in range(3000)}
    assert len(made) > 10_000
    assert not made & (EVALUATED | steering)
    assert any("book flight, pay bill or play music" in instruction for instruction in made)


def test_remarks_name_no_service():
    """Real replies, such as "Yes, please", do not tell what they are about."""
    sentences = [sentence for family in compose_remark_families(Random(0), 200) for sentence in family]
    assert all(sentence.facets["act"] and "service" not in sentence.facets for sentence in sentences)
    assert not any("{" in sentence.text for sentence in sentences)
    assert len({sentence.text for sentence in sentences}) > 300


def test_instruction_without_a_blank_has_the_tokens_of_the_joined_text(tmp_path):
    """As the encoder counts them: as many as the instruction alone has are left out of the mean."""
    (tmp_path / "spiece.model").symlink_to(TINY / "spiece.model")
    folder = tmp_path / "corpus"
    folder.mkdir()
    text = "two cats sleep"
    processor = sentencepiece.SentencePieceProcessor(model_file=str(TINY / "spiece.model"))
    ids = np.array(processor.encode(text), np.uint16)
    (folder / "texts.jsonl").write_text(json.dumps(text) + "\n")
    (folder / "draws.json").write_text("{}")
    np.save(folder / "tokens.npy", ids)
    np.save(folder / "offsets.npy", np.array([0, len(ids)]))
    corpus = Corpus(tmp_path)
    for instruction in ("", "Represent the text: ", "Represent the text:", "for retrieval", "A text. "):
        before, after = corpus.encode_row(instruction, 0)
        assert [*before, *after] == processor.encode(instruction + text)
        assert len(before) == len(processor.encode(instruction.strip()))
        assert all(map(np.array_equal, corpus.encode_with_instruction(instruction, text), (before, after)))


@pytest.fixture
def student():
    """A student with nothing zero or one."""
    torch.manual_seed(0)
    student = Student(TINY_SHAPE)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return student


def test_exported_weights_are_read_back(student, tmp_path):
    export(student, TINY / "spiece.model", tmp_path / "exported")
    again = Student(TINY_SHAPE)
    read_checkpoint(again, tmp_path / "exported")
    for ours, theirs in zip(again.parameters(), student.parameters(), strict=True):
        assert torch.equal(ours, theirs.half().float())


def test_exported_student_embeds_as_the_student(student, tmp_path):
    export(student, TINY / "spiece.model", tmp_path / "exported")
    model = InstructorModel.load(prepare(tmp_path / "exported", into=tmp_path / "prepared"))

    instruction, texts = "Represent the sentence: ", ["A dog.", "Two cats sleep on a red sofa.", "", "Yes " * 60]
    before, *after = (ids[:-1].astype(np.uint16) for ids in model._tokenizer.encode([instruction, *texts]))
    padded = pad([before] * len(texts), after, PADDINGS["cpu"])
    read_checkpoint(student, tmp_path / "exported")  # in float16, as exported
    with torch.inference_mode():
        ours = student(padded).numpy()
    np.testing.assert_allclose(ours, model.encode(instruction, texts), atol=TOLERANCE)


def test_averaged_checkpoints(tmp_path, monkeypatch, student):
    states = []
    for name, step in (("main", 5), ("twin", 7)):
        (tmp_path / name).mkdir()
        moments = {"state": {0: {"step": torch.tensor(3.0), "momentum_buffer": torch.full((2,), float(step))}}}
        weights = {key: value * step for key, value in student.state_dict().items()}
        states.append({"student": weights, "optimisers": {"matrices": moments}, "step": step})
        torch.save(states[-1], tmp_path / name / CHECKPOINT)
    monkeypatch.setattr(sys, "argv", ["average.py", str(tmp_path), "main", "twin"])
    average.main()
    for name, step in (("main", 5), ("twin", 7)):
        state = torch.load(tmp_path / name / CHECKPOINT, weights_only=True)
        assert state["step"] == step
        assert state["optimisers"]["matrices"]["state"][0]["momentum_buffer"].tolist() == [6, 6]
        for key, value in student.state_dict().items():
            torch.testing.assert_close(state["student"][key], 6 * value)
