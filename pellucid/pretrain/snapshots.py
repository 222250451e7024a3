"""Snapshots: the weights alone as they were at the evaluations of a run, to look back at how the model learnt.

    snapshots/step-00000120.safetensors

Checkpoints are there to go on from, so only the newest two are kept; these are there to be seen. Where all of them
would take more than MOST_BYTES, only every second, third … is kept; nothing of training depends on them.
"""

from __future__ import annotations

import contextlib
import math
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import nn

from pellucid.runtime import PellucidError, atomic_file

MOST_BYTES = 256 * 2**20  # of one run


def save_snapshot(out: Path, model: nn.Module, step: int, evaluation: int, evaluations: int) -> None:
    """Keep the weights of evaluation number `evaluation` of `evaluations`, if it is one of those that fit.

    A disk that is full is no reason to stop: then there is no snapshot.
    """
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    size = sum(tensor.numel() * tensor.element_size() for tensor in weights.values())
    every = max(1, math.ceil(size * (evaluations + 1) / MOST_BYTES))
    if evaluation % every or size > MOST_BYTES:
        return
    file = out / "snapshots" / f"step-{step:08d}.safetensors"
    with contextlib.suppress(PellucidError, OSError, SafetensorError), atomic_file(file) as temporary:
        save_file(weights, temporary)


def drop_snapshots(out: Path, step: int) -> None:
    """Remove those past `step`: they are of a try that was given up."""
    for name, file in snapshots(out).items():
        if int(name.removeprefix("step-")) > step:
            file.unlink(missing_ok=True)


def snapshots(out: Path) -> dict[str, Path]:
    """The snapshots of a run by name (step-00000120), the first one first."""
    files = sorted((out / "snapshots").glob("step-*.safetensors"))
    return {file.stem: file for file in files if file.stem.removeprefix("step-").isdecimal()}
