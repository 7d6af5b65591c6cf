"""Comparisons of instructions, on vectors for which the correct scores and their errors are known."""

import numpy as np
import pandas as pd
import pytest

from spark_instructor import compare_instructions, compare_retrieval_instructions, evaluation
from spark_instructor.evaluation import score_retrieval, vote

WORDS = [*"012345abcd", "red", "green", "blue", "ring", "cube"]


class WordModel:
    """Embeds the word of each text that the instruction names by its place; without an instruction, the first one."""

    def encode(self, instruction, texts):
        words = [text.split()[int(instruction or 0)] for text in texts]
        return np.array([[word == other for other in WORDS] for word in words], np.float32)


MODEL = WordModel()
TEXTS = [
    f"{i} {color} {shape}" for i, (color, shape) in enumerate(2 * [("red", "ring"), ("red", "cube"), ("green", "ring")])
]
COLORS = [text.split()[1] for text in TEXTS]


def test_the_instruction_that_asks_for_the_label_wins():
    comparison = compare_instructions(MODEL, ["2", "1"], pd.Series(TEXTS), pd.Series(COLORS), k=1)
    assert comparison.scores["accuracy"][1].tolist() == [1] * 6
    assert comparison.scores["accuracy"][0][[1, 4]].tolist() == [1, 1]  # the two cubes are both red
    table = comparison.to_pandas()
    assert table["instruction"].tolist() == ["2", "1"]
    assert table["score"][1] == 1 and table["difference"][0] == table["standard_error"][0] == 0


def test_the_error_is_that_of_the_paired_differences():
    """Two instructions that are right on the same texts do not differ, however much the texts do."""
    scores = np.array([[1, 0, 1, 0], [1, 0, 1, 1], [1, 0, 1, 0]], float)
    comparison = evaluation.InstructionComparison({"instruction": ["", "a: ", "b: "]}, {"accuracy": scores})
    table = comparison.to_pandas()
    assert table["score"].tolist() == [0.5, 0.75, 0.5]
    assert table["difference"].tolist() == [0, 0.25, 0]
    assert table["standard_error"].tolist() == pytest.approx([0, np.std([0, 0, 0, 1], ddof=1) / 2, 0])
    assert repr(comparison).splitlines() == [
        "metric    score  difference      instruction",
        "accuracy  0.500                  ''",
        "accuracy  0.750  +0.250 ± 0.250  'a: '",
        "accuracy  0.500  +0.000 ± 0.000  'b: '",
        "n = 4. Differences are to the first, ± one standard error.",
    ]


def test_copies_of_a_text_do_not_vote():
    texts = ["0 a", "1 b", "0 a", "1 b", "2 a", "2 b"]
    labels = ["x", "y", "x", "y", "x", "y"]
    comparison = compare_instructions(MODEL, ["0", "1"], texts, labels, k=1)
    # By the numbers, the texts 4 and 5 are near each other, which have different labels.
    assert comparison.scores["accuracy"][0][4:].tolist() == [0, 0]
    assert comparison.scores["accuracy"][1].tolist() == [1] * 6


@pytest.mark.parametrize("block", [1, 4, 1000])
def test_blocks(block, monkeypatch):
    vectors = np.random.default_rng(0).normal(size=(30, 4)).astype(np.float32)
    model = type("Fixed", (), {"encode": lambda self, instruction, texts: vectors * (-1 if instruction else 1)})()
    monkeypatch.setattr(evaluation, "_BLOCK", block)
    labels = [i % 3 for i in range(30)]
    comparison = compare_instructions(model, ["", "a"], map(str, range(30)), labels)
    similarities = vectors @ vectors.T - 1000 * np.eye(30)
    votes = [np.bincount([labels[j] for j in np.argsort(-row)[:5]], minlength=3).argmax() for row in similarities]
    assert comparison.scores["accuracy"][0].tolist() == [
        vote == label for vote, label in zip(votes, labels, strict=True)
    ]
    assert (comparison.scores["accuracy"][0] == comparison.scores["accuracy"][1]).all()


def test_the_most_frequent_label_wins_and_then_the_smallest():
    similarities = np.array([[0.9, 0.8, 0.7, 0.1], [0.1, 0.8, 0.2, 0.9]], np.float32)
    labels = np.array([2, 1, 1, 0])
    assert vote(similarities, labels, 3).tolist() == [1, 1]
    assert vote(similarities, labels, 2).tolist() == [1, 0]
    assert vote(similarities, labels, 1).tolist() == [2, 0]
    assert vote(similarities, labels, 4).tolist() == [1, 1]


def test_retrieval_counts_and_discounts_by_rank():
    passages = np.eye(12, dtype=np.float32)
    queries = np.tile(np.arange(12, 0, -1, dtype=np.float32), (3, 1))
    scores = score_retrieval(queries, passages, [{0}, {2}, {11}])  # ranks 1, 3 and 12
    assert scores["hit@1"].tolist() == [1, 0, 0]
    assert scores["hit@10"].tolist() == [1, 1, 0]
    assert scores["nDCG@10"] == pytest.approx([1, 1 / 2, 0])
    several = score_retrieval(np.array([[3, 2, 1]], np.float32), passages[:3, :3], [{0, 2}])
    assert several["nDCG@10"] == pytest.approx([(1 + 1 / 2) / (1 + 1 / np.log2(3))])


