"""The lines of metrics.jsonl once more for TensorBoard and Weights & Biases (both extras), which draw them live."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from pellucid.text.content import extra


class Mirror(Protocol):
    """Where metrics go beside their file."""

    def write(self, record: dict[str, Any]) -> None:
        """One line of metrics."""

    def close(self) -> None:
        """The run, or this sitting, is over."""


class TensorBoard:
    """Event files in `tensorboard/`; what lies past `step`, of a lost try, is hidden."""

    def __init__(self, out: Path, step: int, settings: dict[str, Any]) -> None:
        check_installed(["tensorboard"])
        from torch.utils.tensorboard import SummaryWriter

        self.writer: Any = SummaryWriter(str(out / "tensorboard"), purge_step=step + 1)

    def write(self, record: dict[str, Any]) -> None:
        for name, value in numbers(record).items():
            self.writer.add_scalar(name, value, record["step"])

    def close(self) -> None:
        self.writer.close()


class WeightsAndBiases:
    """A run of wandb, written to disk only (`wandb sync` sends it) unless WANDB_MODE says otherwise."""

    def __init__(self, out: Path, step: int, settings: dict[str, Any]) -> None:
        (wandb,) = check_installed(["wandb"])
        os.environ.setdefault("WANDB_MODE", "offline")
        self.run: Any = wandb.init(project="pellucid", name=out.resolve().name, dir=str(out), config=settings)

    def write(self, record: dict[str, Any]) -> None:
        self.run.log(numbers(record), step=record["step"])

    def close(self) -> None:
        self.run.finish()


KINDS: dict[str, type[TensorBoard] | type[WeightsAndBiases]] = {"tensorboard": TensorBoard, "wandb": WeightsAndBiases}


def open_mirrors(names: Sequence[str], out: Path, step: int, settings: dict[str, Any]) -> list[Mirror]:
    """One mirror for each name; its package has to be there."""
    return [KINDS[name](out, step, settings) for name in names]


def check_installed(names: Sequence[str]) -> list[Any]:
    """The packages of these mirrors; one that is missing is a PellucidError that says how to install it."""
    return [extra(name, f"--log {name}", "log") for name in names]


def numbers(record: dict[str, Any]) -> dict[str, float]:
    """The numbers of a line of metrics, by names that say of which split they are."""
    kept = {name: value for name, value in record.items() if isinstance(value, int | float) and name != "step"}
    return {f"{record['split']}/{name}": float(value) for name, value in kept.items() if not isinstance(value, bool)}
