"""Train the student: warm up, train at a constant rate for as long as you like, and let the rate decay on a branch.

    python training/train.py DATA RUN                    train, from the last checkpoint if there is one
    python training/train.py DATA RUN --start FOLDER     the same, but start with the weights of an exported model
    python training/train.py DATA RUN --name BRANCH --decay main --steps N
                                                         branch off main's checkpoint and let the rate fall to zero

Send SIGTERM to stop after the current step and write a checkpoint. The texts of a step depend only on its number and
the seed, so a resumed run continues as if it had never stopped.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from batches import GRIDS_PER_DRAW, Batches, Contrasts, Distilled, Grid, Pairs, Part
from corpus import Corpus
from export import read_checkpoint
from losses import distillation, family_distance_error, family_error, grid_contrast, meaning_contrast, pair_contrast
from model import PADDINGS, Padded, Padding, Shape, Student, pad
from score import evaluate, score_for_steering
from teacher import Teacher, TeacherVectors
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

WARMUP_STEPS = 50
RATES = {"matrices": 0.003, "others": 0.002}
WEIGHTS = {
    "kl": 0.2,
    "family": 0.3,
    "families' distances": 2.5,
    "contrast": 0.1,
    "contrasts' cosine": 0.3,
    "grid": 0.5,
    "grids' cosine": 0.1,
    "pairs": 0.1,
    "pairs' cosine": 0.5,
}
SECONDS_TO_CHECKPOINT = 180
STEPS_TO_LOG = 50
TEXTS_TO_SCORE = 256  # at a time
CHECKPOINT = "checkpoint.pt"


@dataclass(frozen=True)
class Step:
    """The parts of a step's draws, the texts of all parts, and the teacher's vectors of all rows of the parts."""

    parts: list[Part]
    sizes: list[int]  # the number of texts of each part
    texts: Padded
    targets: Tensor


class Steps(Dataset[Step]):
    """Prepare steps by their number, in processes of their own if the training has any."""

    def __init__(self, batches: Batches, teacher: TeacherVectors, draws: int, padding: Padding) -> None:
        self._batches, self._teacher, self._draws, self._padding = batches, teacher, draws, padding

    def __getitem__(self, number: int) -> Step:
        first = number * self._draws
        drawn = [part for draw in range(first, first + self._draws) for part in self._batches.draw(draw)]
        parts = [part for part, _ in drawn]
        texts = self._batches.pad([line for _, lines in drawn for line in lines], self._padding)
        targets = self._teacher[np.concatenate([part.rows.flatten() for part in parts])]
        return Step(parts, [len(lines) for _, lines in drawn], texts, targets)


class Run:
    """A student in training, with its optimizers and its folder."""

    def __init__(self, folder: Path, steps: Steps, *, shape: Shape, draws: int, device: str) -> None:
        self.folder, self.steps, self.draws, self.device = folder, steps, draws, device
        self.student = Student(shape).to(device)
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
        state = torch.load(path, weights_only=True, map_location=self.device)
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
        save_checkpoint(state, self.folder)

    def log(self, **entry: Any) -> None:
        line = json.dumps({"step": self.step, "tokens": self.tokens, "seconds": round(self.seconds)} | entry)
        print(line, flush=True)
        with (self.folder / "log.jsonl").open("a") as file:
            file.write(line + "\n")

    def load_steps(self, last: int | None, workers: int) -> Iterator[Step]:
        """Yield the steps that are left, prepared ahead by this many processes, or here if there are none."""
        numbers = range(self.step, sys.maxsize if last is None else last)
        loader = DataLoader(
            self.steps, batch_size=None, sampler=numbers, num_workers=workers, worker_init_fn=_ignore_interrupt
        )
        return iter(loader)

    def train_step(self, step: Step, rate: float) -> dict[str, Tensor]:
        """Train one step at this fraction of the full learning rates, and return its losses."""
        start = time.process_time()
        with torch.autocast(self.device, torch.bfloat16):
            vectors = self.student(step.texts.to(self.device)).split(step.sizes)
        targets = step.targets.to(self.device).split([part.rows.size for part in step.parts])
        losses: dict[str, Tensor] = defaultdict(lambda: torch.zeros((), device=self.device))
        for drawn in zip(step.parts, vectors, targets, strict=True):
            for name, loss in compute_losses(*drawn).items():
                losses[name] += loss / self.draws
        total = sum(WEIGHTS.get(name, 1.0) * loss for name, loss in losses.items())
        total.backward()
        for name, optimizer in self.optimizers.items():
            for group in optimizer.param_groups:
                group["lr"] = rate * RATES[name]
            optimizer.step()
            optimizer.zero_grad()
        self.step += 1
        self.tokens += int(step.texts.lengths.sum())
        self.seconds += time.process_time() - start
        return {name: loss.detach() for name, loss in losses.items()}


def save_checkpoint(state: dict[str, Any], folder: Path) -> None:
    """Write the checkpoint of a training; one that exists is replaced in one step."""
    new = folder / f"{CHECKPOINT}.new"
    torch.save(state, new)
    os.replace(new, folder / CHECKPOINT)


def _ignore_interrupt(_: int) -> None:
    """Leave Ctrl-C, which reaches every process of a terminal, to the process that trains."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def compute_losses(part: Part, student: Tensor, teacher: Tensor) -> dict[str, Tensor]:
    """Return the losses of a part, given the student's vectors of its texts and the teacher's of its rows."""
    match part:
        case Distilled(_, families, are_minimal):
            some = (student, teacher, torch.from_numpy(families))
            distances = family_distance_error(*some, torch.from_numpy(are_minimal))
            errors = {"family": family_error(*some), "families' distances": distances}
            return distillation(student, teacher) | errors
        case Contrasts(rows):
            return meaning_contrast(student, teacher, len(rows))
        case Pairs():
            return pair_contrast(student, teacher)
        case Grid(_, labels, is_content):
            losses = {"grid": grid_contrast(student, labels) / GRIDS_PER_DRAW}
            distances = [1 - (half * teacher).sum(-1).mean() for half in compress(student.chunk(2), is_content)]
            if distances:
                losses["grids' cosine"] = torch.stack(distances).sum() / GRIDS_PER_DRAW
            return losses


