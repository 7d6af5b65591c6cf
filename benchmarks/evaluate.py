"""Measure how good a model's vectors are: run it through the Spark annotator on tasks in JSON lines files.

python benchmarks/evaluate.py DATA --json figures.json                     # instructor_tiny
python benchmarks/evaluate.py DATA --model hkunlp/instructor-base --precision bfloat16
python benchmarks/evaluate.py MINE --tasks MINE/tasks.json                 # your texts and instructions

A JSON file describes the tasks (tasks.json beside this script, or your own; see README.md), and the folder DATA holds
their texts. Each task is run without instructions and with its own. All figures are multiplied by 100.
"""

import argparse
import dataclasses
import json
import os
import statistics
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random
from typing import Any, Protocol

import common
import numpy as np
import numpy.typing as npt
from common import say
from scipy.stats import spearmanr
from sklearn.cluster import KMeans
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import v_measure_score

from spark_instructor.evaluation import score_retrieval, vote

Vectors = npt.NDArray[np.float32]
Embed = Callable[[str, Sequence[str]], Vectors]
"""Returns unit vectors (texts, dimension) for an instruction and texts."""
Rows = Sequence[dict[str, Any]]
Figures = dict[str, float]

HERE = Path(__file__).parent
NEIGHBORS = 5
SEEDS = (0, 1, 2)
TRIPLETS = 4000


class Task(Protocol):
    """A task in tasks.json: ``kind`` selects the class, and everything else is a field of it."""

    name: str

    def figures(self, read: Callable[[str], Rows], embed: Embed) -> Figures:
        """Return the figures of the task; ``read`` returns the rows of a file."""


@dataclass(frozen=True)
class Similarity:
    """Spearman correlation of cosine and judged similarity: rows of ``a``, ``b`` and ``score``.

    With ``by``, one figure per value of that column, and their mean.
    """

    name: str
    pairs: str
    instruction: str
    by: str | None = None

    def figures(self, read: Callable[[str], Rows], embed: Embed) -> Figures:
        rows = read(self.pairs)
        if self.by is None:
            return {"Spearman": similarity(embed, rows, self.instruction)}
        groups: dict[str, list[int]] = defaultdict(list)
        for i, row in enumerate(rows):
            groups[row[self.by]].append(i)
        cosines = _cosines(embed, rows, self.instruction)
        found = {
            value: _spearman(cosines[chosen], [rows[i] for i in chosen]) for value, chosen in sorted(groups.items())
        }
        return {**found, "mean": statistics.mean(found.values())}


@dataclass(frozen=True)
class Retrieval:
    """Retrieval: rows of ``text`` and ``pos`` (the ids of the right passages) against rows of ``id`` and ``text``."""

    name: str
    queries: str
    passages: str
    query_instruction: str
    passage_instruction: str

    def figures(self, read: Callable[[str], Rows], embed: Embed) -> Figures:
        queries, passages = read(self.queries), read(self.passages)
        place = {row["id"]: i for i, row in enumerate(passages)}
        scores = score_retrieval(
            embed(self.query_instruction, [row["text"] for row in queries]),
            embed(self.passage_instruction, [row["text"] for row in passages]),
            [{place[one] for one in row["pos"]} for row in queries],
        )
        return {name: 100 * float(of_queries.mean()) for name, of_queries in scores.items()}


@dataclass(frozen=True)
class Classification:
    """Classification by the nearest neighbors' vote and by logistic regression: rows of ``text`` and ``label``."""

    name: str
    train: str
    test: str
    label: str
    instruction: str

    def figures(self, read: Callable[[str], Rows], embed: Embed) -> Figures:
        train, test = read(self.train), read(self.test)
        known, asked = (embed(self.instruction, [row["text"] for row in rows]) for rows in (train, test))
        labels, expected = (np.array([row[self.label] for row in rows]) for rows in (train, test))
        names, numbers = np.unique(labels, return_inverse=True)
        predicted = {
            f"{NEIGHBORS} nearest": names[vote(asked @ known.T, numbers, NEIGHBORS)],
            "logistic regression": LogisticRegression(C=10, max_iter=1000).fit(known, labels).predict(asked),
        }
        return {name: 100 * float((found == expected).mean()) for name, found in predicted.items()}


@dataclass(frozen=True)
class Clustering:
    """Clustering, by the mean v-measure of k-means over the seeds: rows of ``text`` and ``label``."""

    name: str
    texts: str
    label: str
    instruction: str

    def figures(self, read: Callable[[str], Rows], embed: Embed) -> Figures:
        rows = read(self.texts)
        vectors = embed(self.instruction, [row["text"] for row in rows])
        labels = [row[self.label] for row in rows]
        found = [
            v_measure_score(labels, KMeans(len(set(labels)), random_state=seed).fit_predict(vectors)) for seed in SEEDS
        ]
        return {"v-measure": 100 * statistics.mean(found)}


@dataclass(frozen=True)
class Sensitivity:
    """Instruction sensitivity: rows of ``text`` and two columns of labels, each with its own instruction."""

    name: str
    texts: str
    instructions: dict[str, str]

    def figures(self, read: Callable[[str], Rows], embed: Embed) -> Figures:
        return sensitivity(embed, read(self.texts), self.instructions)


KINDS: dict[str, type[Task]] = {
    "similarity": Similarity,
    "retrieval": Retrieval,
    "classification": Classification,
    "clustering": Clustering,
    "sensitivity": Sensitivity,
}


def similarity(embed: Embed, rows: Rows, instruction: str = "") -> float:
    """Return the Spearman correlation of the cosine of ``a`` and ``b`` with ``score``."""
    return _spearman(_cosines(embed, rows, instruction), rows)


