"""A change of basis after which int8 loses little (Ashkboos et al. 2024, "QuaRot").

A quantized row has one scale, so a few large channels leave few levels for all others, and trained models have such
channels. An RMS norm without its scale does not depend on the basis of the residual stream. If everything that writes
to the stream is multiplied by an orthogonal matrix, and everything that reads it by the inverse, the vectors stay the
same up to rounding, but the large channels are spread over all. The values of each head are rotated likewise, since
attention only averages them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import reduce

import torch
from torch import Tensor

from ..models.prepared import Architecture


def rotate(tensors: Iterable[tuple[str, Tensor]], shape: Architecture) -> Iterator[tuple[str, Tensor]]:
    """Yield the float32 tensors of a prepared folder in the rotated basis.

    The scale of the final norm is folded into the Dense layer. If there is no Dense layer, one is added, which scales
    and rotates back.
    """
    final_norm, dense = torch.ones(shape.d_model), torch.eye(shape.d_model)
    for name, tensor in tensors:
        if name == "final_norm":
            final_norm = tensor
        elif name == "dense":
            dense = tensor
        else:
            yield name, _rotate(name.rpartition(".")[2], tensor, shape)
    yield "final_norm", torch.ones(shape.d_model)
    yield "dense", _spread(dense * final_norm)


def _rotate(part: str, tensor: Tensor, shape: Architecture) -> Tensor:
    by_head = (shape.d_model, shape.num_heads, shape.d_kv)
    if part == "qkv":
        queries, keys, values = tensor.chunk(3)
        values = _spread(values.T.reshape(by_head)).flatten(1).T
        return _spread(torch.cat([queries, keys, values]))
    if part == "o":
        tensor = _spread(tensor.view(by_head)).flatten(1)
    if part in ("o", "wo"):
        return _spread(tensor.T).T.contiguous()
    if part in ("embedding", "wi"):
        return _spread(tensor)
    return tensor


def _spread(x: Tensor) -> Tensor:
    """Multiply x (..., width) by an orthogonal matrix.

    It changes signs and multiplies by the Kronecker product of a reflection with the largest Hadamard matrix whose size
    divides the width. The signs are those of the Rudin-Shapiro sequence, so that a model which a Hadamard matrix has
    rotated already is not rotated back. Only sums in a fixed order are computed, so the result is the same to the last
    bit on every processor.
    """
    width = x.shape[-1]
    size = width & -width  # the largest power of two that divides the width
    blocks = width // size
    signs = torch.tensor([(-1.0) ** (i & i >> 1).bit_count() for i in range(width)])
    spread = (x * signs).contiguous().view(-1, blocks, size)
    spread = spread - reduce(torch.add, spread.unbind(1)).unsqueeze(1) * (2 / blocks)
    half = 1
    while half < size:
        first, second = spread.view(-1, 2, half).unbind(1)
        spread = torch.stack((first + second, first - second), dim=1)
        half *= 2
    return spread.view(x.shape).mul_(size**-0.5)
