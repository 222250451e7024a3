"""Matrices in 8 or 4 bits a number: how they are rounded, and how a folder keeps them.

int8: a scale for each row, numbers from -127 to 127. int4: a scale for each 64 numbers of a row, numbers from -8 to 7,
the scale being the one of 16 that leaves the smallest squared error. Only matrices inside the blocks take 4 bits; the
token embedding, which is also the logits' matrix in most models, keeps 8. Vectors (norms, biases) and the table of
positions stay as they are. `quantized.safetensors` holds all of it under our own names, the scales as NAME.scale.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from pellucid.compute import one_thread
from pellucid.model.formats.tensor_files import FLOATS, WHOLE, Piece, Stored, damaged, read_header, rows_of
from pellucid.runtime import atomic_file, shown

# O outputs, I inputs, G groups of 64 inputs

QUANTISED = "quantized.safetensors"
GROUP = 64
PAIR = 2 * GROUP  # inputs whose numbers lie in the same 64 bytes: the lower halves are a group, the upper the next
TRIES = 16  # scales that are tried for each group of int4
ROWS = 256  # of a matrix that are looked at together: few enough for the caches


@dataclass(frozen=True)
class Quantised:
    """A matrix (O, I). int8: numbers (O, I) and scales (O,). int4: bytes (O, I / 2), I padded to 128, scales (O, G)."""

    numbers: Tensor
    scales: Tensor
    inputs: int

    @property
    def bits(self) -> int:
        """8 or 4."""
        return 8 if self.scales.dim() == 1 else 4

    def plain(self) -> Tensor:
        """As float32 again, rounded as it is."""
        if self.bits == 8:
            return self.numbers.float() * self.scales[:, None]
        halves = self.numbers.view(len(self.numbers), -1, GROUP)  # (O, I / 128, 64)
        numbers = torch.stack([halves & 15, halves >> 4], dim=2).flatten(1, 2).float() - 8  # (O, G, 64)
        return (numbers * self.scales[:, :, None]).flatten(1)[:, : self.inputs].contiguous()


def quantise(weight: Tensor, bits: int) -> Quantised:
    """A matrix (O, I) in 8 or 4 bits."""
    weight = weight.detach().float()
    if bits == 8:
        scales = weight.abs().amax(dim=1).clamp_min(1e-12) / 127
        return Quantised((weight / scales[:, None]).round().to(torch.int8), scales, weight.shape[1])
    parts = [_int4(rows) for rows in torch.split(weight, ROWS)]
    return Quantised(torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts]), weight.shape[1])


def _int4(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Bytes and scales of some rows."""
    groups = F.pad(weight, (0, -weight.shape[1] % PAIR)).view(len(weight), -1, GROUP)  # (O, G, 64)
    low, high = groups.amin(dim=2), groups.amax(dim=2)
    extreme = torch.where(high > -low, high, low)  # the largest, with its sign: it becomes -8, times a scale below 0
    best, error = torch.ones_like(extreme), torch.full_like(extreme, torch.inf)
    for step in range(TRIES):
        scales = extreme / -(8.4 - 2.4 * step / (TRIES - 1))
        scales = torch.where(scales == 0, 1.0, scales)
        found = _rounded(groups, scales).mul_(scales[:, :, None]).sub_(groups).square_().sum(dim=2)
        best, error = torch.where(found < error, scales, best), error.minimum(found)
    numbers = (_rounded(groups, best) + 8).to(torch.uint8).view(len(weight), -1, 2, GROUP)  # (O, I / 128, 2, 64)
    return (numbers[:, :, 0] | numbers[:, :, 1] << 4).flatten(1), best


def _rounded(groups: Tensor, scales: Tensor) -> Tensor:
    return (groups / scales[:, :, None]).round_().clamp_(-8, 7)


