"""Where a token stands: a vector added to its own (GPT-2), or a rotation of its queries and keys (llama).

Added vectors are learnt, or the fixed sine waves of the first Transformer; both are a (context, D) table that a GPT-2
folder carries. Rotated, two tokens' score depends on their distance alone, and there is no table to outgrow.
Papers: Vaswani et al. 2017, section 3.5; Su et al. 2021, "RoFormer"; Llama 3's stretching: Llama team 2024, section 3.
"""

from __future__ import annotations

import math
from typing import NamedTuple, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pellucid.config import ModelConfig, RopeScaling

# B batch, T tokens, D width of the model, H heads, K width of a head; positions are (T,) or (B, T) whole numbers


class Rotation(NamedTuple):
    """Cosines and sines of each position's angles, (T, K/2) or (B, 1, T, K/2): made once, used by every layer."""

    cosines: Tensor
    sines: Tensor


class LearnedPositions(nn.Embedding):
    """One vector for each position, learnt."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config.context_length, config.d_model)

    def encode(self, x: Tensor, positions: Tensor) -> tuple[Tensor, None]:
        """Token vectors (B, T, D) → the same with their positions' vectors added, and no rotation."""
        return x + self(positions), None


class SinusoidalPositions(nn.Module):
    """One vector for each position, computed and never trained."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.register_buffer("weight", sinusoidal_table(config.context_length, config.d_model))

    def forward(self, positions: Tensor) -> Tensor:
        """(T,) or (B, T) → the same with D."""
        return F.embedding(positions, self.get_buffer("weight"))

    def encode(self, x: Tensor, positions: Tensor) -> tuple[Tensor, None]:
        """Token vectors (B, T, D) → the same with their positions' vectors added, and no rotation."""
        return x + self(positions), None


class RotaryPositions(nn.Module):
    """No vectors: a rotation for the heads. The frequencies follow from the config, so a folder does not hold them."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        # A plain attribute: as a buffer it would be rounded to bfloat16 with the weights, and far positions with it.
        self.frequencies = rotary_frequencies(config.d_head, config.rope_theta, config.rope_scaling)

    def forward(self, positions: Tensor) -> Rotation:
        """(T,) or (B, T) → angles' cosines and sines, broadcastable to (B, H, T, K/2)."""
        angles = positions[..., None].float() * self.frequencies.to(positions.device)
        if angles.dim() == 3:
            angles = angles[:, None]
        return Rotation(angles.cos(), angles.sin())

    def encode(self, x: Tensor, positions: Tensor) -> tuple[Tensor, Rotation]:
        """Token vectors as they are, and the rotation of their positions."""
        return x, self(positions)


Positions: TypeAlias = LearnedPositions | SinusoidalPositions | RotaryPositions
POSITIONS: dict[str, type[Positions]] = {
    "learned": LearnedPositions,
    "sinusoidal": SinusoidalPositions,
    "rotary": RotaryPositions,
}


def sinusoidal_table(length: int, d_model: int) -> Tensor:
    """(T, D): column 2i is the sine of position / 10000^(2i / D), column 2i + 1 its cosine."""
    numbers = torch.arange(
        max(length, d_model), dtype=torch.float64, device="cpu"
    )  # also where a model is built on "meta"
    angles = numbers[:length, None] / 10000 ** (numbers[:d_model:2] / d_model)
    table = torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)
    return table[:, :d_model].float()


def rotary_frequencies(d_head: int, theta: float, scaling: RopeScaling | None = None) -> Tensor:
    """(K/2,) radians per token of each pair of a head's numbers, from 1 down to about 1 / theta."""
    # Always on the CPU, where a model that is built on "meta" to be filled from a file keeps them.
    exponents = torch.arange(0, d_head, 2, dtype=torch.float32, device="cpu") / d_head
    frequencies: Tensor = 1.0 / theta**exponents
    return frequencies if scaling is None else stretched(frequencies, scaling)


def stretched(frequencies: Tensor, scaling: RopeScaling) -> Tensor:
    """Llama 3's scaling: slow turns `factor` times slower, fast ones as they are, those between mixed of both."""
    turns = scaling.original_context_length * frequencies / (2 * math.pi)  # in the original context
    low, high = scaling.low_frequency_factor, scaling.high_frequency_factor
    kept = ((turns - low) / (high - low)).clamp(0, 1)
    return (1 - kept) * frequencies / scaling.factor + kept * frequencies


def rotate(x: Tensor, rotation: Rotation) -> Tensor:
    """(B, H, T, K) with number i and number i + K/2 as a point of the plane, turned by the position's angle."""
    first, second = x.chunk(2, dim=-1)
    cosines, sines = rotation
    turned = torch.cat([first * cosines - second * sines, second * cosines + first * sines], dim=-1)
    return turned.type_as(x)
