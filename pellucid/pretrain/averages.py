"""A running average of the weights: smoother than the newest ones, and often better.

Page: Polyak and Juditsky 1992, "Acceleration of Stochastic Approximation by Averaging"; the early steps count less, as
in TensorFlow's ExponentialMovingAverage.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn


def trained_weights(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that training moves, by name; of adapters beside a frozen model, the adapters alone."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def copied_weights(model: nn.Module) -> dict[str, Tensor]:
    """The trained weights by name, in memory of their own."""
    return {name: parameter.detach().clone() for name, parameter in trained_weights(model).items()}


@torch.no_grad()
def put_weights(model: nn.Module, weights: dict[str, Tensor]) -> None:
    """Give the model such a copy back."""
    for name, parameter in trained_weights(model).items():
        parameter.copy_(weights[name])


@torch.no_grad()
def move_average(average: dict[str, Tensor], model: nn.Module, keep: float, step: int) -> None:
    """Let the average follow the weights; it keeps the share `keep` of itself, less in the first steps."""
    keep = min(keep, (1 + step) / (10 + step))
    trained = trained_weights(model)
    torch._foreach_lerp_([average[name] for name in trained], list(trained.values()), 1 - keep)


@contextlib.contextmanager
def with_weights(model: nn.Module, weights: dict[str, Tensor] | None) -> Iterator[None]:
    """Within the block the model has these weights (None: its own)."""
    trained = trained_weights(model) if weights else {}
    own = {name: parameter.data for name, parameter in trained.items()}
    for name, parameter in trained.items():
        parameter.data = weights[name]  # type: ignore[index]
    try:
        yield
    finally:
        for name, parameter in trained.items():
            parameter.data = own[name]
