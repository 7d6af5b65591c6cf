"""INSTRUCTOR as one torch module on top of transformers' T5, for the engines that run or convert it."""

import torch
from inputs import Model
from sentence_transformers import SentenceTransformer
from torch import Tensor, nn
from torch.nn import functional as F

INPUTS = ["input_ids", "attention_mask", "pooled_mask"]


class Embedder(nn.Module):
    """From token ids to unit vectors: T5, the mean over the tokens of the text, Dense, and normalization.

    The position bias is a table instead of a computation in every batch. That is faster, and it
    avoids the logarithm of the distances in bfloat16, with which OpenVINO puts some distances into the wrong bucket.
    """

    def __init__(self, model: Model) -> None:
        super().__init__()
        modules = SentenceTransformer(str(model.path), device="cpu", model_kwargs={"dtype": torch.float32})
        self.encoder = modules[0].auto_model
        self.dense = modules[2].linear
        self.encoder.set_attn_implementation("eager")
        attention = self.encoder.encoder.block[0].layer[0].SelfAttention
        with torch.no_grad():
            self.register_buffer("position_bias", attention.compute_bias(model.max_length, model.max_length))
        attention.compute_bias = lambda queries, keys, **_: self.position_bias[:, :, :queries, :keys]
        self.eval()

    def to_bfloat16(self) -> None:
        """Convert T5 to a narrower precision. The rest stays float32, so that the vectors have unit length."""
        self.encoder.bfloat16()
        self.position_bias = self.position_bias.bfloat16()

    def forward(self, input_ids: Tensor, attention_mask: Tensor, pooled_mask: Tensor) -> Tensor:
        """Return vectors (batch, dimension) for ids and masks of 0 and 1, int64 (batch, length)."""
        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state.float()
        counted = pooled_mask.unsqueeze(-1).float()
        mean = (hidden * counted).sum(1) / counted.sum(1).clamp(min=1e-9)
        return F.normalize(self.dense(mean), dim=-1)


def example() -> tuple[Tensor, ...]:
    """Return inputs with which to trace the module."""
    ids = torch.arange(30).view(2, 15)
    return ids, torch.ones_like(ids), (ids % 15 > 3).long()
