"""Evaluate the two baselines of the student: its teacher, and the student before its first training step.

    python training/baselines.py RUN DATA

The script runs the same tasks as `benchmarks/evaluate.py`, but without Spark. The teacher sees no instructions. The
untrained student is a static model built from the teacher's vectors of single vocabulary pieces.
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
from train import initialize_from_teacher, make_embedder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("data", type=Path)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    teacher, student, corpus = Teacher("cpu"), Student(Shape()), Corpus(arguments.run)
    initialize_from_teacher(student, teacher, corpus)

    def embed_with_teacher(_: str, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        return teacher.embed(texts).astype(np.float32)

    tasks = evaluate.read_tasks(evaluate.HERE / "tasks.json")
    embed_with_student = make_embedder(student, corpus, "cpu")
    for name, embed in {"teacher": embed_with_teacher, "untrained student": embed_with_student}.items():
        evaluate.print_figures(name, evaluate.evaluate(tasks, arguments.data / "eval", embed))


if __name__ == "__main__":
    main()
