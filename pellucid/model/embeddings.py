"""What the token vectors of any checkpoint say: which tokens stand near each other, and a map of them on a plane."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from pellucid.model.gpt import GPT
from pellucid.runtime import DataError, problem

# N tokens, D width of the model, V vocabulary


class Neighbour(NamedTuple):
    """A token and the cosine of the angle between its vector and the one asked about: 1 is the same direction."""

    id: int
    cosine: float


class Plane(NamedTuple):
    """Points (N, 2) of tokens, and which share of their vectors' spread the two directions show, from 0 to 1."""

    points: Tensor
    share: float


@torch.no_grad()
def nearest_tokens(model: GPT, token: int, count: int = 10) -> list[Neighbour]:
    """The `count` tokens whose vectors point most nearly where that of `token` does, itself left out, nearest first."""
    _check(model, [token])
    vectors = model.token_embedding.weight.float()
    cosines = F.cosine_similarity(vectors, vectors[token], dim=1)  # (V,)
    cosines[token] = -torch.inf
    best = cosines.topk(min(count, len(cosines) - 1))
    return [Neighbour(int(i), float(cosine)) for i, cosine in zip(best.indices, best.values, strict=True)]


@torch.no_grad()
def plane(model: GPT, ids: Sequence[int] | None = None) -> Plane:
    """The vectors of `ids` (all tokens where None) on the two directions in which they differ most.

    Principal components: the largest eigenvectors of the covariance. Each points to where its own largest number is
    positive, so that the same checkpoint always gives the same picture.
    """
    vectors = model.token_embedding.weight.double()
    if ids is not None:
        _check(model, ids)
        vectors = vectors[torch.tensor(ids, dtype=torch.long, device=vectors.device)]
    centred = vectors - vectors.mean(dim=0)  # (N, D)
    spread, directions = torch.linalg.eigh(centred.mT @ centred)  # (D,) rising, (D, D) in columns
    best = directions[:, -2:].flip(1)
    best = best * best.gather(0, best.abs().argmax(dim=0, keepdim=True)).sign()
    total = float(spread.sum())
    return Plane((centred @ best).float(), float(spread[-2:].sum()) / total if total > 0 else 0.0)


def _check(model: GPT, ids: Sequence[int]) -> None:
    """DataError for an id that the model does not have."""
    size = model.config.vocab_size
    for token in ids:
        if not 0 <= token < size:
            raise DataError(problem("token id", f"{token}", f"0 to {size - 1}, the model's vocabulary", "Change it."))
