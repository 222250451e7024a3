"""The parts of a block beside attention, and the block itself.

As GPT-2 has it: the norm stands before each half of the block, and the shortcut carries the residual stream past it.
Paper: Radford et al. 2019, "Language Models are Unsupervised Multitask Learners", section 2.3.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pellucid.config import ModelConfig
from pellucid.model.attention import CausalAttention
from pellucid.model.cache import KVCache


class LayerNorm(nn.Module):
    """Each token's vector shifted to mean 0 and scaled to variance 1, then stretched and moved by what was learnt."""

    def __init__(self, d_model: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(d_model))
        self.bias = nn.Parameter(torch.zeros(d_model))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) → (B, T, D)."""
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps)

    def explicit(self, x: Tensor) -> Tensor:
        """The same, written out: the oracle of `forward`."""
        mean = x.mean(dim=-1, keepdim=True)
        variance = x.var(dim=-1, keepdim=True, unbiased=False)
        return (x - mean) / torch.sqrt(variance + self.eps) * self.weight + self.bias


class FeedForward(nn.Module):
    """Each token on its own: widened to d_ff, bent by GELU, brought back."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.expand = nn.Linear(config.d_model, config.d_ff)
        self.contract = nn.Linear(config.d_ff, config.d_model)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) → (B, T, D)."""
        contracted: Tensor = self.contract(F.gelu(self.expand(x), approximate="tanh"))
        return contracted


class Block(nn.Module):
    """LayerNorm, attention, dropout, shortcut; LayerNorm, feed-forward, dropout, shortcut."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.attention_norm = LayerNorm(config.d_model, config.norm_eps)
        self.attention = CausalAttention(config)
        self.feed_forward_norm = LayerNorm(config.d_model, config.norm_eps)
        self.feed_forward = FeedForward(config)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, cache: KVCache | None = None, layer: int = 0) -> Tensor:
        """(B, T, D) → (B, T, D)."""
        x = x + self.dropout(self.attention(self.attention_norm(x), cache, layer))
        x = x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))
        return x
