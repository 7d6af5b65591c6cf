"""Attention with an additive position bias, by the kernel that is fastest for the device and the precision."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

_SCORES_AT_ONCE = 1 << 18  # 1 MiB in float32, to stay in the cache between the products and the softmax


def attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    """``softmax(q @ k.T + bias) @ v`` for q, k, v (sequences, heads, length, d_kv) and bias (heads, length, length).

    T5 does not scale the scores. The bias is float32; the softmax is taken in float32 in every precision.
    """
    if q.device.type == "cpu" and q.dtype == torch.bfloat16:
        return _by_batched_products(q, k, v, bias)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias[None].to(q.dtype), scale=1.0)


def _by_batched_products(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    """Attention by oneDNN's bfloat16 products: torch's own kernel for CPUs multiplies at the speed of float32."""
    heads, length, width = q.shape[1:]
    sequences = max(_SCORES_AT_ONCE // (heads * length * length), 1)
    mixed = []
    for some in zip(*(torch.split(one, sequences) for one in (q, k, v)), strict=True):
        q_, k_, v_ = (one.reshape(-1, length, width) for one in some)
        scores = torch.bmm(q_, k_.transpose(1, 2)).view(-1, heads, length, length) + bias
        weights = scores.softmax(-1).to(v.dtype).view(-1, length, length)
        mixed.append(torch.bmm(weights, v_).view(-1, heads, length, width))
    return torch.cat(mixed)
