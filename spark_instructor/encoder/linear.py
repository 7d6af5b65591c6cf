"""Matrix products with a model's weights, by the fastest kernel that this torch has.

On x86, torch's ``F.linear`` sends float32 to MKL, which on AMD processors is slower than oneDNN. torch's own
operators under ``torch.ops.mkldnn`` and ``torch.ops.onednn`` reach oneDNN, fuse the relu, and take weights in
its own order. They are private, and called here alone; where they are missing (another build, another
processor, a GPU) public operators give the same numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

if TYPE_CHECKING:
    from typing_extensions import Self


def _has_pointwise(precision: torch.dtype) -> bool:
    if not _has_onednn() or not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return False
    return precision == torch.float32 or torch.ops.mkldnn._is_mkldnn_bf16_supported()


def _has_quantized() -> bool:
    # Without VNNI instructions oneDNN sums pairs of products in 16 bits, which overflow.
    has_vnni = getattr(torch.cpu, "_is_vnni_supported", lambda: False)
    return _has_onednn() and hasattr(torch.ops.onednn, "qlinear_pointwise") and bool(has_vnni())


def _has_onednn() -> bool:
    return bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]


_POINTWISE = {precision: _has_pointwise(precision) for precision in (torch.float32, torch.bfloat16)}
_QUANTIZED = _has_quantized()

_MIN_ROWS_TO_PACK = 2048
"""Rows from which packing a matrix, a copy of it, costs less than it gains."""


class Product(Protocol):
    """A product with one weight (out, in)."""

    def pack(self, rows: int) -> Self:
        """The same for products with about ``rows`` rows in all, soon to be dropped."""

    def __call__(self, x: Tensor) -> Tensor:
        """``x @ weight.T`` for x (rows, in) of any floating dtype: (rows, out)."""

    def feed_forward(self, x: Tensor, out: Self) -> Tensor:
        """``out(relu(self(x)))``."""


class Linear:
    """``x @ weight.T`` with a float32 or bfloat16 weight (out, in)."""

    def __init__(self, weight: Tensor) -> None:
        self._weight = weight
        self._pointwise = _POINTWISE[weight.dtype] and weight.device.type == "cpu"

    def pack(self, rows: int) -> Linear:
        """The same for products with about ``rows`` rows in all, soon to be dropped.

        The weight itself stays as it is: packed for good, each process of a host would hold its own copy
        instead of sharing the file's pages.
        """
        if self._pointwise and rows >= _MIN_ROWS_TO_PACK:
            return Linear(torch.ops.mkldnn._reorder_linear_weight(self._weight, rows))
        return self

    def __call__(self, x: Tensor) -> Tensor:
        """From x (rows, in) of any dtype to (rows, out) of the weight's."""
        return self._product(x)

    def feed_forward(self, x: Tensor, out: Linear) -> Tensor:
        """``out(relu(self(x)))``."""
        return out(self._product(x, "relu"))

    def _product(self, x: Tensor, activation: str = "none") -> Tensor:
        x = x.to(self._weight.dtype)
        if self._pointwise:
            result: Tensor = torch.ops.mkldnn._linear_pointwise(x, self._weight, None, activation, [], "")
            return result
        result = F.linear(x, self._weight)
        return result.relu_() if activation == "relu" else result


class QuantizedLinear:
    """``x @ weight.T`` in 8-bit integers: the weight with a scale for each row, x with one for each of its rows.

    ``weight`` is int8 (out, in) and ``scale`` float32 (out,), as `quantize` gives them. x is quantized as it
    comes, to unsigned integers, which is what processors multiply with signed weights.
    """

    def __init__(self, weight: Tensor, scale: Tensor) -> None:
        self._scale = scale
        self._onednn = _QUANTIZED and weight.device.type == "cpu"
        # This packing is slow, so it is done here once: a copy a process, but of a byte an element.
        self._weight = torch.ops.onednn.qlinear_prepack(weight, None) if self._onednn else weight.float()

    def pack(self, rows: int) -> QuantizedLinear:
        """Itself; see `Linear.pack`."""
        return self

    def __call__(self, x: Tensor) -> Tensor:
        """From x (rows, in) of any floating dtype to float32 (rows, out)."""
        codes, step = _quantize_signed(x.float())
        return self._product(codes, _ZERO_POINT).mul_(step)

    def feed_forward(self, x: Tensor, out: QuantizedLinear) -> Tensor:
        """``out(relu(self(x)))``; x's scale goes through the relu and is applied at the end."""
        codes, step = _quantize_signed(x.float())
        codes, hidden_step = _quantize_nonnegative(self._product(codes, _ZERO_POINT, "relu"))
        return out._product(codes, 0).mul_(step.mul_(hidden_step))

    def _product(self, codes: Tensor, zero_point: int, activation: str = "none") -> Tensor:
        if self._onednn:
            zeros = torch.zeros(len(self._scale), dtype=torch.int64)
            result: Tensor = torch.ops.onednn.qlinear_pointwise(
                codes,
                1.0,
                zero_point,
                self._weight,
                self._scale,
                zeros,
                None,
                1.0,
                0,
                torch.float32,
                activation,
                [],
                "",
            )
            return result
        result = F.linear(codes.float() - zero_point, self._weight) * self._scale
        return result.relu_() if activation == "relu" else result


_ZERO_POINT = 128

_ROUNDER = 3 * 2.0**22
"""A float32 whose neighbours are 1 apart: a small number added to it is rounded, and stands in its lowest bits.

Two passes over memory less than rounding by torch's operators.
"""


def _quantize_signed(x: Tensor) -> tuple[Tensor, Tensor]:
    """Each row of x as unsigned 8-bit integers around `_ZERO_POINT`, and its step (rows, 1)."""
    step = _compute_step(x.abs().amax(dim=-1, keepdim=True), 127)
    return _round_to_codes(x * step.reciprocal(), _ZERO_POINT), step


def _quantize_nonnegative(x: Tensor) -> tuple[Tensor, Tensor]:
    """Each row of x, which is nowhere negative and is overwritten, as unsigned 8-bit integers, and its step."""
    step = _compute_step(x.amax(dim=-1, keepdim=True), 255)
    return _round_to_codes(x.mul_(step.reciprocal()), 0), step


def _compute_step(largest: Tensor, levels: int) -> Tensor:
    """What one integer stands for, in the memory of ``largest``; never 0, as it is divided by."""
    return largest.clamp_min_(torch.finfo(torch.float32).tiny * levels).div_(levels)


def _round_to_codes(x: Tensor, zero_point: int) -> Tensor:
    """The integer nearest to ``x + zero_point``, 0 to 255, as uint8; x is overwritten."""
    return x.add_(_ROUNDER + zero_point).view(torch.int32).to(torch.uint8)


def make_product(tensors: Mapping[str, Tensor], name: str) -> Product:
    """The product with the weight ``name`` of a prepared folder's tensors."""
    weight = tensors[name]
    if weight.dtype == torch.int8:
        return QuantizedLinear(weight, tensors[get_scale_name(name)])
    return Linear(weight)


def quantize(weight: Tensor) -> tuple[Tensor, Tensor]:
    """A float32 weight (out, in) as int8 (out, in) and the float32 scale (out,) of each row."""
    scale = _compute_step(weight.abs().amax(dim=1), 127)
    return (weight / scale[:, None]).round().to(torch.int8), scale


def get_scale_name(name: str) -> str:
    """Under which name a prepared folder has the scale of a quantized weight."""
    return f"{name}.scale"
