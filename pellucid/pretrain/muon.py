"""Muon: the step of a matrix is its momentum with all singular values made about one.

PyTorch's own Muon always computes in bfloat16, which a CPU without instructions for it does forty times slower
(docs/performance.md); this one computes in the precision of the run, and all matrices of a shape at once.
Page: Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks".
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

# a, b, c of one step x → a·x + b·(xxᵀ)x + c·(xxᵀ)²x, chosen on the page for the steepest rise of small values.
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
NEWTON_SCHULZ_STEPS = 5


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, orthogonalized; decoupled weight decay. Parameters are matrices, and float32.

    The momentum is less than the page's 0.95: in runs of hundreds and thousands of steps more is learnt by it
    (docs/performance.md). As PyTorch's, a matrix of more rows than columns takes a step larger by √(rows / columns).
    """

    def __init__(
        self,
        matrices: Iterable[nn.Parameter],
        lr: float,
        weight_decay: float = 0.1,
        momentum: float = 0.85,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__(matrices, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})
        self.dtype = dtype

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Move every matrix that has a gradient."""
        for group in self.param_groups:
            shapes: dict[torch.Size, list[nn.Parameter]] = defaultdict(list)
            for matrix in group["params"]:
                if matrix.grad is not None:
                    shapes[matrix.shape].append(matrix)
            for (rows, columns), matrices in shapes.items():
                momenta = [whole(self._momentum(matrix, group)) for matrix in matrices]
                directions = orthogonalized(torch.stack(momenta), self.dtype)
                rate = group["lr"] * math.sqrt(max(1, rows / columns))
                for matrix, direction in zip(matrices, directions, strict=True):
                    matrix.mul_(1 - group["lr"] * group["weight_decay"])
                    matrix.sub_(divided_as(matrix, direction), alpha=rate)

    def _momentum(self, matrix: nn.Parameter, group: dict[str, Any]) -> Tensor:
        """The new momentum of a matrix, seen one step ahead."""
        gradient: Tensor = matrix.grad  # type: ignore[assignment]
        state = self.state[matrix]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(gradient)
        buffer: Tensor = state["momentum_buffer"]
        buffer.lerp_(gradient, 1 - group["momentum"])
        return gradient.lerp(buffer, group["momentum"])


def whole(tensor: Tensor) -> Tensor:
    """A tensor that is divided over processes, put together; others as they are."""
    full: Tensor = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
    return full


def divided_as(matrix: Any, tensor: Tensor) -> Tensor:
    """This process's part of a tensor that all have, where the matrix is divided over them."""
    if not hasattr(matrix, "full_tensor"):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    part: Tensor = distribute_tensor(tensor, matrix.device_mesh, matrix.placements, src_data_rank=None)
    return part


def orthogonalized(matrices: Tensor, dtype: torch.dtype = torch.float32, steps: int = NEWTON_SCHULZ_STEPS) -> Tensor:
    """Each of the matrices (N, rows, columns) with its singular values moved to about 1 (0.7 to 1.2), vectors kept.

    Newton-Schulz iteration: products of matrices only, no decomposition.
    """
    a, b, c = COEFFICIENTS
    tall = matrices.shape[1] > matrices.shape[2]
    x = (matrices.mT if tall else matrices).to(dtype)
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp_min(1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.mT if tall else x).to(matrices.dtype)
