"""Checkpoints: all that a run needs to go on as if it had never stopped, written whole or not at all.

    training/step-00000120/{model,optimizer}.safetensors, state.json (step, random state, counters, sha256 of the files)

The data position is the step itself: which examples a step sees is a pure function of seed and step.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from pellucid.config import FitConfig
from pellucid.runtime import DataError, atomic_folder, inform, read_json, sha256, write_json

KEEP = 2
_FILES = ("model.safetensors", "optimizer.safetensors")


@dataclass
class Progress:
    """How far a run has come: optimizer steps done, tokens trained, seconds spent over all sittings, and in steps."""

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    step_seconds: float = 0.0

    def share(self, config: FitConfig) -> float:
        """Share of the run that is done, from 0 to 1: of its steps, or of its minutes."""
        done = self.step / config.steps if config.steps else self.seconds / (60 * config.minutes)
        return min(done, 1.0)

    def note(self, record: dict[str, Any], config: FitConfig) -> str:
        """What stands beside the progress bar."""
        steps = f"step {self.step}/{config.steps}" if config.steps else f"step {self.step}"
        return f"{steps}  loss {record['loss']:.3f}  {record['tokens_per_s']:,.0f} tokens/s"


def save_checkpoint(
    folder: Path,
    model: nn.Module,
    optimizers: list[torch.optim.Optimizer],
    progress: Progress,
    settings: dict[str, Any],
) -> None:
    """Write `folder`/step-N atomically; drop older ones but the last before it, and what damage or a crash left."""
    with atomic_folder(folder / f"step-{progress.step:08d}") as temporary:
        save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, temporary / _FILES[0])
        save_file(_optimizer_tensors(optimizers) | {"random": torch.get_rng_state()}, temporary / _FILES[1])
        state = {"progress": vars(progress), "settings": settings}
        state["sha256"] = {name: sha256(temporary / name) for name in _FILES}
        write_json(temporary / "state.json", state)
    there = sorted(folder.glob("step-*"))
    here = there.index(folder / f"step-{progress.step:08d}") + 1  # later ones are of a try that was given up
    for old in [*there[: max(0, here - KEEP)], *there[here:], *folder.glob(".step-*")]:
        shutil.rmtree(old, ignore_errors=True)


def newest_checkpoint(folder: Path, quiet: bool = False) -> Path | None:
    """The newest whole checkpoint; a damaged one is named (unless `quiet`) and the one before it taken."""
    for path in sorted(folder.glob("step-*"), reverse=True):
        try:
            hashes = read_json(path / "state.json")["sha256"]
            if all(sha256(path / name) == hashes[name] for name in _FILES):
                return path
        except (DataError, OSError, KeyError, TypeError):
            pass
        if not quiet:
            inform(f"{path}: a damaged checkpoint; the one before it is used")
    return None


def checkpoint_settings(path: Path) -> dict[str, Any]:
    """The settings that the run was started with."""
    settings: dict[str, Any] = read_json(path / "state.json")["settings"]
    return settings


def load_checkpoint(
    path: Path, model: nn.Module, optimizers: list[torch.optim.Optimizer], settings: dict[str, Any]
) -> Progress:
    """Put model, optimizers and random state back as they were. Other settings than then are a DataError."""
    state = read_json(path / "state.json")
    changed = {key for key in settings if state["settings"].get(key) != settings[key]}
    if changed:
        key = min(changed)
        raise DataError(
            f"{path}: this run was started with {key} = {state['settings'].get(key)!r}, now it is {settings[key]!r}. "
            "Give the same settings, or another --out."
        )
    model.load_state_dict(load_file(path / _FILES[0]))
    tensors = load_file(path / _FILES[1])
    torch.set_rng_state(tensors.pop("random"))
    for number, optimizer in enumerate(optimizers):
        optimizer.load_state_dict(_optimizer_state(optimizer, tensors, f"{number}."))
    return Progress(**state["progress"])


def _optimizer_tensors(optimizers: list[torch.optim.Optimizer]) -> dict[str, Tensor]:
    """Every tensor of every optimizer, named `optimizer.parameter.key`."""
    return {
        f"{number}.{index}.{key}": value.contiguous()
        for number, optimizer in enumerate(optimizers)
        for index, values in optimizer.state_dict()["state"].items()
        for key, value in values.items()
    }


def _optimizer_state(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor], prefix: str) -> dict[str, Any]:
    """What `_optimizer_tensors` wrote, as the optimizer's own state dict."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith(prefix):
            _, index, key = name.split(".", 2)
            # a copy: what load_file gives may begin at any address, and torch's own memory at multiples of 64
            state.setdefault(int(index), {})[key] = tensor.clone()
    return {"state": state, "param_groups": optimizer.state_dict()["param_groups"]}
