"""Many processes, one run: who is there, what they tell each other, and how they share a model.

    torchrun --nproc-per-node N -m pellucid pretrain …    (and finetune)

Every process sees the same batch and takes its own slice of it; what they add up is a sum of losses, a count of trained
tokens, and the gradients. Alone, everything here does nothing. Pages: PyTorch, "Distributed Data Parallel".
"""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import uuid4

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from pellucid.runtime import PellucidError, problem

if TYPE_CHECKING:
    from torch.distributed.distributed_c10d import Store

T = TypeVar("T")
TO_MEET = 600.0  # seconds: the first of many may have long to wait until the last has imported torch
COPIED = 1 << 20  # numbers of a gradient that are in float32 at one time


@dataclass(frozen=True)
class World:
    """The processes of a run: which of how many this one is."""

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and speaks for all."""
        return self.rank == 0

    def sum(self, *values: float) -> list[float]:
        """Each value added up over all processes."""
        if self.size == 1:
            return list(values)
        numbers = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(numbers)
        return list(numbers.tolist())

    def told(self, *values: float) -> list[float]:
        """The values of the first process, in all of them."""
        return self.sum(*(value if self.first else 0.0 for value in values))

    def gathered(self, tensor: Tensor) -> Tensor:
        """(size, …): the tensor of each process."""
        if self.size == 1:
            return tensor[None]
        rows = [torch.empty_like(tensor) for _ in range(self.size)]
        dist.all_gather(rows, tensor.contiguous())
        return torch.stack(rows)

    def wait(self) -> None:
        """Until all processes have come here."""
        if self.size > 1:
            dist.barrier()


def world() -> World:
    """The processes that have joined; alone, one."""
    if dist.is_available() and dist.is_initialized():
        return World(dist.get_rank(), dist.get_world_size())
    return World()


@contextlib.contextmanager
def all_or_none() -> Iterator[None]:
    """Wait for all processes at the end of the block. Where it failed in one of them it fails in all: none goes on."""
    failure: Exception | None = None
    try:
        yield
    except Exception as error:
        failure = error
    (failed,) = world().sum(failure is not None)
    if failure:
        raise failure
    if failed:
        raise PellucidError("another process could not do its part")


def under_torchrun() -> bool:
    """Whether `torchrun` has started this process, be it alone."""
    return "RANK" in os.environ


def launched() -> int:
    """How many processes `torchrun` has started with this one; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1")) if under_torchrun() else 1


