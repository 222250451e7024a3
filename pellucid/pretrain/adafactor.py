"""Adafactor: a matrix's second moments as those of its rows times those of its columns.

PyTorch's own goes over the whole of each matrix a dozen times, and makes another as large; this one goes over parts
that fit into the caches, three times, and moves by the rate itself, at every step and whatever the weights' own size,
as AdamW does. Page: Shazeer and Stern 2018, "Adafactor: Adaptive Learning Rates with Sublinear Memory Cost".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

TOGETHER = 1 << 20  # numbers of a matrix that are gone over at once
SMALLEST = torch.finfo(torch.float32).eps  # root of a second moment
FORGETTING = -0.8  # the share of the newest square in step t is t to the power of this


class Adafactor(torch.optim.Optimizer):
    """Without momentum; decoupled weight decay. Parameters are matrices. After a step their gradients are the steps.

    A step is shortened where its root mean square is above 1.
    """

    def __init__(self, matrices: Iterable[nn.Parameter], lr: float, weight_decay: float = 0.1) -> None:
        super().__init__(matrices, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Move every matrix that has a gradient."""
        for group in self.param_groups:
            for matrix in group["params"]:
                if matrix.grad is not None:
                    rows, columns = self._moments(matrix, matrix.grad)
                    size = step_instead(matrix.grad, rows, columns) / math.sqrt(matrix.numel())
                    kept, rate = 1 - group["lr"] * group["weight_decay"], group["lr"] / max(1.0, size)
                    for part, direction in zip(parts(matrix), parts(matrix.grad), strict=True):
                        part.mul_(kept).sub_(direction, alpha=rate)

    def _moments(self, matrix: nn.Parameter, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """The new second moments of rows, (rows, 1), and of columns, (1, columns)."""
        state = self.state[matrix]
        if not state:
            state["step"] = torch.tensor(0.0)
            state["row_var"] = gradient.new_zeros(gradient.shape[0], 1)
            state["col_var"] = gradient.new_zeros(1, gradient.shape[1])
        state["step"] += 1
        newest = float(state["step"]) ** FORGETTING
        columns = torch.zeros_like(state["col_var"])
        for part, rows in zip(parts(gradient), parts(state["row_var"], gradient.shape[1]), strict=True):
            squares = part.square()
            rows.lerp_(squares.mean(dim=1, keepdim=True), newest)
            columns += squares.new_ones(1, len(squares)) @ squares  # their sum takes twice as long
        state["col_var"].lerp_(columns.div_(len(gradient)), newest)
        return state["row_var"], state["col_var"]


def step_instead(gradient: Tensor, rows: Tensor, columns: Tensor) -> float:
    """Divide a gradient by the roots of its second moments, in its place; its norm then."""
    finite, largest = torch.finfo(torch.float32).max, 1 / SMALLEST
    by_row = (rows / rows.mean().clamp(min=SMALLEST)).rsqrt_().clamp_(max=finite)
    by_column = columns.rsqrt().clamp_(max=finite)
    bounded, squared = float(by_row.max()) * float(by_column.max()) <= largest, 0.0
    for part, own in zip(parts(gradient), parts(by_row, gradient.shape[1]), strict=True):
        factors = own * by_column
        part.mul_(factors if bounded else factors.clamp_(max=largest))
        flat = part.flatten()
        squared += float(torch.dot(flat, flat))  # its norm takes twice as long
    return math.sqrt(squared)


def parts(matrix: Tensor, columns: int = 0) -> tuple[Tensor, ...]:
    """A matrix in parts of whole rows, as many as there are in one of so many columns."""
    return torch.split(matrix, max(1, TOGETHER // (columns or matrix.shape[1])))
