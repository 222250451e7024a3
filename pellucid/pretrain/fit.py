"""The one training loop: pretraining, classification and instruction tuning are tasks handed to `fit`.

A task says what a step's examples are (a pure function of the step), what their loss is, and how to score the model.
The loop does the rest: precision, clipping, schedule, evaluation, metrics, checkpoints, stopping and going on, what to
do when a loss cannot be right or memory runs out, and working with other processes.
"""

from __future__ import annotations

import contextlib
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pellucid.compute import exact_products, keep_few_programs, keep_freed_memory, settle_threads
from pellucid.config import FitConfig, as_dict
from pellucid.model.gpt import GPT
from pellucid.pretrain.alike import find_alike
from pellucid.pretrain.averages import copied_weights, move_average, put_weights, with_weights
from pellucid.pretrain.checkpoint import (
    Progress,
    Saver,
    State,
    Weights,
    agreed_checkpoint,
    checkpoints,
    load_checkpoint,
    process_seed,
    random_state,
    set_random_state,
)
from pellucid.pretrain.distributed import launch, restarted, shared_model, world
from pellucid.pretrain.guard import MOST_TROUBLES, RECENT, spike
from pellucid.pretrain.loggers import Mirror, open_mirrors
from pellucid.pretrain.metrics import MetricsLog
from pellucid.pretrain.optim import make_optimizers
from pellucid.pretrain.snapshots import drop_snapshots, save_snapshot
from pellucid.pretrain.speed import settle_precision
from pellucid.pretrain.step import TroubleError, train_step
from pellucid.pretrain.task import Describing, Reading, Task
from pellucid.runtime import (
    ConfigError,
    DataError,
    PellucidError,
    held,
    inform,
    problem,
    progress_bar,
    write_text,
)

SAVED = 30.0  # seconds after which a checkpoint is due, where no number of steps says it
SETTLED = 5.0  # seconds after which a run by the clock looks again whether other programs keep the cores busy
TOGETHER = 1.0  # seconds in which several signals are one
LOOKING = 0.3  # of the time so far: as much may go into evaluations, where the clock ends the run
LAUNCH = "launch"  # in training/: the name of the torchrun that trains there

# Told the settled settings and the seconds per step of each precision that was tried, once nothing stands in the way.
Begin = Callable[[FitConfig, dict[str, float]], None]


def fit(
    model: nn.Module, task: Task, config: FitConfig, out: Path, resume: bool = False, begin: Begin | None = None
) -> Progress:
    """Train `model` in place for `config.steps` optimizer steps; writes metrics.jsonl, samples.jsonl and training/.

    Stopped by a signal it saves and raises KeyboardInterrupt; with `resume` it goes on from the newest checkpoint and
    ends with the same weights, bit for bit, as if it had not been stopped (same device, same number of processes).
    With `config.minutes` instead of steps the clock decides how many steps there are, so two runs are alike but not
    the same. A folder that another process trains in, or that holds another model, is refused.
    """
    folder = out / "training"
    check_no_other_model(out)
    with held(folder / "lock") if world().first else contextlib.nullcontext():
        if not resume:
            check_nothing_there(folder)
        if launch() and world().first:
            write_text(folder / LAUNCH, launch())
        exact_products()  # before the first product
        keep_few_programs(sum(parameter.numel() for parameter in model.parameters()))
        keep_freed_memory()
        if not config.steps:
            settle_threads()  # before precisions are tried
        for module in model.modules():
            if isinstance(module, GPT):
                module.recompute = config.recompute
        config, tried = settle_precision(model, task, config, out, resume)
        sitting = Sitting(model, task, config, out, resume)
        if begin and world().first:
            begin(config, tried)
        return sitting.run()


def goes_on(resume: bool, out: Path) -> bool:
    """Whether a verb goes on in `out`: it was told to, or is started again by the torchrun that began there."""
    file = out / "training" / LAUNCH
    again = restarted() and file.is_file() and file.read_text(encoding="utf-8") == launch()
    return bool(*world().told(resume or again))


def check_no_other_model(out: Path) -> None:
    """Refuse to write over a model without checkpoints beside it: it would be lost."""
    there = (out / "config.json").is_file() or any(out.glob("*.safetensors"))
    if there and not checkpoints(out / "training"):
        advice = "Move it, or give another --out."
        raise ConfigError(problem(out, "a model without its checkpoints", "a new folder", advice))


def check_nothing_there(folder: Path) -> None:
    """Refuse to begin where the checkpoints of another run are: they would be lost."""
    if checkpoints(folder):
        advice = "With --resume it goes on; or give another --out."
        raise DataError(problem(folder.parent, "a folder that holds a run already", "a new one", advice))


