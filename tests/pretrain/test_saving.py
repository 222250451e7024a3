"""Checkpoints: what is taken for one, what tells a damaged one, and what a slow disk or a signal costs."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import pellucid.pretrain.checkpoint as checkpoint
import pellucid.pretrain.fit as loop
from pellucid.config import FitConfig, ModelConfig
from pellucid.model.gpt import GPT
from pellucid.pretrain.checkpoint import Saver, State, newest_checkpoint
from pellucid.pretrain.fit import fit
from pellucid.pretrain.language import LanguageModelling
from pellucid.text.shards import Shards


class Signalled(LanguageModelling):
    """Before its third step somebody sends signals, one right after the other."""

    times = 1

    def batches(self, step: int) -> Sequence[Any]:
        for _ in range(self.times if step == 2 else 0):
            os.kill(os.getpid(), signal.SIGTERM)
        return super().batches(step)


def stopped(shards: Shards, shape: ModelConfig, config: FitConfig, out: Path, times: int = 1) -> Path | None:
    """Train until the signals come; the newest checkpoint then."""
    task = Signalled(shards, config, shape.context_length)
    task.times = times
    with pytest.raises(KeyboardInterrupt):
        fit(GPT(shape), task, config, out)
    return newest_checkpoint(out / "training")


@pytest.mark.parametrize(("together", "saved"), [(1.0, True), (-1.0, False)])
def test_signals_that_come_together_are_one_and_a_later_one_stops_at_once(
    shards: Shards, shape: ModelConfig, config: FitConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    together: float, saved: bool,
) -> None:  # fmt: skip
    monkeypatch.setattr(loop, "TOGETHER", together)
    newest = stopped(shards, shape, config, tmp_path, times=2)
    assert newest == (tmp_path / "training" / "step-00000003" if saved else None)


@contextlib.contextmanager
def without_a_reader() -> Iterator[Any]:
    """A pipe that nobody reads any more, to write into."""
    read, write = os.pipe()
    os.close(read)
    file = os.fdopen(write, "w", encoding="utf-8")
    try:
        yield file
    finally:
        with contextlib.suppress(BrokenPipeError):
            file.close()


def test_where_nobody_reads_what_it_says_it_saves_all_the_same(
    shards: Shards, shape: ModelConfig, config: FitConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with without_a_reader() as pipe:
        monkeypatch.setattr(sys, "stderr", pipe)
        newest = stopped(shards, shape, config, tmp_path)
        monkeypatch.undo()
    assert newest == tmp_path / "training" / "step-00000003"


@pytest.mark.parametrize(("before", "after"), [('"step": 8', '"step": 9'), ('"tokens": 1', '"tokens": 2'), ("{", "[")])
def test_damage_in_a_checkpoints_record_is_seen(
    shards: Shards, shape: ModelConfig, config: FitConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    before: str, after: str,
) -> None:  # fmt: skip
    fit(GPT(shape), LanguageModelling(shards, config, shape.context_length), replace(config, steps=8), tmp_path)
    assert newest_checkpoint(tmp_path / "training") == tmp_path / "training" / "step-00000008"
    state = tmp_path / "training" / "step-00000008" / "state.json"
    text = state.read_text()
    assert before in text
    state.write_text(text.replace(before, after, 1))
    assert newest_checkpoint(tmp_path / "training") == tmp_path / "training" / "step-00000004"
    assert "step-00000008: a damaged checkpoint; the one before it is used" in capsys.readouterr().err


def test_a_copy_of_a_checkpoint_under_another_name_is_neither_taken_nor_removed(
    shards: Shards, shape: ModelConfig, config: FitConfig, tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        fit(GPT(shape), Signalled(shards, config, shape.context_length), config, tmp_path)
    training = tmp_path / "training"
    shutil.copytree(training / "step-00000003", training / "step-00000003-before-i-try-that")
    fit(GPT(shape), LanguageModelling(shards, config, shape.context_length), config, tmp_path, resume=True)
    names = {path.name for path in training.glob("step-*")}
    assert names == {"step-00000003-before-i-try-that", "step-00000008", "step-00000012"}


def test_a_disk_that_is_slower_than_checkpoints_are_due_holds_up_no_step(
    shards: Shards, shape: ModelConfig, config: FitConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[int] = []
    write = checkpoint.write_checkpoint

    def slowly(folder: Path, content: Any, keep: int) -> None:
        time.sleep(1)
        written.append(content.record["progress"]["step"])
        write(folder, content, keep)

    monkeypatch.setattr(checkpoint, "write_checkpoint", slowly)
    monkeypatch.setattr(loop, "SAVED", 0.0)
    config = replace(config, checkpoint_every=0, evaluate_share=1.0)
    fit(GPT(shape), LanguageModelling(shards, config, shape.context_length), config, tmp_path)
    assert written[0] == 1 and written[-1] == 12
    assert len(written) < 12, "a step waited for the checkpoint of the one before"


def test_where_memory_is_too_little_for_a_copy_training_waits_for_its_checkpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(checkpoint, "memory_bytes", lambda: {"free": 40.0})  # the weights are 9 numbers
    state, saver = State(torch.nn.Linear(2, 3), [], {}), Saver(tmp_path, keep=1)
    for step in (1, 2):
        state.progress.step = step
        saver.save(state)
        assert not saver.busy and newest_checkpoint(tmp_path) == tmp_path / f"step-0000000{step}"
    assert capsys.readouterr().err.count("training waits for its checkpoints") == 1
    monkeypatch.setattr(checkpoint, "memory_bytes", lambda: {"free": 41.0})
    saver.save(state)
    assert saver.thread
    saver.wait()


def test_a_step_that_no_clock_can_measure_is_no_error(
    shards: Shards, shape: ModelConfig, config: FitConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "monotonic", lambda: 1000.0)  # as it stands still on Windows, 16 ms at a time
    assert fit(GPT(shape), LanguageModelling(shards, config, shape.context_length), config, tmp_path).step == 12


class Tried(LanguageModelling):
    """A task that notes what it meets while precisions are tried."""

    met: tuple[Any, ...] = ()

    def loss(self, model: GPT, batch: Any) -> Any:
        self.met = self.met or (model.recompute, os.environ.get("MKL_CBWR"))
        return super().loss(model, batch)


def test_precisions_are_tried_as_the_run_will_be(
    shards: Shards, shape: ModelConfig, config: FitConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With blocks computed again, or a model that fits only so would not come through; and with exact products."""
    monkeypatch.setattr("pellucid.pretrain.speed.fastest_precision", lambda: torch.bfloat16)
    monkeypatch.delenv("MKL_CBWR", raising=False)
    config = replace(config, dtype="auto", recompute=True, steps=1)
    task = Tried(shards, config, shape.context_length)
    fit(GPT(shape), task, config, tmp_path)
    assert task.met == (True, "AUTO,STRICT")
