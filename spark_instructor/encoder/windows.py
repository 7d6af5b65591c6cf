"""Cutting a text's token ids into windows that fit a model's token limit. Needs numpy alone."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

LONG_TEXT = ("truncate", "average")
"""What to do with a text over the token limit: read its beginning alone, or average windows over all of it."""

MAX_WINDOWS = 32
"""Most windows that ``long_text="average"`` reads of one text; what lies behind them is cut."""


class Window(NamedTuple):
    """One sequence for the encoder: a text or a part of it, with its instruction."""

    text: int
    """Index of the text."""
    ids: npt.NDArray[np.int32]
    instruction_tokens: int
    """Leading positions that the pool leaves out: the instruction's."""


def cut_windows(
    text: int, ids: npt.NDArray[np.int32], instruction_tokens: int, max_length: int, max_windows: int
) -> tuple[list[Window], int]:
    """Cut a text's ids, ``</s>`` at their end, into at most ``max_windows``; also how many of the ids they read.

    The first window is the truncated text. Each later one repeats the instruction before the next
    stretch of text.
    """
    content, eos = ids[:-1], ids[-1:]
    room = max_length - 1 - instruction_tokens
    step = room - room // 10
    end = max_length - 1
    windows = [Window(text, np.concatenate([content[:end], eos]), instruction_tokens)]
    while end < len(content) and len(windows) < max_windows and room > 0:
        start = instruction_tokens + len(windows) * step
        end = start + room
        windows.append(
            Window(text, np.concatenate([content[:instruction_tokens], content[start:end], eos]), instruction_tokens)
        )
    return windows, min(end, len(content)) + 1
