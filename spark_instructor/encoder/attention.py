"""T5's attention within packed sequences, computed by the fastest kernel for the processor.

Lengths are rounded up for kernels that torch compiles and keeps for each length. This copies nothing: the padding of a
sequence is whatever stands before it in the batch, and a bias of minus infinity hides it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ..models.prepared import Architecture
from . import cpu

_LENGTH_MULTIPLE = 16
"""In bfloat16 on CPUs, lengths are rounded up to a multiple of this.

The kernels for all lengths up to 512 would take 500 MB; those for the rounded lengths take 20 MB.
"""

_MAX_LENGTH_OF_PRODUCTS = 300
"""Up to this length, two products are faster than the fused kernel on CPUs that have bfloat16 but no AMX."""


class Run(NamedTuple):
    """Neighboring sequences of equal length in a batch."""

    rows: slice
    """The rows of their tokens."""
    sequences: int
    length: int


class Attention:
    """Attention with T5's relative position bias, on one device.

    ``table`` is the float32 bias (buckets, heads), and ``precision`` is that of the model. On CPUs without instructions
    for bfloat16, attention is float32 in every precision.
    """

    def __init__(self, shape: Architecture, table: Tensor, max_length: int, precision: torch.dtype) -> None:
        self._heads, self._width = shape.num_heads, shape.d_kv
        self._kernel: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor] = _attend_fused
        self._precision, self._bias_precision = precision, torch.float32
        self.length_multiple = 1
        if table.device.type != "cpu":
            self._bias_precision = precision
        elif precision == torch.bfloat16 and cpu.has_amx():
            self.length_multiple = _LENGTH_MULTIPLE
        elif precision == torch.bfloat16 and cpu.has_bfloat16():
            self.length_multiple = _LENGTH_MULTIPLE
            self._kernel = _attend_by_products
        else:
            self._precision = torch.float32
        self._bias = _compute_bias_by_distance(shape, table, max_length + self.length_multiple - 1)

    def build_bias(self, longest: int) -> Tensor:
        """Build the position bias for sequences up to a length, (heads, padding + longest, padding + longest).

        The bias depends only on the distance, so that of each shorter sequence is a window of this one.
        """
        padding = self.length_multiple - 1
        size, center = padding + longest, self._bias.shape[1] // 2
        # Each query's row is a window of the biases by distance, which slides one to the left from row to row.
        bias = self._bias[:, center - size + 1 : center + size].unfold(1, size, 1).flip(1)
        bias[:, :, :padding] = -math.inf
        return bias.to(self._bias_precision)

    def __call__(self, projected: Tensor, bias: Tensor, runs: Sequence[Run]) -> Tensor:
        """Compute the attention within each sequence: (rows, 3 x heads x d_kv) to (rows, heads x d_kv).

        Before the first run, there must be as many rows as its length lacks to a multiple of ``length_multiple``.
        """
        heads, width = self._heads, self._width
        projected = projected.to(self._precision)
        stride = projected.shape[1]
        attended = projected.new_zeros(len(projected), heads * width)
        for rows, sequences, length in runs:
            padding = -length % self.length_multiple
            q, k, v = projected[rows.start - padding :].as_strided(
                (3, sequences, heads, padding + length, width),
                (heads * width, length * stride, width, stride, 1),
            )
            window = slice(self.length_multiple - 1 - padding, self.length_multiple - 1 + length)
            mixed = self._kernel(q, k, v, bias[None, :, window, window])
            attended[rows].view(sequences, length, heads, width).copy_(mixed[:, :, padding:].transpose(1, 2))
        return attended


def _attend_fused(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    # T5 does not scale the scores.
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=1.0)


def _attend_by_products(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    if q.shape[2] > _MAX_LENGTH_OF_PRODUCTS:
        return _attend_fused(q.float(), k.float(), v.float(), bias)
    scores = torch.add(bias, q @ k.transpose(2, 3))  # float32, as the bias is
    return torch.softmax(scores, dim=-1).to(v.dtype) @ v


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
