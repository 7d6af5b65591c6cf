"""Attention on every kind of processor, compared with the same attention in float64, one sequence at a time."""

import math

import pytest
import torch

from spark_instructor.encoder.attention import Attention, Run
from spark_instructor.models.prepared import Architecture

HEADS, WIDTH, MAX_LENGTH = 3, 8, 340
SHAPE = Architecture(
    vocab_size=10,
    d_model=24,
    d_kv=WIDTH,
    d_ff=5,
    num_layers=1,
    num_heads=HEADS,
    relative_attention_num_buckets=32,
    relative_attention_max_distance=128,
    layer_norm_epsilon=1e-6,
    dimension=24,
)
LENGTHS = [[340], [301, 299], [160, 160, 150], [33, 32, 31, 20, 20, 20, 17, 16, 15, 5, 5, 1], [1], [2, 2, 1, 1, 1]]
BOUNDS = {torch.float32: 1e-5, torch.bfloat16: 0.03}


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


TABLE = normal(32, HEADS, seed=1)


def lay_out(lengths, multiple):
    """Return the runs of sequences of these lengths, and the number of rows of their batch."""
    row, runs = -lengths[0] % multiple, []
    for length in sorted(set(lengths), reverse=True):
        count = lengths.count(length)
        runs.append(Run(slice(row, row + count * length), count, length))
        row += count * length
    return runs, row + 3


def attend_exactly(attention, projected, runs):
    """Compute the attention in float64, with the bias of each pair of positions from its distance."""
    expected = torch.zeros(len(projected), HEADS * WIDTH, dtype=torch.float64)
    center = attention._bias.shape[1] // 2
    for rows, sequences, length in runs:
        positions = torch.arange(length)
        bias = attention._bias[:, center + positions[None] - positions[:, None]].double()
        for of_sequence in torch.arange(rows.start, rows.stop).view(sequences, length):
            q, k, v = projected[of_sequence].double().view(length, 3, HEADS, WIDTH).permute(1, 2, 0, 3)
            mixed = torch.softmax(q @ k.transpose(1, 2) + bias, dim=-1) @ v
            expected[of_sequence] = mixed.transpose(0, 1).reshape(length, HEADS * WIDTH)
    return expected


@pytest.mark.parametrize("precision", BOUNDS, ids=str)
@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
def test_as_in_float64(processor, precision, lengths):
    attention = Attention(SHAPE, TABLE, MAX_LENGTH, precision)
    runs, count = lay_out(lengths, attention.length_multiple)
    projected = normal(count, 3 * HEADS * WIDTH).to(precision)
    actual = attention(projected, attention.build_bias(max(lengths)), runs)
    torch.testing.assert_close(
        actual.double(), attend_exactly(attention, projected, runs), atol=BOUNDS[precision], rtol=0
    )


@pytest.mark.parametrize("precision", BOUNDS, ids=str)
def test_sequences_do_not_see_their_neighbors(processor, precision):
    """The rows that pad a sequence belong to its neighbors, and have no influence on it."""
    attention = Attention(SHAPE, TABLE, MAX_LENGTH, precision)
    runs, count = lay_out([21, 21, 9, 9, 1], attention.length_multiple)
    projected = normal(count, 3 * HEADS * WIDTH).to(precision)
    bias = attention.build_bias(21)
    before = attention(projected, bias, runs)
    middle = slice(runs[1].rows.start, runs[1].rows.start + 9)
    others = torch.ones(count, dtype=torch.bool)
    others[middle] = False
    projected[others] *= 1000
    assert torch.equal(attention(projected, bias, runs)[middle], before[middle])


def test_kernels_are_few(processor):
    """torch keeps a kernel for each length that it meets in bfloat16, so it meets only multiples of 16."""
    attention = Attention(SHAPE, TABLE, MAX_LENGTH, torch.bfloat16)
    met, kernel = set(), attention._kernel

    def record(q, k, v, bias):
        met.add((q.dtype, q.shape[2]))
        return kernel(q, k, v, bias)

    attention._kernel = record
    bias = attention.build_bias(MAX_LENGTH)
    for length in range(1, MAX_LENGTH + 1):
        runs, count = lay_out([length], attention.length_multiple)
        attention(torch.zeros(count, 3 * HEADS * WIDTH), bias, runs)
    narrow = {length for dtype, length in met if dtype == torch.bfloat16}
    assert len(narrow) == (0 if processor == "neither" else math.ceil(MAX_LENGTH / 16))


def test_float32_is_never_rounded_to_bfloat16(processor):
    attention = Attention(SHAPE, TABLE, MAX_LENGTH, torch.float32)
    runs, count = lay_out([5], attention.length_multiple)
    assert attention(normal(count, 3 * HEADS * WIDTH), attention.build_bias(5), runs).dtype == torch.float32
