"""INSTRUCTOR embeddings of texts, computed from a prepared folder (Su et al. 2023, "One Embedder, Any Task")."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from ..models.prepared import TOKENIZER, WEIGHTS, PreparedModel, read_prepared
from ..models.registry import find_checkpoint
from . import cpu
from .batching import make_batches
from .linear import make_product
from .preparation import prepare_model
from .t5 import Batch, T5Encoder
from .tokenizer import T5Tokenizer, warn_if_joined
from .weights import load_safetensors
from .windows import LONG_TEXT, MAX_WINDOWS, Window, cut_windows

_LOGGER = logging.getLogger(__name__)

_CPU_BATCH_TOKENS = 512
"""The maximum number of tokens in a batch on a CPU, so that the batch fits in the processor's cache."""
_CPU_BATCHES_IN_STEP = 8
"""The number of batches that go through each layer together on a CPU; more would take more memory and be no faster."""
_AMX_BATCHES_IN_STEP = 32
"""With AMX, products are so fast that packing the weights, which happens once per step, takes 10 % of the time of 8."""
_GPU_BATCH_TOKENS = 16384
"""The maximum number of tokens in a batch on a GPU; less if its memory turns out not to suffice."""


class Encoded(NamedTuple):
    """Vectors, and what was read to compute them. Row i belongs to text i."""

    vectors: npt.NDArray[np.float32]
    """(texts, dimension)"""
    tokens: npt.NDArray[np.int32]
    """(texts,): the number of tokens read of instruction and text, including ``</s>``"""
    truncated: npt.NDArray[np.bool_]
    """(texts,): whether the end of the text was cut off"""
    unknown: npt.NDArray[np.int32]
    """(texts,): the number of tokens read that stand for characters outside of the vocabulary, one per run of them"""
    distinct: int
    """The number of distinct pairs of instruction and text, each of which is embedded once"""


