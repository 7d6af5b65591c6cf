"""The student: a T5 encoder as INSTRUCTOR has it, mean pooling without the instruction, Dense, L2 norm.

Written out here because it trains faster on a CPU than transformers' modules: the tokens of batches of
different lengths stand in one matrix, q, k and v are one product, and there is no dropout. `export.py` gives
the tensors the hub's names.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

EOS = 1
MOST_TOKENS = 256  # that training reads of a text
TOKENS_AT_ONCE = 2048


@dataclass(frozen=True)
class Shape:
    """T5's own names, as in config.json; ``dimension`` is Dense's output."""

    vocab_size: int = 15_744  # the most that leave the whole checkpoint under 16 MB in float16
    d_model: int = 256
    d_kv: int = 64
    d_ff: int = 1024
    num_layers: int = 4
    num_heads: int = 4
    relative_attention_num_buckets: int = 32
    relative_attention_max_distance: int = 128
    layer_norm_epsilon: float = 1e-6
    dimension: int = 384

    def config(self) -> dict[str, int | float]:
        """What config.json holds of it."""
        return {name: value for name, value in asdict(self).items() if name != "dimension"}


@dataclass(frozen=True)
class Batch:
    """Texts of similar length: ids (texts, length), padded; of each, its tokens and how many are not pooled."""

    ids: Tensor
    lengths: Tensor
    skipped: Tensor


def padded(
    before: Sequence[npt.NDArray[np.uint16]], after: Sequence[npt.NDArray[np.uint16]]
) -> tuple[list[Batch], torch.Tensor]:
    """Instructions' and texts' tokens as batches of similar length, and the order that brings the vectors back."""
    ids = [np.concatenate(both)[: MOST_TOKENS - 1] for both in zip(before, after, strict=True)]
    lengths = [len(some) + 1 for some in ids]
    portions = list(by_length(lengths, TOKENS_AT_ONCE))
    made = []
    for portion in portions:
        grid = np.zeros((len(portion), lengths[portion[-1]]), np.int64)
        for line, i in zip(grid, portion, strict=True):
            line[: lengths[i] - 1] = ids[i]
            line[lengths[i] - 1] = EOS
        made.append(
            Batch(
                torch.from_numpy(grid),
                torch.tensor([lengths[i] for i in portion]),
                torch.tensor([len(before[i]) for i in portion]),
            )
        )
    return made, torch.from_numpy(np.argsort(np.concatenate(portions)))


def by_length(lengths: Sequence[int], tokens_at_once: int) -> Iterator[npt.NDArray[np.int64]]:
    """Positions in portions of similar length, ascending, each of at most ``tokens_at_once`` with padding."""
    order = np.argsort(lengths, kind="stable")
    start = 0
    for end in range(1, len(order) + 1):
        if (
            end == len(order)
            or (end + 1 - start) * lengths[order[end]] > tokens_at_once
            or lengths[order[end]] > 1.12 * lengths[order[start]] + 1
        ):
            yield order[start:end]
            start = end


class Student(nn.Module):
    """Unit vectors of batches of token ids."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.shared = nn.Embedding(shape.vocab_size, shape.d_model)
        self.position_bias = nn.Embedding(shape.relative_attention_num_buckets, shape.num_heads)
        self.layers = nn.ModuleList(_Layer(shape) for _ in range(shape.num_layers))
        self.final_norm = _RMSNorm(shape)
        self.dense = nn.Linear(shape.d_model, shape.dimension, bias=False)
        self.apply(_initialise)

    def forward(self, batches: Sequence[Batch]) -> Tensor:
        """Embed the texts of all batches, in order: float32 (texts, dimension), each row of length 1."""
        # The tokens of all batches stand in one matrix for everything but attention and pooling.
        stream = self.shared(torch.cat([batch.ids.flatten() for batch in batches]))
        shapes = [tuple(batch.ids.shape) for batch in batches]
        masks = [self._bias_and_mask(batch) for batch in batches]
        for layer in self.layers:
            stream = layer(stream, shapes, masks)
        hidden = _per_batch(self.final_norm(stream), shapes)
        pooled = [_mean(some, batch) for some, batch in zip(hidden, batches, strict=True)]
        return functional.normalize(self.dense(torch.cat(pooled)).float(), dim=-1)

    def _bias_and_mask(self, batch: Batch) -> Tensor:
        """What is added to the scores, (texts, heads, length, length): position bias, -inf at padding."""
        positions = torch.arange(batch.ids.shape[1])
        padding = torch.where(positions < batch.lengths[:, None], 0.0, -math.inf)
        return self._bias(positions) + padding[:, None, None, :]

    def _bias(self, positions: Tensor) -> Tensor:
        """T5's relative-position bias, (1, heads, length, length)."""
        half = self.shape.relative_attention_num_buckets // 2
        exact = half // 2
        distance = positions[None, :] - positions[:, None]
        apart = distance.abs()
        wide = torch.log(apart.clamp(min=1) / exact) / math.log(self.shape.relative_attention_max_distance / exact)
        wide_bucket = (exact + (wide * (half - exact)).long()).clamp(max=half - 1)
        bucket = torch.where(apart < exact, apart, wide_bucket) + half * (distance > 0)
        return self.position_bias(bucket).permute(2, 0, 1)[None]


