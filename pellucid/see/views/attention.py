"""The data of the page Attention: one head step by step, from queries and keys to the context, and all heads small."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pellucid.model.attention import causal_mask
from pellucid.runtime import DataError, problem
from pellucid.see.trace import Trace, rounded

# T tokens, H heads, K width of a head


def attention(picture: Trace, layer: int, head: int, dropout: float, seed: int) -> dict[str, Any]:
    """Every step of one head for all tokens. Where a token may not look, scores after the mask are None.

    `dropout` drops weights as training does, by the model's own function and dice of `seed`; a model that is used, as
    here, drops nothing, so the context is that of the undropped weights.
    """
    config = picture.model.config
    for name, value, most in (("layer", layer, config.n_layers), ("head", head, config.n_heads)):
        if not 0 <= value < most:
            raise DataError(problem(name, str(value), f"0 to {most - 1}", "Choose another."))
    at = f"blocks.{layer}.attention"
    queries, keys, values = (part[head] for part in picture.heads(layer))
    scaled, weights = picture[f"{at}.scores"][head], picture[f"{at}.weights"][head]
    mask = causal_mask(len(weights), window=config.window)
    return {
        "layer": layer,
        "head": head,
        "d_head": config.d_head,
        "window": config.window,
        "queries": rounded(queries),
        "keys": rounded(keys),
        "values": rounded(values),
        "scores": rounded(scaled * math.sqrt(config.d_head)),
        "scaled": rounded(scaled),
        "masked": [
            [number if seen else None for number, seen in zip(*row, strict=True)]
            for row in zip(rounded(scaled), mask.tolist(), strict=True)
        ],
        "weights": rounded(weights),
        "dropped": rounded(dropped(weights, dropout, seed)),
        "trained_dropout": config.dropout,
        "context": rounded(picture[f"{at}.context"][head]),
    }


def dropped(weights: Tensor, share: float, seed: int) -> Tensor:
    """The weights after dropout, as one step of training would have them."""
    if not 0 <= share < 1:
        raise DataError(problem("dropout", str(share), "from 0 up to 1", "0.1 is GPT-2's."))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return F.dropout(weights, share, training=True)


def heads(picture: Trace) -> dict[str, Any]:
    """The weights of all layers and heads, (L, H, T, T)."""
    return {"attention": rounded(picture.attention())}
