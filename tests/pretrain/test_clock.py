"""Runs by the clock, and what is timed before they begin."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import pellucid.pretrain.fit as loop
from pellucid.compute import most_threads
from pellucid.config import FitConfig, ModelConfig
from pellucid.model.gpt import GPT
from pellucid.model.precision import fastest_precision
from pellucid.pretrain import speed as speed_module
from pellucid.pretrain.fit import fit
from pellucid.pretrain.language import LanguageModelling
from pellucid.pretrain.metrics import read_lines
from pellucid.pretrain.speed import measure_speed, settle_precision
from pellucid.text.shards import Shards

CONTEXT = 16


def fresh(shape: ModelConfig) -> GPT:
    torch.manual_seed(11)
    return GPT(shape)


def test_measuring_the_speed_changes_neither_the_model_nor_the_random_numbers(
    shards: Shards, shape: ModelConfig
) -> None:
    config = FitConfig(steps=3, batch_size=4)
    model, twin = fresh(shape), fresh(shape)
    state = torch.get_rng_state()
    speed = measure_speed(model, LanguageModelling(shards, config, CONTEXT), config)
    assert torch.equal(state, torch.get_rng_state())
    for one, other in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(one, other)
    assert speed.dtype == min(speed.tried, key=lambda name: speed.tried[name])
    assert all(parameter.grad is None for parameter in model.parameters())


def test_where_a_step_in_bfloat16_is_long_already_float32_is_not_waited_for(
    shards: Shards, shape: ModelConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speed_module, "worth_trying", lambda model: speed_module.DTYPES)
    config, model = FitConfig(steps=3, batch_size=4), fresh(shape)
    task = LanguageModelling(shards, config, CONTEXT)
    assert set(measure_speed(model, task, config).tried) == {"bfloat16", "float32"}
    monkeypatch.setattr(speed_module, "LONG", 0.0)
    settled, tried = settle_precision(model, task, config, tmp_path, resume=False)
    assert (settled.dtype, set(tried)) == ("bfloat16", {"bfloat16"})


class Untried(LanguageModelling):
    """A task whose examples nobody may ask for."""

    def batches(self, step: int) -> Any:
        raise AssertionError("a step was tried")


def test_without_bfloat16_in_the_processor_no_step_is_tried_in_it(
    shards: Shards, shape: ModelConfig, tmp_path: Path
) -> None:
    if fastest_precision() == torch.bfloat16:
        pytest.skip("this processor multiplies bfloat16 faster")
    config = FitConfig(steps=3, batch_size=4)
    settled = settle_precision(fresh(shape), Untried(shards, config, CONTEXT), config, tmp_path, resume=False)
    assert settled == (replace(config, dtype="float32"), {})


def test_minutes_instead_of_steps_end_in_about_that_time(shards: Shards, shape: ModelConfig, tmp_path: Path) -> None:
    config = FitConfig(minutes=0.02, batch_size=4, dtype="float32")
    progress = fit(fresh(shape), LanguageModelling(shards, config, CONTEXT), config, tmp_path)
    assert 1.2 <= progress.seconds < 3
    last = [line for line in read_lines(tmp_path / "metrics.jsonl") if line["split"] == "val"][-1]
    assert last["step"] == progress.step


class Crowding(LanguageModelling):
    """Somebody changes the number of threads in the first step."""

    def batches(self, step: int) -> Any:
        if step == 0:
            torch.set_num_threads(most_threads() + 5)
        return super().batches(step)


def test_a_run_by_the_clock_looks_again_how_many_threads_are_best(
    shards: Shards, shape: ModelConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "SETTLED", 0.1)
    usual, most = torch.get_num_threads(), most_threads()
    try:
        config = FitConfig(minutes=0.02, batch_size=4, dtype="float32")
        fit(fresh(shape), Crowding(shards, config, CONTEXT), config, tmp_path)
        assert torch.get_num_threads() in (1, most)
    finally:
        torch.set_num_threads(usual)


class Slow(LanguageModelling):
    """Held-out text takes as long to read as a fifth of the run."""

    def evaluate(self, model: GPT) -> dict[str, float]:
        time.sleep(0.4)
        return super().evaluate(model)


def test_evaluations_that_take_long_do_not_take_the_time_of_training(
    shards: Shards, shape: ModelConfig, tmp_path: Path
) -> None:
    config = FitConfig(minutes=0.03, batch_size=4, dtype="float32", evaluate_share=0.05)
    progress = fit(fresh(shape), Slow(shards, config, CONTEXT), config, tmp_path)
    steps = [line["step"] for line in read_lines(tmp_path / "metrics.jsonl") if line["split"] == "val"]
    assert len(steps) == 2 and steps[-1] == progress.step
