"""The training loop: equal to a plain one, and stopped anywhere it ends with the same bits."""

from __future__ import annotations

import json
import math
import os
import resource
import signal
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from pellucid import compute
from pellucid.config import FitConfig, ModelConfig
from pellucid.model.gpt import GPT
from pellucid.pretrain.checkpoint import Saver, State, newest_checkpoint, snapshot
from pellucid.pretrain.commands import train_language_model
from pellucid.pretrain.fit import fit
from pellucid.pretrain.language import LanguageModelling
from pellucid.pretrain.metrics import read_lines
from pellucid.pretrain.optim import make_optimizers, rate_scale
from pellucid.pretrain.step import train_step
from pellucid.runtime import DataError, PellucidError
from pellucid.text.shards import Shards

CONTEXT = 16


def fresh(shape: ModelConfig) -> GPT:
    torch.manual_seed(11)
    return GPT(shape)


class Stopping(LanguageModelling):
    """The same task, but somebody pulls the plug before a step."""

    stop_before = -1

    def batches(self, step: int) -> Sequence[Any]:
        if step == self.stop_before:
            raise ConnectionError("pulled")
        return super().batches(step)


class Signalled(LanguageModelling):
    """The same task, but somebody presses Ctrl-C while the last step is being made."""

    def batches(self, step: int) -> Sequence[Any]:
        if step == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return super().batches(step)


def train(
    shards: Shards, shape: ModelConfig, config: FitConfig, out: Path, resume: bool = False, stop: int = -1
) -> GPT:
    model, task = fresh(shape), Stopping(shards, config, CONTEXT)
    task.stop_before = stop
    if stop >= 0:
        with pytest.raises(ConnectionError):
            fit(model, task, config, out, resume)
    else:
        fit(model, task, config, out, resume)
    return model


def assert_same_bits(model: GPT, other: GPT) -> None:
    for (name, ours), theirs in zip(model.state_dict().items(), other.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs), name


def without_times(path: Path) -> list[dict[str, Any]]:
    return [{k: v for k, v in line.items() if k not in ("seconds", "tokens_per_s")} for line in read_lines(path)]


# ---------------------------------------------------------------- the steps themselves


