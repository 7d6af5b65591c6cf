"""Matrix products by the fastest true-float32 (or bfloat16) kernel that this torch has.

On x86, torch's ``F.linear`` sends float32 to MKL, which on AMD processors runs at half of oneDNN's speed.
torch's own operator ``mkldnn::_linear_pointwise`` reaches oneDNN with plain row-major weights, so that
weights mapped from a file stay shared between processes, and fuses the relu. It is private: where it is
missing (another build, a GPU), ``F.linear`` gives the same numbers.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def _has_pointwise(precision: torch.dtype) -> bool:
    available = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    if not available or not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return False
    return precision == torch.float32 or torch.ops.mkldnn._is_mkldnn_bf16_supported()


_POINTWISE = {precision: _has_pointwise(precision) for precision in (torch.float32, torch.bfloat16)}


def linear(x: Tensor, weight: Tensor) -> Tensor:
    """``x @ weight.T`` for x (rows, in) and weight (out, in) of one dtype."""
    if _POINTWISE[x.dtype] and x.device.type == "cpu":
        result: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], "")
        return result
    return F.linear(x, weight)


def linear_relu(x: Tensor, weight: Tensor) -> Tensor:
    """``relu(x @ weight.T)`` for x (rows, in) and weight (out, in) of one dtype."""
    if _POINTWISE[x.dtype] and x.device.type == "cpu":
        result: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, None, "relu", [], "")
        return result
    return F.linear(x, weight).relu_()
