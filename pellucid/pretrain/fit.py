"""The one training loop: pretraining, classification and instruction tuning are tasks handed to `fit`.

A task says what a step's examples are (a pure function of the step), what their loss is, and how to score the model.
The loop does the rest: precision, clipping, schedule, evaluation, metrics, checkpoints, stopping and going on.
"""

from __future__ import annotations

import contextlib
import copy
import json
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from pellucid.config import FitConfig, as_dict
from pellucid.pretrain.checkpoint import (
    Progress,
    checkpoint_settings,
    load_checkpoint,
    newest_checkpoint,
    save_checkpoint,
)
from pellucid.pretrain.loss import Loss
from pellucid.pretrain.optim import make_optimizers, rate_scale, set_rate
from pellucid.runtime import (
    DataError,
    PellucidError,
    exact_products,
    held,
    inform,
    keep_freed_memory,
    problem,
    progress_bar,
    settle_threads,
    write_text,
)


class Task(Protocol):
    """What the loop is told about the work."""

    name: str

    def batches(self, step: int) -> Sequence[Any]:
        """The micro-batches of optimizer step `step`; always the same for the same step."""

    def loss(self, model: Any, batch: Any) -> Loss:
        """Sum of the losses of a micro-batch, and over how many trained tokens."""

    def evaluate(self, model: Any) -> dict[str, float]:
        """Scores on held-out data; `loss` among them."""

    def sample(self, model: Any) -> str:
        """A text that shows what the model can do by now; empty for none."""


@dataclass(frozen=True)
class Speed:
    """What a short trial on this machine gave."""

    dtype: str
    seconds_per_step: float
    tried: dict[str, float]


# Told the settled settings and the seconds per step of each precision that was tried, once nothing stands in the way.
Begin = Callable[[FitConfig, dict[str, float]], None]


def fit(
    model: nn.Module, task: Task, config: FitConfig, out: Path, resume: bool = False, begin: Begin | None = None
) -> Progress:
    """Train `model` in place for `config.steps` optimizer steps; writes metrics.jsonl, samples.jsonl and training/.

    Stopped by a signal it saves and raises KeyboardInterrupt; with `resume` it goes on from the newest checkpoint and
    ends with the same weights, bit for bit, as if it had not been stopped (same device). With `config.minutes` instead
    of steps the clock decides how many steps there are, so two runs are alike but not the same. A folder that another
    process trains in is refused.
    """
    folder = out / "training"
    with held(folder / "lock"):
        if not resume:
            check_nothing_there(folder)
        if not config.steps:  # with steps the bits are promised, and they depend on the threads
            settle_threads()
        config, tried = settle_precision(model, task, config, out, resume)
        if begin:
            begin(config, tried)
        return _fit(model, task, config, out, resume)


def _fit(model: nn.Module, task: Task, config: FitConfig, out: Path, resume: bool) -> Progress:
    exact_products()
    keep_freed_memory()
    torch.manual_seed(config.seed)
    optimizers = make_optimizers(model, config)
    settings = as_dict(replace(config, checkpoint_every=0))
    folder = out / "training"
    newest = newest_checkpoint(folder) if resume else None
    progress = load_checkpoint(newest, model, optimizers, settings) if newest else Progress()
    log = MetricsLog(out, progress.step)
    timer = Timer(progress.seconds)
    saved, empty = time.monotonic(), 0
    with progress_bar() as bar, stop_signals() as stopped:
        shown = bar.add_task(task.name, total=1.0, note="")
        bar.update(shown, completed=progress.share(config))
        while (share := progress.share(config)) < 1:
            before, began = share, time.monotonic()
            record = train_step(model, task, optimizers, config, progress.step, share)
            step_seconds = time.monotonic() - began
            progress.step += 1
            trained = record.pop("count")
            progress.tokens += trained
            empty += not trained
            progress.step_seconds += step_seconds
            progress.seconds = timer.total()
            record |= {"tokens": progress.tokens, "tokens_per_s": round(record.pop("seen") / step_seconds, 1)}
            share = progress.share(config)
            bar.update(shown, completed=share, note=progress.note(record, config))
            if not trained:
                record["loss"] = None
            log.write({"step": progress.step, "split": "train", **record, "seconds": round(progress.seconds, 3)})
            if evaluations_due(share, config) > evaluations_due(before, config) or share >= 1:
                if not config.steps:
                    settle_threads()
                evaluate_and_log(model, task, log, progress)
            due = time.monotonic() - saved > 30
            if config.checkpoint_every:
                due = progress.step % config.checkpoint_every == 0
            if stopped() or due or share >= 1:
                save_or_say(folder, model, optimizers, progress, settings)
                saved = time.monotonic()
            if stopped() and share < 1:
                raise KeyboardInterrupt
    if empty:
        inform(f"{empty:,} steps had no trained token and were skipped.")
    return progress


def check_nothing_there(folder: Path) -> None:
    """Refuse to begin where the checkpoints of another run are: they would be lost."""
    if any(folder.glob("step-*")):
        advice = "With --resume it goes on; or give another --out."
        raise DataError(problem(folder.parent, "a folder that holds a run already", "a new one", advice))


def evaluations_due(share: float, config: FitConfig) -> int:
    """How many evaluations belong before `share` of the run: the same however often it was stopped."""
    return int(share / config.evaluate_share + 1e-9)


