"""The student: INSTRUCTOR's T5 encoder, mean pooling without the instruction, Dense and L2 normalization.

This implementation trains faster than the modules of transformers: the tokens of texts of different lengths share one
matrix, q, k and v are computed in one product, and there is no dropout. `export.py` gives the tensors the names that
they have on the hub.
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
MAX_TOKENS = 256  # training truncates longer sequences


@dataclass(frozen=True)
class Shape:
    """The dimensions of the model, with T5's names from config.json; ``dimension`` is the output size of Dense."""

    vocab_size: int = 15_744  # the largest that keeps the whole checkpoint under 16 MB in float16
    d_model: int = 256
    d_kv: int = 64
    d_ff: int = 1024
    num_layers: int = 4
    num_heads: int = 4
    relative_attention_num_buckets: int = 32
    relative_attention_max_distance: int = 128
    layer_norm_epsilon: float = 1e-6
    dimension: int = 384

    def to_config(self) -> dict[str, int | float]:
        """Return the entries for config.json."""
        return {name: value for name, value in asdict(self).items() if name != "dimension"}


@dataclass(frozen=True)
class Padding:
    """How texts are grouped by length.

    A group has at most ``tokens`` tokens, including padding, and its longest text has at most ``ratio`` times the
    tokens of its shortest.
    """

    tokens: int
    ratio: float


# A CPU computes the padding; a GPU spends its time on starting kernels, so it gets few and large groups.
PADDINGS = {"cpu": Padding(2048, 1.12), "cuda": Padding(65_536, 2.0)}


@dataclass(frozen=True)
class Padded:
    """Texts in groups of similar length.

    ``ids`` holds the tokens of all groups, one after the other, and ``shapes`` the shape (texts, length) of each group.
    ``lengths`` holds the number of tokens of each text, ``skipped`` the number of its leading tokens that are left out
    of the mean, and ``order`` the index that restores the order of the texts.
    """

    ids: Tensor
    lengths: Tensor
    skipped: Tensor
    order: Tensor
    shapes: list[tuple[int, int]]

    def to(self, device: str) -> Padded:
        tensors = (tensor.to(device) for tensor in (self.ids, self.lengths, self.skipped, self.order))
        return Padded(*tensors, self.shapes)


def pad(before: Sequence[npt.NDArray[np.uint16]], after: Sequence[npt.NDArray[np.uint16]], padding: Padding) -> Padded:
    """Group texts by their length and pad them; ``before`` holds the ids of their instructions."""
    ids = [np.concatenate(both)[: MAX_TOKENS - 1] for both in zip(before, after, strict=True)]
    lengths = np.array([len(some) + 1 for some in ids])
    groups = list(group_by_length(lengths, padding))
    grids = []
    for group in groups:
        grid = np.zeros((len(group), lengths[group[-1]]), np.int64)
        for line, i in zip(grid, group, strict=True):
            line[: lengths[i] - 1] = ids[i]
            line[lengths[i] - 1] = EOS
        grids.append(grid)
    positions = np.concatenate(groups)
    return Padded(
        torch.from_numpy(np.concatenate([grid.ravel() for grid in grids])),
        torch.from_numpy(lengths[positions]),
        torch.tensor([len(before[i]) for i in positions]),
        torch.from_numpy(np.argsort(positions)),
        [grid.shape for grid in grids],
    )


def group_by_length(lengths: Sequence[int], padding: Padding) -> Iterator[npt.NDArray[np.int64]]:
    """Yield groups of positions with similar lengths, in ascending order of length."""
    order = np.argsort(lengths, kind="stable")
    start = 0
    for end in range(1, len(order) + 1):
        if (
            end == len(order)
            or (end + 1 - start) * lengths[order[end]] > padding.tokens
            or lengths[order[end]] > padding.ratio * lengths[order[start]] + 1
        ):
            yield order[start:end]
            start = end


