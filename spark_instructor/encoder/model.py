"""INSTRUCTOR embeddings of texts, from a prepared folder (Su et al. 2023, "One Embedder, Any Task")."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import islice
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from ..models.prepared import TOKENIZER, WEIGHTS, PreparedModel, read_prepared
from ..models.registry import checkpoint_folder
from .batching import make_batches
from .linear import make_product
from .preparation import prepare_model
from .t5 import Batch, T5Encoder
from .tokenizer import T5Tokenizer
from .windows import LONG_TEXT, MAX_WINDOWS, Window, cut_windows

_CPU_BATCH_TOKENS = 512
"""Most tokens of a batch on a CPU, so that it stays in the processor's cache."""
_CPU_BATCHES_IN_STEP = 8
"""Batches that go through the layers in step on a CPU; more would hold more memory, and be no faster."""
_GPU_BATCH_TOKENS = 16384


class Encoded(NamedTuple):
    """Vectors with what was read to make them; row i belongs to text i."""

    vectors: npt.NDArray[np.float32]
    """(n, dimension)"""
    tokens: npt.NDArray[np.int32]
    """(n,): tokens read of instruction + text, ``</s>`` included"""
    truncated: npt.NDArray[np.bool_]
    """(n,): whether the end of the text was not read"""
    distinct: int
    """How many pairs of instruction and text went through the model: what repeats goes once."""


