"""A model that does not fit into one process: its weights divided over all of them (FSDP2), and its checkpoints.

Each process keeps a slice of every matrix and fetches the rest of a block while it is computed. Checkpoints are written
by all processes at once, each its own slices, as safetensors; any number of processes reads them. Pages: PyTorch,
"Getting Started with Fully Sharded Data Parallel (FSDP2)" and "Distributed Checkpoint".
"""

from __future__ import annotations

import contextlib
import shutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from pellucid.pretrain.checkpoint import write_state
from pellucid.pretrain.distributed import Shared, Whole, all_or_none, world
from pellucid.runtime import PellucidError, publish_folder

T = TypeVar("T")


class Sharded(Shared):
    """Each process has a slice of every weight; gradients are averaged slice by slice."""

    divided = True

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        for block in model.get_submodule("blocks").children():
            fully_shard(block)
        self.whole: Any = Whole(model)
        fully_shard(self.whole)

    def run(self, work: Callable[[nn.Module], T]) -> T:
        done: T = self.whole(work)
        return done

    def looked_at(self, work: Callable[[nn.Module], T]) -> T | None:
        with torch.no_grad():  # all processes have to look, for each has a slice only
            return self.run(work)

    @contextlib.contextmanager
    def not_yet(self) -> Iterator[None]:
        self.whole.set_requires_gradient_sync(False)
        try:
            yield
        finally:
            self.whole.set_requires_gradient_sync(True)

    def norm(self, gradients: Sequence[Tensor]) -> float:
        return float(whole_tensor(nn.utils.get_total_norm(gradients)))


def whole_tensor(tensor: Tensor) -> Tensor:
    """A tensor out of the slices of all processes, who all have to ask for it; others as they are."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def whole_weights(model: nn.Module) -> dict[str, Tensor]:
    """All weights, put together in the memory of the first process; the others get nothing, but have to ask."""
    weights = {}
    for name, tensor in model.state_dict().items():
        full = whole_tensor(tensor.detach())
        if world().first:
            weights[name] = full.cpu()
    return weights


def write_slices(path: Path, tensors: dict[str, Tensor], record: dict[str, Any]) -> None:
    """Write `path` atomically: every process its slices, the first state.json with the hashes of all files.

    What one process cannot write is an error in all of them.
    """
    temporary, first = path.with_name(f".{path.name}.slices"), world().first
    try:
        with all_or_none():
            if first:
                shutil.rmtree(temporary, ignore_errors=True)
                temporary.mkdir(parents=True)
        with all_or_none(), also_alone():
            save(dict(flat(tensors)), storage_writer=HuggingFaceStorageWriter(str(temporary), save_distributed=True))
        with all_or_none():
            if first:
                write_state(temporary, record)
                publish_folder(temporary, path)
    except CheckpointException as error:  # of all processes, whichever failed
        reason = next(iter(error.failures.values()))[0]
        raise PellucidError(str(reason)) from error
    finally:
        if first:
            shutil.rmtree(temporary, ignore_errors=True)


def flat(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same memory with at least one dimension, as the readers of slices want it."""
    return {name: tensor if tensor.dim() else tensor.view(1) for name, tensor in tensors.items()}


def read_slices(path: Path, tensors: dict[str, Tensor]) -> None:
    """Fill the tensors with what `path` holds, whatever the number of processes that wrote it."""
    with also_alone():
        load(dict(flat(tensors)), storage_reader=HuggingFaceStorageReader(str(path)))


@contextlib.contextmanager
def also_alone() -> Iterator[None]:
    """Within the block torch does not warn that there is one process only: it reads and writes slices, too."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        yield


def room_for(path: Path, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Of the named tensors those that `path` holds, empty and as large as there."""
    kept: dict[str, Any] = HuggingFaceStorageReader(str(path)).read_metadata().state_dict_metadata
    return {name: torch.empty(kept[name].size, dtype=tensors[name].dtype) for name in tensors if name in kept}


def make_optimizer_state(optimizers: Sequence[torch.optim.Optimizer]) -> None:
    """Let optimizers that have not moved yet have the state that they will fill: a step at rate 0."""
    for optimizer in optimizers:
        rates = [group["lr"] for group in optimizer.param_groups]
        for group in optimizer.param_groups:
            group["lr"] = 0.0
            for parameter in group["params"]:
                parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
        optimizer.zero_grad()
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
