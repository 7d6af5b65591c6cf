"""The forward pass of a T5 encoder (Raffel et al. 2020) over packed sequences.

The tokens of a batch are the rows of one matrix, and sequences of equal length are next to each other in it. Each run
of equal lengths therefore needs neither padding nor a mask for its attention. `prepare` has fused the weights: the
scale of each layer's norm is folded into the matrix after it, and q, k and v are one matrix.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from ..models.prepared import Architecture
from .linear import make_product

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
    precision, and so are q, k and v on CPUs.
    """

    def __init__(self, shape: Architecture, tensors: Mapping[str, Tensor], max_length: int) -> None:
        self._shape = shape
        self._embedding = tensors["embedding"]
        self._layers = [
            [make_product(tensors, f"layers.{i}.{part}") for part in ("qkv", "o", "wi", "wo")]
            for i in range(shape.num_layers)
        ]
        self._final_norm = tensors["final_norm"]
        self._bias = _compute_bias_by_distance(shape, tensors["relative_attention_bias"], max_length)
        # On CPUs, torch's attention is no faster in bfloat16, and oneDNN would keep a kernel for each length.
        self._attention_precision = torch.float32 if self._bias.device.type == "cpu" else self._embedding.dtype

    def pack(self) -> None:
        """Pack all weights for good, which takes as much memory again as the matrices have."""
        self._layers = [[weight.pack() for weight in layer] for layer in self._layers]

    def mean_pool(self, batches: Sequence[Batch]) -> list[Tensor]:
        """Compute the mean of each sequence's last hidden states, without those of its instruction.

        Returns one float32 (sequences, d_model) per batch. The mean is zero if the instruction covers every token.

        The batches go through each layer together: the weights are fetched once for all of them, while each batch alone
        is small enough for the processor's cache. If there are enough tokens, each layer's weights are also packed for
        this call, unless `pack` has packed them. The packed copy is dropped after the layer, because every process on a
        host would otherwise hold its own copy of all weights instead of sharing the pages of the file.
        """
        epsilon = self._shape.layer_norm_epsilon
        packed = [_PackedBatch(batch, self._embedding) for batch in batches]
        worth_packing = sum(len(batch.stream) for batch in packed) >= _MIN_TOKENS_TO_PACK
        bias = self._build_bias_matrix(max(batch.longest for batch in packed))
        for layer in self._layers:
            qkv, o, wi, wo = (weight.pack() for weight in layer) if worth_packing else layer
            for batch in packed:
                stream = batch.stream
                stream += o(self._attend(qkv(_rms_norm(stream, epsilon)), bias, batch.runs))
                stream += wi.feed_forward(_rms_norm(stream, epsilon), wo)
        return [batch.mean_pool(_rms_norm(batch.stream, epsilon) * self._final_norm) for batch in packed]

    def _attend(self, projected: Tensor, bias: Tensor, runs: Sequence[_Run]) -> Tensor:
        """Compute the attention within each sequence: (tokens, 3 x heads x d_kv) to (tokens, heads x d_kv)."""
        heads, width = self._shape.num_heads, self._shape.d_kv
        projected = projected.to(self._attention_precision)
        attended = projected.new_zeros(len(projected), heads * width)
        for rows, sequences, length in runs:
            q, k, v = projected[rows].view(sequences, length, 3, heads, width).permute(2, 0, 3, 1, 4)
            # T5 does not scale the scores.
            mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=bias[None, :, :length, :length], scale=1.0)
            attended[rows].view(sequences, length, heads, width).copy_(mixed.transpose(1, 2))
        return attended

    def _build_bias_matrix(self, length: int) -> Tensor:
        """Build the position bias of each head, (heads, length, length).

        The bias depends only on the distance, so the matrix of a shorter sequence is the top left of this one.
        """
        longest = self._bias.shape[1] // 2 + 1
        # Each query's row is a window of the biases by distance, which slides one to the left from row to row.
        matrix = self._bias[:, longest - length : longest + length - 1].unfold(1, length, 1).flip(1)
        return matrix.to(self._attention_precision)


class _Run(NamedTuple):
    """Neighboring sequences of equal length in a batch."""

    rows: slice
    """The rows of their tokens."""
    sequences: int
    length: int


class _PackedBatch:
    """The tokens of a batch, one per row, on their way through the layers."""

    def __init__(self, batch: Batch, embedding: Tensor) -> None:
        self._lengths = np.array([len(sequence) for sequence in batch.sequences])
        self._instruction_tokens = np.asarray(batch.instruction_tokens)
        self.longest = int(self._lengths.max())
        self.runs = []
        row = 0
        for length, equal in groupby(self._lengths.tolist()):
            sequences = len(list(equal))
            self.runs.append(_Run(slice(row, row + sequences * length), sequences, length))
            row += sequences * length
        ids = np.zeros(-(-row // _ROWS_MULTIPLE) * _ROWS_MULTIPLE, np.int32)
        ids[:row] = np.concatenate(batch.sequences)
        self.stream = embedding[torch.from_numpy(ids).to(embedding.device)].float()

    def mean_pool(self, hidden: Tensor) -> Tensor:
        """Average the rows of ``hidden`` (tokens, d_model) over each sequence, without its instruction."""
        count = len(self._lengths)
        position = np.concatenate([np.arange(length) for length in self._lengths])
        is_pooled = position >= np.repeat(self._instruction_tokens, self._lengths)
        rows = torch.from_numpy(np.flatnonzero(is_pooled)).to(hidden.device)
        owner = torch.from_numpy(np.repeat(np.arange(count), self._lengths)[is_pooled]).to(hidden.device)
        total = hidden.new_zeros(count, hidden.shape[1]).index_add_(0, owner, hidden[rows])
        pooled_tokens = np.maximum(self._lengths - self._instruction_tokens, 1)
        return total / torch.from_numpy(pooled_tokens).to(hidden.device, hidden.dtype)[:, None]


def _rms_norm(x: Tensor, epsilon: float) -> Tensor:
    """Apply the root-mean-square norm without its scale, which is folded into the next matrix."""
    mean_square = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square() / x.shape[-1]
    return x * torch.rsqrt(mean_square + epsilon)


def _compute_bias_by_distance(shape: Architecture, table: Tensor, max_length: int) -> Tensor:
    """Compute the relative-position bias of each head for the distances -(max_length - 1) to max_length - 1.

    ``table`` is float32 (buckets, heads); the result is float32 (heads, 2 x max_length - 1). Half of the buckets are
    for keys before the query and half for keys after it. In each half, the first half of the buckets has one distance
    each, and the others cover logarithmically growing ranges up to the maximum distance (Raffel et al. 2020, section
    2.1).
    """
    half = shape.relative_attention_num_buckets // 2
    exact = half // 2
    distance = torch.arange(1 - max_length, max_length)
    apart = distance.abs()
    wider = torch.log(apart.clamp(min=1).float() / exact) / math.log(shape.relative_attention_max_distance / exact)
    wide_bucket = (exact + (wider * (half - exact)).long()).clamp(max=half - 1)
    bucket = torch.where(apart < exact, apart, wide_bucket) + half * (distance > 0)
    return table[bucket.to(table.device)].t().contiguous()
