"""Adafactor: a matrix's second moments as those of its rows times those of its columns.

PyTorch's own goes over the whole of each matrix a dozen times, and makes another as large; this one goes over parts
that fit into the caches, three times, and leaves the gradient as it is. And it moves by the rate itself, at every step
and whatever the weights' own size, as AdamW does.
Page: Shazeer and Stern 2018, "Adafactor: Adaptive Learning Rates with Sublinear Memory Cost".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor, nn

TOGETHER = 1 << 18  # numbers of a matrix that are gone over at once
SMALLEST = torch.finfo(torch.float32).eps  # root of a second moment
FORGETTING = -0.8  # the share of the newest square in step t is t to the power of this


class Adafactor(torch.optim.Optimizer):
    """Without momentum; decoupled weight decay. Parameters are matrices, gradients may be in bfloat16.

    A step is shortened where its root mean square is above 1. Gradients are divided by `grad_scale`, as AdamW's are.
    """

    grad_scale: Tensor | None = None

    def __init__(self, matrices: Iterable[nn.Parameter], lr: float, weight_decay: float = 0.1) -> None:
        super().__init__(matrices, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Move every matrix that has a gradient."""
        scale = 1.0 if self.grad_scale is None else 1 / float(self.grad_scale)
        for group in self.param_groups:
            for matrix in group["params"]:
                if matrix.grad is not None:
                    directions = Directions(matrix.grad, *self._moments(matrix, matrix.grad, scale))
                    size = directions.norm() * scale / math.sqrt(matrix.numel())
                    kept, rate = 1 - group["lr"] * group["weight_decay"], group["lr"] * scale / max(1.0, size)
                    for part, direction in zip(parts(matrix), directions, strict=True):
                        part.mul_(kept).sub_(direction, alpha=rate)

    def _moments(self, matrix: nn.Parameter, gradient: Tensor, scale: float) -> tuple[Tensor, Tensor]:
        """The new second moments of rows, (rows, 1), and of columns, (1, columns)."""
        state = self.state[matrix]
        if not state:
            state["step"] = torch.tensor(0.0)
            state["row_var"] = matrix.new_zeros(matrix.shape[0], 1)
            state["col_var"] = matrix.new_zeros(1, matrix.shape[1])
        state["step"] += 1
        newest = float(state["step"]) ** FORGETTING
        columns = torch.zeros_like(state["col_var"])
        for part, rows in zip(parts(gradient), parts(state["row_var"], gradient.shape[1]), strict=True):
            squares = part.float().square()
            rows.lerp_(squares.mean(dim=1, keepdim=True).mul_(scale**2), newest)
            columns += squares.new_ones(1, len(squares)) @ squares  # their sum takes twice as long
        state["col_var"].lerp_(columns.mul_(scale**2 / len(gradient)), newest)
        return state["row_var"], state["col_var"]


class Directions:
    """A gradient divided by the roots of its second moments, a part of whole rows at a time, as often as asked."""

    def __init__(self, gradient: Tensor, rows: Tensor, columns: Tensor) -> None:
        finite = torch.finfo(torch.float32).max
        self.gradient = gradient
        self.by_row = (rows / rows.mean().clamp(min=SMALLEST)).rsqrt_().clamp_(max=finite)
        self.by_column = columns.rsqrt().clamp_(max=finite)
        self.bounded = float(self.by_row.max()) * float(self.by_column.max()) <= 1 / SMALLEST

    def __iter__(self) -> Iterator[Tensor]:
        for part, own in zip(parts(self.gradient), parts(self.by_row, self.gradient.shape[1]), strict=True):
            if self.bounded:
                yield (part * self.by_column).mul_(own)
            else:
                yield (own * self.by_column).clamp_(max=1 / SMALLEST).mul_(part)

    def norm(self) -> float:
        """Of all parts together."""
        flat = (part.view(-1) for part in self)
        return math.sqrt(sum(float(torch.dot(part, part)) for part in flat))  # torch's norm takes twice as long


def parts(matrix: Tensor, columns: int = 0) -> tuple[Tensor, ...]:
    """A matrix in parts of whole rows, as many as there are in one of so many columns."""
    return torch.split(matrix, max(1, TOGETHER // (columns or matrix.shape[1])))
