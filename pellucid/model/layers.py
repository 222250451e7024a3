"""The parts of a block beside attention: norms and feed-forwards, GPT-2's and llama's.

Papers: Ba et al. 2016, "Layer Normalization"; Zhang and Sennrich 2019, "Root Mean Square Layer Normalization";
Shazeer 2020, "GLU Variants Improve Transformer".
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pellucid.config import ModelConfig
from pellucid.model import products

# B batch, T tokens, D width of the model


class LayerNorm(nn.Module):
    """Each token's vector shifted to mean 0 and scaled to variance 1, then stretched and moved by what was learnt."""

    def __init__(self, d_model: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(d_model))
        self.bias = nn.Parameter(torch.zeros(d_model))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) → (B, T, D)."""
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps)

    def explicit(self, x: Tensor) -> Tensor:
        """The same, written out: the oracle of `forward`."""
        mean = x.mean(dim=-1, keepdim=True)
        variance = x.var(dim=-1, keepdim=True, unbiased=False)
        return (x - mean) / torch.sqrt(variance + self.eps) * self.weight + self.bias


class RMSNorm(nn.Module):
    """Each vector scaled to a root mean square of 1, then stretched by what was learnt: LayerNorm without the shift."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """(…, D) → (…, D)."""
        x = x.type_as(self.weight)  # under autocast heads come in bfloat16; the mean square deserves better
        return F.rms_norm(x, self.weight.shape, self.weight, self.eps)

    def explicit(self, x: Tensor) -> Tensor:
        """The same, written out: the oracle of `forward`."""
        return x / torch.sqrt(x.square().mean(dim=-1, keepdim=True) + self.eps) * self.weight


class FeedForward(nn.Module):
    """Each token on its own: widened to d_ff, bent by GELU, brought back."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.expand = nn.Linear(config.d_model, config.d_ff)
        self.contract = nn.Linear(config.d_ff, config.d_model)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) → (B, T, D)."""
        if products.are_ours(x) and (plain := plain_layers(self.expand, self.contract)):
            return products.feed_forward(x, *plain)
        contracted: Tensor = self.contract(F.gelu(self.expand(x), approximate="tanh"))
        return contracted


class GatedFeedForward(nn.Module):
    """SwiGLU: each token widened to d_ff twice, one of them bent by SiLU as a gate for the other; then brought back."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate = nn.Linear(config.d_model, config.d_ff, bias=False)
        self.expand = nn.Linear(config.d_model, config.d_ff, bias=False)
        self.contract = nn.Linear(config.d_ff, config.d_model, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) → (B, T, D)."""
        contracted: Tensor = self.contract(F.silu(self.gate(x)) * self.expand(x))
        return contracted


def together(x: Tensor, *parts: nn.Module) -> Sequence[Tensor]:
    """What each of the linear layers makes of `x`; while training on a CPU, by one wide product, which is faster.

    Layers that are more than linear ones (LoRA's, or watched by a hook) are asked one by one.
    """
    plain = plain_layers(*parts) if products.are_ours(x) else []
    if not plain:
        return [part(x) for part in parts]
    biases = [bias for part in plain for name, bias in part.named_parameters() if name == "bias"]
    wide = products.linear(x, [part.weight for part in plain], biases)
    return torch.split(wide, [part.out_features for part in plain], dim=-1)


def plain_layers(*parts: nn.Module) -> list[nn.Linear]:
    """The parts, where all of them are linear layers and nothing more, as LoRA's are or those that a hook watches."""
    if any(type(part) is not nn.Linear or watched(part) for part in parts):
        return []
    return [part for part in parts if isinstance(part, nn.Linear)]


def watched(part: nn.Module) -> bool:
    """Whether a hook looks at what goes into a module or comes out."""
    return any((part._forward_hooks, part._forward_pre_hooks, part._backward_hooks, part._backward_pre_hooks))