def test_pairs_of_instructions_for_retrieval():
    """A query that occurs with several passages is one query; passages of the corpus compete with the right ones."""
    queries, passages = ["red a", "red a", "green b"], ["1 red", "2 red", "3 green"]
    instructions = [("0", "1"), ("1", "0")]
    comparison = compare_retrieval_instructions(MODEL, instructions, queries, passages, corpus=["4 ring", "3 green"])
    assert {metric: scores[0].tolist() for metric, scores in comparison.scores.items()} == {
        "hit@1": [1, 1],
        "hit@10": [1, 1],
        "nDCG@10": [1, 1],
    }
    assert comparison.scores["hit@1"].shape == (2, 2)
    table = comparison.to_pandas()
    assert (
        table["query_instruction"].tolist() == ["0", "1"] * 3
        and table["passage_instruction"].tolist() == ["1", "0"] * 3
    )
    assert repr(comparison).count("\n") == 7


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"instructions": ["only: "]}, r"instructions is \['only: '\], expected a list of at least two"),
        ({"instructions": "only: "}, "instructions is 'only: ', expected a list of at least two"),
        ({"texts": TEXTS[:-1]}, "there are 5 texts and 6 labels, expected as many labels as texts"),
        ({"texts": [], "labels": []}, "texts is empty, expected a sample with labels"),
        ({"labels": [*COLORS[:-1], None]}, "text 5 has the label None: leave texts without a label out"),
        ({"labels": [1, 1, 2, 2, 3, float("nan")]}, "text 5 has the label nan"),
        ({"labels": ["red"] * 6}, "all texts have the label 'red': expected at least two"),
        (
            {"labels": [*COLORS[:-1], "blue"]},
            "each of these labels belongs to only one text: 'blue', 'green', so no other text can vote",
        ),
        (
            {"texts": ["a"] * 3 + ["b", "c", "d"], "labels": [1, 1, 1, 2, 2, 2]},
            "each of these labels belongs to only one text: 1",
        ),
        ({"k": 6}, "k is 6, expected from 1 to 5, the number of other texts that can vote"),
        ({"k": 0}, "k is 0, expected from 1 to 5"),
    ],
)
def test_samples_that_say_nothing(changes, message):
    arguments = {"instructions": ["1", "2"], "texts": TEXTS, "labels": COLORS, **changes}
    with pytest.raises(ValueError, match=message):
        compare_instructions(MODEL, **arguments)


def test_any_labels_that_can_be_sorted():
    labels = [(len(color), color) for color in COLORS]
    by_tuple, by_name = (compare_instructions(MODEL, ["1", "2"], TEXTS, some, k=1) for some in (labels, COLORS))
    assert by_tuple.to_pandas().equals(by_name.to_pandas())
    with pytest.raises(TypeError, match=r"the labels cannot be sorted \(.*\): convert them to strings"):
        compare_instructions(MODEL, ["1", "2"], TEXTS, [1, "1", 2, "2", 1, 2])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"instructions": [("a", "b")]},
            r"expected a list of at least two. The first is the baseline; \('', ''\) means",
        ),
        ({"instructions": ["ab", "cd"]}, "'ab' is not a pair of an instruction for queries and one for passages"),
        ({"queries": ["0 a"]}, "there are 1 queries and 2 passages, expected as many passages as queries"),
        ({"queries": [], "passages": []}, "queries is empty, expected a sample with passages"),
        ({"queries": ["0 a", "0 a"]}, "found 1 distinct queries and 2 distinct passages, expected at least 2 of each"),
        ({"passages": ["0 c", "0 c"]}, "found 2 distinct queries and 1 distinct passages"),
    ],
)
def test_questions_that_say_nothing(changes, message):
    arguments = {"queries": ["0 a", "0 b"], "passages": ["0 c", "0 d"], "instructions": [("0", "0")] * 2, **changes}
    with pytest.raises(ValueError, match=message):
        compare_retrieval_instructions(MODEL, **arguments)


def test_a_real_model(tiny_model):
    """Vectors and errors are those of the model, which wants texts and warns of instructions without a colon."""
    comparison = compare_instructions(tiny_model, ["", "Represent: "], TEXTS, COLORS)
    assert comparison.scores["accuracy"].shape == (2, 6)
    with pytest.raises(TypeError, match="text 1 is a NoneType, expected a str"):
        compare_instructions(tiny_model, ["", "Represent: "], ["a", None, "b", "c"], [1, 1, 2, 2], k=1)
    with pytest.raises(TypeError, match=r"expected a loaded model: InstructorModel.from_pretrained\('tiny'\)"):
        compare_instructions("tiny", ["", "Represent: "], TEXTS, COLORS)
