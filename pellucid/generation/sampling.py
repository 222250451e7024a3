"""From logits to one token, with every column of the way kept: a picture of the table is the computation itself.

    logit → ÷ temperature → top-k and top-p decide what is kept → softmax over what is kept → draw
Papers: Fan et al. 2018 (top-k); Holtzman et al. 2020, "The Curious Case of Neural Text Degeneration" (top-p).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from pellucid.runtime import ConfigError, problem

# B batch, V vocabulary


@dataclass(frozen=True)
class Sampling:
    """How to choose. temperature 0 always takes the likeliest token; top_k 0 and top_p 1 keep all tokens."""

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        if not (self.temperature >= 0 and math.isfinite(self.temperature)):
            raise ConfigError(problem("temperature", str(self.temperature), "0 or more", "0 is the likeliest token."))
        if self.top_k < 0:
            raise ConfigError(problem("top_k", str(self.top_k), "0 or more", "0 keeps all tokens."))
        if not 0 < self.top_p <= 1:
            raise ConfigError(problem("top_p", str(self.top_p), "above 0 and up to 1", "1 keeps all tokens."))


@dataclass(frozen=True)
class NextToken:
    """The columns of one choice, each (B, V): logit, scaled, kept, probability (0 where not kept)."""

    logit: Tensor
    scaled: Tensor
    kept: Tensor
    probability: Tensor


def next_token(logits: Tensor, sampling: Sampling) -> NextToken:
    """All columns for the logits (B, V) of the next token."""
    if sampling.temperature == 0:
        scaled = logits
        kept = torch.zeros_like(logits, dtype=torch.bool).scatter(1, logits.argmax(dim=1, keepdim=True), True)
    else:
        scaled = logits / sampling.temperature
        kept = _top_k(scaled, sampling.top_k)  # top-p looks at the probabilities of what top-k has left, as others do
        kept = kept & _top_p(scaled.masked_fill(~kept, -math.inf), sampling.top_p)
    probability = scaled.masked_fill(~kept, -math.inf).softmax(dim=1)
    return NextToken(logits, scaled, kept, probability)


def choose(table: NextToken, generator: torch.Generator | None = None) -> Tensor:
    """Draw one id per row, (B,)."""
    if int(table.kept.sum()) == len(table.kept):  # one candidate a row: nothing to draw
        return table.kept.int().argmax(dim=1)
    return torch.multinomial(table.probability, 1, generator=generator)[:, 0]


def _top_k(scaled: Tensor, k: int) -> Tensor:
    if k == 0 or k >= scaled.shape[1]:
        return torch.ones_like(scaled, dtype=torch.bool)
    best = scaled.topk(k, dim=1).indices
    return torch.zeros_like(scaled, dtype=torch.bool).scatter(1, best, True)


def _top_p(scaled: Tensor, p: float) -> Tensor:
    if p == 1:
        return torch.ones_like(scaled, dtype=torch.bool)
    probability, order = scaled.softmax(dim=1).sort(dim=1, descending=True)
    before = probability.cumsum(dim=1) - probability  # the likeliest token has nothing before it, so it is kept
    return torch.zeros_like(scaled, dtype=torch.bool).scatter(1, order, before < p)