def test_twenty_steps_of_adamw_have_the_losses_of_a_plain_loop_over_transformers_model(
    shards: Shards, shape: ModelConfig, tmp_path: Path
) -> None:
    config = FitConfig(steps=20, batch_size=8, micro_batch_size=3, optimizer="adamw", dtype="float32", seed=1)
    shape = replace(shape, dropout=0.0)
    model, task = fresh(shape), LanguageModelling(shards, config, CONTEXT)
    model.save(tmp_path / "start")
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "start").train()
    fit(model, task, config, tmp_path / "run")
    ours = [line for line in read_lines(tmp_path / "run" / "metrics.jsonl") if line["split"] == "train"]

    matrices = [p for p in theirs.parameters() if p.dim() == 2]
    vectors = [p for p in theirs.parameters() if p.dim() == 1]
    groups = [
        {"params": matrices, "weight_decay": config.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    betas = make_optimizers(model, config)[0].defaults["betas"]
    optimizer = torch.optim.AdamW(groups, lr=config.lr, betas=betas)
    for step in range(20):
        ids = torch.cat([torch.cat([b.inputs, b.targets[:, -1:]], dim=1) for b in task.batches(step)])
        logits = theirs(ids[:, :-1]).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(theirs.parameters(), config.clip)
        for group in optimizer.param_groups:
            group["lr"] = config.lr * rate_scale(step / 20, config)
        optimizer.step()
        assert math.isclose(ours[step]["loss"], loss.item(), rel_tol=1e-5), step
        assert math.isclose(ours[step]["grad_norm"], float(norm), rel_tol=1e-3), step


@pytest.mark.parametrize("optimizer", ["muon", "adamw", "adafactor"])
def test_micro_batches_train_the_same_model_as_the_whole_batch(
    shards: Shards, shape: ModelConfig, tmp_path: Path, optimizer: Any
) -> None:
    config = FitConfig(steps=4, batch_size=8, optimizer=optimizer, dtype="float32")
    shape = replace(shape, dropout=0.0)
    whole = train(shards, shape, config, tmp_path / "whole")
    parts = train(shards, shape, replace(config, micro_batch_size=3), tmp_path / "parts")
    start = torch.cat([parameter.flatten() for parameter in fresh(shape).parameters()])
    one, other = (torch.cat([parameter.flatten() for parameter in m.parameters()]) for m in (parts, whole))
    assert (one - other).norm() < 0.03 * (other - start).norm()  # Muon computes in bfloat16, so not to the last digit
    for ours, expected in zip(
        *(read_lines(tmp_path / name / "metrics.jsonl") for name in ("parts", "whole")), strict=True
    ):
        exact = ours["step"] == 1 or optimizer == "adamw"
        assert math.isclose(ours["loss"], expected["loss"], rel_tol=1e-6 if exact else 1e-3)
        assert ours["tokens"] == expected["tokens"]


def test_the_model_learns_what_is_to_be_learnt(shards: Shards, shape: ModelConfig, tmp_path: Path) -> None:
    train(shards, shape, FitConfig(steps=60, batch_size=8, dtype="float32"), tmp_path)
    losses = [line["loss"] for line in read_lines(tmp_path / "metrics.jsonl") if line["split"] == "train"]
    assert losses[0] > 5
    assert losses[-1] < 0.6 * losses[0]


@pytest.mark.parametrize("large", [0, 1 << 40])
def test_before_a_large_model_trains_onednn_is_told_to_keep_few_programs(
    large: int, shards: Shards, shape: ModelConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "")  # so that what is set here ends with the test
    del os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"]
    monkeypatch.setattr(compute, "LARGE", large)
    config = FitConfig(steps=1, batch_size=2, dtype="float32")
    fit(fresh(shape), LanguageModelling(shards, config, CONTEXT), config, tmp_path)
    assert os.environ.get("ONEDNN_PRIMITIVE_CACHE_CAPACITY") == (None if large else compute.FEW_PROGRAMS)


def test_the_rate_rises_stays_and_falls_in_a_straight_line_to_zero() -> None:
    config = FitConfig(steps=100, warmup_share=0.1, decay_share=0.5)
    scales = [rate_scale(step / 100, config) for step in range(101)]
    assert 0 < scales[0] < 0.02
    assert all(np.diff(scales[:11]) > 0)
    assert scales[11:50] == [1.0] * 39
    np.testing.assert_allclose(np.diff(scales[50:]), -0.02, atol=1e-9)
    assert scales[100] == 0


class Nothing:
    """A task in which some batches have no trained token."""

    name = "nothing"

    def __init__(self, counts: list[int]) -> None:
        self.counts = counts

    def batches(self, step: int) -> list[Any]:
        return [type("Batch", (), {"tokens": 1, "count": count}) for count in self.counts]

    def loss(self, model: torch.nn.Module, batch: Any) -> Any:
        from pellucid.pretrain.loss import Loss

        total = sum(parameter.sum() for parameter in model.parameters())
        return Loss(total * batch.count, batch.count)

    def evaluate(self, model: Any) -> dict[str, float]:
        return {"loss": 0.0}

    def sample(self, model: Any) -> str:
        return ""


@pytest.mark.parametrize(("counts", "moves"), [([0], False), ([0, 0], False), ([0, 3], True)])
def test_a_batch_without_a_trained_token_moves_nothing_and_is_no_nan(counts: list[int], moves: bool) -> None:
    model = torch.nn.Linear(3, 3)
    before = model.weight.detach().clone()
    config = FitConfig(steps=2, optimizer="adamw", dtype="float32", weight_decay=0.1)
    record = train_step(model, Nothing(counts), make_optimizers(model, config), config, 0, 0.5)  # type: ignore[arg-type]
    assert math.isfinite(record["loss"])
    assert torch.equal(model.weight, before) is not moves
    assert torch.isfinite(model.weight).all()


def test_steps_without_a_trained_token_are_counted_and_have_no_loss(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fit(torch.nn.Linear(3, 3), Nothing([0]), FitConfig(steps=2, dtype="float32"), tmp_path)  # type: ignore[arg-type]
    assert "2 steps had no trained token and were skipped" in capsys.readouterr().err
    assert [line["loss"] for line in read_lines(tmp_path / "metrics.jsonl") if line["split"] == "train"] == [None, None]


def test_a_loss_that_is_no_number_stops_and_names_the_step(shards: Shards, shape: ModelConfig, tmp_path: Path) -> None:
    config = FitConfig(steps=3, batch_size=4, dtype="float32")
    model = fresh(shape)
    with torch.no_grad():
        model.final_norm.weight[0] = math.nan
    with pytest.raises(PellucidError, match="the loss is nan at step 1"):
        fit(model, LanguageModelling(shards, config, CONTEXT), config, tmp_path)


def test_the_same_seed_gives_the_same_weights_whatever_was_drawn_before_and_another_seed_others(
    shards: Shards, shape: ModelConfig, config: FitConfig, tmp_path: Path
) -> None:
    def weights(out: str, seed: int) -> bytes:
        torch.manual_seed(len(list(tmp_path.iterdir())))
        train_language_model(shards, shape, replace(config, steps=2, seed=seed), CONTEXT, tmp_path / out, False)
        return (tmp_path / out / "model.safetensors").read_bytes()

    assert weights("one", 5) == weights("again", 5) != weights("other", 6)


# ---------------------------------------------------------------- stopped and gone on


def test_stopped_in_its_last_step_it_says_so_and_has_nothing_left_to_do_when_it_goes_on(
    shards: Shards, shape: ModelConfig, tmp_path: Path
) -> None:
    config = FitConfig(steps=3, batch_size=2, dtype="float32", average=0.5)
    with pytest.raises(KeyboardInterrupt):
        fit(fresh(shape), Signalled(shards, config, CONTEXT), config, tmp_path / "stopped")
    whole = train(shards, shape, config, tmp_path / "whole")
    gone_on = train(shards, shape, config, tmp_path / "stopped", resume=True, stop=-1)
    assert_same_bits(gone_on, whole)
    assert without_times(tmp_path / "stopped/metrics.jsonl") == without_times(tmp_path / "whole/metrics.jsonl")


@pytest.mark.parametrize("stop", [0, 1, 4, 6, 9, 11])
@pytest.mark.parametrize("optimizer", ["muon", "adamw", "adafactor"])
def test_stopped_before_any_step_and_gone_on_it_ends_with_the_same_bits_and_metrics(
    shards: Shards, shape: ModelConfig, config: FitConfig, tmp_path: Path, stop: int, optimizer: Any
) -> None:
    config = replace(config, optimizer=optimizer)
    whole = train(shards, shape, config, tmp_path / "whole")
    train(shards, shape, config, tmp_path / "stopped", stop=stop)
    gone_on = train(shards, shape, config, tmp_path / "stopped", resume=True)
    assert_same_bits(gone_on, whole)
    for name in ("metrics.jsonl", "samples.jsonl"):
        assert without_times(tmp_path / "stopped" / name) == without_times(tmp_path / "whole" / name)


def test_a_damaged_checkpoint_is_named_and_the_one_before_it_is_used(
    shards: Shards, shape: ModelConfig, config: FitConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = train(shards, shape, config, tmp_path / "whole")
    train(shards, shape, config, tmp_path / "stopped", stop=10)
    newest = tmp_path / "stopped" / "training" / "step-00000008"
    content = bytearray((newest / "model.safetensors").read_bytes())
    content[-5] ^= 1
    (newest / "model.safetensors").write_bytes(content)
    gone_on = train(shards, shape, config, tmp_path / "stopped", resume=True)
    assert f"{newest}: a damaged checkpoint; the one before it is used" in capsys.readouterr().err
    assert_same_bits(gone_on, whole)


@pytest.mark.parametrize("spoil", ["state.json", "optimizer.safetensors"])
def test_with_every_checkpoint_damaged_it_begins_again_and_keeps_the_new_ones(
    shards: Shards, shape: ModelConfig, config: FitConfig, tmp_path: Path, spoil: str
) -> None:
    whole = train(shards, shape, config, tmp_path / "whole")
    train(shards, shape, config, tmp_path / "stopped", stop=10)
    for folder in (tmp_path / "stopped" / "training").glob("step-*"):
        (folder / spoil).unlink()
    train(shards, shape, config, tmp_path / "stopped", resume=True, stop=6)
    names = {folder.name for folder in (tmp_path / "stopped" / "training").iterdir()}
    assert names == {"step-00000004", "lock"}
    assert_same_bits(train(shards, shape, config, tmp_path / "stopped", resume=True), whole)


@pytest.mark.parametrize(
    "change", [{"lr": 1e-4}, {"seed": 6}, {"batch_size": 4}, {"optimizer": "adamw"}, {"steps": 13}]
)
def test_other_settings_than_at_the_start_are_refused_by_name(
    shards: Shards, shape: ModelConfig, config: FitConfig, tmp_path: Path, change: dict[str, Any]
) -> None:
    train(shards, shape, config, tmp_path, stop=6)
    name, value = next(iter(change.items()))
    with pytest.raises(DataError, match=rf"started with {name} = .*, now it is {value!r}"):
        train(shards, shape, replace(config, **change), tmp_path, resume=True)


def test_another_model_than_at_the_start_is_refused(
    shards: Shards, shape: ModelConfig, config: FitConfig, tmp_path: Path
) -> None:
    train(shards, shape, config, tmp_path, stop=6)
    with pytest.raises(DataError, match="weights of a model of another shape"):
        train(shards, replace(shape, n_layers=3), config, tmp_path, resume=True)


@pytest.mark.parametrize("change", [{"checkpoint_every": 5}, {"micro_batch_size": 1}, {"recompute": True}])
def test_how_often_checkpoints_are_written_and_how_much_is_read_at_once_may_change_between_sittings(
    shards: Shards, shape: ModelConfig, config: FitConfig, tmp_path: Path, change: dict[str, Any]
) -> None:
    train(shards, shape, config, tmp_path, stop=6)
    train(shards, shape, replace(config, **change), tmp_path, resume=True)


def test_the_precision_chosen_at_the_start_is_kept_when_it_goes_on(
    shards: Shards, shape: ModelConfig, config: FitConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(shards, shape, replace(config, dtype="bfloat16"), tmp_path, stop=6)
    train(shards, shape, replace(config, dtype="auto"), tmp_path, resume=True)  # whatever would be faster now
    state = json.loads((tmp_path / "training" / "step-00000012" / "state.json").read_text())
    assert state["settings"]["dtype"] == "bfloat16"


def test_a_run_that_is_there_is_not_overwritten_by_a_new_one(
    shards: Shards, shape: ModelConfig, config: FitConfig, tmp_path: Path
) -> None:
    train(shards, shape, config, tmp_path, stop=6)
    before = (tmp_path / "metrics.jsonl").read_bytes()
    with pytest.raises(DataError, match=r"holds a run already.*--resume"):
        train(shards, shape, config, tmp_path)
    assert (tmp_path / "metrics.jsonl").read_bytes() == before


def test_a_finished_run_gone_on_with_does_nothing_and_has_the_same_weights(
    shards: Shards, shape: ModelConfig, config: FitConfig, tmp_path: Path
) -> None:
    whole = train(shards, shape, config, tmp_path)
    before = (tmp_path / "metrics.jsonl").read_bytes()
    assert_same_bits(train(shards, shape, config, tmp_path, resume=True), whole)
    assert (tmp_path / "metrics.jsonl").read_bytes() == before


def test_two_checkpoints_are_kept_and_what_a_crash_left_half_written_is_removed(
    shards: Shards, shape: ModelConfig, config: FitConfig, tmp_path: Path
) -> None:
    half = tmp_path / "training" / ".step-00000004.abc"
    half.mkdir(parents=True)
    train(shards, shape, config, tmp_path, resume=True)
    names = {path.name for path in (tmp_path / "training").iterdir()}
    assert names == {"step-00000008", "step-00000012", "lock"}


def test_a_disk_that_fills_up_costs_the_checkpoint_and_not_the_run(
    shards: Shards, shape: ModelConfig, config: FitConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = train(shards, shape, config, tmp_path / "whole")
    train(shards, shape, config, tmp_path / "run", stop=6)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(
        resource.RLIMIT_FSIZE, (10_000, before[1])
    )  # bytes of a file: enough for metrics, not for weights
    try:
        assert_same_bits(train(shards, shape, config, tmp_path / "run", resume=True), whole)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "no checkpoint was saved, the one before it stays" in capsys.readouterr().err
    names = {path.name for path in (tmp_path / "run" / "training").iterdir()}
    assert names == {"step-00000004", "lock"}


def test_a_last_line_that_a_crash_cut_short_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "m.jsonl").write_text('{"step": 1}\n{"step": 2, "lo')
    assert read_lines(tmp_path / "m.jsonl") == [{"step": 1}]


def test_speed_counts_training_only(
    shards: Shards, shape: ModelConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:

    def slow(self: Any, model: Any) -> dict[str, float]:
        time.sleep(1)
        return {"loss": 1.0}

    monkeypatch.setattr(LanguageModelling, "evaluate", slow)
    train(shards, shape, FitConfig(steps=4, batch_size=8, dtype="float32", evaluate_share=0.25), tmp_path)
    speeds = [line["tokens_per_s"] for line in read_lines(tmp_path / "metrics.jsonl") if line["split"] == "train"]
    # An evaluation follows each step: were it counted, every step would be slower. One may be, on a busy machine.
    assert sorted(speeds)[len(speeds) // 2] > 8 * CONTEXT


def test_the_last_checkpoint_takes_no_copy_and_is_there_at_once(tmp_path: Path) -> None:
    state = State(torch.nn.Linear(3, 3), [], {})
    weight = state.model.weight
    assert snapshot(state, copy=False).weights["weight"].data_ptr() == weight.data_ptr()
    assert snapshot(state).weights["weight"].data_ptr() != weight.data_ptr()
    Saver(tmp_path, keep=1).save(state, last=True)
    assert newest_checkpoint(tmp_path)
