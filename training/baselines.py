"""What the student is measured by: figures of its teacher, and of itself before the first step.

    python training/baselines.py RUN DATA

on the tasks that `benchmarks/evaluate.py` runs a checkpoint on, without Spark. The teacher sees no instructions. The
untrained student is the static model that the teacher's vectors of single pieces make.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from corpus import Corpus
from model import Shape, Student
from score import evaluate
from teacher import Teacher
from train import embedder, initialise_from_teacher


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("data", type=Path)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    teacher, student, corpus = Teacher(), Student(Shape()), Corpus(arguments.run)
    initialise_from_teacher(student, teacher, corpus)

    def by_teacher(_: str, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        return teacher.embed(texts).astype(np.float32)

    tasks = evaluate.read_tasks(evaluate.HERE / "tasks.json")
    for name, embed in {"teacher": by_teacher, "untrained student": embedder(student, corpus)}.items():
        evaluate.print_figures(name, evaluate.evaluate(tasks, arguments.data / "eval", embed))


if __name__ == "__main__":
    main()
