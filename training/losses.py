"""Losses of the parts of a step, given the student's and the teacher's unit vectors of the same texts."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

TEMPERATURE = 0.05
GRID_TEMPERATURE = 0.07
SPREAD_FLOOR = 0.01  # families that the teacher hardly separates count less
DISTANCE_FLOOR = 0.03  # and so do pairs
WIDENING = 5.0  # minimal pairs should be this many times as far apart as the teacher places them
WIDEST = 0.2  # but no distance is widened beyond this one


def distillation(student: Tensor, teacher: Tensor) -> dict[str, Tensor]:
    """Compare the student with the teacher: each text's vector, and its similarities to the other texts."""
    ours, theirs = (_log_similarities(vectors, vectors, TEMPERATURE, but_itself=True) for vectors in (student, teacher))
    return {
        "cosine": 1 - (student * teacher).sum(-1).mean(),
        "kl": functional.kl_div(ours, theirs, reduction="batchmean", log_target=True),
    }


def family_error(student: Tensor, teacher: Tensor, families: Tensor) -> Tensor:
    """Measure how far the student's differences within each family are from the teacher's.

    The mean of each family is subtracted from its vectors, and the squared error of what remains is divided by the
    teacher's spread. The texts of a family share nearly all their words, so losses on whole vectors hardly see how they
    differ. A student that gives all texts of a family the same vector has an error of 1; one that separates them as the
    teacher does has an error of 0.
    """
    members = functional.one_hot(families).float().to(student.device)
    sizes = members.sum(0)
    to_mean = (members / sizes.clamp(min=1)).T
    ours, theirs = (vectors - members @ (to_mean @ vectors) for vectors in (student, teacher))
    error, spread = (to_mean @ vectors.square().sum(-1) for vectors in (ours - theirs, theirs))
    return _mean(error / (spread + SPREAD_FLOOR), sizes > 1)


def family_distance_error(student: Tensor, teacher: Tensor, families: Tensor, are_minimal: Tensor) -> Tensor:
    """Compare the student's distances within each family with the teacher's, by their squared relative error.

    `family_error` alone lets the student shrink the differences that it cannot predict, so that a sentence and its
    negation stay too near to each other. The error is relative, because the distances of minimal pairs are small.
    ``are_minimal`` tells for each text whether its family consists of minimal pairs. The teacher, too, places these too
    near to each other, so the target is `WIDENING` times its distance, up to `WIDEST` or the teacher's own distance.
    """
    same = (families[:, None] == families).fill_diagonal_(False).to(student.device)
    theirs = 1 - teacher @ teacher.T
    wider = torch.maximum(theirs, (WIDENING * theirs).clamp(max=WIDEST))
    target = torch.where(are_minimal.to(student.device)[:, None], wider, theirs)
    return _mean(((1 - student @ student.T - target) / (target + DISTANCE_FLOOR)).square(), same)


def meaning_contrast(student: Tensor, teacher: Tensor, number: int) -> dict[str, Tensor]:
    """Contrast what follows from a sentence with what contradicts it, and compare all vectors with the teacher's.

    The teacher itself often places a sentence nearer to one with the same words than to one with the same meaning, so
    the contrast does not use the teacher; its targets are the meanings of the sentences.
    """
    premise, *others = student.view(number, -1, student.shape[-1]).unbind(1)
    logits = torch.stack([(premise * other).sum(-1) for other in others], 1) / TEMPERATURE
    return {
        "contrast": functional.cross_entropy(logits, torch.zeros(number, dtype=torch.long, device=logits.device)),
        "contrasts' cosine": 1 - (student * teacher).sum(-1).mean(),
    }


def grid_contrast(student: Tensor, labels: tuple[Any, Any]) -> Tensor:
    """Compute supervised contrast (Khosla et al. 2020) under each of the two instructions, by the label it asks for."""
    losses = []
    for vectors, some in zip(student.chunk(2), labels, strict=True):
        same = torch.from_numpy(some[:, None] == some).fill_diagonal_(False).to(vectors.device)
        logits = _log_similarities(vectors, vectors, GRID_TEMPERATURE, but_itself=True)
        per_text = -(logits.masked_fill(~same, 0).sum(1) / same.sum(1).clamp(min=1))
        losses.append(_mean(per_text, same.any(1)))
    return torch.stack(losses).mean()


def pair_contrast(student: Tensor, teacher: Tensor) -> dict[str, Tensor]:
    """Contrast queries with passages in both directions, and compare the vectors with the teacher's.

    Half of the target is the passage of the pair, and half is the teacher's softmax over all passages, so that other
    passages that also answer the query are not pushed away.
    """
    queries, passages = student.chunk(2)
    teacher_queries, teacher_passages = teacher.chunk(2)
    losses = []
    for ours, theirs in (
        ((queries, passages), (teacher_queries, teacher_passages)),
        ((passages, queries), (teacher_passages, teacher_queries)),
    ):
        itself = torch.eye(len(queries), device=queries.device)
        target = 0.5 * _log_similarities(*theirs, TEMPERATURE).exp() + 0.5 * itself
        losses.append(functional.cross_entropy(ours[0] @ ours[1].T / TEMPERATURE, target))
    return {"pairs": torch.stack(losses).mean(), "pairs' cosine": 1 - (student * teacher).sum(-1).mean()}


def _log_similarities(a: Tensor, b: Tensor, temperature: float, *, but_itself: bool = False) -> Tensor:
    """Return the log-softmax over each row of the similarities.

    With ``but_itself``, -10,000 is added to each text's similarity to itself, which removes it from the softmax.
    """
    similarities = a @ b.T / temperature
    if but_itself:
        similarities = similarities - 10_000 * torch.eye(len(a), device=a.device)
    return similarities.log_softmax(-1)


def _mean(values: Tensor, chosen: Tensor) -> Tensor:
    """Average the chosen values. A GPU would have to wait for an index, and does not wait for a product."""
    return (values * chosen).sum() / chosen.sum()