class InstructorModel:
    """A loaded INSTRUCTOR model; make one with `load`."""

    def __init__(self, prepared: PreparedModel, device: torch.device) -> None:
        tensors = load_file(prepared.path / WEIGHTS, device=str(device))
        self.prepared = prepared
        self._device = device
        on_cpu = device.type == "cpu"
        self._batch_tokens = _CPU_BATCH_TOKENS if on_cpu else _GPU_BATCH_TOKENS
        self._batches_in_step = _CPU_BATCHES_IN_STEP if on_cpu else 1
        self._encoder = T5Encoder(prepared.architecture, tensors, prepared.max_length)
        self._dense = make_product(tensors, "dense") if "dense" in tensors else None
        self._tokenizer = T5Tokenizer(prepared.path / TOKENIZER)

    @classmethod
    def load(cls, prepared: str | os.PathLike[str], device: str = "cpu") -> InstructorModel:
        """Map the weights of a prepared folder (see `prepare`), on "cpu", "cuda" or "cuda:N".

        Raises FileNotFoundError or ValueError where the folder is not whole.
        """
        return cls(read_prepared(prepared), torch.device(device))

    @classmethod
    def from_pretrained(
        cls,
        name_or_folder: str | os.PathLike[str],
        revision: str | None = None,
        precision: str = "float32",
        device: str = "cpu",
    ) -> InstructorModel:
        """Load a model by its name, which downloads and prepares it where that was not done before.

        Args:
            name_or_folder: A known name (see `known_models`), a hub id ("owner/name"), or a folder: a checkpoint in
                the hub's layout or a prepared folder.
            revision: Branch, tag or commit of a model on the hub. The default is its main branch.
            precision: "float32", "bfloat16" or "int8"; see `prepare`.
            device: "cpu", "cuda" or "cuda:N".

        Returns:
            The loaded model.

        Raises:
            ValueError: The name, the revision or the precision is unknown, or the checkpoint is damaged or of an
                unsupported architecture.
            FileNotFoundError: The folder or one of its files is missing.
            ConnectionError: The model is not in the local cache and the hub cannot be reached.
            ImportError: The model is on the hub and huggingface_hub is not installed.
        """
        folder = checkpoint_folder(os.fspath(name_or_folder), revision)
        return cls(prepare_model(folder, precision), torch.device(device))

    @property
    def dimension(self) -> int:
        """Width of the vectors."""
        return self.prepared.dimension

    @property
    def max_length(self) -> int:
        """Most tokens of one sequence, instruction and ``</s>`` included."""
        return self.prepared.max_length

    def encode(
        self,
        instruction: str | Sequence[str | None] | None,
        texts: Sequence[str],
        *,
        max_length: int | None = None,
        long_text: str = "truncate",
        normalize: bool = True,
        max_batch: int | None = None,
    ) -> npt.NDArray[np.float32]:
        """Embed texts: float32 (n, dimension), in the order given.

        ``instruction`` is one for all texts, or one a text; None is an empty one. ``max_length`` lowers the
        token limit. ``long_text`` says what becomes of a text over the limit: "truncate" reads its beginning,
        "average" reads windows that overlap by 10 %, each with the instruction, and averages their unit
        vectors, weighted by their pooled tokens (at most `MAX_WINDOWS`). ``normalize`` gives unit vectors;
        the vector is zero where the instruction covers every token. ``max_batch`` caps the texts of a pass.

        Raises TypeError where ``texts`` is a str or holds anything but str, and ValueError for a limit or a
        ``long_text`` out of range and where there are not as many instructions as texts.
        """
        return self.encode_counted(
            instruction,
            texts,
            max_length=max_length,
            long_text=long_text,
            normalize=normalize,
            max_batch=max_batch,
        ).vectors

    @torch.inference_mode()
    def encode_counted(
        self,
        instruction: str | Sequence[str | None] | None,
        texts: Sequence[str],
        *,
        max_length: int | None = None,
        long_text: str = "truncate",
        normalize: bool = True,
        max_batch: int | None = None,
    ) -> Encoded:
        """As `encode`, with the tokens read and whether the text was cut."""
        instructions = _expand_instructions(instruction, texts)
        max_length = self._resolve_max_length(max_length)
        if long_text not in LONG_TEXT:
            raise ValueError(f"unknown long_text {long_text!r}: expected one of {', '.join(LONG_TEXT)}")
        if max_batch is not None and max_batch < 1:
            raise ValueError(f"max_batch is {max_batch}, expected at least 1")

        # What repeats, an instruction with its text, is embedded once.
        distinct: dict[tuple[str, str], int] = {}
        pairs = zip(instructions, texts, strict=True)
        pair_of_row = np.array([distinct.setdefault(pair, len(distinct)) for pair in pairs], np.int64)

        max_windows = MAX_WINDOWS if long_text == "average" else 1
        tokens = np.zeros(len(distinct), np.int32)
        truncated = np.zeros(len(distinct), np.bool_)
        windows: list[Window] = []
        joined = self._tokenizer.encode(map("".join, distinct), max_tokens=max_windows * max_length)
        for text, ((pair_instruction, _), ids) in enumerate(zip(distinct, joined, strict=True)):
            instruction_tokens = min(self._tokenizer.count_instruction_tokens(pair_instruction), max_length - 1)
            text_windows, read = cut_windows(text, ids, instruction_tokens, max_length, max_windows)
            windows += text_windows
            tokens[text], truncated[text] = read, read < len(ids)
        vectors = self._embed_windows(windows, len(distinct), normalize, max_batch)
        return Encoded(vectors[pair_of_row], tokens[pair_of_row], truncated[pair_of_row], len(distinct))

    def _resolve_max_length(self, max_length: int | None) -> int:
        if max_length is None:
            return self.max_length
        if not 2 <= max_length <= self.max_length:
            raise ValueError(
                f"max_length is {max_length}; '{self.prepared.name}' takes from 2 to {self.max_length} tokens"
            )
        return max_length

    def _embed_windows(
        self, windows: list[Window], count: int, normalize: bool, max_batch: int | None
    ) -> npt.NDArray[np.float32]:
        """One vector for each of ``count`` texts: the mean of its windows', weighted by their pooled tokens."""
        lengths = np.array([len(window.ids) for window in windows], np.int64)
        owner = np.array([window.text for window in windows], np.int64)
        pooled_tokens = np.maximum(lengths - np.array([window.instruction_tokens for window in windows], np.int64), 0)
        weights = pooled_tokens / np.maximum(np.bincount(owner, pooled_tokens, count)[owner], 1)

        vectors = torch.zeros(count, self.dimension, device=self._device)
        order = make_batches(lengths, self._batch_tokens, max_batch)
        while in_step := list(islice(order, self._batches_in_step)):
            taken = [[windows[i] for i in batch] for batch in in_step]
            pooled = self._encoder.mean_pool(
                [
                    Batch([w.ids for w in step_windows], [w.instruction_tokens for w in step_windows])
                    for step_windows in taken
                ]
            )
            for batch, hidden in zip(in_step, pooled, strict=True):
                dense = hidden if self._dense is None else self._dense(hidden)
                share = torch.from_numpy(weights[batch]).to(dense)
                window_vectors = F.normalize(dense, dim=-1) if normalize else dense
                vectors.index_add_(0, torch.from_numpy(owner[batch]).to(self._device), window_vectors * share[:, None])
        averaged = normalize and len(windows) > count
        result: npt.NDArray[np.float32] = (F.normalize(vectors, dim=-1) if averaged else vectors).cpu().numpy()
        return result


def _expand_instructions(instruction: str | Sequence[str | None] | None, texts: Sequence[str]) -> list[str]:
    if isinstance(texts, str):
        raise TypeError("texts is one str; pass a list of texts")
    for i, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeError(f"text {i} is a {type(text).__name__}, expected a str")
    if instruction is None or isinstance(instruction, str):
        return [instruction or ""] * len(texts)
    if len(instruction) != len(texts):
        raise ValueError(f"there are {len(instruction)} instructions for {len(texts)} texts; pass one, or one a text")
    return [row_instruction or "" for row_instruction in instruction]
