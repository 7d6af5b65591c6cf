"""Measure the fastest matrix products of one core in each precision, which no encoder can exceed."""

import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

ROWS = (512, 1024, 2048)
SHAPES = ((768, 768), (768, 2304), (768, 3072), (3072, 768), (1024, 1024))  # (in, out): base's, and a square
_SECONDS = 0.05  # per timing
_TIMINGS = 3


def peak(precision: str) -> float:
    """Return the GFLOP/s of the best kernel at its best shape."""
    kernels = {"float32": _float_kernels, "bfloat16": _float_kernels, "int8": _int8_kernels}[precision]
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    return max(
        2 * rows * columns_in * columns_out / _fastest(kernel) / 1e9
        for rows in ROWS
        for columns_in, columns_out in SHAPES
        for kernel in kernels(torch.randn(rows, columns_in).to(dtype), torch.randn(columns_out, columns_in).to(dtype))
    )


def _fastest(kernel: Callable[[], Tensor]) -> float:
    """Return the seconds of one call."""
    kernel()
    best = float("inf")
    for _ in range(_TIMINGS):
        calls, start = 0, time.perf_counter()
        while (elapsed := time.perf_counter() - start) < _SECONDS:
            kernel()
            calls += 1
        best = min(best, elapsed / calls)
    return best


def _float_kernels(x: Tensor, weight: Tensor) -> Iterator[Callable[[], Tensor]]:
    yield lambda: F.linear(x, weight)  # in float32 this is MKL's kernel, if torch has it
    if torch.backends.mkldnn.is_available():
        packed = torch.ops.mkldnn._reorder_linear_weight(weight, len(x))
        yield lambda: torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], "")
        yield lambda: torch.ops.mkldnn._linear_pointwise(x, packed, None, "none", [], "")


def _int8_kernels(x: Tensor, weight: Tensor) -> Iterator[Callable[[], Tensor]]:
    """Multiply unsigned activations with signed weights by oneDNN; processors have instructions for this."""
    codes = (x * 30 + 128).clamp(0, 255).to(torch.uint8)
    packed = torch.ops.onednn.qlinear_prepack((weight * 30).clamp(-127, 127).to(torch.int8), None)
    scales, zeros = torch.full((len(weight),), 0.01), torch.zeros(len(weight), dtype=torch.int64)
    for output in (torch.float32, torch.bfloat16, torch.uint8):
        yield lambda output=output: torch.ops.onednn.qlinear_pointwise(
            codes, 1.0, 128, packed, scales, zeros, None, 1.0, 0, output, "none", [], ""
        )
