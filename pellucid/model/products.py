"""Linear layers and the feed-forward while training on a CPU, as its libraries and its memory want them.

The same as `F.linear` and `F.gelu`, with three differences. Where oneDNN would let threads share the depth of a product
in bfloat16, which leaves it as slow as with one, the rows are taken in halves. GELU is compiled. And what GELU passed
on is made again on the way back, and not kept (docs/performance.md has the figures).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pellucid.compiled.threads import in_parts, worth_compiling

# M rows, D width, W width of the feed-forward

NARROW = 1024  # columns, from which on oneDNN divides rows and columns, whatever their number


def are_ours(x: Tensor) -> bool:
    """Whether the products of this pass are ours: it trains, and on a CPU."""
    return x.device.type == "cpu" and torch.is_grad_enabled()


def linear(x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor]) -> Tensor:
    """x (…, D) times several weights (N, D), with a bias each or without: (…, the sum of all N), by one product."""
    wide: Tensor = Linear.apply(x, len(weights), *weights, *biases)  # type: ignore[no-untyped-call]
    return wide


def feed_forward(x: Tensor, expand: nn.Linear, contract: nn.Linear) -> Tensor:
    """x (…, D) widened, bent by GELU, brought back: (…, D)."""
    made: Tensor = FeedForward.apply(x, expand.weight, expand.bias, contract.weight, contract.bias)  # type: ignore[no-untyped-call]
    return made


def dtype_of_products(x: Tensor) -> torch.dtype:
    """What autocast would have them in."""
    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype


class Linear(torch.autograd.Function):
    """`linear` and its way back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, parts: int, *tensors: Tensor) -> Tensor:
        """`tensors` are the weights of so many parts, and then their biases."""
        dtype = dtype_of_products(x)
        rows, weight = x.flatten(0, -2).to(dtype), below_each_other(tensors[:parts], dtype)
        bias = below_each_other(tensors[parts:], dtype) if tensors[parts:] else None
        ctx.save_for_backward(rows, weight)
        ctx.lengths = [len(tensor) for tensor in tensors[:parts]]
        return product(rows, weight.mT, bias).view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        gradient, wanted = gradients[0].flatten(0, -2), ctx.needs_input_grad[2:]
        rows, weight = ctx.saved_tensors
        x = product(gradient, weight).view(*gradients[0].shape[:-1], -1) if ctx.needs_input_grad[0] else None
        parts = len(ctx.lengths)
        weights = torch.split(by_columns(gradient, rows), ctx.lengths) if any(wanted[:parts]) else (None,) * parts
        biases = torch.split(gradient.sum(0), ctx.lengths) if len(wanted) > parts else ()
        return x, None, *(found if want else None for found, want in zip((*weights, *biases), wanted, strict=True))


class FeedForward(torch.autograd.Function):
    """`feed_forward` and its way back. What is kept are the inputs, and what GELU was given."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, expand: Tensor, moved: Tensor, contract: Tensor, bias: Tensor) -> Tensor:
        dtype = dtype_of_products(x)
        rows, expand, contract = x.flatten(0, -2).to(dtype), expand.to(dtype), contract.to(dtype)
        wide = product(rows, expand.mT, moved)
        ctx.save_for_backward(rows, wide, expand, contract)
        return product(gelu(wide), contract.mT, bias).view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        gradient, wanted = gradients[0].flatten(0, -2), ctx.needs_input_grad
        rows, wide, expand, contract = ctx.saved_tensors
        bent, below = gelu_back(wide, product(gradient, contract))
        x = product(below, expand).view(*gradients[0].shape[:-1], -1) if wanted[0] else None
        return (
            x,
            by_columns(below, rows) if wanted[1] else None,
            below.sum(0) if wanted[2] else None,
            by_columns(gradient, bent) if wanted[3] else None,
            gradient.sum(0) if wanted[4] else None,
        )


def below_each_other(parts: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
    """Tensors as one, in another precision; the only one as it is where that is its own."""
    if len(parts) == 1:
        return parts[0].to(dtype)
    whole = parts[0].new_empty(sum(map(len, parts)), *parts[0].shape[1:], dtype=dtype)
    for part, place in zip(parts, torch.split(whole, [len(part) for part in parts]), strict=True):
        place.copy_(part)
    return whole


def gelu(wide: Tensor) -> Tensor:
    """GELU of (M, W)."""
    if not is_for_compiled(wide):
        return F.gelu(wide, approximate="tanh")
    from pellucid.model.compiled.gelu import forward

    in_parts(forward, wide, bent := torch.empty_like(wide))
    return bent


def gelu_back(wide: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
    """GELU of (M, W), and the gradient with respect to that, for the gradient with respect to GELU of it."""
    if not is_for_compiled(wide):
        return gelu(wide), torch.ops.aten.gelu_backward(gradient, wide, approximate="tanh")
    from pellucid.model.compiled.gelu import backward

    in_parts(backward, wide, bent := torch.empty_like(wide), gradient)
    return bent, gradient


def is_for_compiled(wide: Tensor) -> bool:
    """Whether these are many, and in sixteens."""
    return worth_compiling(wide, wide.numel()) and wide.numel() % 16 == 0


def by_columns(gradient: Tensor, rows: Tensor) -> Tensor:
    """A weight's gradient (N, D): that of what it gave (M, N), turned, times what it was given (M, D)."""
    many = max(gradient.numel(), rows.numel())
    sixteens = gradient.shape[0] % 16 == gradient.shape[1] % 16 == 0
    if gradient.dtype != torch.bfloat16 or not sixteens or not worth_compiling(gradient, many):
        return gradient.mT @ rows
    from pellucid.compiled.turned import turn

    in_parts(turn, gradient.contiguous(), turned := gradient.new_empty(gradient.mT.shape), len(gradient))
    return product(turned, rows)


def product(rows: Tensor, table: Tensor, bias: Tensor | None = None) -> Tensor:
    """Rows (M, D) times a table (D, N)."""
    many, narrow = len(rows), table.shape[1]
    out = rows.new_empty(many, narrow)
    halves = rows.dtype == torch.bfloat16 and narrow < NARROW and narrow <= many < 2 * narrow
    at_once = -(-many // 2) if halves else max(many, 1)
    for some, part in zip(torch.split(rows, at_once), torch.split(out, at_once), strict=True):
        if bias is None:
            torch.mm(some, table, out=part)
        else:
            torch.addmm(bias.to(rows.dtype), some, table, out=part)
    return out