class _Layer(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        inner = shape.num_heads * shape.d_kv
        self.heads = shape.num_heads
        self.attention_norm, self.feed_forward_norm = _RMSNorm(shape), _RMSNorm(shape)
        self.qkv = nn.Linear(shape.d_model, 3 * inner, bias=False)
        self.o = nn.Linear(inner, shape.d_model, bias=False)
        self.wi = nn.Linear(shape.d_model, shape.d_ff, bias=False)
        self.wo = nn.Linear(shape.d_ff, shape.d_model, bias=False)

    def forward(self, stream: Tensor, shapes: Sequence[tuple[int, int]], masks: Sequence[Tensor]) -> Tensor:
        qkv = _per_batch(self.qkv(self.attention_norm(stream)), shapes)
        attended = torch.cat([self._attention(some, mask) for some, mask in zip(qkv, masks, strict=True)])
        stream = stream + self.o(attended)
        return stream + self.wo(self.wi(self.feed_forward_norm(stream)).relu())

    def _attention(self, qkv: Tensor, mask: Tensor) -> Tensor:
        """(texts, length, 3 x heads x d_kv) to (texts x length, heads x d_kv); T5 does not scale the scores."""
        texts, length, _ = qkv.shape
        q, k, v = qkv.view(texts, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        weights = (q @ k.transpose(2, 3) + mask).softmax(-1).to(v.dtype)
        return (weights @ v).transpose(1, 2).reshape(texts * length, -1)


def _per_batch(tokens: Tensor, shapes: Sequence[tuple[int, int]]) -> list[Tensor]:
    """(tokens, width) as a (texts, length, width) of each batch."""
    parts = tokens.split([texts * length for texts, length in shapes])
    return [part.view(*shape, -1) for part, shape in zip(parts, shapes, strict=True)]


def _mean(hidden: Tensor, batch: Batch) -> Tensor:
    """Mean over each text's tokens without the instruction's; zeros where none is left."""
    positions = torch.arange(hidden.shape[1])
    pooled = (positions < batch.lengths[:, None]) & (positions >= batch.skipped[:, None])
    return (hidden * pooled[:, :, None]).sum(1) / pooled.sum(1, keepdim=True).clamp(min=1)


class _RMSNorm(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(shape.d_model))
        self.epsilon = shape.layer_norm_epsilon

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.epsilon) * self.weight


def _initialise(module: nn.Module) -> None:
    """Normal weights as T5's, but zeros where a layer adds to the stream: it starts as its embeddings alone."""
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=module.in_features**-0.5)
    elif isinstance(module, nn.Embedding):
        nn.init.normal_(module.weight)
    elif isinstance(module, _Layer):
        nn.init.zeros_(module.o.weight)
        nn.init.zeros_(module.wo.weight)
        d_kv = module.qkv.out_features // (3 * module.heads)
        with torch.no_grad():  # T5's scores are not scaled, so q is
            module.qkv.weight[: module.heads * d_kv] *= d_kv**-0.5