def in_few_bits(name: str, weight: Tensor, bits: int) -> Tensor | Quantised:
    """A weight of a state dict as a model of so many bits keeps it."""
    if weight.dim() != 2 or name.startswith("position_embedding"):
        return weight
    return quantise(weight, bits if name.startswith("blocks.") else 8)


# ---------------------------------------------------------------- files


def write_quantised(folder: Path, weights: dict[str, Tensor | Quantised]) -> None:
    """Write `quantized.safetensors`."""
    tensors: dict[str, Tensor] = {}
    for name, weight in weights.items():
        if isinstance(weight, Quantised):
            tensors |= {name: weight.numbers, f"{name}.scale": weight.scales}
        else:
            tensors[name] = weight.detach().float().cpu().contiguous()
    with atomic_file(folder / QUANTISED) as temporary:
        save_file(tensors, temporary, metadata={"format": "pellucid"})


def read_quantised(folder: Path, shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor | Quantised]:
    """Read it again: a weight for each of `shapes`, and no other. DataError names one that is missing or misshapen."""
    weights: dict[str, Tensor | Quantised] = {}
    for name, weight, scales in _matched(folder / QUANTISED, shapes):
        numbers = _whole(folder / QUANTISED, name, weight)
        weights[name] = numbers if scales is None else Quantised(numbers, scales, shapes[name][1])
    return weights


def quantised_in_pieces(folder: Path, shapes: dict[str, tuple[int, ...]]) -> Iterator[Piece]:
    """The same, a few rows of a matrix at a time; a piece is gone when the next comes."""
    for name, weight, scales in _matched(folder / QUANTISED, shapes):
        if scales is None:
            yield Piece(name, 0, _whole(folder / QUANTISED, name, weight))
        else:
            for place, rows in rows_of(weight):
                yield Piece(name, place.start, Quantised(rows, scales[place], shapes[name][1]))


def _matched(path: Path, shapes: dict[str, tuple[int, ...]]) -> Iterator[tuple[str, Stored, Tensor | None]]:
    """Each of `shapes` with the tensor that holds it, and the scales of one that is quantised."""
    stored = read_header(path)
    for name, shape in shapes.items():
        weight, scale = stored.pop(name, None), stored.pop(f"{name}.scale", None)
        if weight is None:
            damaged(path, f"no tensor {name}", f"one of shape {shape}")
        if scale is None:
            _check(path, name, weight, "F32", shape)
            yield name, weight, None
        elif len(shape) != 2:
            damaged(path, f"scales of {name}, a vector", "scales of matrices alone")
        elif weight.dtype == "I8":
            _check(path, f"{name}.scale", scale, "F32", shape[:1])
            _check(path, name, weight, "I8", shape)
            yield name, weight, _whole(path, f"{name}.scale", scale)
        else:
            pairs = -(-shape[1] // PAIR)
            _check(path, f"{name}.scale", scale, "F32", (shape[0], 2 * pairs))
            _check(path, name, weight, "U8", (shape[0], GROUP * pairs))
            yield name, weight, _whole(path, f"{name}.scale", scale)
    if stored:
        damaged(path, f"an unknown tensor {shown(min(stored))}", "only the model's own")


def _check(path: Path, name: str, stored: Stored, dtype: str, shape: tuple[int, ...]) -> None:
    """DataError for a tensor of another precision or shape."""
    if stored.shape != shape or stored.dtype != dtype:
        damaged(path, f"tensor {name} of shape {shown(stored.shape)} and {stored.dtype}", f"{shape} and {dtype}")


@one_thread()
def _whole(path: Path, name: str, stored: Stored) -> Tensor:
    """The tensor, its numbers finite."""
    whole = torch.empty(stored.shape, dtype=(FLOATS | WHOLE)[stored.dtype])
    for place, rows in rows_of(stored):
        whole[place] = rows
    if whole.is_floating_point() and not bool(torch.isfinite(whole).all()):
        damaged(path, f"NaN or infinity in {name}", "finite numbers")
    return whole
