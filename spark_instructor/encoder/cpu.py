"""What the processor has. Every choice between kernels on a CPU follows from these answers."""

from __future__ import annotations

import torch


def has_amx() -> bool:
    """Tell whether the processor has Intel's AMX, which multiplies tiles of bfloat16 numbers."""
    return _has("amx_tile")


def has_bfloat16() -> bool:
    """Tell whether the processor has AVX-512's instructions for bfloat16, as AMD has since Zen 4."""
    return _has("avx512_bf16")


def has_vnni() -> bool:
    """Tell whether the processor has VNNI, AVX-512's instructions for products of 8-bit integers."""
    return _has("vnni")


def _has(feature: str) -> bool:
    # These functions are private to torch; some builds and older versions lack some of them.
    is_supported = getattr(torch.cpu, f"_is_{feature}_supported", lambda: False)
    return bool(is_supported())
