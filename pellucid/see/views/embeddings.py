"""The data of the page Embeddings: the input as a sum, a map of the vocabulary, the patterns of positions."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pellucid.model.embeddings import nearest_tokens, plane
from pellucid.model.gpt import GPT
from pellucid.model.positions import RotaryPositions
from pellucid.see.shelf import Opened, Shelf
from pellucid.see.trace import Trace, rounded, token_text

MAPPED = 8000  # tokens on the map, at most: the first learnt are the most frequent
PATTERN = 128  # rows and columns of the pattern of positions, at most


def embeddings(picture: Trace) -> dict[str, Any]:
    """For each token its vector, that of its position and their sum, as far as the model has them."""
    names = [name for name in ("token_embedding", "position_embedding", "input") if name in picture.values]
    return {name: rounded(picture[name]) for name in names}


def vocabulary(shelf: Shelf, name: str, checkpoint: str) -> dict[str, Any]:
    """The map: the tokens' vectors on the two directions in which they differ most."""
    opened = shelf.open(name, checkpoint)
    return opened.made.get("map", lambda: draw_map(opened))


def draw_map(opened: Opened) -> dict[str, Any]:
    """Points and texts of up to MAPPED tokens."""
    count = min(opened.model.config.vocab_size, MAPPED)
    drawn = plane(opened.model, range(count))
    return {
        "points": rounded(drawn.points),
        "texts": [token_text(opened.tokenizer, token) for token in range(count)],
        "share": drawn.share,
        "known": opened.model.config.vocab_size,
    }


def neighbours(opened: Opened, token: int) -> dict[str, Any]:
    """The tokens whose vectors point most nearly where that of `token` does."""
    found = nearest_tokens(opened.model, token)
    rows = [{"id": i, "text": token_text(opened.tokenizer, i), "cosine": round(cosine, 6)} for i, cosine in found]
    return {"id": token, "text": token_text(opened.tokenizer, token), "neighbours": rows}


@torch.no_grad()
def positions(opened: Opened) -> dict[str, Any]:
    """The table of positions, rows and columns evenly left out where it is large, and how alike its rows are."""
    table, kind = position_table(opened.model)
    rows, columns = evenly(table.shape[0]), evenly(table.shape[1])
    alike = torch.nn.functional.normalize(table[rows], dim=1)
    return {
        "kind": kind,
        "shape": list(table.shape),
        "rows": rows,
        "columns": columns,
        "pattern": rounded(table[rows][:, columns]),
        "alike": rounded(alike @ alike.mT),
    }


def position_table(model: GPT) -> tuple[Tensor, str]:
    """(T, D) vectors of all positions; of rotary ones the cosines and sines of their angles."""
    embedding = model.position_embedding
    if isinstance(embedding, RotaryPositions):
        length = min(model.config.context_length, 1024)
        return torch.cat(embedding(torch.arange(length)), dim=1), "rotary"
    return embedding.get_parameter("weight").float() if model.config.positions == "learned" else embedding.get_buffer(
        "weight"
    ), model.config.positions


def evenly(count: int, most: int = PATTERN) -> list[int]:
    """At most `most` of the numbers below `count`, evenly spread, the first and the last among them."""
    return [round(i * (count - 1) / max(1, most - 1)) for i in range(most)] if count > most else list(range(count))
