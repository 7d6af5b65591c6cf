"""The forward pass of a T5 encoder (Raffel et al. 2020) over packed sequences.

The tokens of a batch are the rows of one matrix, and sequences of equal length are next to each other in it. Each run
of equal lengths therefore needs no padded copy for its attention. `prepare` has fused the weights: the
scale of each layer's norm is folded into the matrix after it, and q, k and v are one matrix.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..models.prepared import Architecture
from .attention import Attention, Run
from .linear import FeedForward, Product, make_product

_ROWS_MULTIPLE = 16
"""The number of rows of a batch is rounded up to a multiple of this, which costs 1 to 2 % of the speed.

oneDNN compiles and keeps a kernel for each number of rows that it meets, and these would add up to hundreds of MB.
"""

_MIN_TOKENS_TO_PACK = 2048
"""With at least this many tokens, packing the weights saves more time than it takes."""


class Batch(NamedTuple):
    """Sequences for one pass, sorted so that equal lengths are next to each other."""

    sequences: Sequence[npt.NDArray[np.int32]]
    instruction_tokens: Sequence[int]
    """The number of leading tokens of each sequence that are left out of its mean."""


class T5Encoder:
    """A T5 encoder with relu feed-forward, on one device.

    ``tensors`` are those of a prepared folder. The residual stream, the norms and the softmax are float32 in every
    precision.
    """

    def __init__(self, shape: Architecture, tensors: Mapping[str, Tensor], max_length: int) -> None:
        self._shape = shape
        self._embedding = tensors["embedding"]
        self._layers = [_make_layer(tensors, i) for i in range(shape.num_layers)]
        self._final_norm = tensors["final_norm"]
        self._attention = Attention(shape, tensors["relative_attention_bias"], max_length, self._embedding.dtype)

    def pack(self) -> None:
        """Pack all weights for good, which takes as much memory again as the matrices have."""
        self._layers = [layer.pack() for layer in self._layers]

    def mean_pool(self, batches: Sequence[Batch]) -> list[Tensor]:
        """Compute the mean of each sequence's last hidden states, without those of its instruction.

        Returns one float32 (sequences, d_model) per batch. The mean is zero if the instruction covers every token.

        The batches go through each layer together: the weights are fetched once for all of them, while each batch alone
        is small enough for the processor's cache. If there are enough tokens, each layer's weights are also packed for
        this call, unless `pack` has packed them. The packed copy is dropped after the layer, because every process on a
        host would otherwise hold its own copy of all weights instead of sharing the pages of the file.
        """
        epsilon = self._shape.layer_norm_epsilon
        packed = [_PackedBatch(batch, self._embedding, self._attention.length_multiple) for batch in batches]
        worth_packing = sum(len(batch.stream) for batch in packed) >= _MIN_TOKENS_TO_PACK
        bias = self._attention.build_bias(max(batch.longest for batch in packed))
        for layer in self._layers:
            qkv, o, feed_forward = layer.pack() if worth_packing else layer
            for batch in packed:
                stream = batch.stream
                stream += o(self._attention(qkv(_rms_norm(stream, epsilon)), bias, batch.runs))
                feed_forward.add_to(stream, _rms_norm(stream, epsilon))
        return [batch.mean_pool(_rms_norm(batch.stream, epsilon) * self._final_norm) for batch in packed]


class _Layer(NamedTuple):
    qkv: Product
    o: Product
    feed_forward: FeedForward

    def pack(self) -> _Layer:
        return _Layer(self.qkv.pack(), self.o.pack(), self.feed_forward.pack())


def _make_layer(tensors: Mapping[str, Tensor], i: int) -> _Layer:
    qkv, o, wi, wo = (make_product(tensors, f"layers.{i}.{part}") for part in ("qkv", "o", "wi", "wo"))
    return _Layer(qkv, o, FeedForward([(wi, wo)]))


class _PackedBatch:
    """The tokens of a batch, one per row, on their way through the layers."""

    def __init__(self, batch: Batch, embedding: Tensor, length_multiple: int) -> None:
        self._lengths = np.array([len(sequence) for sequence in batch.sequences])
        self._instruction_tokens = np.asarray(batch.instruction_tokens)
        self.longest = int(self._lengths.max())
        self.runs = []
        self._first = row = (
            -int(self._lengths[0]) % length_multiple
        )  # `Attention` pads the first sequence with these rows
        for length, equal in groupby(self._lengths.tolist()):
            sequences = len(list(equal))
            self.runs.append(Run(slice(row, row + sequences * length), sequences, length))
            row += sequences * length
        ids = np.zeros(-(-row // _ROWS_MULTIPLE) * _ROWS_MULTIPLE, np.int32)
        ids[self._first : row] = np.concatenate(batch.sequences)
        self.stream = embedding[torch.from_numpy(ids).to(embedding.device)].float()

    def mean_pool(self, hidden: Tensor) -> Tensor:
        """Average the rows of ``hidden`` (tokens, d_model) over each sequence, without its instruction."""
        count = len(self._lengths)
        position = np.concatenate([np.arange(length) for length in self._lengths])
        is_pooled = position >= np.repeat(self._instruction_tokens, self._lengths)
        rows = torch.from_numpy(self._first + np.flatnonzero(is_pooled)).to(hidden.device)
        owner = torch.from_numpy(np.repeat(np.arange(count), self._lengths)[is_pooled]).to(hidden.device)
        total = hidden.new_zeros(count, hidden.shape[1]).index_add_(0, owner, hidden[rows])
        pooled_tokens = np.maximum(self._lengths - self._instruction_tokens, 1)
        return total / torch.from_numpy(pooled_tokens).to(hidden.device, hidden.dtype)[:, None]


def _rms_norm(x: Tensor, epsilon: float) -> Tensor:
    """Apply the root-mean-square norm without its scale, which is folded into the next matrix."""
    mean_square = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square() / x.shape[-1]
    return x * torch.rsqrt(mean_square + epsilon)
