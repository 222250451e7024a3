"""What generation asks of a model that decodes fast, and where it does: on a GPU, or compiled on the processor."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from pellucid.compute import pick_device
from pellucid.config import ModelConfig
from pellucid.generation.compiled.model import CompiledModel, check_threads
from pellucid.generation.compiled.packing import BITS, Dtype
from pellucid.generation.graphed.model import GraphedModel, check_precision

# V vocabulary


class DecoderSlots(Protocol):
    """Keys and values of several texts."""

    count: int
    looks_ahead: bool
    """Whether a few tokens of one text cost little more than one."""

    def copy(self, source: int, target: int, tokens: int) -> None:
        """Let `target` begin with the first `tokens` of `source`."""


S = TypeVar("S", bound=DecoderSlots)


class Decoder(Protocol[S]):
    """`CompiledModel` or `GraphedModel`, which say what each of these does."""

    config: ModelConfig
    nbytes: int
    number_bytes: int
    """Of a number in the slots."""

    @property
    def dtype(self) -> str:
        """Precision of the matrices."""

    def parameter_count(self) -> int:
        """Trained numbers."""

    def slots(self, count: int, alike: bool = False) -> S:
        """Room for `count` texts."""

    def logits(
        self,
        slots: S,
        ids: Sequence[int],
        which: Sequence[int],
        places: Sequence[int],
        wanted: Sequence[int] | None = None,
    ) -> NDArray[np.float32]:
        """Read tokens, each at a place of one of the slots; the logits after the rows `wanted`: (rows, V)."""


def load_decoder(
    where: str | Path, dtype: Dtype | Literal["auto"] = "auto", threads: int = 0, device: str = "auto"
) -> Decoder[Any]:
    """A run folder or a model of the hub, on `device_for` them. Errors as there, and of the models' own `load`."""
    check_threads(threads)
    chosen = device_for(dtype, device)
    return (
        CompiledModel.load(where, dtype, threads) if chosen.type == "cpu" else GraphedModel.load(where, dtype, chosen)
    )


def device_for(dtype: Dtype | Literal["auto"], device: str) -> torch.device:
    """Where to decode: `auto` is cuda where there is one that has the precision, else the processor.

    ConfigError for a device that is not there, or does not have the precision.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() and dtype not in BITS else "cpu"
    chosen = pick_device(device)
    if chosen.type != "cpu":
        check_precision(dtype, chosen)
    return chosen