def restarted() -> bool:
    """Whether `torchrun` has started this run again, because a process was lost."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0


def launch() -> str:
    """A name of this call of `torchrun`, the same where it starts its processes again; empty without it."""
    name = os.environ.get("TORCHELASTIC_RUN_ID", "")
    return f"process {os.getppid()}" if name == "none" else name  # what torchrun calls each where nobody gave a name


def agreed_name(store: Store, rank: int, size: int, patience: float = TO_MEET) -> str:
    """A name for this meeting of the processes, which none before had.

    When torchrun starts them again the store still holds where the lost ones listened: who reads that waits in vain. So
    the first process names the meeting; each of the others answers with a word of its own, and waits until the first
    repeats it.
    """
    mine, deadline = uuid4().hex, time.monotonic() + patience
    if rank == 0:
        store.set("meeting", mine)
    while time.monotonic() < deadline:
        name = heard(store, "meeting")
        if rank > 0:
            store.set(f"answer {rank}", name + mine)
            repeated = heard(store, "all")
            if mine in repeated:
                return repeated[: len(mine)]
        else:
            answers = [heard(store, f"answer {other}") for other in range(1, size)]
            if all(answer.startswith(mine) for answer in answers):
                store.set("all", mine + "".join(answers))
                return mine
        time.sleep(0.02)
    found = f"not all of {size} processes after {patience:.0f} seconds"
    raise PellucidError(problem("torchrun", found, "all of them", "Start it again, or give it --max-restarts."))


def heard(store: Store, key: str) -> str:
    """What stands in the store by now; nothing where nothing does."""
    return str(store.get(key).decode()) if store.check([key]) else ""


@contextlib.contextmanager
def joined() -> Iterator[World]:
    """Within the block the processes that `torchrun` started know each other."""
    if launched() == 1 or dist.is_initialized():
        yield world()
        return
    from torch.distributed.distributed_c10d import PrefixStore  # not every build of torch has them
    from torch.distributed.rendezvous import rendezvous

    backend = "gloo"
    if torch.cuda.is_available():
        number, there = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if number >= there:
            advice = "Lower --nproc-per-node, or hide the GPUs: CUDA_VISIBLE_DEVICES=''."
            raise PellucidError(
                problem("torchrun", f"process {number + 1} on a machine", f"{there}, a GPU each", advice)
            )
        torch.cuda.set_device(number)
        backend = "cpu:gloo,cuda:nccl"  # counts and sums travel on the CPU, gradients on the GPU
    store, rank, size = next(rendezvous("env://"))
    store = PrefixStore(agreed_name(store, rank, size), store)
    dist.init_process_group(backend, store=store, rank=rank, world_size=size)
    try:
        yield world()
    except RuntimeError as error:
        if "gloo" not in str(error) and not isinstance(error, dist.DistError):
            raise
        advice = "See what that one said. With --max-restarts torchrun starts all of them again."
        found = "a process that has ended, or does not answer"
        raise PellucidError(problem("torchrun", found, f"all {size}", advice)) from error
    finally:
        dist.destroy_process_group()


def leave_the_rest_to_the_first() -> None:
    """End all processes but the first: what comes behind training is not divided. Within `joined`."""
    if not world().first:
        raise SystemExit(0)


class Whole(nn.Module):
    """A module that does anything with its model: what it does is one forward pass for those that wrap it."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, work: Callable[[nn.Module], T]) -> T:
        return work(self.model)


class Shared:
    """A model that one process has to itself."""

    divided = False
    """Whether every pass asks for slices of all processes."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def run(self, work: Callable[[nn.Module], T]) -> T:
        """Do something with the model."""
        return work(self.model)

    def looked_at(self, work: Callable[[nn.Module], T]) -> T | None:
        """Do something with the model that trains nothing, in the first process at least; there, what it gave."""
        if not world().first:
            return None
        with torch.inference_mode():
            return work(self.model)

    def not_yet(self) -> contextlib.AbstractContextManager[Any]:
        """Within the block gradients are added up in this process only."""
        return contextlib.nullcontext()

    def norm(self, gradients: Sequence[Tensor]) -> float:
        """The norm of all gradients together."""
        if all(gradient.device.type == "cpu" and gradient.is_contiguous() for gradient in gradients):
            parts = (part.float() for gradient in gradients for part in in_float_at_once(gradient.view(-1)))
            return math.sqrt(sum(float(torch.dot(part, part)) for part in parts))  # twice as fast as torch's norm
        return float(nn.utils.get_total_norm(gradients))


def in_float_at_once(flat: Tensor) -> Sequence[Tensor]:
    """So much of a flat tensor at a time that a copy in float32 is not too large; all where it is float32."""
    return [flat] if flat.dtype == torch.float32 else torch.split(flat, COPIED)


class Replicated(Shared):
    """Each process has the whole model; gradients are averaged while they are made."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        device = next(model.parameters()).device
        ids = [device] if device.type == "cuda" else None
        self.whole = DistributedDataParallel(Whole(model), device_ids=ids)
        self.whole.broadcast_buffers = False  # nothing changes them; the int8 base of adapters would travel each step

    def run(self, work: Callable[[nn.Module], T]) -> T:
        done: T = self.whole(work)
        return done

    def not_yet(self) -> contextlib.AbstractContextManager[Any]:
        return self.whole.no_sync()


def shared_model(model: nn.Module, shard: bool) -> Shared:
    """The model as the processes of this run share it: each with a copy, or with a slice of every weight."""
    if world().size == 1:
        return Shared(model)
    if not shard:
        return Replicated(model)
    from pellucid.pretrain.sharded import Sharded  # half a second of imports that most runs do without

    return Sharded(model)
