"""The rule from a budget to a batch, rates and a schedule; and what else the command line turns on."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from pellucid.config import PRESETS, FitConfig, ModelConfig
from pellucid.model.gpt import GPT
from pellucid.options import Training
from pellucid.pretrain.fit import fit
from pellucid.pretrain.language import LanguageModelling
from pellucid.pretrain.metrics import read_lines
from pellucid.pretrain.recipe import batch_of, fit_config, flops_per_token
from pellucid.runtime import ConfigError
from pellucid.text.shards import Shards


def test_the_rule_meets_the_two_recipes_that_it_joins() -> None:
    assert batch_of(3e6, 128) * 128 == 1024  # the quickstart's
    assert batch_of(10e9, 1024) * 1024 == 524_288  # GPT-2's
    small = fit_config(Training(model="laptop", tokens=3_000_000), PRESETS["laptop"], 128)
    large = fit_config(Training(model="gpt2", tokens=10**10), PRESETS["gpt2"], 1024)
    assert (small.lr, small.steps) == (5e-3, math.ceil(3e6 / 1024))
    assert large.lr == pytest.approx(6.25e-4)
    assert large.steps == math.ceil(1e10 / 524_288)


def test_more_tokens_or_minutes_never_ask_for_a_smaller_batch_and_processes_divide_it() -> None:
    sizes = [batch_of(10**power, 256) for power in range(12)]
    assert sizes == sorted(sizes) and sizes[0] == 1
    assert all(batch_of(10**power, 256, processes=6) % 6 == 0 for power in range(12))
    shape = PRESETS["laptop"]
    batches = [fit_config(Training(minutes=m), shape, 256).batch_size for m in (0.1, 1, 10, 100, 1000)]
    assert batches == sorted(batches)
    assert fit_config(Training(minutes=5), shape, 256).minutes == 5


def test_what_is_given_wins_over_the_rule() -> None:
    given = fit_config(Training(tokens=5000, batch_size=4, lr=1e-3, schedule="cosine"), PRESETS["laptop"], 100)
    assert (given.batch_size, given.lr, given.schedule, given.steps) == (4, 1e-3, "cosine", 13)
    assert given.matrix_lr == pytest.approx(0.006)
    assert fit_config(Training(steps=7, tokens=10**9), PRESETS["laptop"], 256).steps == 7
    with pytest.raises(ConfigError, match="--tokens"):
        fit_config(Training(tokens=-1), PRESETS["laptop"], 256)
    for minutes in (math.inf, math.nan, -1.0):
        with pytest.raises(ConfigError, match="--minutes"):
            fit_config(Training(minutes=minutes), PRESETS["laptop"], 256)
    with pytest.raises(ConfigError, match="--evaluations"):
        fit_config(Training(evaluations=0), PRESETS["laptop"], 256)


@pytest.mark.parametrize(
    ("more", "found"),
    [
        ({"optimizer": "adafactor"}, "shard with adafactor; expected shard with muon or adamw"),
        ({"average": 0.9}, "shard with average, best or early_stop"),
        ({"best": True}, "shard with average, best or early_stop"),
        ({"early_stop": 2}, "shard with average, best or early_stop"),
    ],
)
def test_what_slices_of_weights_do_not_have_is_refused(more: dict[str, Any], found: str) -> None:
    with pytest.raises(ConfigError, match=found):
        fit_config(Training(steps=3, shard=True, **more), PRESETS["laptop"], 256)
    fit_config(Training(steps=3, **more), PRESETS["laptop"], 256)
    fit_config(Training(steps=3, shard=True), PRESETS["laptop"], 256)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (
            {"steps": 600_000, "batch_size": 3},
            "3,072 tokens a step, where the rule for 1,843,200,000 tokens has 131,072",
        ),
        ({"tokens": 10**10, "batch_size": 64}, "65,536 tokens a step"),
        ({"tokens": 10**10, "batch_size": 512}, ""),
        ({"tokens": 10**10}, ""),
        ({"steps": 60, "batch_size": 8}, ""),
        ({"minutes": 1.0, "batch_size": 8}, ""),
    ],
)
def test_a_batch_far_below_the_rule_is_said(
    asked: dict[str, Any], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    fit_config(Training(**asked), PRESETS["gpt2"], 1024)
    found = capsys.readouterr().err
    assert said in found and bool(said) == bool(found)


def test_a_llama_with_an_output_layer_counts_it() -> None:
    tied, own = (ModelConfig("llama", 1000, 64, 32, 2, 2, tied=tied) for tied in (True, False))
    assert flops_per_token(tied, 64) == flops_per_token(own, 64)


# ---------------------------------------------------------------- averages, the best, and the end


def trained(shards: Shards, shape: ModelConfig, out: Path, **settings: Any) -> tuple[GPT, LanguageModelling]:
    torch.manual_seed(11)
    config = FitConfig(**{"steps": 12, "batch_size": 8, "dtype": "float32", "evaluate_share": 0.25, **settings})
    model, task = GPT(shape), LanguageModelling(shards, config, shape.context_length)
    fit(model, task, config, out)
    return model.eval(), task


def scores_of(out: Path) -> list[float]:
    return [line["loss"] for line in read_lines(out / "metrics.jsonl") if line["split"] == "val"]


def test_the_average_is_what_is_evaluated_and_what_is_left_at_the_end(
    shards: Shards, shape: ModelConfig, tmp_path: Path
) -> None:
    plain, _ = trained(shards, shape, tmp_path / "plain")
    model, task = trained(shards, shape, tmp_path / "average", average=0.9)
    assert task.evaluate(model)["loss"] == pytest.approx(scores_of(tmp_path / "average")[-1], rel=1e-6)
    assert not torch.equal(plain.token_embedding.weight, model.token_embedding.weight)


def test_an_average_follows_by_its_formula() -> None:
    from pellucid.pretrain.averages import copied_weights, move_average, with_weights

    model = torch.nn.Linear(2, 1)
    average, expected = copied_weights(model), model.weight.detach().clone()
    for step in range(20):
        torch.nn.init.constant_(model.weight, float(step))
        keep = min(0.8, (1 + step) / (10 + step))
        expected = keep * expected + (1 - keep) * step
        move_average(average, model, 0.8, step)
    torch.testing.assert_close(average["weight"], expected)
    with with_weights(model, average):
        torch.testing.assert_close(model.weight.data, expected)
    assert torch.equal(model.weight.data, torch.full((1, 2), 19.0))


def test_of_what_is_frozen_nothing_is_copied_averaged_or_put_back() -> None:
    from pellucid.pretrain.averages import copied_weights, move_average, put_weights

    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 1))
    model[0].requires_grad_(False)
    model.register_buffer("numbers", torch.ones(3, dtype=torch.int8))
    copy = copied_weights(model)
    assert copy.keys() == {"1.weight", "1.bias"}
    before = copy["1.weight"].clone()
    torch.nn.init.zeros_(model[0].weight)
    torch.nn.init.zeros_(model[1].weight)
    move_average(copy, model, 0.5, step=100)
    put_weights(model, copy)
    torch.testing.assert_close(model[1].weight.data, before / 2)
    assert not model[0].weight.any()


class Worsening(LanguageModelling):
    """A task whose scores get worse from the second evaluation on."""

    seen = 0

    def evaluate(self, model: GPT) -> dict[str, float]:
        self.seen += 1
        return {"loss": float(abs(self.seen - 2))}


@pytest.mark.parametrize(("early_stop", "steps"), [(2, 8), (0, 12)])
def test_a_run_ends_early_where_nothing_gets_better_and_with_the_best_weights(
    shards: Shards, shape: ModelConfig, tmp_path: Path, early_stop: int, steps: int
) -> None:
    config = FitConfig(steps=12, batch_size=8, dtype="float32", evaluate_share=1 / 6, early_stop=early_stop, best=True)
    torch.manual_seed(11)
    model = GPT(shape)
    progress = fit(model, Worsening(shards, config, shape.context_length), config, tmp_path / "run")
    assert (progress.step, progress.best) == (steps, 0.0)
    torch.manual_seed(11)
    kept = GPT(shape)
    with pytest.raises(KeyError):
        fit(kept, Pulled(shards, config, shape.context_length), config, tmp_path / "four")
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), kept.parameters(), strict=True))


class Pulled(Worsening):
    """The plug is pulled before the fifth step: the weights are those of the second evaluation."""

    def batches(self, step: int) -> Any:
        if step == 4:
            raise KeyError("pulled")
        return super().batches(step)


@pytest.mark.parametrize("settings", [{"average": 0.9}, {"best": True}, {"early_stop": 5, "keep": 3}])
def test_with_averages_and_the_best_a_run_that_was_stopped_ends_with_the_same_bits(
    shards: Shards, shape: ModelConfig, tmp_path: Path, settings: dict[str, Any]
) -> None:
    config = FitConfig(steps=12, batch_size=8, dtype="float32", evaluate_share=0.25, checkpoint_every=2, **settings)
    whole, _ = trained(shards, shape, tmp_path / "whole", **settings)
    torch.manual_seed(11)
    with pytest.raises(KeyError):
        fit(GPT(shape), Stopped(shards, config, shape.context_length), config, tmp_path / "run")
    torch.manual_seed(11)
    model = GPT(shape)
    fit(model, LanguageModelling(shards, config, shape.context_length), config, tmp_path / "run", resume=True)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), whole.parameters(), strict=True))
    assert len(list((tmp_path / "run" / "training").glob("step-*"))) == settings.get("keep", 2)


class Stopped(LanguageModelling):
    """The plug is pulled before the eighth step."""

    def batches(self, step: int) -> Any:
        if step == 7:
            raise KeyError("pulled")
        return super().batches(step)


# ---------------------------------------------------------------- prompts and mirrors


def test_prompts_are_continued_at_each_evaluation(shards: Shards, shape: ModelConfig, tmp_path: Path) -> None:
    config = FitConfig(steps=4, batch_size=8, dtype="float32", evaluate_share=0.5)
    task = LanguageModelling(shards, config, shape.context_length, prompts=("Anna has", "Where is"))
    fit(GPT(shape), task, config, tmp_path)
    lines = read_lines(tmp_path / "samples.jsonl")
    for step in (2, 4):
        texts = [line["text"] for line in lines if line["step"] == step]
        assert any(text.startswith("Anna has") for text in texts)
        assert any(text.startswith("Where is") for text in texts)


def test_tensorboard_shows_what_metrics_say(shards: Shards, shape: ModelConfig, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = FitConfig(steps=6, batch_size=8, dtype="float32", evaluate_share=0.5, log=("tensorboard",))
    fit(GPT(shape), LanguageModelling(shards, config, shape.context_length), config, tmp_path)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    lines = read_lines(tmp_path / "metrics.jsonl")
    for split in ("train", "val"):
        wanted = [(line["step"], line["loss"]) for line in lines if line["split"] == split]
        got = [(event.step, event.value) for event in events.Scalars(f"{split}/loss")]
        assert [step for step, _ in got] == [step for step, _ in wanted]
        assert [value for _, value in got] == pytest.approx([loss for _, loss in wanted], rel=1e-6)


def test_wandb_keeps_an_offline_run(
    shards: Shards, shape: ModelConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    config = FitConfig(steps=2, batch_size=8, dtype="float32", log=("wandb",))
    fit(GPT(shape), LanguageModelling(shards, config, shape.context_length), config, tmp_path)
    assert list(tmp_path.glob("wandb/offline-run-*/*.wandb"))


def test_a_mirror_that_is_not_installed_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import sys

    from pellucid.pretrain.loggers import open_mirrors
    from pellucid.runtime import PellucidError

    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(PellucidError, match=r"no package wandb.*pip install 'pellucid\[log\]'"):
        open_mirrors(["wandb"], tmp_path, 0, {})


def test_the_verb_takes_it_all(call: Any, shards: Shards, shape_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    done = call("pretrain", "--data", shards.folder, "--model", shape_file, "--out", out, "--tokens", 1000, "--json",
                "--average", 0.9, "--best", "--recompute", "--schedule", "cosine", "--keep", 1, "--prompts", "Ben",
                "--dtype", "float32", "--evaluations", 3)  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert len(scores_of(out)) == 3
    assert 1000 <= said["tokens"] < 1000 + 16 * json.loads((out / "run.json").read_text())["config"]["batch_size"]
    assert said["val_loss"] == min(scores_of(out))