def make_embedder(student: Student, corpus: Corpus, device: str) -> evaluate.Embed:
    """Return a function that embeds texts under an instruction with the student."""

    @torch.inference_mode()
    def embed(instruction: str, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        vectors = []
        for start in range(0, len(texts), TEXTS_TO_SCORE):
            some = texts[start : start + TEXTS_TO_SCORE]
            before, after = zip(*(corpus.encode_with_instruction(instruction, text) for text in some), strict=True)
            with torch.autocast(device, torch.bfloat16):
                vectors.append(student(pad(before, after, PADDINGS[device]).to(device)).cpu().numpy())
        return np.concatenate(vectors)

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
    parser.add_argument("--seed", type=int, default=0, help="what the texts of a step depend on, beside its number")
    parser.add_argument("--no-grids", action="store_true", help="train without the grids that teach instructions")
    parser.add_argument("--layers", type=int, default=Shape.num_layers, help="number of layers of the student")
    parser.add_argument("--draws", type=int, default=1, help="draws per step; a GPU computes several in the same time")
    parser.add_argument("--device", choices=PADDINGS, default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--workers", type=int, default=0, help="processes that prepare steps ahead of the training")
    parser.add_argument("--steps-to-score", type=int, default=1000, help="steps from one score to the next")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)

    corpus = Corpus(arguments.run)
    teacher = TeacherVectors(arguments.run, corpus)
    folder = arguments.run / arguments.name
    folder.mkdir(exist_ok=True)
    device = arguments.device
    batches = Batches(corpus, grids=not arguments.no_grids, seed=arguments.seed)
    steps = Steps(batches, teacher, arguments.draws, PADDINGS[device])
    run = Run(folder, steps, shape=Shape(num_layers=arguments.layers), draws=arguments.draws, device=device)
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

    def score() -> None:
        run.log(**score_for_steering(make_embedder(run.student, corpus, device), arguments.data, corpus))

    def stop(*_: Any) -> None:
        nonlocal stopping
        stopping = True

    prepared = run.load_steps(last, arguments.workers)  # its processes must not inherit the handlers
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    saved = time.monotonic()
    losses: dict[str, list[Tensor]] = {}
    while not stopping and (last is None or run.step < last):
        rate = (last - run.step) / arguments.steps if arguments.decay else min(1.0, (run.step + 1) / WARMUP_STEPS)
        for name, loss in run.train_step(next(prepared), rate).items():
            losses.setdefault(name, []).append(loss)
        if run.step % STEPS_TO_LOG == 0:
            run.log(**{name: round(torch.stack(some).mean().item(), 4) for name, some in losses.items()})
            losses.clear()
        if run.step % arguments.steps_to_score == 0:
            score()
        if time.monotonic() - saved > SECONDS_TO_CHECKPOINT:
            run.save()
            saved = time.monotonic()
    run.save()
    if run.step == last:
        score()


if __name__ == "__main__":
    main()
