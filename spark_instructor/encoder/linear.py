"""Matrix products with a model's weights, computed by the fastest kernel that this build of torch offers.

On x86, torch's ``F.linear`` sends float32 to MKL, which is slower than oneDNN on AMD processors. The operators under
``torch.ops.mkldnn`` and ``torch.ops.onednn`` call oneDNN, fuse the relu, and take weights that are packed in oneDNN's
own layout. They are private to torch, so only this module calls them. If they are missing (in another build, on another
processor or on a GPU), public operators give the same numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from . import cpu

if TYPE_CHECKING:
    from typing_extensions import Self


def _has_pointwise(precision: torch.dtype) -> bool:
    if not _has_onednn() or not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return False
    return precision == torch.float32 or torch.ops.mkldnn._is_mkldnn_bf16_supported()


def _has_quantized() -> bool:
    # Without VNNI instructions, oneDNN adds pairs of products in 16 bits, which can overflow.
    return _has_onednn() and hasattr(torch.ops.onednn, "qlinear_pointwise") and cpu.has_vnni()


def _has_onednn() -> bool:
    return bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]


_POINTWISE = {precision: _has_pointwise(precision) for precision in (torch.float32, torch.bfloat16)}
_QUANTIZED = _has_quantized()

_PACKED_ROWS = 512
"""The number of rows for which weights are packed. Products with other numbers of rows also gain from it."""

_HIDDEN_COLUMNS = 1536
"""With AMX, a hidden layer in bfloat16 is computed in blocks of this many columns.

A block of 512 rows then stays in the cache of the core, and oneDNN multiplies it 1.4 times as fast as 3072 columns.
"""


class Product(Protocol):
    """A product with one weight (out, in)."""

    def pack(self) -> Self:
        """Return an equal product that is faster and holds a private copy of the weight, or itself if it is packed."""

    def __call__(self, x: Tensor) -> Tensor:
        """Compute ``x @ weight.T``, (rows, out), for x (rows, in) of any floating-point dtype."""

    def feed_forward(self, x: Tensor, out: Self) -> Tensor:
        """Compute ``out(relu(self(x)))``."""

    def cut_hidden(self, out: Self) -> Sequence[tuple[Self, Self]]:
        """Cut ``feed_forward(x, out)`` into pairs of products, whose results add up to its result."""


class FeedForward:
    """``wo(relu(wi(x)))``, summed up over blocks of the hidden layer."""

    def __init__(self, blocks: Sequence[tuple[Product, Product]]) -> None:
        self._blocks = blocks

    def pack(self) -> FeedForward:
        """Pack each product; see `Product.pack`. Blocks that are wider than is fast are cut first."""
        blocks = [block for wi, wo in self._blocks for block in wi.cut_hidden(wo)]
        return FeedForward([(wi.pack(), wo.pack()) for wi, wo in blocks])

    def add_to(self, stream: Tensor, x: Tensor) -> None:
        """Add the result to a stream, float32 (rows, out), for x (rows, in) of any floating-point dtype."""
        for wi, wo in self._blocks:
            stream += wi.feed_forward(x, wo)


class Linear:
    """``x @ weight.T`` with a float32 or bfloat16 weight (out, in)."""

    def __init__(self, weight: Tensor) -> None:
        self._weight = weight
        self._pointwise = _POINTWISE[weight.dtype] and weight.device.type == "cpu"

    def pack(self) -> Linear:
        """Return an equal product that is faster and holds a private copy of the weight, or itself if it is packed."""
        if self._pointwise and not self._weight.is_mkldnn:
            return Linear(torch.ops.mkldnn._reorder_linear_weight(self._weight, _PACKED_ROWS))
        return self

    def __call__(self, x: Tensor) -> Tensor:
        """Compute the product (rows, out), in the dtype of the weight, for x (rows, in) of any dtype."""
        return self._multiply(x)

    def feed_forward(self, x: Tensor, out: Linear) -> Tensor:
        """Compute ``out(relu(self(x)))``."""
        return out(self._multiply(x, "relu"))

    def cut_hidden(self, out: Linear) -> list[tuple[Linear, Linear]]:
        """Cut the hidden layer into blocks of `_HIDDEN_COLUMNS` if the processor has AMX; see `Product.cut_hidden`."""
        if self._weight.is_mkldnn or self._weight.dtype != torch.bfloat16 or not (self._pointwise and cpu.has_amx()):
            return [(self, out)]
        blocks = [slice(start, start + _HIDDEN_COLUMNS) for start in range(0, len(self._weight), _HIDDEN_COLUMNS)]
        return [(Linear(self._weight[block]), Linear(out._weight[:, block].contiguous())) for block in blocks]

    def _multiply(self, x: Tensor, activation: str = "none") -> Tensor:
        x = x.to(self._weight.dtype)
        if self._pointwise:
            result: Tensor = torch.ops.mkldnn._linear_pointwise(x, self._weight, None, activation, [], "")
            return result
        result = F.linear(x, self._weight)
        return result.relu_() if activation == "relu" else result


class QuantizedLinear:
    """``x @ weight.T`` in 8-bit integers, with a scale for each row of the weight and for each row of x.

    ``weight`` is int8 (out, in) and ``scale`` is float32 (out,), as `quantize` returns them. x is quantized in each
    call, to unsigned integers, because processors multiply unsigned with signed integers.
    """

    def __init__(self, weight: Tensor, scale: Tensor) -> None:
        self._scale = scale
        self._onednn = _QUANTIZED and weight.device.type == "cpu"
        # This packing is slow, so it happens once. Each process then holds a copy, but of only one byte per element.
        # Without the operator, the codes stay in the pages of the file, which processes share.
        self._weight = torch.ops.onednn.qlinear_prepack(weight, None) if self._onednn else weight

    def pack(self) -> QuantizedLinear:
        """Return an equal product that need not convert the weight to float32 in each call, or itself; see `Linear`."""
        if self._onednn or self._weight.is_floating_point():
            return self
        return QuantizedLinear(self._weight.float(), self._scale)

    def __call__(self, x: Tensor) -> Tensor:
        """Compute the product, float32 (rows, out), for x (rows, in) of any floating-point dtype."""
        codes, step = _quantize_signed(x.float())
        return self._multiply(codes, _ZERO_POINT).mul_(step)

    def feed_forward(self, x: Tensor, out: QuantizedLinear) -> Tensor:
        """Compute ``out(relu(self(x)))``. The scale of x commutes with the relu and is applied at the end."""
        codes, step = _quantize_signed(x.float())
        hidden_codes, hidden_step = _quantize_nonnegative(self._multiply(codes, _ZERO_POINT, "relu"))
        return out._multiply(hidden_codes, 0).mul_(step.mul_(hidden_step))

    def cut_hidden(self, out: QuantizedLinear) -> list[tuple[QuantizedLinear, QuantizedLinear]]:
        """Return this pair itself; see `Product.cut_hidden`."""
        return [(self, out)]

    def _multiply(self, codes: Tensor, zero_point: int, activation: str = "none") -> Tensor:
        if self._onednn:
            zeros = torch.zeros(len(self._scale), dtype=torch.int64)
            weight, scale = self._weight, self._scale
            result: Tensor = torch.ops.onednn.qlinear_pointwise(
                codes, 1.0, zero_point, weight, scale, zeros, None, 1.0, 0, torch.float32, activation, [], ""
            )
            return result
        result = F.linear(codes.float() - zero_point, self._weight.float()) * self._scale
        return result.relu_() if activation == "relu" else result


_ZERO_POINT = 128

_ROUNDER = 3 * 2.0**22
"""A float32 whose neighbors are 1 apart. Adding a small number to it rounds that number into its lowest bits.