def _cosines(embed: Embed, rows: Rows, instruction: str) -> Vectors:
    a, b = (embed(instruction, [row[side] for row in rows]) for side in ("a", "b"))
    return (a * b).sum(1)


def _spearman(cosines: Vectors, rows: Rows) -> float:
    return 100 * float(spearmanr(cosines, [row["score"] for row in rows]).statistic)


def sensitivity(embed: Embed, rows: Rows, instructions: dict[str, str]) -> Figures:
    """Return the accuracy under each of two instructions, and their sum minus 100.

    For each anchor, one text shares only the label that the first instruction asks for, and another text only the
    label that the second asks for. Under an instruction, the text that shares its label should be nearer. An encoder
    that ignores instructions scores 0, and a perfect one scores 100.
    """
    first, second = instructions
    random = Random(0)
    by_labels: dict[tuple[str, str], list[int]] = defaultdict(list)
    for i, row in enumerate(rows):
        by_labels[row[first], row[second]].append(i)
    cells = list(by_labels)
    of_first = {value: [cell for cell in cells if cell[0] == value] for value, _ in cells}
    of_second = {value: [cell for cell in cells if cell[1] == value] for _, value in cells}
    chosen = []
    for i in random.choices(range(len(rows)), k=TRIPLETS):
        cell = rows[i][first], rows[i][second]
        share_first = [other for other in of_first[cell[0]] if other[1] != cell[1]]
        share_second = [other for other in of_second[cell[1]] if other[0] != cell[0]]
        if share_first and share_second:
            neighbors = ([i for other in some for i in by_labels[other]] for some in (share_first, share_second))
            chosen.append((i, *map(random.choice, neighbors)))
    anchor, of_first_facet, of_second_facet = np.array(chosen).T
    figures = {}
    for facet, near, far in (
        (first, of_first_facet, of_second_facet),
        (second, of_second_facet, of_first_facet),
    ):
        vectors = embed(instructions[facet], [row["text"] for row in rows])
        right = (vectors[anchor] * vectors[near]).sum(1) > (vectors[anchor] * vectors[far]).sum(1)
        figures[facet] = 100 * float(right.mean())
    return figures | {"sensitivity": sum(figures.values()) - 100}


def read_tasks(path: Path) -> list[Task]:
    """Return the tasks that a JSON file describes; exit if it lacks something."""
    tasks = []
    for described in json.loads(path.read_text("utf-8")):
        name, kind = described.get("name"), described.pop("kind", None)
        if kind not in KINDS:
            raise SystemExit(f"{path}: task {name!r} is of kind {kind!r}, expected one of {', '.join(KINDS)}")
        wanted = dataclasses.fields(KINDS[kind])
        needed = {field.name for field in wanted if field.default is dataclasses.MISSING}
        if not needed <= described.keys() <= {field.name for field in wanted}:
            raise SystemExit(f"{path}: task {name!r} has {sorted(described)}, expected {sorted(needed)}")
        tasks.append(KINDS[kind](**described))
    return tasks


def evaluate(tasks: Sequence[Task], data: Path, embed: Embed) -> list[dict[str, Any]]:
    """Return one row per figure of each task: without instructions, and with those of the task."""

    @cache
    def read(name: str) -> Rows:
        return common.read_jsonl(data / name)

    def without_instruction(_: str, texts: Sequence[str]) -> Vectors:
        return embed("", texts)

    rows = []
    for task in tasks:
        say(task.name)
        without, instructed = (task.figures(read, some) for some in (without_instruction, embed))
        rows += [
            {"task": task.name, "figure": name, "without": without[name], "with": instructed[name]} for name in without
        ]
    return rows


def print_figures(title: str, rows: Sequence[dict[str, Any]]) -> None:
    """Format the rows of `evaluate` as a table."""
    common.table(
        title,
        ["task", "figure", "without instructions", "with"],
        [(row["task"], row["figure"], f"{row['without']:.1f}", f"{row['with']:.1f}") for row in rows],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="the folder with the tasks' files")
    parser.add_argument("--tasks", type=Path, default=HERE / "tasks.json", help="what to run (%(default)s)")
    parser.add_argument("--model", default="instructor_tiny", help="known name, hub id or folder (%(default)s)")
    parser.add_argument("--precision", default="float32", help="(%(default)s)")
    parser.add_argument("--master", default="local[*]", help="of the Spark session (%(default)s)")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    arguments = parser.parse_args()
    arguments.machine = common.machine()
    tasks = read_tasks(arguments.tasks)

    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    settings = {"spark.app.name": "evaluate", "spark.sql.execution.arrow.pyspark.enabled": "true"}
    spark = common.session(arguments.master, settings)
    rows = evaluate(tasks, arguments.data, _embed_in(spark, arguments.model, arguments.precision))
    spark.stop()
    print_figures(f"{arguments.model}, {arguments.precision}", rows)
    common.write_json(arguments, {"model": arguments.model, "precision": arguments.precision, "figures": rows})


def _embed_in(spark: Any, model: str, precision: str) -> Embed:
    """Return a function that embeds with a stage in this Spark session."""
    import pandas as pd

    from spark_instructor import InstructorEmbeddings

    stage = InstructorEmbeddings.pretrained(model).setPrecision(precision).setInputCols("text").setOutputCol("vector")

    def embed(instruction: str, texts: Sequence[str]) -> Vectors:
        numbered = spark.createDataFrame(pd.DataFrame({"row": range(len(texts)), "text": texts}))
        embedded = stage.setInstruction(instruction).transform(numbered).select("row", "vector").toPandas()
        return np.stack(embedded.sort_values("row")["vector"].tolist())

    return embed


if __name__ == "__main__":
    main()
