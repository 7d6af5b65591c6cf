"""Cutting many sequences of different lengths into batches of about one size."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt


def batches(
    lengths: npt.NDArray[np.int64], token_budget: int, max_batch: int | None = None
) -> Iterator[npt.NDArray[np.int64]]:
    """Yield the indices of each batch: longest first, so that neighbours have nearly one length.

    A batch holds at most ``token_budget`` tokens and ``max_batch`` sequences, and at least one sequence.
    """
    order = np.argsort(-lengths, kind="stable")
    most = max_batch or len(order)
    start = 0
    while start < len(order):
        tokens = np.cumsum(lengths[order[start : start + most]])
        fitting = int(np.searchsorted(tokens, token_budget, side="right"))
        stop = start + max(fitting, 1)
        yield order[start:stop]
        start = stop
