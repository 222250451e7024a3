"""Tokens that no text in training holds, and why one of them can stand for all.

Byte-pair encoding leaves its scaffolding in the vocabulary: once ` quietly` is a token, ` quiet` and ` quie` may never
be met again. Of the quickstart's 4,100 tokens 1,800 are such. Where their vectors start alike they get the same
gradients and stay alike, so their logits are equal, and the softmax over all tokens takes one of them, as often as
there are tokens. The loss and its gradients are those of the whole vocabulary; the widest product of a small model
has two fifths fewer rows (docs/performance.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

LEAST_SHARE = 1 / 16  # of the vocabulary: for fewer tokens it does not pay


@dataclass(frozen=True)
class Alike:
    """Which rows of the output weight (V, D) are computed with: R of them, the last one for `count` equal rows."""

    rows: Tensor
    """(R,) ids."""
    place: Tensor
    """(V,) for each id, where in `rows` it stands."""
    count: int

    def table(self, weight: Tensor) -> Tensor:
        """(V, D) → (R, D); each of the equal rows gets its part of the gradient of the last."""
        table: Tensor = _Rows.apply(weight, self)  # type: ignore[no-untyped-call]
        return table


class _Rows(torch.autograd.Function):
    """Rows of the weight; the way back gives each of the equal rows the same part, which keeps them equal."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, alike: Alike) -> Tensor:
        ctx.alike = alike
        return weight.index_select(0, alike.rows)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        gradient = gradients[0].clone()
        gradient[-1] /= ctx.alike.count
        return gradient.index_select(0, ctx.alike.place), None


def unused_ids(weight: Tensor, used: Tensor) -> Tensor:
    """The ids of the rows of `weight` (V, D) that are not `used` (up to V booleans; those behind its end are not)."""
    unused = torch.ones(len(weight), dtype=torch.bool)
    unused[: len(used)] = ~used
    return unused.nonzero()[:, 0].to(weight.device)


@torch.no_grad()
def start_alike(weight: Tensor, used: Tensor) -> None:
    """Let the vectors of all tokens that are not `used` start at zero."""
    weight[unused_ids(weight, used)] = 0.0


@torch.no_grad()
def find_alike(weight: Tensor, used: Tensor) -> Alike | None:
    """The largest group of equal rows (to rounding) of `weight` (V, D) among the tokens not `used`, if it pays.

    A weight that is divided over processes has no such group.
    """
    if hasattr(weight, "full_tensor"):
        return None
    ids, least = unused_ids(weight, used), LEAST_SHARE * len(weight)
    if len(ids) <= least:
        return None
    vectors = weight[ids]
    values, counts = torch.unique(vectors[:, 0], return_counts=True)
    commonest = vectors[vectors[:, 0] == values[counts.argmax()]][0]
    group = ids[torch.isclose(vectors, commonest, rtol=1e-4, atol=1e-6).all(dim=1)]
    if len(group) <= least:
        return None
    others = torch.ones(len(weight), dtype=torch.bool, device=weight.device)
    others[group] = False
    rows = torch.cat([others.nonzero()[:, 0], group[:1]])
    place = torch.full((len(weight),), len(rows) - 1, device=weight.device)
    place[rows] = torch.arange(len(rows), device=weight.device)
    return Alike(rows, place, len(group))
