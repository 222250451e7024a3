"""One block, and what the two families build it of.

As GPT-2 has it: the norm stands before each half of the block, and the shortcut carries the residual stream past it.
Papers: Radford et al. 2019, "Language Models are Unsupervised Multitask Learners", section 2.3; Touvron et al. 2023,
"LLaMA", section 2.2.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from pellucid.config import ModelConfig
from pellucid.model.attention import CausalAttention
from pellucid.model.cache import KVCache
from pellucid.model.layers import FeedForward, GatedFeedForward, LayerNorm, RMSNorm
from pellucid.model.positions import Rotation

# B batch, T tokens, D width of the model


class Parts(NamedTuple):
    """What tells one family's blocks from the other's; positions and heads follow from the config."""

    norm: type[LayerNorm] | type[RMSNorm]
    feed_forward: type[FeedForward] | type[GatedFeedForward]
    biases: bool
    """Whether attention's projections have them."""
    shortcut_dropout: bool
    """Whether dropout also meets the input and what goes onto the shortcut, and not the attention weights alone."""


FAMILIES = {
    "gpt2": Parts(LayerNorm, FeedForward, biases=True, shortcut_dropout=True),
    "llama": Parts(RMSNorm, GatedFeedForward, biases=False, shortcut_dropout=False),
}


class Block(nn.Module):
    """Norm, attention, dropout, shortcut; norm, feed-forward, dropout, shortcut."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        parts = FAMILIES[config.family]
        self.attention_norm = parts.norm(config.d_model, config.norm_eps)
        self.attention = CausalAttention(config, parts.biases)
        self.feed_forward_norm = parts.norm(config.d_model, config.norm_eps)
        self.feed_forward = parts.feed_forward(config)
        self.dropout = nn.Dropout(config.dropout if parts.shortcut_dropout else 0.0)

    def forward(
        self, x: Tensor, cache: KVCache | None = None, layer: int = 0, rotation: Rotation | None = None
    ) -> Tensor:
        """(B, T, D) → (B, T, D)."""
        x = x + self.dropout(self.attention(self.attention_norm(x), cache, layer, rotation))
        x = x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))
        return x
