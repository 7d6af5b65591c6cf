"""Cutting a text's token ids into windows that fit the model's token limit.

This module needs only numpy, so the Spark driver can import it without torch.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

LONG_TEXT = ("truncate", "average")
"""What to do with a text over the token limit: read only its beginning, or average the vectors of its windows."""

MAX_WINDOWS = 32
"""The number of windows that ``long_text="average"`` reads of one text; the rest of the text is cut off."""


class Window(NamedTuple):
    """One sequence for the encoder: an instruction with a text or a part of it."""

    text: int
    """The index of the text."""
    ids: npt.NDArray[np.int32]
    instruction_tokens: int
    """The number of leading tokens that belong to the instruction and are left out of the mean."""


def cut_windows(
    text: int, ids: npt.NDArray[np.int32], instruction_tokens: int, max_length: int, max_windows: int
) -> tuple[list[Window], int]:
    """Cut the token ids of a text into windows.

    The first window is the truncated text. Each later window repeats the instruction and overlaps the window before it
    by 10 % of its room for text.

    Args:
        text: The index of the text, for `Window.text`.
        ids: The token ids of instruction and text, int32 (tokens,), with ``</s>`` at the end.
        instruction_tokens: The number of leading ids that belong to the instruction, at most ``max_length - 1``.
        max_length: The maximum number of tokens per window, including ``</s>``.
        max_windows: The maximum number of windows.

    Returns:
        The windows, at least one, and the number of ids that they cover.
    """
    content, eos = ids[:-1], ids[-1:]
    instruction = content[:instruction_tokens]
    room = max_length - 1 - instruction_tokens
    step = room - room // 10
    end = max_length - 1
    windows = [Window(text, np.concatenate([content[:end], eos]), instruction_tokens)]
    while end < len(content) and len(windows) < max_windows and room > 0:
        start = instruction_tokens + len(windows) * step
        end = start + room
        windows.append(Window(text, np.concatenate([instruction, content[start:end], eos]), instruction_tokens))
    return windows, min(end, len(content)) + 1
