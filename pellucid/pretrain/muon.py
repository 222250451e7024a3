"""Muon: the step of a matrix is its momentum with all singular values made about one.

PyTorch's own Muon always computes in bfloat16, which a CPU without instructions for it does forty times slower
(docs/performance.md); this one computes in the precision of the run, and all matrices of a shape at once.
Page: Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks"; coefficients: Amsel et al. 2025,
"The Polar Express".
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

# a, b, c of each step x → a·x + b·(xxᵀ)x + c·(xxᵀ)²x: small singular values rise as steeply in these four, of a longer
# row that Amsel et al. found, as in five of the page's (3.4445, −4.7750, 2.0315).
COEFFICIENTS = (
    (8.2872, -23.5959, 17.3004),
    (4.1071, -2.9478, 0.5448),
    (3.9487, -2.9089, 0.5518),
    (3.3184, -2.4885, 0.5100),
)


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
        coefficients: Sequence[tuple[float, float, float]] = COEFFICIENTS,
    ) -> None:
        super().__init__(matrices, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})
        self.dtype, self.coefficients = dtype, coefficients

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
                directions = orthogonalized(torch.stack(momenta), self.dtype, self.coefficients)
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


def orthogonalized(
    matrices: Tensor,
    dtype: torch.dtype = torch.float32,
    coefficients: Sequence[tuple[float, float, float]] = COEFFICIENTS,
) -> Tensor:
    """Each of the matrices (N, rows, columns) with its singular values moved towards 1 (0.4 to 1.6), vectors kept.

    Newton-Schulz iteration: products of matrices only, no decomposition.
    """
    tall = matrices.shape[1] > matrices.shape[2]
    x = (matrices.mT if tall else matrices).to(dtype)
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp_min(1e-7)
    for a, b, c in coefficients:
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.mT if tall else x).to(matrices.dtype)