class Student(nn.Module):
    """Return unit vectors for texts, given their token ids."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.shared = nn.Embedding(shape.vocab_size, shape.d_model)
        self.position_bias = nn.Embedding(shape.relative_attention_num_buckets, shape.num_heads)
        self.layers = nn.ModuleList(_Layer(shape) for _ in range(shape.num_layers))
        self.final_norm = _RMSNorm(shape)
        self.dense = nn.Linear(shape.d_model, shape.dimension, bias=False)
        self.apply(_initialize)

    def forward(self, padded: Padded) -> Tensor:
        """Embed texts, as float32 rows of length 1 in the order of the texts, with the shape (texts, dimension)."""
        # The tokens of all groups share one matrix for everything except attention and pooling.
        stream = self.shared(padded.ids)
        texts = [texts for texts, _ in padded.shapes]
        lengths, skipped = padded.lengths.split(texts), padded.skipped.split(texts)
        masks = [self._compute_mask(some, longest) for some, (_, longest) in zip(lengths, padded.shapes, strict=True)]
        for layer in self.layers:
            stream = layer(stream, padded.shapes, masks)
        hidden = _split_by_group(self.final_norm(stream), padded.shapes)
        pooled = torch.cat([_pool(*some) for some in zip(hidden, lengths, skipped, strict=True)])
        return functional.normalize(self.dense(pooled).float(), dim=-1)[padded.order]

    def _compute_mask(self, lengths: Tensor, longest: int) -> Tensor:
        """Return the position bias, with -inf at padding, to add to the scores: (texts, heads, length, length)."""
        positions = torch.arange(longest, device=lengths.device)
        padding = torch.where(positions < lengths[:, None], 0.0, -math.inf)
        return self._compute_bias(positions) + padding[:, None, None, :]

    def _compute_bias(self, positions: Tensor) -> Tensor:
        """Return T5's relative position bias, with the shape (1, heads, length, length)."""
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
        qkv = _split_by_group(self.qkv(self.attention_norm(stream)), shapes)
        attended = torch.cat([self._attend(some, mask) for some, mask in zip(qkv, masks, strict=True)])
        stream = stream + self.o(attended)
        return stream + self.wo(self.wi(self.feed_forward_norm(stream)).relu())

    def _attend(self, qkv: Tensor, mask: Tensor) -> Tensor:
        """Map (texts, length, 3 x heads x d_kv) to (texts x length, heads x d_kv).

        T5 does not scale the scores.
        """
        texts, length, _ = qkv.shape
        q, k, v = qkv.view(texts, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        weights = (q @ k.transpose(2, 3) + mask).softmax(-1).to(v.dtype)
        return (weights @ v).transpose(1, 2).reshape(texts * length, -1)


def _split_by_group(tokens: Tensor, shapes: Sequence[tuple[int, int]]) -> list[Tensor]:
    """Split (tokens, width) into one (texts, length, width) view per group."""
    parts = tokens.split([texts * length for texts, length in shapes])
    return [part.view(*shape, -1) for part, shape in zip(parts, shapes, strict=True)]


def _pool(hidden: Tensor, lengths: Tensor, skipped: Tensor) -> Tensor:
    """Average each text's tokens without those of the instruction; return zeros if none is left."""
    positions = torch.arange(hidden.shape[1], device=hidden.device)
    pooled = (positions < lengths[:, None]) & (positions >= skipped[:, None])
    return (hidden * pooled[:, :, None]).sum(1) / pooled.sum(1, keepdim=True).clamp(min=1)


class _RMSNorm(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(shape.d_model))
        self.epsilon = shape.layer_norm_epsilon

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.epsilon) * self.weight


def _initialize(module: nn.Module) -> None:
    """Draw normal weights like T5's, but zeros for the matrices that add to the stream.

    The model thus starts as its embeddings alone.
    """
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=module.in_features**-0.5)
    elif isinstance(module, nn.Embedding):
        nn.init.normal_(module.weight)
    elif isinstance(module, _Layer):
        nn.init.zeros_(module.o.weight)
        nn.init.zeros_(module.wo.weight)
        d_kv = module.qkv.out_features // (3 * module.heads)
        with torch.no_grad():  # scales q, because T5 does not scale the scores
            module.qkv.weight[: module.heads * d_kv] *= d_kv**-0.5
