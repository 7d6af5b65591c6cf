"""What the processor has, and how the answers are found."""

import pytest
import torch

from spark_instructor.encoder import cpu

FEATURES = {"has_amx": "amx_tile", "has_bfloat16": "avx512_bf16", "has_vnni": "vnni"}


@pytest.mark.parametrize(("answer", "feature"), FEATURES.items(), ids=FEATURES)
@pytest.mark.parametrize("supported", [True, False])
def test_torch_is_asked(monkeypatch, answer, feature, supported):
    monkeypatch.setattr(torch.cpu, f"_is_{feature}_supported", lambda: supported, raising=False)
    assert getattr(cpu, answer)() is supported


@pytest.mark.parametrize(("answer", "feature"), FEATURES.items(), ids=FEATURES)
def test_a_torch_that_does_not_know(monkeypatch, answer, feature):
    monkeypatch.delattr(torch.cpu, f"_is_{feature}_supported", raising=False)
    assert getattr(cpu, answer)() is False
