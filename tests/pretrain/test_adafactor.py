"""Adafactor: PyTorch's own moves to the same place, where its rate is made to be one."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pellucid.config import FitConfig
from pellucid.pretrain import adafactor
from pellucid.pretrain.adafactor import Adafactor
from pellucid.pretrain.optim import make_optimizers

WHOLE = 1e3  # PyTorch moves by max(eps2, the weights' size) × min(rate, 1/√step): by a rate, where eps2 is large


def moved(optimizer: torch.optim.Optimizer, matrix: Tensor, gradients: list[Tensor]) -> Tensor:
    for gradient in gradients:
        matrix.grad = gradient.clone()
        optimizer.step()
    return matrix.detach()


@pytest.mark.parametrize("together", [1, 64, 1 << 17], ids=["row by row", "some rows", "whole"])
@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
def test_it_moves_as_pytorchs_own_does(together: int, weight_decay: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adafactor, "TOGETHER", together)
    torch.manual_seed(0)
    start = torch.randn(37, 20)
    gradients = [torch.randn(37, 20) * torch.logspace(-4, 2, 37)[:, None] * scale for scale in (1, 1e-3, 50, 1, 1)]
    for gradient in gradients:
        gradient[5:9] = 0  # tokens that were not met
    ours, theirs = torch.nn.Parameter(start.clone()), torch.nn.Parameter(start.clone())
    found = moved(Adafactor([ours], 0.01, weight_decay), ours, gradients)
    peer = torch.optim.Adafactor([theirs], lr=0.01 / WHOLE, eps=(None, WHOLE), weight_decay=weight_decay * WHOLE)
    torch.testing.assert_close(found, moved(peer, theirs, gradients), rtol=1e-5, atol=1e-6)


def test_it_moves_by_the_rate_after_any_number_of_steps_and_however_small_the_weights_are() -> None:
    layer = torch.nn.Linear(4, 3, bias=False)
    torch.nn.init.zeros_(layer.weight)  # as in LoRA
    (optimizer,) = make_optimizers(layer, FitConfig(steps=1, optimizer="adafactor", lr=0.1, weight_decay=0.0))
    for _ in range(200):
        before = layer.weight.detach().clone()
        layer.weight.grad = torch.ones(3, 4)
        optimizer.step()
        torch.testing.assert_close(before - layer.weight, torch.full((3, 4), 0.1), atol=1e-4, rtol=0)
    layer.weight.grad = torch.zeros(3, 4)
    (optimizer,) = make_optimizers(layer, FitConfig(steps=1, optimizer="adafactor", lr=0.1, weight_decay=0.5))
    before = layer.weight.detach().clone()
    optimizer.step()
    torch.testing.assert_close(layer.weight.detach(), 0.95 * before, msg="decoupled, as AdamW's")


def test_a_matrix_without_a_gradient_stays() -> None:
    matrix = torch.nn.Parameter(torch.ones(2, 2))
    Adafactor([matrix], 0.1).step()
    assert matrix.tolist() == [[1, 1], [1, 1]]
