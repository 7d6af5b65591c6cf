"""Cutting many sequences of different lengths into batches of about one size."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt


def batches(
    lengths: npt.NDArray[np.int64], token_budget: int, max_batch: int | None = None
) -> Iterator[npt.NDArray[np.int64]]:
    """Yield the indices of each batch: longest first, so that neighbours have nearly one length.

    A batch holds at least one sequence, at most ``max_batch``, and at most ``token_budget`` tokens when each
    is padded to the longest of the batch, as the attention does: without that, one long text among many
    short ones would take gigabytes.
    """
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        fitting = max(token_budget // int(lengths[order[start]]), 1)
        stop = start + min(fitting, max_batch or fitting)
        yield order[start:stop]
        start = stop
