"""Cross-entropy of the tokens that are to be learnt.

A loss is always a sum and a count: micro-batches and ranks add up both and divide once, so that splitting a batch
never changes its loss. Positions that are not trained (prompts, padding) are left out before the projection to the
vocabulary, the widest product of a small model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pellucid.model.gpt import GPT
from pellucid.model.segments import Segments

# B batch, T tokens, N trained tokens, D width, V vocabulary

ROWS = 512  # positions whose logits exist at one time


@dataclass(frozen=True)
class Loss:
    """Sum of the losses in nats (a scalar tensor), and how many tokens it sums over."""

    total: Tensor
    count: int


def explicit_token_loss(model: GPT, inputs: Tensor, targets: Tensor, trained: Tensor | None = None) -> Loss:
    """The oracle: −log softmax of every logit, picked at the target, masked. ids (B, T), trained (B, T) booleans."""
    log_probabilities = model(inputs).float().log_softmax(dim=-1)  # (B, T, V)
    losses = -log_probabilities.gather(2, targets[..., None])[..., 0]  # (B, T)
    if trained is not None:
        losses = losses * trained
    return Loss(losses.sum(), int(losses.numel() if trained is None else trained.sum()))


def token_loss(
    model: GPT, inputs: Tensor, targets: Tensor, trained: Tensor | None = None, segments: Segments | None = None
) -> Loss:
    """The same, with logits for the trained positions only. No trained token: the sum is 0, not NaN.

    `segments` says which texts stand together in a row without seeing each other.
    """
    hidden = model.hidden(inputs, segments)
    hidden = hidden.flatten(0, 1) if trained is None else hidden[trained]  # (N, D)
    wanted = targets.flatten() if trained is None else targets[trained]  # (N,)
    if hidden.requires_grad and not torch.is_autocast_enabled(hidden.device.type):
        weight = model.output_weight
        total: Tensor = ProjectedLoss.apply(hidden, weight, wanted)  # type: ignore[no-untyped-call]
    else:
        total = F.cross_entropy(model.logits(hidden).float(), wanted, reduction="sum")
    return Loss(total, wanted.numel())


class ProjectedLoss(torch.autograd.Function):
    """Projection and cross-entropy in one, a few rows at a time: the logits of a whole batch never exist.

    The gradient of the logits, softmax − one-hot, is at hand as soon as the loss is: both gradients are taken at once.
    Page: Hsu et al. 2024, "Liger Kernel: Efficient Triton Kernels for LLM Training", section 3.2.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
        """Sum of the losses of hidden (N, D) against targets (N,), by weight (V, D)."""
        total = hidden.new_zeros(())
        hidden_gradient, weight_gradient = torch.empty_like(hidden), torch.zeros_like(weight)
        for first in range(0, len(hidden), ROWS):
            rows = slice(first, first + ROWS)
            gradient = (hidden[rows] @ weight.mT).log_softmax(dim=1)  # (R, V)
            at_target = targets[rows, None]
            total -= gradient.gather(1, at_target).sum()
            gradient.exp_().scatter_add_(1, at_target, gradient.new_full((1, 1), -1.0).expand_as(at_target))
            torch.mm(gradient, weight, out=hidden_gradient[rows])
            weight_gradient.addmm_(gradient.mT, hidden[rows])
        ctx.save_for_backward(hidden_gradient, weight_gradient)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        """The two gradients, scaled by that of the sum."""
        hidden_gradient, weight_gradient = ctx.saved_tensors
        return hidden_gradient * gradients[0], weight_gradient * gradients[0], None
