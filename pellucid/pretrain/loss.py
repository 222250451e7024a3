"""Cross-entropy of the tokens that are to be learnt.

A loss is always a sum and a count: micro-batches and ranks add up both and divide once, so that splitting a batch
never changes its loss. Positions that are not trained (prompts, padding) are left out before the projection to the
vocabulary, the widest product of a small model.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pellucid.compiled.threads import in_parts, worth_compiling
from pellucid.model.gpt import GPT
from pellucid.model.segments import Segments
from pellucid.pretrain.alike import Alike

# B batch, T tokens, N trained tokens, D width, V vocabulary

ROWS = 1024  # positions whose logits exist at one time
TURNED = 256  # of them, which oneDNN turns fastest
FEW = 64  # of them, whose softmax fits into the processor's cache
AT_ONCE = 2**26  # bytes of logits that exist at one time where nothing is trained


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
    model: GPT,
    inputs: Tensor,
    targets: Tensor,
    trained: Tensor | None = None,
    segments: Segments | None = None,
    alike: Alike | None = None,
) -> Loss:
    """The same, with logits for the trained positions only. No trained token: the sum is 0, not NaN.

    `segments` says which texts stand together in a row without seeing each other, `alike` which tokens, none of them a
    target, have equal vectors.
    """
    hidden = model.hidden(inputs, segments)
    hidden = hidden.flatten(0, 1) if trained is None else hidden[trained]  # (N, D)
    wanted = targets.flatten() if trained is None else targets[trained]  # (N,)
    if hidden.requires_grad:
        weight, times = model.output_weight, 1
        if alike:
            weight, wanted, times = alike.table(weight), alike.place[wanted], alike.count
        total: Tensor = ProjectedLoss.apply(hidden, weight, wanted, times)  # type: ignore[no-untyped-call]
    else:
        total = token_losses(model, hidden, wanted).sum()
    return Loss(total, wanted.numel())


def token_losses(model: GPT, hidden: Tensor, wanted: Tensor) -> Tensor:
    """(N,) losses of hidden (N, D) against wanted (N,), where nothing is trained."""
    parts = logits_of(model, hidden, wanted)
    return torch.cat([F.cross_entropy(logits, targets, reduction="none") for logits, targets in parts])


def logits_of(model: GPT, hidden: Tensor, wanted: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """(R, V) logits of hidden (N, D) with the tokens (R,) that were wanted there, AT_ONCE bytes of them at a time."""
    rows = max(1, AT_ONCE // (4 * model.config.vocab_size))
    for some, targets in zip(torch.split(hidden, rows), torch.split(wanted, rows), strict=True):
        yield model.logits(some).float(), targets


class ProjectedLoss(torch.autograd.Function):
    """Projection and cross-entropy in one, a few rows at a time: the logits of a whole batch never exist.

    The gradient of the logits, softmax − one-hot, is at hand as soon as the loss is: both gradients are taken at once.
    Under autocast the products are in bfloat16, the softmax and all sums in float32.
    Page: Hsu et al. 2024, "Liger Kernel: Efficient Triton Kernels for LLM Training", section 3.2.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, times: int = 1) -> Tensor:
        """Sum of the losses of hidden (N, D) against targets (N,), by weight (V, D), whose last row counts `times`."""
        total = torch.zeros((), device=hidden.device)
        if not len(hidden):
            ctx.gradients = torch.zeros_like(hidden), torch.zeros_like(weight)
            return total
        hidden_gradient = torch.empty_like(hidden)
        weight_gradient = torch.empty_like(weight if ctx.needs_input_grad[1] else hidden[:0])
        inputs, table = in_precision_of_products(hidden, weight)  # (N, D), (V, D), or a little more of each
        for first in range(0, len(inputs), ROWS):
            x, wanted = inputs[first : first + ROWS], targets[first : first + ROWS]
            loss, gradient = gradient_of_logits(x, table, wanted, len(weight), times)
            total += loss
            hidden_gradient[first : first + ROWS] = gradient_of_vectors(gradient, table)[: len(wanted)]
            if not ctx.needs_input_grad[1]:  # a frozen projection, beside adapters for instance
                continue
            if x.dtype == weight.dtype:
                weight_gradient.addmm_(gradient.mT, x, beta=int(first > 0))
            elif first == 0:
                weight_gradient.copy_((gradient.mT @ x)[: len(weight)])
            else:  # a part at a time: where types differ, torch makes a copy of what is added
                for part, more in zip(
                    torch.split(weight_gradient, ROWS), torch.split(gradient.mT @ x, ROWS), strict=False
                ):
                    part += more[: len(part)]
        ctx.gradients = hidden_gradient, weight_gradient
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor | None, None, None]:
        """The two gradients, scaled by that of the sum; they are given away, so this works once."""
        scale, found = gradients[0], ctx.gradients
        ctx.gradients = None
        if scale.device.type != "cpu" or scale != 1:
            torch._foreach_mul_(found, scale)
        return found[0], found[1] if ctx.needs_input_grad[1] else None, None, None