This takes two fewer passes over memory than rounding with torch's operators.
"""


def _quantize_signed(x: Tensor) -> tuple[Tensor, Tensor]:
    """Quantize each row of x to unsigned 8-bit integers around `_ZERO_POINT`; return them and the steps (rows, 1)."""
    step = _compute_step(x.abs().amax(dim=-1, keepdim=True), 127)
    return _round_to_codes(x * step.reciprocal(), _ZERO_POINT), step


def _quantize_nonnegative(x: Tensor) -> tuple[Tensor, Tensor]:
    """Quantize each row of a nonnegative x to unsigned 8-bit integers; return them and the steps. x is overwritten."""
    step = _compute_step(x.amax(dim=-1, keepdim=True), 255)
    return _round_to_codes(x.mul_(step.reciprocal()), 0), step


def _compute_step(largest: Tensor, levels: int) -> Tensor:
    """Compute the value of one integer step, in place of ``largest``. It is never 0, because it is a divisor."""
    return largest.clamp_min_(torch.finfo(torch.float32).tiny * levels).div_(levels)


def _round_to_codes(x: Tensor, zero_point: int) -> Tensor:
    """Round ``x + zero_point`` to the nearest integer, 0 to 255, as uint8; x is overwritten."""
    return x.add_(_ROUNDER + zero_point).view(torch.int32).to(torch.uint8)


def make_product(tensors: Mapping[str, Tensor], name: str) -> Product:
    """Make the product with the weight ``name`` among the tensors of a prepared folder."""
    weight = tensors[name]
    if weight.dtype == torch.int8:
        return QuantizedLinear(weight, tensors[get_scale_name(name)])
    return Linear(weight)


def quantize(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Quantize a float32 weight (out, in) to int8 (out, in); return it and the float32 scale (out,) of its rows."""
    scale = _compute_step(weight.abs().amax(dim=1), 127)
    return (weight / scale[:, None]).round().to(torch.int8), scale


def get_scale_name(name: str) -> str:
    """Return the name of the tensor in a prepared folder that holds the scale of a quantized weight."""
    return f"{name}.scale"
