"""Checkpoints: all that a run needs to go on as if it had never stopped, written whole or not at all.

    training/step-00000120/{model,optimizer}.safetensors, state.json (step, counters, sha256 of the files and of itself)

The data position is the step itself: which examples a step sees is a pure function of seed and step. Training waits
for a copy of its state only; a thread writes it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from pellucid.config import FitConfig
from pellucid.machine import memory_bytes
from pellucid.pretrain.distributed import world
from pellucid.runtime import DataError, PellucidError, atomic_folder, inform, problem, read_json, sha256, write_json

_FILES = ("model.safetensors", "optimizer.safetensors")
Weights = dict[str, Tensor]
FREE = 0.9  # of the free memory: as much may a copy take
UNWRITTEN = (PellucidError, OSError, SafetensorError, MemoryError)  # what a disk without room may come out as


@dataclass
class Progress:
    """How far a run has come: optimizer steps done, tokens trained, seconds spent over all sittings, and in steps."""

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    step_seconds: float = 0.0
    micro_batch_size: int = 0
    """Examples of one pass, where memory asked for fewer than configured; 0: as configured."""
    recent: list[float] = field(default_factory=list)
    """The newest losses, to know a spike by."""
    skipped: list[int] = field(default_factory=list)
    """Steps (from 0) that are left out, because their loss could not be right."""
    best: float | None = None
    """The lowest loss of an evaluation."""
    waited: int = 0
    """Evaluations since then."""
    finished: bool = False
    """Whether the run ended early."""

    def share(self, config: FitConfig) -> float:
        """Share of the run that is done, from 0 to 1: of its steps, or of its minutes."""
        done = self.step / config.steps if config.steps else self.seconds / (60 * config.minutes)
        return 1.0 if self.finished else min(done, 1.0)

    def note(self, record: dict[str, Any], config: FitConfig) -> str:
        """What stands beside the progress bar."""
        steps = f"step {self.step}/{config.steps}" if config.steps else f"step {self.step}"
        return f"{steps}  loss {record['loss']:.3f}  {record['tokens_per_s']:,.0f} tokens/s"


@dataclass
class State:
    """All that changes while a model is trained, and the settings that it was begun with."""

    model: nn.Module
    optimizers: list[torch.optim.Optimizer]
    settings: dict[str, Any]
    progress: Progress = field(default_factory=Progress)
    more: dict[str, Weights] = field(default_factory=dict)
    """Further weights of what is trained: their average, the best so far."""

    @property
    def sharded(self) -> bool:
        """Whether checkpoints are written in slices, so that any number of processes reads them, one too."""
        return bool(self.settings.get("shard"))

    def tensors(self) -> Weights:
        """Every tensor by a name of its own: of the model, the optimizers, and the further weights."""
        own = {f"model.{name}": tensor.detach() for name, tensor in self.model.state_dict().items()}
        return own | _optimizer_tensors(self.optimizers)


@dataclass(frozen=True)
class Snapshot:
    """A copy of a state, in memory of its own: content of the two files and of state.json."""

    weights: Weights
    optimizer: Weights
    record: dict[str, Any]


def snapshot(state: State, copy: bool = True) -> Snapshot:
    """Copy a state, in the first process. All of a run have to call this, for each has random numbers of its own.

    Without `copy` the tensors are the state's own, to be written before anything changes.
    """
    random = _all_random_states()
    if not world().first:  # who writes nothing needs no copy
        return Snapshot({}, {}, {})
    more = {f"{kind}.{name}": value for kind, weights in state.more.items() for name, value in weights.items()}
    tensors = _optimizer_tensors(state.optimizers) | more | random
    progress = {**vars(state.progress), "recent": list(state.progress.recent), "skipped": list(state.progress.skipped)}
    return Snapshot(
        {name: _on_cpu(tensor, copy) for name, tensor in state.model.state_dict().items()},
        {name: _on_cpu(tensor, copy) for name, tensor in tensors.items()},
        {"progress": progress, "settings": state.settings},
    )


def has_room_for(state: State) -> bool:
    """Whether a copy of the state fits into the memory that is free: who takes more is killed, with nothing saved."""
    copied = [*state.tensors().values(), *(tensor for weights in state.more.values() for tensor in weights.values())]
    free = memory_bytes().get("free", math.inf)
    return sum(tensor.numel() * tensor.element_size() for tensor in copied) < FREE * free


def _on_cpu(tensor: Tensor, copy: bool) -> Tensor:
    return tensor.detach().to("cpu", copy=copy).contiguous()


def write_checkpoint(folder: Path, content: Snapshot, keep: int = 2) -> None:
    """Write `folder`/step-N atomically; drop all but the newest `keep` up to it, and what damage or a crash left."""
    path = folder / f"step-{content.record['progress']['step']:08d}"
    with atomic_folder(path) as temporary:
        save_file(content.weights, temporary / _FILES[0])
        save_file(content.optimizer, temporary / _FILES[1])
        write_state(temporary, content.record)
    drop_old(path, keep)


def write_state(folder: Path, record: dict[str, Any]) -> None:
    """Write state.json beside the other files of a checkpoint: the record, their hashes, and that of all this."""
    record = record | {"sha256": {file.name: sha256(file) for file in sorted(folder.iterdir()) if file.is_file()}}
    write_json(folder / "state.json", record | {"own_sha256": _hash(record)})


def _hash(record: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def is_whole(path: Path) -> bool:
    """Whether a checkpoint is as it was written. (Those of older versions have no hash of state.json itself.)"""
    try:
        record = read_json(path / "state.json")
        own, hashes = record.pop("own_sha256", None), record["sha256"]
        return (
            bool(hashes)
            and own in (None, _hash(record))
            and all(sha256(path / name) == hashes[name] for name in hashes)
        )
    except (DataError, OSError, KeyError, TypeError, AttributeError):
        return False


def checkpoints(folder: Path) -> list[Path]:
    """Every checkpoint there, whole or damaged, the first one first. What somebody else called alike is none."""
    return sorted(path for path in folder.glob("step-*") if path.name.removeprefix("step-").isdecimal())


def drop_old(path: Path, keep: int) -> None:
    """Drop all checkpoints but the newest `keep` up to `path`, and what damage or a crash left."""
    folder = path.parent
    there = checkpoints(folder)
    here = there.index(path) + 1  # later ones are of a try that was given up
    for old in [*there[: max(0, here - keep)], *there[here:], *folder.glob(".step-*")]:
        shutil.rmtree(old, ignore_errors=True)


class Saver:
    """Writes checkpoints in a thread while training goes on; where that fails (a full disk), it says so.

    As a context it ends when the last one is written.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder, self.keep = folder, keep
        self.thread: threading.Thread | None = None
        self.waits = False

    def __enter__(self) -> Saver:
        return self

    def __exit__(self, *error: object) -> None:
        self.wait()

    def save(self, state: State, last: bool = False) -> None:
        """Begin to write the state as it is now, once the checkpoint before is written.

        The `last` one is written at once: nothing is trained meanwhile, so no copy need take memory. So is each where
        there is no memory for a copy: training waits.
        """
        self.wait()
        if state.sharded:
            self._write_slices(state)
            return
        at_once = last or not has_room_for(state)
        if at_once and not last and not self.waits:
            self.waits = True
            inform("too little memory is free for a copy of weights and optimizer: training waits for its checkpoints")
        content = snapshot(state, copy=not at_once)
        if world().first and at_once:
            self._write(content)
        elif world().first:
            self.thread = threading.Thread(target=self._write, args=(content,), name="checkpoint")
            self.thread.start()

    @property
    def busy(self) -> bool:
        """Whether a checkpoint is still being written."""
        return self.thread is not None and self.thread.is_alive()

    def wait(self) -> None:
        """Until the checkpoint that is being written, if any, is on the disk."""
        if self.thread is not None:
            self.thread.join()
            self.thread = None

    def _write_slices(self, state: State) -> None:
        """All processes at once, while training waits: the weights of such a model are not to be copied."""
        from pellucid.pretrain.sharded import write_slices

        path = self.folder / f"step-{state.progress.step:08d}"
        record = {"progress": vars(state.progress), "settings": state.settings, "slices": True}
        with self._told():
            write_slices(path, state.tensors() | _all_random_states(), record)
            if world().first:
                drop_old(path, self.keep)

    def _write(self, content: Snapshot) -> None:
        with self._told():
            write_checkpoint(self.folder, content, self.keep)

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Within the block what cannot be written is said, once, and no error."""
        try:
            yield
        except UNWRITTEN as error:
            if world().first:
                inform(f"no checkpoint was saved, the one before it stays: {error}")


def agreed_checkpoint(folder: Path, quiet: bool = False) -> Path | None:
    """The newest whole checkpoint, found by the first process and told to the others."""
    found = newest_checkpoint(folder, quiet) if world().first else None
    (step,) = world().told(int(found.name.removeprefix("step-")) if found else -1)
    return None if step < 0 else folder / f"step-{int(step):08d}"


def newest_checkpoint(folder: Path, quiet: bool = False) -> Path | None:
    """The newest whole checkpoint; a damaged one is named (unless `quiet`) and the one before it taken."""
    for path in reversed(checkpoints(folder)):
        if is_whole(path):
            return path
        if not quiet:
            inform(f"{path}: a damaged checkpoint; the one before it is used")
    return None


def began_with(out: Path) -> dict[str, Any]:
    """The settings that the run in `out` began with; {} where no checkpoint says them."""
    newest = agreed_checkpoint(out / "training", quiet=True)
    return dict(read_json(newest / "state.json")["settings"]) if newest else {}


def load_checkpoint(path: Path, state: State) -> None:
    """Put a state back as it was. Other settings than then are a DataError."""
    record = read_json(path / "state.json")
    began = record["settings"]
    changed = {key for key in state.settings if key in began and began[key] != state.settings[key]}
    if changed:
        key = min(changed)
        raise DataError(
            f"{path}: this run was started with {key} = {began[key]!r}, now it is {state.settings[key]!r}. "
            "Give the same settings, or another --out."
        )
    if state.sharded:
        _load_slices(path, state, record)
        return
    weights = load_file(path / _FILES[0])
    if shapes_of(weights) != shapes_of(state.model.state_dict()):
        advice = "Give the same model, or another --out."
        raise DataError(problem(path, "weights of a model of another shape", "those of this one", advice))
    state.model.load_state_dict(weights)
    tensors = load_file(path / _FILES[1])
    _go_on_with_random_states(tensors, state.settings["seed"] + record["progress"]["step"])
    for number, optimizer in enumerate(state.optimizers):
        optimizer.load_state_dict(_optimizer_state(optimizer, tensors, f"{number}."))
    device = next(state.model.parameters()).device
    names = list(state.model.state_dict())
    for kind in ("average", "best"):
        weights = {
            name: tensors[f"{kind}.{name}"].to(device, copy=True) for name in names if f"{kind}.{name}" in tensors
        }
        state.more |= {kind: weights} if weights else {}
    state.progress = Progress(**record["progress"])


def shapes_of(weights: Weights) -> dict[str, tuple[int, ...]]:
    """The shape of each tensor."""
    return {name: tuple(tensor.shape) for name, tensor in weights.items()}


def _load_slices(path: Path, state: State, record: dict[str, Any]) -> None:
    from pellucid.pretrain.sharded import make_optimizer_state, read_slices, room_for

    make_optimizer_state(state.optimizers)
    random = room_for(path, random_state())
    read_slices(path, state.tensors() | random)
    state.progress = Progress(**record["progress"])
    _go_on_with_random_states(random, state.settings["seed"] + state.progress.step)


def random_state() -> Weights:
    """Where this process's random numbers are: those of the CPU, and of its GPU."""
    states = {"random": torch.get_rng_state()}
    return states | ({"random.cuda": torch.cuda.get_rng_state()} if torch.cuda.is_available() else {})


