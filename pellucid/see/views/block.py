"""The data of the page Block: the residual stream of one token through every part of every layer."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pellucid.runtime import DataError, problem
from pellucid.see.trace import Trace, rounded

# T tokens, D width of the model

PARTS = (  # of a block, in the order of the data: its name in the trace, and what it is
    ("residual_in", "stream"),
    ("attention_norm", "norm"),
    ("attention.output", "added"),
    ("residual_mid", "stream"),
    ("feed_forward_norm", "norm"),
    ("feed_forward.hidden", "hidden"),
    ("feed_forward.output", "added"),
    ("residual_out", "stream"),
)


def block(picture: Trace, layer: int, token: int) -> dict[str, Any]:
    """The vectors of one token in one block, each with its mean, its variance and its length; norms of all layers."""
    layers, length = picture.model.config.n_layers, len(picture.tokens)
    for name, value, most in (("layer", layer, layers), ("token", token, length)):
        if not 0 <= value < most:
            raise DataError(problem(name, str(value), f"0 to {most - 1}", "Choose another."))
    parts = [described(picture[f"blocks.{layer}.{name}"][token], name, role) for name, role in PARTS]
    return {
        "layer": layer,
        "token": token,
        "parts": parts,
        "norm": type(picture.model.final_norm).__name__,
        "stages": [stage(picture, i, half, token) for i in range(layers) for half in ("attention", "feed_forward")],
        "input": float(picture["input"][token].norm()),
        "word": best_word(picture, picture["input"][token]),
    }


def described(vector: Tensor, name: str, role: str) -> dict[str, Any]:
    """A vector with what LayerNorm looks at: mean, variance; and its length."""
    exact = vector.double()
    return {
        "name": name,
        "role": role,
        "vector": rounded(vector),
        "mean": round(float(exact.mean()), 6),
        "variance": round(float(exact.var(unbiased=False)), 6),
        "length": round(float(exact.norm()), 6),
    }


def stage(picture: Trace, layer: int, half: str, token: int) -> dict[str, Any]:
    """What one half of a block adds to the stream, where it points, and what the model would say after it."""
    added = picture[f"blocks.{layer}.{half}.output"][token]
    stream = picture[f"blocks.{layer}.{'residual_mid' if half == 'attention' else 'residual_out'}"][token]
    return {
        "layer": layer,
        "half": half,
        "stream": round(float(stream.norm()), 6),
        "added": round(float(added.norm()), 6),
        "cosine": round(float(F.cosine_similarity(stream - added, added, dim=0)), 6),
        "word": best_word(picture, stream),
    }


@torch.no_grad()
def best_word(picture: Trace, stream: Tensor) -> dict[str, Any]:
    """The likeliest next token had the model ended with this vector (the logit lens)."""
    word = picture.words_after(stream[None], 1)[0][0]
    return {"id": word.id, "text": word.text, "probability": round(word.probability, 6)}