def train_step(
    model: nn.Module, task: Task, optimizers: list[torch.optim.Optimizer], config: FitConfig, step: int, share: float
) -> dict[str, Any]:
    """One optimizer step: the mean loss over all trained tokens of all micro-batches. `share` of the run is done."""
    model.train()
    total, count, seen = 0.0, 0, 0
    for batch in task.batches(step):
        with precision(model, config):
            loss = task.loss(model, batch)
        if loss.count:
            loss.total.backward()  # type: ignore[no-untyped-call]
            total += loss.total.item()
        count += loss.count
        seen += batch.tokens
    if not math.isfinite(total):
        raise PellucidError(f"{task.name}: the loss is {total} at step {step + 1}. Lower the learning rate.")
    scale = rate_scale(share, config)
    set_rate(optimizers, scale)
    grad_norm = 0.0
    if count:
        gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        grad_norm = float(nn.utils.get_total_norm(gradients)) / count
        torch._foreach_mul_(gradients, min(1.0, config.clip / max(grad_norm, 1e-12)) / count)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    mean = total / max(count, 1)
    return {"loss": mean, "lr": config.lr * scale, "grad_norm": grad_norm, "count": count, "seen": seen}


def precision(model: nn.Module, config: FitConfig) -> torch.autocast:
    """Matrix products in bfloat16 when the config says so; weights, sums and norms stay in float32."""
    device = next(model.parameters()).device.type
    return torch.autocast(device, torch.bfloat16, enabled=config.dtype == "bfloat16")


def settle_precision(
    model: nn.Module, task: Task, config: FitConfig, out: Path, resume: bool
) -> tuple[FitConfig, dict[str, float]]:
    """`auto` made definite: the precision that the run in `out` began with, or else the faster one on this machine.

    Also returns the seconds per step of each that was tried.
    """
    if config.dtype != "auto":
        return config, {}
    newest = newest_checkpoint(out / "training", quiet=True) if resume else None
    if newest:
        return replace(config, dtype=checkpoint_settings(newest)["dtype"]), {}
    speed = measure_speed(model, task, config)
    return replace(config, dtype=speed.dtype), speed.tried  # type: ignore[arg-type]


def measure_speed(model: nn.Module, task: Task, config: FitConfig, steps: int = 3) -> Speed:
    """Seconds per step of a copy of the model, in each precision that may be used; the model itself is untouched."""
    keep_freed_memory()
    state = torch.get_rng_state()
    tried = {}
    for dtype in ("float32", "bfloat16") if config.dtype == "auto" else (config.dtype,):
        trial = replace(config, dtype=dtype)
        twin = copy.deepcopy(model)
        optimizers = make_optimizers(twin, trial)
        train_step(twin, task, optimizers, trial, 0, 0.0)
        times = []  # the best of a few: a busy machine only ever makes a step slower
        for step in range(1, steps + 1):
            began = time.perf_counter()
            train_step(twin, task, optimizers, trial, step, 0.0)
            times.append(time.perf_counter() - began)
        tried[dtype] = min(times)
    torch.set_rng_state(state)
    best = min(tried, key=lambda dtype: tried[dtype])
    return Speed(best, tried[best], tried)


def evaluate_and_log(model: nn.Module, task: Task, log: MetricsLog, progress: Progress) -> None:
    """Score the model on held-out data and write the scores, and a sample where the task gives one."""
    model.eval()
    with torch.inference_mode():
        scores = task.evaluate(model)
        text = task.sample(model)
    log.write({"step": progress.step, "split": "val", **scores, "tokens": progress.tokens})
    if text:
        log.write_sample({"step": progress.step, "loss": scores["loss"], "text": text})


class Timer:
    """Seconds of a run, over all its sittings."""

    def __init__(self, before: float) -> None:
        self.before, self.began = before, time.monotonic()

    def total(self) -> float:
        """Seconds up to now."""
        return self.before + time.monotonic() - self.began


def save_or_say(folder: Path, *state: Any) -> None:
    """Save a checkpoint; where that fails (a full disk), say so and train on with the old one."""
    try:
        save_checkpoint(folder, *state)
    except (PellucidError, OSError) as error:
        inform(f"no checkpoint was saved: {error}")


class MetricsLog:
    """metrics.jsonl and samples.jsonl of a run, an object a line; lines past `step` (a later, lost try) are dropped."""

    def __init__(self, out: Path, step: int) -> None:
        self.metrics, self.samples = out / "metrics.jsonl", out / "samples.jsonl"
        for path in (self.metrics, self.samples):
            kept = [line for line in read_lines(path) if line["step"] <= step] if step else []
            write_text(path, "".join(json.dumps(line) + "\n" for line in kept))

    def write(self, record: dict[str, Any]) -> None:
        """Append one line of metrics."""
        self._append(self.metrics, record)

    def write_sample(self, record: dict[str, Any]) -> None:
        """Append one line with a sampled text."""
        self._append(self.samples, record)

    def _append(self, path: Path, record: dict[str, Any]) -> None:
        with contextlib.suppress(OSError), path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a jsonl file; a line that a crash cut short is left out."""
    if not path.is_file():
        return []
    records = []
    for line in path.read_text(encoding="utf-8").splitlines():
        with contextlib.suppress(json.JSONDecodeError):
            records.append(json.loads(line))
    return records


@contextlib.contextmanager
def stop_signals() -> Iterator[Any]:
    """Within the block SIGINT and SIGTERM set a flag instead of stopping at once; yields a function that reads it."""
    flag = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield flag.is_set
        return

    def note(number: int, frame: object) -> None:
        if flag.is_set():  # a second signal: the user means now
            raise KeyboardInterrupt
        flag.set()
        inform("stopping after this step …")

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield flag.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
