"""Grouping sequences of different lengths into batches of similar size."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt


def make_batches(
    lengths: npt.NDArray[np.int64], max_tokens: int, batch_size: int | None = None
) -> Iterator[npt.NDArray[np.int64]]:
    """Yield the indices of the sequences in each batch, longest first, so that equal lengths are neighbors.

    A batch holds at most ``batch_size`` sequences and at most ``max_tokens`` tokens, but always at least one sequence.
    """
    order = np.argsort(-lengths, kind="stable")
    ends = np.cumsum(lengths[order])
    start = tokens_before = 0
    while start < len(order):
        full = int(np.searchsorted(ends, tokens_before + max_tokens, side="right"))
        stop = min(max(full, start + 1), start + (batch_size or len(order)))
        yield order[start:stop]
        start, tokens_before = stop, int(ends[stop - 1])