class Sitting:
    """One sitting of a run, from its beginning or its newest checkpoint to its end, or until it is stopped."""

    def __init__(self, model: nn.Module, task: Task, config: FitConfig, out: Path, resume: bool) -> None:
        torch.manual_seed(process_seed(config.seed, world().rank))
        self.model, self.task, self.config, self.out = model, task, config, out
        settings = as_dict(replace(config, checkpoint_every=0, keep=2, log=()))
        for name in ("micro_batch_size", "recompute"):  # a matter of memory, and another machine may have more
            del settings[name]
        self.shared = shared_model(model, config.shard)  # before the optimizers: it may put slices in place of weights
        self.state = State(model, make_optimizers(model, config), settings)
        newest = agreed_checkpoint(out / "training") if resume else None
        if newest:
            load_checkpoint(newest, self.state)
        elif config.average:
            self.state.more["average"] = copied_weights(model)
        for module in model.modules():
            if isinstance(module, GPT) and isinstance(task, Reading):
                task.alike = find_alike(module.output_weight, task.used())
        self.saver = Saver(out / "training", config.keep)
        self.troubles: list[str] = []
        self.empty = 0  # steps of this sitting without a trained token
        self.log: MetricsLog | None = None
        self.mirrors: list[Mirror] = []
        self.open_log()
        self.began, self.before = time.monotonic(), self.state.progress.seconds
        self.saved = self.settled = time.monotonic()
        self.evaluated = self.evaluation = 0.0  # seconds of this sitting's evaluations, and of the last one

    @property
    def progress(self) -> Progress:
        """How far the run has come."""
        return self.state.progress

    def __enter__(self) -> Sitting:
        return self

    def __exit__(self, *error: object) -> None:
        self.close_log()

    def open_log(self) -> None:
        """Metrics go on behind the last step that counts."""
        self.close_log()
        if world().first:
            self.log = MetricsLog(self.out, self.progress.step)
            self.mirrors = open_mirrors(self.config.log, self.out, self.progress.step, self.state.settings)
            drop_snapshots(self.out, self.progress.step)
            if self.progress.step == 0:
                self.keep_weights(self.model)

    def close_log(self) -> None:
        """What mirrors the metrics is told that no more come."""
        for mirror in self.mirrors:
            mirror.close()

    def write(self, record: dict[str, Any]) -> None:
        """A line of metrics."""
        if self.log:
            self.log.write(record)
        for mirror in self.mirrors:
            mirror.write(record)

    def run(self) -> Progress:
        """Train to the end, or until a signal says to stop."""
        config = self.config
        with progress_bar(show=world().first) as bar, stop_signals() as stopped, self.saver, self:
            shown = bar.add_task(self.task.name, total=1.0, note="")
            bar.update(shown, completed=self.progress.share(config))
            while (before := self.progress.share(config)) < 1:
                self.settle()
                record = self.step(before)
                stop, save = self.agree(stopped())
                share = self.progress.share(config)
                if record:
                    bar.update(shown, completed=share, note=self.progress.note(record, config))
                due = evaluations_due(share, config) > evaluations_due(before, config)
                if share >= 1 or (due and self.has_time_to_evaluate()):
                    self.evaluate()
                    share = self.progress.share(config)
                if stop or save or share >= 1:
                    self.saver.save(self.state, last=stop or share >= 1)
                    self.saved = time.monotonic()
                if stop:  # after the last step, too: who stops does not want what comes behind training
                    raise KeyboardInterrupt
        if self.empty and world().first:
            inform(f"{self.empty:,} steps had no trained token and were skipped.")
        for kind in ("best", "average"):
            if kind in self.state.more:
                put_weights(self.model, self.state.more[kind])
                break
        return self.progress

    def step(self, share: float) -> dict[str, Any]:
        """One optimizer step and its line of metrics; nothing, where the step is left out or brought trouble."""
        progress, began = self.progress, time.perf_counter()
        if progress.step in progress.skipped:
            progress.step += 1
            self.write({"step": progress.step, "split": "train", "skipped": True})
            return {}
        rows = progress.micro_batch_size or self.config.micro_batch_size
        dice = random_state()
        try:
            record = train_step(
                self.model, self.task, self.state.optimizers, self.config, progress.step, share,
                self.shared, rows, self.refuse,
            )  # fmt: skip
        except TroubleError as trouble:
            self.roll_back(str(trouble), dice)
            return {}
        if (used := record.pop("rows")) != rows:
            progress.micro_batch_size = used
        if "average" in self.state.more:
            move_average(self.state.more["average"], self.model, self.config.average, progress.step)
        seconds = time.perf_counter() - began  # Windows' monotonic clock stands still for 16 ms at a time
        progress.step += 1
        trained = record.pop("count")
        progress.tokens += trained
        progress.step_seconds += seconds
        record |= {"tokens": progress.tokens, "tokens_per_s": round(record.pop("seen") / seconds, 1)}
        total = round(self.before + time.monotonic() - self.began, 3)
        line = {"step": progress.step, "split": "train", **record, "seconds": total}
        if trained:
            progress.recent = [*progress.recent[1 - RECENT :], record["loss"]]
        else:
            self.empty += 1
        self.write(line if trained else line | {"loss": None})
        return record

    def settle(self) -> None:
        """By the clock: as many threads as are faster now. With steps the bits are promised, and depend on them."""
        if not self.config.steps and time.monotonic() - self.settled > SETTLED:
            settle_threads()
            self.settled = time.monotonic()

    def agree(self, stopped: bool) -> tuple[bool, bool]:
        """What all processes do next: stop, if one was told to; and save, if it is time to.

        The clock is that of the first process.
        """
        due = time.monotonic() - self.saved > SAVED and not self.saver.busy  # a slow disk holds up nothing
        seconds, save = world().told(self.before + time.monotonic() - self.began, due)
        (stop,) = world().sum(stopped)
        self.progress.seconds = seconds
        if self.config.checkpoint_every:
            save = self.progress.step % self.config.checkpoint_every == 0
        return bool(stop), bool(save)

    def refuse(self, loss: float) -> str:
        """What is wrong with a loss, if anything is."""
        return spike(loss, self.progress.recent) if self.config.spikes else ""

    def roll_back(self, reason: str, dice: Weights) -> None:
        """Go back to the newest checkpoint and leave the step out. Where there is none, only the dice were moved."""
        step, skipped = self.progress.step, [*self.progress.skipped, self.progress.step]
        examples = f" ({self.task.describe(step)})" if isinstance(self.task, Describing) else ""
        self.troubles.append(f"{reason} at step {step + 1}{examples}")
        if len(skipped) >= MOST_TROUBLES:
            said = "; ".join(self.troubles)
            advice = "Lower the learning rate (--lr, with another --out), or look at these examples."
            raise PellucidError(f"{self.task.name}: {said}. That is trouble number {len(skipped)}. {advice}")
        self.saver.wait()
        world().wait()
        newest = agreed_checkpoint(self.out / "training")
        if newest:
            load_checkpoint(newest, self.state)
            self.open_log()
        else:
            set_random_state(dice)
        self.progress.skipped = skipped
        if world().first:
            back = f"back to step {self.progress.step}" if newest else "nothing was moved"
            inform(f"{self.task.name}: {self.troubles[-1]}; {back}, and that step is left out from now on")

    def keep_weights(self, model: nn.Module) -> None:
        """A snapshot, to look back at (not where several processes train: each may hold a part only)."""
        if self.log and world().size == 1:
            number = evaluations_due(self.progress.share(self.config), self.config)
            save_snapshot(self.out, model, self.progress.step, number, evaluations_due(1, self.config))

    def score(self, model: nn.Module) -> float:
        """Score the model and write the scores and samples; the loss."""
        scores = self.task.evaluate(model)
        texts = self.task.sample(model) if math.isfinite(scores["loss"]) else []  # nothing can be drawn from no number
        self.keep_weights(model)
        self.write({"step": self.progress.step, "split": "val", **scores, "tokens": self.progress.tokens})
        for text in [texts] if isinstance(texts, str) else texts:
            if text and self.log:
                self.log.write_sample({"step": self.progress.step, "loss": scores["loss"], "text": text})
        return scores["loss"]

    def has_time_to_evaluate(self) -> bool:
        """By the clock: unless evaluations would take what training needs."""
        return bool(self.config.steps) or self.evaluated + self.evaluation <= LOOKING * self.progress.seconds

    def evaluate(self) -> None:
        """Score the model on held-out data, write the scores and samples, and see whether it still gets better."""
        began = time.monotonic()
        self.model.eval()
        with with_weights(self.model, self.state.more.get("average")):
            found = self.shared.looked_at(self.score)
        loss, self.evaluation = world().told(found or 0.0, time.monotonic() - began)
        self.evaluated += self.evaluation
        progress, config = self.progress, self.config
        if math.isfinite(loss) and (progress.best is None or loss < progress.best):
            progress.best, progress.waited = loss, 0
            if config.best or config.early_stop:
                with with_weights(self.model, self.state.more.get("average")):
                    self.state.more["best"] = copied_weights(self.model)
        else:
            progress.waited += 1
        progress.finished = progress.finished or loss < config.enough
        if config.early_stop and progress.waited >= config.early_stop and self.progress.share(config) < 1:
            progress.finished = True
            if world().first:
                best = math.nan if progress.best is None else progress.best
                inform(
                    f"{self.task.name}: no lower loss than {best:.3f} in {progress.waited} evaluations; "
                    f"the run ends at step {progress.step}"
                )


def evaluations_due(share: float, config: FitConfig) -> int:
    """How many evaluations belong before `share` of the run: the same however often it was stopped."""
    return int(share / config.evaluate_share + 1e-9)


@contextlib.contextmanager
def stop_signals() -> Iterator[Any]:
    """Within the block SIGINT and SIGTERM set a flag instead of stopping at once; yields a function that reads it.

    A second signal stops at once, unless it comes with the first one: `timeout`, systemd and torchrun tell a process
    directly and once more through its group or parent.
    """
    flag, told = threading.Event(), [0.0]
    if threading.current_thread() is not threading.main_thread():
        yield flag.is_set
        return

    def note(number: int, frame: object) -> None:
        if flag.is_set():
            if time.monotonic() - told[0] > TOGETHER:
                raise KeyboardInterrupt
            return
        flag.set()
        told[0] = time.monotonic()
        if world().first:
            inform("stopping after this step …")

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield flag.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
