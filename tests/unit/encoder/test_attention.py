"""Attention: every kernel gives the formula's result, whatever is cut into pieces."""

import pytest
import torch

from spark_instructor.encoder import attention as module
from spark_instructor.encoder.attention import attention

# Scores reach 10 here, where bfloat16 steps by 1/16.
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 0.05}


@pytest.mark.parametrize("at_once", [1, 1 << 18])
@pytest.mark.parametrize("precision", TOLERANCE, ids=str)
@pytest.mark.parametrize(("sequences", "length"), [(1, 1), (5, 3), (3, 70)])
def test_formula(monkeypatch, precision, at_once, sequences, length):
    monkeypatch.setattr(module, "_SCORES_AT_ONCE", at_once)
    heads, width = 4, 8
    generator = torch.Generator().manual_seed(0)
    packed = torch.randn(sequences, length, 3, heads, width, generator=generator).to(precision)
    q, k, v = packed.permute(2, 0, 3, 1, 4)  # strided, as the encoder has them
    bias = torch.randn(heads, length + 2, length + 2, generator=generator)[:, :length, :length]
    exact = (q.double() @ k.double().transpose(2, 3) + bias.double()).softmax(-1) @ v.double()
    found = attention(q, k, v, bias)
    assert found.dtype == precision
    torch.testing.assert_close(found.double(), exact, atol=TOLERANCE[precision], rtol=0)
