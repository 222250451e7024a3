"""Cross-entropy of the tokens that are to be learnt.

A loss is always a sum and a count: micro-batches and ranks add up both and divide once, so that splitting a batch
never changes its loss. Positions that are not trained (prompts, padding) are left out before the projection to the
vocabulary, the widest product of a small model.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from pellucid.model.gpt import GPT

# B batch, T tokens, N trained tokens, V vocabulary


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


def token_loss(model: GPT, inputs: Tensor, targets: Tensor, trained: Tensor | None = None) -> Loss:
    """The same, with logits for the trained positions only. No trained token: the sum is 0, not NaN."""
    hidden = model.hidden(inputs)
    hidden = hidden.flatten(0, 1) if trained is None else hidden[trained]  # (N, D)
    wanted = targets.flatten() if trained is None else targets[trained]  # (N,)
    logits = model.logits(hidden)  # (N, V)
    return Loss(F.cross_entropy(logits.float(), wanted, reduction="sum"), wanted.numel())
