"""The forward pass of a T5 encoder (Raffel et al. 2020) over packed sequences.

The tokens of all sequences of a batch stand in one matrix, without padding, for everything but the
attention products. The weights are the fused ones that `prepare` writes: the scale of each layer's norm
is folded into the matrix that follows it, and q, k, v are one matrix.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..prepared import Architecture
from .linear import linear, linear_relu


class T5Encoder:
    """A T5 encoder with relu feed-forward, on one device.

    ``tensors`` are those of a prepared folder. Where the matrices are bfloat16, so are the inputs of the
    matrix products; the residual stream, the norms and the attention scores stay float32.
    """

    def __init__(self, shape: Architecture, tensors: Mapping[str, Tensor], max_length: int) -> None:
        self._shape = shape
        self._embedding = tensors["embedding"]
        self._layers = [
            tuple(tensors[f"layers.{i}.{part}"] for part in ("qkv", "o", "wi", "wo")) for i in range(shape.num_layers)
        ]
        self._final_norm = tensors["final_norm"]
        self._bias = _bias_by_distance(shape, tensors["relative_attention_bias"], max_length)

    def mean_pooled(self, sequences: Sequence[npt.NDArray[np.int32]], skipped: Sequence[int]) -> Tensor:
        """Mean of the last hidden states of each sequence, its first ``skipped`` positions left out.

        Returns float32 (sequences, d_model); zeros where every position is left out.
        """
        lengths = np.array([len(sequence) for sequence in sequences])
        layout = _Layout(lengths, self._embedding.device)
        ids = torch.from_numpy(np.concatenate(sequences)).to(self._embedding.device)
        hidden = self._hidden(ids, layout)

        position = np.concatenate([np.arange(length) for length in lengths])
        counted = position >= np.repeat(skipped, lengths)
        rows = torch.from_numpy(np.flatnonzero(counted)).to(hidden.device)
        owner = torch.from_numpy(np.repeat(np.arange(len(lengths)), lengths)[counted]).to(hidden.device)
        total = hidden.new_zeros(len(lengths), hidden.shape[1]).index_add_(0, owner, hidden[rows])
        counts = torch.from_numpy(np.maximum(lengths - skipped, 1)).to(hidden.device, hidden.dtype)
        return total / counts[:, None]

    def _hidden(self, ids: Tensor, layout: _Layout) -> Tensor:
        """Last hidden states (tokens, d_model) in float32, after the final norm."""
        epsilon, precision = self._shape.layer_norm_epsilon, self._embedding.dtype
        bias = self._bias_and_mask(layout)
        stream = self._embedding[ids].float()
        for qkv, o, wi, wo in self._layers:
            attended = self._attention(linear(_rms_norm(stream, epsilon).to(precision), qkv), bias, layout)
            stream += linear(attended.to(precision), o)
            stream += linear(linear_relu(_rms_norm(stream, epsilon).to(precision), wi), wo)
        return _rms_norm(stream, epsilon) * self._final_norm

    def _attention(self, qkv: Tensor, bias: Tensor, layout: _Layout) -> Tensor:
        """Attention over each sequence alone: qkv (tokens, 3 x heads x d_kv) to (tokens, heads x d_kv).

        T5 does not scale the scores.
        """
        batch, length, heads, width = layout.batch, layout.length, self._shape.num_heads, self._shape.d_kv
        padded = layout.pad(qkv).view(batch, length, 3, heads, width).permute(2, 0, 3, 1, 4)
        q, k, v = padded.float().reshape(3, batch * heads, length, width)
        weights = torch.baddbmm(bias, q, k.transpose(1, 2)).softmax(dim=-1)
        attended = torch.bmm(weights, v).view(batch, heads, length, width).transpose(1, 2)
        return layout.unpad(attended.reshape(batch * length, heads * width))

    def _bias_and_mask(self, layout: _Layout) -> Tensor:
        """What every layer adds to the scores, (batch x heads, length, length): position bias, -inf at padding."""
        length, longest = layout.length, self._bias.shape[1] // 2 + 1
        # One row a query: its window into the biases by distance, sliding to the left from row to row.
        bias = self._bias[:, longest - length : longest + length - 1].unfold(1, length, 1).flip(1)
        filled = bias.expand(layout.batch, *bias.shape)
        if layout.is_padded:
            filled = filled.masked_fill(layout.padding_keys[:, None, None, :], -math.inf)
        return filled.reshape(-1, length, length)


class _Layout:
    """Where the tokens of packed sequences stand in the padded (batch, length) grid of the attention."""

    def __init__(self, lengths: npt.NDArray[np.int64], device: torch.device) -> None:
        self.batch, self.length = len(lengths), int(lengths.max())
        taken = np.arange(self.length) < lengths[:, None]
        self.is_padded = not taken.all()
        if self.is_padded:
            self.padding_keys = torch.from_numpy(~taken).to(device)
            self._positions = torch.from_numpy(np.flatnonzero(taken)).to(device)

    def pad(self, packed: Tensor) -> Tensor:
        """(tokens, width) to (batch x length, width), zeros between the sequences."""
        if not self.is_padded:
            return packed
        grid = packed.new_zeros(self.batch * self.length, packed.shape[1])
        return grid.index_copy_(0, self._positions, packed)

    def unpad(self, grid: Tensor) -> Tensor:
        """(batch x length, width) to (tokens, width)."""
        return grid[self._positions] if self.is_padded else grid


def _rms_norm(x: Tensor, epsilon: float) -> Tensor:
    """Root-mean-square norm without its scale, which the next matrix carries."""
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + epsilon)


def _bias_by_distance(shape: Architecture, table: Tensor, max_length: int) -> Tensor:
    """The relative-position bias of each head for the distances -(max_length - 1) .. max_length - 1.

    ``table`` is float32 (buckets, heads); returns float32 (heads, 2 x max_length - 1). Half of the buckets
    serve keys before the query, half those after it; in each half the first half of the distances has a
    bucket each, the rest share logarithmically wider ones up to the maximum distance (Raffel et al. 2020,
    section 2.1).
    """
    half = shape.relative_attention_num_buckets // 2
    exact = half // 2
    distance = torch.arange(1 - max_length, max_length)
    apart = distance.abs()
    wider = torch.log(apart.clamp(min=1).float() / exact) / math.log(shape.relative_attention_max_distance / exact)
    wide_bucket = (exact + (wider * (half - exact)).long()).clamp(max=half - 1)
    bucket = torch.where(apart < exact, apart, wide_bucket) + half * (distance > 0)
    return table[bucket.to(table.device)].t().contiguous()
