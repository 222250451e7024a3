"""A running average of the weights: smoother than the newest ones, and often better.

Page: Polyak and Juditsky 1992, "Acceleration of Stochastic Approximation by Averaging"; the early steps count less, as
in TensorFlow's ExponentialMovingAverage.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn


def copied_weights(model: nn.Module) -> dict[str, Tensor]:
    """The model's weights by name, in memory of their own."""
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


@torch.no_grad()
def move_average(average: dict[str, Tensor], model: nn.Module, keep: float, step: int) -> None:
    """Let the average follow the weights; it keeps the share `keep` of itself, less in the first steps."""
    keep = min(keep, (1 + step) / (10 + step))
    torch._foreach_lerp_(list(average.values()), list(model.state_dict().values()), 1 - keep)


@contextlib.contextmanager
def with_weights(model: nn.Module, weights: dict[str, Tensor] | None) -> Iterator[None]:
    """Within the block the model has these weights (None: its own)."""
    own = model.state_dict() if weights else {}
    values = {name: tensor.data for name, tensor in own.items()}
    for name, tensor in _live(model, values).items():
        tensor.data = weights[name]  # type: ignore[index]
    try:
        yield
    finally:
        for name, tensor in _live(model, values).items():
            tensor.data = values[name]


def _live(model: nn.Module, names: dict[str, Tensor]) -> dict[str, Tensor]:
    """The model's own parameters and buffers of these names."""
    everything = dict(model.named_parameters()) | dict(model.named_buffers())
    return {name: everything[name] for name in names}