def gradient_of_logits(x: Tensor, table: Tensor, wanted: Tensor, words: int, times: int) -> tuple[Tensor, Tensor]:
    """Sum of the losses of x (R, D) against the `wanted` tokens, of which there may be fewer; gradient of the logits.

    The logits are (R, V), products with the table (V, D), whose first `words` rows are tokens, the last one `times`.
    """
    if len(x) % 16 == 0 and worth_compiling(x, len(x) * words):
        logits = table @ x.mT  # (V, R)
        return columns_to_gradient(logits, wanted, words, times), logits.mT
    logits, total = x @ table.mT, x.new_zeros((), dtype=torch.float32)
    for top in range(0, len(wanted), FEW):
        rows = slice(top, min(top + FEW, len(wanted)))
        total += to_gradient(logits[rows, :words], wanted[rows, None], times)
    return total, logits


def columns_to_gradient(logits: Tensor, wanted: Tensor, words: int, times: int) -> Tensor:
    """As `to_gradient`, of logits (V, R), compiled."""
    from pellucid.pretrain.compiled.softmax import softmax

    places = torch.arange(len(wanted))
    picked = logits[wanted, places].float()
    norms, sums = torch.empty(2, logits.shape[1])
    in_parts(softmax, logits, words, times, norms, sums)
    losses = norms[: len(wanted)] - picked
    logits[wanted, places] = torch.expm1(-losses).to(logits.dtype)
    total: Tensor = losses.sum()
    return total


def gradient_of_vectors(gradient: Tensor, table: Tensor) -> Tensor:
    """Gradient of the logits (R, V) times the table (V, D), a part at a time where it lies column by column."""
    turned = gradient.stride(1) > gradient.stride(0)
    return torch.cat([part @ table for part in torch.split(gradient, TURNED)]) if turned else gradient @ table


def to_gradient(logits: Tensor, wanted: Tensor, times: int = 1) -> Tensor:
    """Put softmax − one-hot in the place of logits (R, V); the sum of the losses of the `wanted` (R, 1).

    The last column stands for `times` tokens.
    """
    scores = logits.float()  # the logits themselves where they are float32
    if times > 1:
        scores[:, -1] += math.log(times)
    total = (scores.amax(1, keepdim=True) - scores.gather(1, wanted)).sum()
    torch.softmax(scores, 1, out=scores)
    total -= scores.amax(1).log().sum()  # the largest probability is 1 / (the sum that softmax divides by)
    scores.scatter_add_(1, wanted, scores.new_full((1, 1), -1.0).expand_as(wanted))
    if logits.dtype != scores.dtype:
        logits.copy_(scores)
    return total


def in_precision_of_products(hidden: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Both as autocast would have them; then with rows of zeros up to a multiple of 64.

    Products want that; and for each number of rows that is new, oneDNN first writes itself a program, which would be
    at each step where some tokens are trained and others only read (docs/performance.md).
    """
    device = hidden.device.type
    if not torch.is_autocast_enabled(device):
        return hidden, weight
    dtype = torch.get_autocast_dtype(device)

    def filled_up(rows: Tensor) -> Tensor:
        full = rows.new_empty(-(-len(rows) // 64) * 64, rows.shape[1], dtype=dtype)
        full[: len(rows)], full[len(rows) :] = rows, 0
        return full

    return filled_up(hidden), filled_up(weight)
