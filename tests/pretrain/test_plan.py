"""The plan against what then happens: counted FLOPs, tensors really kept, optimizer state really made, a real probe."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from pellucid.config import PRESETS, FitConfig, ModelConfig
from pellucid.model.gpt import GPT
from pellucid.options import Plan
from pellucid.pretrain import plan
from pellucid.pretrain.loss import Loss, token_loss
from pellucid.pretrain.optim import make_optimizers
from pellucid.pretrain.step import precision, train_step
from pellucid.runtime import ConfigError

SHAPE = ModelConfig(vocab_size=300, context_length=32, d_model=48, n_layers=3, n_heads=4)
dtypes = pytest.mark.parametrize("dtype", ["float32", "bfloat16"])


def config(dtype: str = "float32", optimizer: str = "muon") -> FitConfig:
    return FitConfig(steps=5, batch_size=4, micro_batch_size=2, dtype=dtype, optimizer=optimizer)  # type: ignore[arg-type]


def test_flops_are_those_that_pytorch_counts() -> None:
    ids = torch.zeros(2, 16, dtype=torch.long)
    model = GPT(SHAPE).train()
    with FlopCounterMode(display=False) as counter:
        model(ids).sum().backward()
    seen_in_vain = 12 * SHAPE.n_layers * SHAPE.d_model * 8  # the plain products look at the masked half too
    assert counter.get_total_flops() == ids.numel() * (plan.flops_per_token(SHAPE, 16) + seen_in_vain)


@dtypes
def test_activations_are_what_autograd_really_keeps(dtype: str) -> None:
    model, kept = GPT(SHAPE).train(), {}
    ids = torch.zeros(2, 32, dtype=torch.long)

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t), precision(model, config(dtype)):
        loss = token_loss(model, ids, ids)  # while this lives, so do they
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    real = sum(size for place, size in kept.items() if place not in own)
    assert loss.count
    assert plan.memory(SHAPE, config(dtype), 32).activations == pytest.approx(real, rel=0.02)


def test_a_batch_that_a_cpu_reads_in_parts_is_planned_in_parts() -> None:
    whole, parts = (FitConfig(steps=1, batch_size=16, micro_batch_size=rows, dtype="bfloat16") for rows in (16, 0))
    sizes = [plan.memory(PRESETS["gpt2"], each, 512).activations for each in (whole, parts)]
    assert sizes[1] < sizes[0] / 2


@pytest.mark.parametrize("optimizer", ["muon", "adamw", "adafactor"])
def test_the_optimizers_memory_is_what_it_holds_after_a_step(optimizer: str) -> None:
    settings = config(optimizer=optimizer)
    model = GPT(SHAPE)
    optimizers = make_optimizers(model, settings)
    train_step(model, plan.RandomText(settings, 300, 32), optimizers, settings, 0, 0.5)
    state = [value for each in optimizers for one in each.state.values() for value in one.values()]
    real = sum(value.numel() * value.element_size() for value in state if isinstance(value, torch.Tensor))
    assert plan.memory(SHAPE, settings, 32).optimizer == pytest.approx(real, rel=0.01)


def test_a_model_too_large_for_this_machine_is_planned_in_seconds_without_making_it() -> None:
    result, text = plan.plan(Plan(model="gpt2-xl", batch_size=8, probe=False))
    assert result["parameters"]["all"] == 1_557_611_200
    assert result["memory"]["weights"] == 4 * 1_557_611_200
    assert "run" not in result
    assert "1,557,611,200" in text
    assert result["step"]["tokens"] == 8 * 1024 and "8 windows" in text and "peak learning rate" in text


def test_a_step_that_does_not_fit_is_refused_before_the_probe() -> None:
    with pytest.raises(ConfigError, match="Lower --batch-size"):
        plan.plan(Plan(model="gpt2-xl", batch_size=64))


def test_the_probe_computes_blocks_again_where_the_run_will(monkeypatch: pytest.MonkeyPatch) -> None:
    met: list[bool] = []

    def watched(model: GPT, *more: object) -> Loss:
        met.append(model.recompute)
        return token_loss(model, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(plan, "token_loss", watched)
    monkeypatch.setattr(plan, "PROBE_SECONDS", 0.0)
    plan._probe(SHAPE, replace(config(), recompute=True), 16)
    assert all(met) and len(met) > 3


@pytest.mark.slow
def test_the_probe_trains_and_the_time_follows(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "tiny.toml"
    file.write_text("d_model = 48\nn_layers = 2\nn_heads = 4\ncontext_length = 32\n")
    result, text = plan.plan(Plan(model=str(file), vocab_size=300, batch_size=4, steps=1000, dtype="float32"))
    run = result["run"]
    assert run["tokens"] == 1000 * 4 * 32
    assert run["minutes"] * 60 > 1000 * run["step_s"] > 0
    assert run["peak_memory"] > result["memory"]["training"]
    assert f"{run['tokens_per_s']:,.0f} tokens/s" in text


def test_by_the_clock_evaluations_are_planned_as_the_run_will_have_them() -> None:
    found = {"dtype": "float32", "step_s": 0.5, "evaluation_s": 60.0, "peak_memory": 0}  # ten take twice the time
    run = plan.with_time(found, FitConfig(minutes=5), context=16, flops=1, shards=None)["run"]
    assert (run["steps"], run["minutes"]) == (420, pytest.approx(5))
    run = plan.with_time(found, FitConfig(steps=60), context=16, flops=1, shards=None)["run"]
    assert (run["steps"], run["minutes"]) == (60, pytest.approx(10.5))


def test_recomputing_keeps_what_goes_into_each_block_and_the_whole_of_one() -> None:
    shape = replace(SHAPE, n_layers=8)
    plain, again = (plan.memory(shape, replace(config(), recompute=on), 32) for on in (False, True))
    assert again.weights == plain.weights
    inputs = 4 * 2 * 32 * shape.d_model * shape.n_layers
    assert plain.activations / 8 + inputs < again.activations < 0.4 * plain.activations
