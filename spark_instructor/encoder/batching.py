"""Cutting many sequences of different lengths into batches of about one size."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt


def make_batches(
    lengths: npt.NDArray[np.int64], max_tokens: int, max_batch: int | None = None
) -> Iterator[npt.NDArray[np.int64]]:
    """Yield the indices of each batch: longest first, so that equal lengths are neighbours.

    A batch holds at least one sequence, at most ``max_batch``, and at most ``max_tokens`` tokens.
    """
    order = np.argsort(-lengths, kind="stable")
    end = np.cumsum(lengths[order])
    start = taken = 0
    while start < len(order):
        fitting = int(np.searchsorted(end, taken + max_tokens, side="right"))
        stop = min(max(fitting, start + 1), start + (max_batch or len(order)))
        yield order[start:stop]
        start, taken = stop, int(end[stop - 1])
