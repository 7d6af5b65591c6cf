"""The losses of a step's parts, given the student's unit vectors and the teacher's of the same texts."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

TEMPERATURE = 0.05
GRID_TEMPERATURE = 0.07
SPREAD_FLOOR = 0.01  # families that the teacher hardly parts count less


def distillation(student: Tensor, teacher: Tensor) -> dict[str, Tensor]:
    """How far the vectors are from the teacher's, and how far each text's similarities to the others are."""
    ours, theirs = (_log_similarities(vectors, vectors, TEMPERATURE, but_itself=True) for vectors in (student, teacher))
    return {
        "cosine": 1 - (student * teacher).sum(-1).mean(),
        "kl": functional.kl_div(ours, theirs, reduction="batchmean", log_target=True),
    }


def family_error(student: Tensor, teacher: Tensor, families: Tensor) -> Tensor:
    """How far the vectors, less the mean of their family, are from the teacher's, relative to the teacher's spread.

    The texts of a family share nearly all their words, so in losses on whole vectors what they share hides what parts
    them. 1 is a student that gives all texts of a family one vector, 0 one that parts them as the teacher does.
    """
    members = functional.one_hot(families).float()
    sizes = members.sum(0)
    to_mean = (members / sizes.clamp(min=1)).T
    ours, theirs = (vectors - members @ (to_mean @ vectors) for vectors in (student, teacher))
    error, spread = (to_mean @ vectors.square().sum(-1) for vectors in (ours - theirs, theirs))
    return (error / (spread + SPREAD_FLOOR))[sizes > 1].mean()


def meaning_contrast(student: Tensor, teacher: Tensor, number: int) -> dict[str, Tensor]:
    """Contrast of what follows from a sentence with what contradicts it, and how far all are from the teacher.

    The teacher itself often has a sentence nearer to one of the same words than to one of the same meaning, so the
    contrast goes by what the sentences say.
    """
    premise, *others = student.view(number, -1, student.shape[-1]).unbind(1)
    logits = torch.stack([(premise * other).sum(-1) for other in others], 1) / TEMPERATURE
    return {
        "contrast": functional.cross_entropy(logits, torch.zeros(number, dtype=torch.long)),
        "contrasts' cosine": 1 - (student * teacher).sum(-1).mean(),
    }


def grid_contrast(student: Tensor, labels: tuple[Any, Any]) -> Tensor:
    """Supervised contrast (Khosla et al. 2020) under each of the two instructions, by the label asked for."""
    losses = []
    for vectors, some in zip(student.chunk(2), labels, strict=True):
        same = torch.from_numpy(some[:, None] == some).fill_diagonal_(False)
        logits = _log_similarities(vectors, vectors, GRID_TEMPERATURE, but_itself=True)
        per_text = -(logits.masked_fill(~same, 0).sum(1) / same.sum(1).clamp(min=1))
        losses.append(per_text[same.any(1)].mean())
    return torch.stack(losses).mean()


def pair_contrast(student: Tensor, teacher: Tensor) -> dict[str, Tensor]:
    """Contrast of each query with all passages and back, and how far the vectors are from the teacher's.

    Half of the target is the pair's own passage and half the teacher's choice among all, so that a
    passage that answers too is not pushed away.
    """
    queries, passages = student.chunk(2)
    teacher_queries, teacher_passages = teacher.chunk(2)
    losses = []
    for ours, theirs in (
        ((queries, passages), (teacher_queries, teacher_passages)),
        ((passages, queries), (teacher_passages, teacher_queries)),
    ):
        target = 0.5 * _log_similarities(*theirs, TEMPERATURE).exp() + 0.5 * torch.eye(len(queries))
        losses.append(functional.cross_entropy(ours[0] @ ours[1].T / TEMPERATURE, target))
    return {"pairs": torch.stack(losses).mean(), "pairs' cosine": 1 - (student * teacher).sum(-1).mean()}


def _log_similarities(a: Tensor, b: Tensor, temperature: float, *, but_itself: bool = False) -> Tensor:
    """Log-softmax over each row of the similarities; a text's similarity to itself is left out by -10,000."""
    similarities = a @ b.T / temperature
    if but_itself:
        similarities = similarities - 10_000 * torch.eye(len(a))
    return similarities.log_softmax(-1)
