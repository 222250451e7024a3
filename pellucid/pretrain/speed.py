"""How fast a training step is on this machine, and in which precision it is faster."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pellucid.compute import keep_freed_memory
from pellucid.config import FitConfig
from pellucid.model.precision import fastest_precision
from pellucid.pretrain.checkpoint import began_with
from pellucid.pretrain.distributed import world
from pellucid.pretrain.loss import Loss
from pellucid.pretrain.optim import make_optimizers
from pellucid.pretrain.step import TroubleError, train_step
from pellucid.pretrain.task import Task, cut, rows_of

DTYPES = ("bfloat16", "float32")
TRIAL_TOKENS = 1024  # of each step of a trial: enough to tell, and a trial takes no more memory than the run
LONG = 0.5  # seconds of a step that make one enough: products are most of it
AT_THE_END = 1.0  # of a run, where a linear schedule's rate is 0
SLOWER = 2.0  # times as long as in another precision: that, too


@dataclass(frozen=True)
class Speed:
    """What a short trial on this machine gave; its steps read at most TRIAL_TOKENS."""

    dtype: str
    seconds_per_step: float
    tried: dict[str, float]


@dataclass
class Few:
    """A task of which a step reads the first examples only."""

    task: Task
    name: str = "trial"

    def batches(self, step: int) -> Sequence[Any]:
        """The first examples of each batch."""
        return [cut(batch, 0, some(batch)) for batch in self.task.batches(step)]

    def loss(self, model: Any, batch: Any) -> Loss:
        """As in the run."""
        return self.task.loss(model, batch)

    def evaluate(self, model: Any) -> dict[str, float]:
        """A trial judges nothing."""
        return {}

    def sample(self, model: Any) -> str:
        """And shows nothing."""
        return ""


def some(batch: Any) -> int:
    """How many examples are about TRIAL_TOKENS; one for each process at least."""
    rows, read = rows_of(batch), int(batch.tokens)
    return min(rows, max(world().size, TRIAL_TOKENS * rows // max(read, 1)))


def settle_precision(
    model: nn.Module, task: Task, config: FitConfig, out: Path, resume: bool
) -> tuple[FitConfig, dict[str, float]]:
    """`auto` made definite: the precision that the run in `out` began with, or else the faster one on this machine.

    Also returns the seconds per step of each that was tried. Of many processes the first decides.
    """
    if config.dtype != "auto":
        return config, {}
    begun = began_with(out) if resume else {}
    if begun:
        return replace(config, dtype=begun["dtype"]), {}
    if config.shard and world().size > 1:  # no process has the memory for a trial of the whole model
        return replace(config, dtype="bfloat16" if torch.cuda.is_available() else "float32"), {}
    choices = worth_trying(model)
    tried = measure_speed(model, task, config).tried if len(choices) > 1 else {}
    (fastest,) = world().told(DTYPES.index(min(tried or choices, key=lambda dtype: tried.get(dtype, 0.0))))
    return replace(config, dtype=DTYPES[int(fastest)]), tried  # type: ignore[arg-type]


def worth_trying(model: nn.Module) -> Sequence[str]:
    """Without bfloat16 in its processor a step of GPT-2 would take minutes: there a product of matrices says enough.

    Of many processes, that of the first one.
    """
    on_cpu = next(model.parameters()).device.type == "cpu"
    (enough,) = world().told(on_cpu and fastest_precision() == torch.float32)
    return ("float32",) if enough else DTYPES


def measure_speed(model: nn.Module, task: Task, config: FitConfig, steps: int = 3) -> Speed:
    """Seconds per step in each precision worth a try. Its steps go nowhere: their rate is 0, as at a run's end.

    Where a step in bfloat16 is long, and products are faster in it, float32's would be longer: it is not waited for,
    and its larger activations do not make the peak of the run's memory.
    """
    keep_freed_memory()
    state = torch.get_rng_state()
    trial_task = Few(task)
    tried: dict[str, float] = {}
    for dtype in worth_trying(model) if config.dtype == "auto" else (config.dtype,):
        (enough,) = world().told(min(tried.values(), default=0.0) > LONG)
        if enough:
            break
        trial = replace(config, dtype=dtype, schedule="linear")  # type: ignore[arg-type]
        optimizers = make_optimizers(model, trial)
        with suppress(TroubleError):  # the run itself will say so
            train_step(model, trial_task, optimizers, trial, 0, AT_THE_END)
        times = []  # the best of a few: a busy machine only ever makes a step slower
        for step in range(1, steps + 1):
            began = time.perf_counter()
            with suppress(TroubleError):
                train_step(model, trial_task, optimizers, trial, step, AT_THE_END)
            times.append(time.perf_counter() - began)
            (enough,) = world().told(times[-1] > min([LONG, *(SLOWER * best for best in tried.values())]))
            if enough:
                break
        tried[dtype] = min(times)
        del optimizers  # or the next one's memory comes on top
    torch.set_rng_state(state)
    best = min(tried, key=lambda dtype: tried[dtype])
    return Speed(best, tried[best], tried)
