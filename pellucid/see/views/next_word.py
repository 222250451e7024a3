"""The data of the page Next word: from logits to one token with every column, and with heads switched off."""

from __future__ import annotations

from typing import Any

import torch

from pellucid.generation.engine import make_dice
from pellucid.generation.sampling import Sampling, choose, next_token
from pellucid.generation.table import look_at
from pellucid.see.trace import Trace, plain_word

SHOWN = 20  # tokens of the table


def next_word(picture: Trace, whole: Trace, sampling: Sampling, seed: int) -> dict[str, Any]:
    """The likeliest tokens after the last one, with all columns of the choice and the one that is drawn.

    `whole` is the trace with all heads on: where it is another, `before` has the probabilities that the same way of
    choosing gives the same tokens there.
    """
    known = picture.tokenizer.vocab_size
    columns = next_token(picture["logits"][-1:, :known], sampling)
    drawn = int(choose(columns, [make_dice(seed, [len(picture.tokens)])[0].random()])[0])
    choice = look_at(columns, drawn, picture.tokenizer, SHOWN)
    result = choice.json()
    kept = columns.kept[0]
    result |= {"kept": int(kept.sum()), "known": len(kept), "drawn": drawn}
    result["written"] = [{"id": piece.id, "text": piece.text} for piece in picture.tokens]
    if whole is not picture:
        before = next_token(whole["logits"][-1:, :known], sampling)
        result |= {"moved": moved(picture, whole), "was": look_at(before, drawn, whole.tokenizer, 1).json()["next"][0]}
        result["before"] = [round(float(before.probability[0, row.id]), 6) for row in choice.rows]
    return result


def moved(picture: Trace, whole: Trace) -> float:
    """How far the switched-off heads moved the model's own probabilities, before any choosing, in nats."""
    now, before = (one["logits"][-1].double().log_softmax(dim=0) for one in (picture, whole))
    return round(float((before.exp() * (before - now)).sum()), 6)


def lens(picture: Trace) -> dict[str, Any]:
    """The likeliest next token after each layer, at each position."""
    return {name: [plain_word(words[0]) for words in row] for name, row in picture.logit_lens().items()}


def read_heads(text: str) -> list[tuple[int, int]]:
    """`0.1,1.2` as (layer, head) pairs."""
    pairs = (part.split(".") for part in text.split(",") if part)
    return sorted({(int(layer), int(head)) for layer, head in pairs})


def read_ids(text: str) -> list[int]:
    """`12,7` as ids."""
    return [int(part) for part in text.split(",") if part]


@torch.no_grad()
def own_probability(picture: Trace) -> list[float]:
    """For each token but the first, the probability that the model gave it."""
    logits = picture["logits"][:-1].double()
    ids = torch.tensor([piece.id for piece in picture.tokens[1:]])
    return [round(p, 6) for p in logits.softmax(dim=1).gather(1, ids[:, None])[:, 0].tolist()]