def set_random_state(states: Weights) -> None:
    """Put them back to where they were."""
    torch.set_rng_state(states["random"].clone())
    if torch.cuda.is_available() and "random.cuda" in states:
        torch.cuda.set_rng_state(states["random.cuda"].clone())


def _all_random_states() -> Weights:
    return {name: world().gathered(state) for name, state in random_state().items()}


def _go_on_with_random_states(tensors: Weights, seed: int) -> None:
    """Go on with this process's own random numbers; where there were fewer processes, with new ones."""
    rank = world().rank
    states = {name: tensors[name] for name in random_state() if name in tensors}
    if rank < len(states["random"]):
        set_random_state({name: rows[rank] for name, rows in states.items()})
    else:
        torch.manual_seed(process_seed(seed, rank))


def process_seed(seed: int, rank: int) -> int:
    """A seed for the random numbers of one process; that of the first is `seed` itself."""
    return seed + 1_000_003 * rank


def _optimizer_tensors(optimizers: list[torch.optim.Optimizer]) -> Weights:
    """Every tensor of every optimizer, named `optimizer.parameter.key`."""
    return {
        f"{number}.{index}.{key}": value
        for number, optimizer in enumerate(optimizers)
        for index, values in optimizer.state_dict()["state"].items()
        for key, value in values.items()
    }


def _optimizer_state(optimizer: torch.optim.Optimizer, tensors: Weights, prefix: str) -> dict[str, Any]:
    """What `_optimizer_tensors` wrote, as the optimizer's own state dict."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith(prefix):
            _, index, key = name.split(".", 2)
            # a copy: what load_file gives may begin at any address, and torch's own memory at multiples of 64
            state.setdefault(int(index), {})[key] = tensor.clone()
    return {"state": state, "param_groups": optimizer.state_dict()["param_groups"]}