class InstructorModel:
    """A loaded INSTRUCTOR model. Use `from_pretrained` or `load` to create one."""

    def __init__(self, prepared: PreparedModel, device: torch.device) -> None:
        tensors = load_safetensors(prepared.path / WEIGHTS, str(device))
        self.prepared = prepared
        self._device = device
        on_cpu = device.type == "cpu"
        self._batch_tokens = _CPU_BATCH_TOKENS if on_cpu else _GPU_BATCH_TOKENS
        cpu_batches_in_step = _AMX_BATCHES_IN_STEP if cpu.has_amx() else _CPU_BATCHES_IN_STEP
        self._batches_in_step = cpu_batches_in_step if on_cpu else 1
        self._encoder = T5Encoder(prepared.architecture, tensors, prepared.max_length)
        self._dense = make_product(tensors, "dense") if "dense" in tensors else None
        self._tokenizer = T5Tokenizer(prepared.path / TOKENIZER)

    @classmethod
    def from_pretrained(
        cls,
        name_or_folder: str | os.PathLike[str],
        revision: str | None = None,
        precision: str | None = None,
        device: str | None = "cpu",
        cache_folder: str | None = None,
    ) -> InstructorModel:
        """Load a model by its name. If it is not on this machine yet, download and prepare it first.

        Args:
            name_or_folder: A known name (see `known_models`), a hub id ("owner/name"), or a folder, which holds a
                checkpoint in the hub's layout or a prepared model.
            revision: The branch, tag or commit of a model on the hub. By default, the hub's main branch.
            precision: "float32", "bfloat16" or "int8"; see `prepare`. By default the precision of a prepared folder,
                and float32 for a checkpoint.
            device: "cpu", "cuda" or "cuda:N"; None means a GPU if there is one.
            cache_folder: The folder for downloads; by default the cache of huggingface_hub.

        Returns:
            The loaded model.

        Raises:
            ValueError: The name, the revision or the precision is unknown; the checkpoint is damaged or not supported;
                or a prepared folder was changed or is too narrow for the requested precision.
            FileNotFoundError: The folder or one of its files is missing.
            ConnectionError: The model is not in the local cache and the hub cannot be reached.
            ImportError: The model is on the hub and huggingface_hub is not installed.
        """
        if device is None:
            device = "cuda" if torch.cuda.is_available() else "cpu"
        folder = find_checkpoint(os.fspath(name_or_folder), revision, cache_folder)
        return cls(prepare_model(folder, precision), torch.device(device))

    @classmethod
    def load(cls, prepared: str | os.PathLike[str], device: str = "cpu") -> InstructorModel:
        """Load a prepared folder (see `prepare`) on "cpu", "cuda" or "cuda:N".

        On a CPU, the weights are memory-mapped if the file system permits it.

        Raises FileNotFoundError if a file is missing and ValueError if one is damaged.
        """
        return cls(read_prepared(prepared), torch.device(device))

    def __reduce__(self) -> tuple[Callable[..., InstructorModel], tuple[Path, str]]:
        """Pickle the path of the prepared folder and the device; the process that unpickles them needs both."""
        return InstructorModel.load, (self.prepared.path, str(self._device))

    def pack(self) -> None:
        """Pack the weights for good: encoding gets faster, and the process holds a private copy of the matrices.

        Call it in a process that embeds alone, or before a process forks: its children then share the packed copy.
        Without it, `encode` packs one layer at a time, and all processes on a host share the mapped weights. It has no
        effect in int8 on CPUs with VNNI, where weights are always packed, or in the other precisions on a GPU.
        """
        self._encoder.pack()

    @property
    def dimension(self) -> int:
        """The width of the vectors."""
        return self.prepared.dimension

    @property
    def max_length(self) -> int:
        """The maximum number of tokens of one sequence, including its instruction and ``</s>``."""
        return self.prepared.max_length

    def encode(
        self,
        instruction: str | Sequence[str | None] | None,
        texts: Sequence[str],
        *,
        max_length: int | None = None,
        long_text: str = "truncate",
        normalize: bool = True,
        batch_size: int | None = None,
    ) -> npt.NDArray[np.float32]:
        """Embed texts.

        The instruction is joined to the text as it is, without a space, and its tokens are left out of the mean, unless
        the checkpoint includes them. The vector is zero if an instruction that is left out covers every token, and that
        of ``</s>`` if it fills the token limit, as in sentence-transformers.

        Args:
            instruction: One instruction for all texts, or one per text. "" means no instruction, and so
                does None for one text. None for all texts means the checkpoint's default prompt; most have none.
            texts: The texts.
            max_length: The token limit, from 2 to the model's own limit, which is the default.
            long_text: What to do with a text over the limit. "truncate" reads only its beginning. "average" reads up to
                `MAX_WINDOWS` windows, which overlap by 10 % and each repeat the instruction, and averages their
                vectors, weighted by the number of tokens in their mean.
            normalize: Whether to scale the vectors to length 1.
            batch_size: The maximum number of texts or windows per batch. By default, only their tokens limit a batch.

        Returns:
            The vectors, float32 (texts, dimension).

        Raises:
            TypeError: ``texts`` is a str, or contains something other than a str.
            ValueError: ``max_length``, ``long_text`` or ``batch_size`` is out of range, or the number of instructions
                is not the number of texts.

        Warns once of an instruction that does not end with a colon or a space.
        """
        if isinstance(instruction, str):
            warn_if_joined(instruction)
        return self.encode_counted(
            instruction,
            texts,
            max_length=max_length,
            long_text=long_text,
            normalize=normalize,
            batch_size=batch_size,
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
        batch_size: int | None = None,
    ) -> Encoded:
        """Embed texts as `encode` does, with the same arguments and errors, and also count what was read.

        Returns:
            The vectors, the number of tokens that were read of each text, whether its end was cut off, and how many of
            the tokens are unknown to the model.
        """
        check_texts(texts)
        instruction = self.prepared.default_prompt if instruction is None else instruction
        instructions = _expand_instructions(instruction, len(texts))
        max_length = self._resolve_max_length(max_length)
        if long_text not in LONG_TEXT:
            raise ValueError(f"unknown long_text {long_text!r}: expected one of {', '.join(LONG_TEXT)}")
        if batch_size is not None and batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}, expected at least 1")
        max_windows = MAX_WINDOWS if long_text == "average" else 1

        # A pair of instruction and text that is repeated is embedded once.
        pairs: dict[tuple[str, str], int] = {}
        pair_of_row = np.array(
            [pairs.setdefault(pair, len(pairs)) for pair in zip(instructions, texts, strict=True)], np.int64
        )
        windows: list[Window] = []
        tokens = np.zeros(len(pairs), np.int32)
        truncated = np.zeros(len(pairs), np.bool_)
        unknown = np.zeros(len(pairs), np.int32)
        encodings = self._tokenizer.encode(map("".join, pairs), max_tokens=max_windows * max_length)
        for i, ((pair_instruction, _), ids) in enumerate(zip(pairs, encodings, strict=True)):
            instruction_tokens = min(self._tokenizer.count_instruction_tokens(pair_instruction), max_length - 1)
            pair_windows, tokens[i] = cut_windows(i, ids, instruction_tokens, max_length, max_windows)
            truncated[i] = tokens[i] < len(ids)
            unknown[i] = np.count_nonzero(ids[: tokens[i]] == self._tokenizer.unknown_id)
            windows += pair_windows
        vectors = self._embed_windows(windows, len(pairs), normalize, batch_size)
        if len(pairs) < len(texts):  # otherwise this would only copy, and vectors are large
            vectors, tokens = vectors[pair_of_row], tokens[pair_of_row]
            truncated, unknown = truncated[pair_of_row], unknown[pair_of_row]
        return Encoded(vectors, tokens, truncated, unknown, len(pairs))

    def _resolve_max_length(self, max_length: int | None) -> int:
        if max_length is None:
            return self.max_length
        if not 2 <= max_length <= self.max_length:
            raise ValueError(
                f"max_length is {max_length}, expected from 2 to {self.max_length} tokens for '{self.prepared.name}'"
            )
        return max_length

    def _embed_windows(
        self, windows: list[Window], count: int, normalize: bool, batch_size: int | None
    ) -> npt.NDArray[np.float32]:
        """Compute a vector for each of ``count`` texts: the mean over its windows, weighted by their pooled tokens."""
        lengths = np.array([len(window.ids) for window in windows], np.int64)
        left_out = [0 if self.prepared.include_prompt else window.instruction_tokens for window in windows]
        instruction_tokens = np.array(left_out, np.int64)
        owners = np.array([window.text for window in windows], np.int64)
        pooled_tokens = np.maximum(lengths - instruction_tokens, 0)
        weights = pooled_tokens / np.maximum(np.bincount(owners, pooled_tokens, count)[owners], 1)

        vectors = torch.zeros(count, self.dimension, device=self._device)
        batches = make_batches(lengths, self._batch_tokens, batch_size)
        while step := list(islice(batches, self._batches_in_step)):
            packed = [Batch([windows[i].ids for i in batch], instruction_tokens[batch].tolist()) for batch in step]
            # On a GPU, a step is a single batch.
            pooled = self._encoder.mean_pool(packed) if len(step) > 1 else [self._mean_pool(*packed)]
            for batch, hidden in zip(step, pooled, strict=True):
                embedded = hidden if self._dense is None else self._dense(hidden)
                embedded = F.normalize(embedded, dim=-1) if normalize else embedded
                weight = torch.from_numpy(weights[batch]).to(embedded)
                vectors.index_add_(0, torch.from_numpy(owners[batch]).to(self._device), embedded * weight[:, None])
        if normalize and len(windows) > count:  # a mean of several unit vectors is shorter than 1
            vectors = F.normalize(vectors, dim=-1)
        result: npt.NDArray[np.float32] = vectors.cpu().numpy()
        return result

    def _mean_pool(self, batch: Batch) -> Tensor:
        """Compute `T5Encoder.mean_pool` of a batch, in halves if a GPU has too little memory for it.

        The model remembers how many tokens fit, so later batches do not fail again.
        """
        count, tokens = len(batch.sequences), sum(map(len, batch.sequences))
        if count == 1 or tokens <= self._batch_tokens:
            try:
                return self._encoder.mean_pool([batch])[0]
            except torch.OutOfMemoryError:
                if count == 1:
                    raise
            # The exception holds the tensors of the batch, so the halves are computed after its block.
            self._batch_tokens = tokens // 2
            _LOGGER.warning(
                "A batch of %d tokens does not fit into the memory of %s; batches now have at most %d",
                tokens,
                self._device,
                self._batch_tokens,
            )
        halves = [
            Batch(batch.sequences[half], batch.instruction_tokens[half])
            for half in (slice(count // 2), slice(count // 2, None))
        ]
        return torch.cat([self._mean_pool(half) for half in halves])


def check_texts(texts: Sequence[str]) -> None:
    """Raise TypeError if ``texts`` is a single str, or contains something other than a str."""
    if isinstance(texts, str):
        raise TypeError("texts is a single str; pass a list of texts")
    for i, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeError(f"text {i} is a {type(text).__name__}, expected a str")


def _expand_instructions(instruction: str | Sequence[str | None], count: int) -> list[str]:
    """Return one instruction per text, with "" for None."""
    if isinstance(instruction, str):
        return [instruction] * count
    if len(instruction) != count:
        raise ValueError(
            f"there are {len(instruction)} instructions for {count} texts; pass one instruction, or one per text"
        )
    return [text_instruction or "" for text_instruction in instruction]
