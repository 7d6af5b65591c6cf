"""Train the student: warm up, train at a constant rate for as long as you like, and let the rate decay on a branch.

    python training/train.py DATA RUN                    train, from the last checkpoint if there is one
    python training/train.py DATA RUN --start FOLDER     the same, but start with the weights of an exported model
    python training/train.py DATA RUN --name BRANCH --decay main --steps N
                                                         branch off main's checkpoint and let the rate fall to zero

Send SIGTERM to stop after the current step and write a checkpoint. The batch of each step depends only on its number
and the seed, so a resumed run continues as if it had never stopped.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import time
from collections import defaultdict
from collections.abc import Sequence
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from batches import GRIDS_PER_STEP, Batches, Contrasts, Distilled, Grid, Pairs
from corpus import Corpus
from export import read_checkpoint
from losses import distillation, family_error, grid_contrast, meaning_contrast, pair_contrast
from model import Shape, Student, pad
from score import evaluate, score_for_steering
from teacher import Teacher, TeacherVectors
from torch import Tensor

WARMUP_STEPS = 50
RATES = {"matrices": 0.004, "others": 0.003}  # of Muon and of AdamW
WEIGHTS = {
    "kl": 0.2,
    "family": 0.3,
    "contrast": 0.1,
    "contrasts' cosine": 0.3,
    "grid": 0.5,
    "grids' cosine": 0.1,
    "pairs": 0.1,
    "pairs' cosine": 0.5,
}
SECONDS_TO_CHECKPOINT = 180
STEPS_TO_LOG = 50
STEPS_TO_SCORE = 1000
CHECKPOINT = "checkpoint.pt"


class Run:
    """A student in training, with its optimizers and its folder."""

    def __init__(self, folder: Path, corpus: Corpus, teacher: TeacherVectors, *, grids: bool) -> None:
        self.folder = folder
        self.teacher = teacher
        self.batches = Batches(corpus, grids=grids)
        self.student = Student(Shape())
        matrices = [module.weight for module in self.student.modules() if isinstance(module, torch.nn.Linear)]
        by_muon = set(matrices)
        others = [parameter for parameter in self.student.parameters() if parameter not in by_muon]
        self.optimizers: dict[str, torch.optim.Optimizer] = {
            "matrices": torch.optim.Muon(matrices, lr=RATES["matrices"], weight_decay=0.0),
            "others": torch.optim.AdamW(others, lr=RATES["others"], weight_decay=0.0, betas=(0.9, 0.98), fused=True),
        }
        self.step = 0
        self.first_step = 0  # the step at which a decay began
        self.tokens = 0
        self.seconds = 0.0  # CPU time, so pauses and other processes do not count

    def resume(self, path: Path) -> None:
        state = torch.load(path, weights_only=True)
        self.student.load_state_dict(state["student"])
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimisers"][name])
        self.step, self.first_step = state["step"], state["first_step"]
        self.tokens, self.seconds = state["tokens"], state["seconds"]

    def save(self) -> None:
        state = {
            "student": self.student.state_dict(),
            # The spelling of this key matches the checkpoints that exist.
            "optimisers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
            "step": self.step,
            "first_step": self.first_step,
            "tokens": self.tokens,
            "seconds": self.seconds,
        }
        new = self.folder / f"{CHECKPOINT}.new"
        torch.save(state, new)
        os.replace(new, self.folder / CHECKPOINT)

    def log(self, **entry: Any) -> None:
        line = json.dumps({"step": self.step, "tokens": self.tokens, "seconds": round(self.seconds)} | entry)
        print(line, flush=True)
        with (self.folder / "log.jsonl").open("a") as file:
            file.write(line + "\n")

    def train_step(self, rate: float) -> dict[str, float]:
        """Train one step at this fraction of the full learning rates, and return its losses."""
        start = time.process_time()
        parts = self.batches.draw_step(self.step)
        batches, back = self.batches.pad([sequence for _, sequences in parts for sequence in sequences])
        with torch.autocast("cpu", torch.bfloat16):
            vectors = self.student(batches)[back]
        losses: dict[str, Tensor] = defaultdict(lambda: torch.zeros(()))
        for (part, _), embedded in zip(parts, vectors.split([len(sequences) for _, sequences in parts]), strict=True):
            match part:
                case Distilled(rows, families):
                    losses |= distillation(embedded, self.teacher[rows])
                    losses["family"] = family_error(embedded, self.teacher[rows], torch.from_numpy(families))
                case Contrasts(rows):
                    losses |= meaning_contrast(embedded, self.teacher[rows.flatten()], len(rows))
                case Grid(rows, labels, is_content):
                    losses["grid"] += grid_contrast(embedded, labels) / GRIDS_PER_STEP
                    for vectors in compress(embedded.chunk(2), is_content):
                        distance = 1 - (vectors * self.teacher[rows]).sum(-1).mean()
                        losses["grids' cosine"] += distance / GRIDS_PER_STEP
                case Pairs(rows):
                    losses |= pair_contrast(embedded, self.teacher[rows])
        total = sum(WEIGHTS.get(name, 1.0) * loss for name, loss in losses.items())
        total.backward()
        for name, optimizer in self.optimizers.items():
            for group in optimizer.param_groups:
                group["lr"] = rate * RATES[name]
            optimizer.step()
            optimizer.zero_grad()
        self.step += 1
        self.tokens += sum(int(batch.lengths.sum()) for batch in batches)
        self.seconds += time.process_time() - start
        return {name: loss.item() for name, loss in losses.items()}


def make_embedder(student: Student, corpus: Corpus) -> evaluate.Embed:
    """Return a function that embeds texts under an instruction with the student."""

    @torch.inference_mode()
    def embed(instruction: str, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        before, after = zip(*(corpus.encode_with_instruction(instruction, text) for text in texts), strict=True)
        batches, back = pad(before, after)
        with torch.autocast("cpu", torch.bfloat16):
            return np.concatenate([student([batch]).numpy() for batch in batches])[back]

    return embed


@torch.no_grad()
def initialize_from_teacher(student: Student, teacher: Teacher, corpus: Corpus) -> None:
    """Initialize the student as a static model, from the teacher's vectors of single vocabulary pieces.

    Dense is the basis of the teacher's principal components. The embedding of a piece holds the coordinates of its
    vector in that basis.
    """
    pieces = torch.from_numpy(teacher.embed(corpus.pieces()).astype("float32"))
    sample = torch.from_numpy(teacher.embed(corpus.texts[:: len(corpus.texts) // 2000]).astype("float32"))
    basis = torch.linalg.eigh(sample.T @ sample).eigenvectors.flip(1)[:, : student.shape.d_model]
    student.dense.weight.copy_(basis)
    coordinates = pieces @ basis
    student.shared.weight[: len(pieces)] = coordinates / coordinates.square().mean().sqrt()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="the data folder, for the scores that steer the training")
    parser.add_argument("run", type=Path)
    parser.add_argument("--name", default="main", help="name of the training and of its folder in RUN")
    parser.add_argument("--decay", metavar="NAME", help="branch off NAME's checkpoint and let the rate fall to zero")
    parser.add_argument("--start", type=Path, metavar="FOLDER", help="an exported model whose weights to start with")
    parser.add_argument("--steps", type=int, help="stop after this many steps; with --decay, its length")
    parser.add_argument("--no-grids", action="store_true", help="train without the grids that teach instructions")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)

    corpus = Corpus(arguments.run)
    teacher = TeacherVectors(arguments.run, corpus)
    folder = arguments.run / arguments.name
    folder.mkdir(exist_ok=True)
    run = Run(folder, corpus, teacher, grids=not arguments.no_grids)
    if (folder / CHECKPOINT).exists():
        run.resume(folder / CHECKPOINT)
    elif arguments.decay:
        run.resume(arguments.run / arguments.decay / CHECKPOINT)
        run.first_step = run.step
    elif arguments.start:
        read_checkpoint(run.student, arguments.start)
    else:
        initialize_from_teacher(run.student, teacher.teacher, corpus)
    last = run.first_step + arguments.steps if arguments.steps else None
    stopping = False

    def stop(*_: Any) -> None:
        nonlocal stopping
        stopping = True

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    saved = time.monotonic()
    losses: dict[str, list[float]] = {}
    while not stopping and (last is None or run.step < last):
        rate = (last - run.step) / arguments.steps if arguments.decay else min(1.0, (run.step + 1) / WARMUP_STEPS)
        for name, loss in run.train_step(rate).items():
            losses.setdefault(name, []).append(loss)
        if run.step % STEPS_TO_LOG == 0:
            run.log(**{name: round(sum(some) / len(some), 4) for name, some in losses.items()})
            losses.clear()
        if run.step % STEPS_TO_SCORE == 0 or run.step == last:
            run.log(**score_for_steering(make_embedder(run.student, corpus), arguments.data, corpus))
        if time.monotonic() - saved > SECONDS_TO_CHECKPOINT:
            run.save()
            saved = time.monotonic()
    run.save()


if __name__ == "__main__":
    main()
