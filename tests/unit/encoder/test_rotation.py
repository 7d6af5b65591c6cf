"""The rotation before int8: it changes no vector in float32, and spreads large channels."""

from functools import reduce

import pytest
import torch
from checkpoints import write_checkpoint
from safetensors.torch import load_file
from vectors import assert_close

from spark_instructor.encoder import InstructorModel, prepare
from spark_instructor.encoder import model as model_module
from spark_instructor.encoder.rotation import _spread, rotate
from spark_instructor.models.prepared import WEIGHTS

INSTRUCTION = "Represent the Science title: "
SHAPES = {
    "a power of two": {"d_model": 64, "num_heads": 2, "d_kv": 32},
    "base's multiple of 3": {"d_model": 96, "num_heads": 3, "d_kv": 20},
    "odd": {"d_model": 7, "num_heads": 1, "d_kv": 5, "d_ff": 3},
    "no Dense": {"dimension": None},
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_vectors_stay(monkeypatch, tmp_path, varied_texts, shape):
    prepared = prepare(write_checkpoint(tmp_path / "model", **shape))
    model = InstructorModel.load(prepared)
    expected = model.encode(INSTRUCTION, varied_texts)
    tensors = load_file(prepared / WEIGHTS)
    architecture = model.prepared.architecture
    rotated = dict(rotate(tensors.items(), architecture))
    changed = {name.rpartition(".")[2] for name in tensors if not torch.equal(rotated[name], tensors[name])}
    assert changed >= {"embedding", "qkv", "o", "wi", "wo", "final_norm"}
    assert "dense" in rotated
    monkeypatch.setattr(model_module, "load_safetensors", lambda path, device: rotated)
    assert_close(InstructorModel.load(prepared).encode(INSTRUCTION, varied_texts), expected)


@pytest.mark.parametrize("width", [1, 2, 7, 12, 64, 768])
def test_the_matrix_is_orthogonal(width):
    matrix = _spread(torch.eye(width))
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(width))


@pytest.mark.parametrize("width", [64, 768, 1024])
def test_a_large_channel_is_spread(width):
    """A single channel of 1 becomes small values in all channels."""
    spread = _spread(torch.eye(width)).abs()
    assert spread.min() > 0
    assert spread.max() < 0.14


@pytest.mark.parametrize("exponent", [6, 8, 10])
def test_a_rotated_channel_is_spread(exponent):
    """A channel that a Hadamard matrix has spread does not become large again."""
    matrix = reduce(torch.kron, [torch.tensor([[1.0, 1.0], [1.0, -1.0]]) / 2**0.5] * exponent)
    assert _spread(matrix).abs().max() < 0.14
