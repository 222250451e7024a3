"""One optimizer step: a batch weighs the same however it is cut, and what goes wrong is named and mended."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pellucid.config import PRESETS, FitConfig, ModelConfig
from pellucid.model.gpt import GPT
from pellucid.pretrain import step
from pellucid.pretrain.fit import fit
from pellucid.pretrain.guard import RECENT, spike
from pellucid.pretrain.language import LanguageModelling
from pellucid.pretrain.loss import Loss, token_loss
from pellucid.pretrain.metrics import read_lines
from pellucid.pretrain.optim import rate_scale
from pellucid.pretrain.step import train_step
from pellucid.pretrain.task import Task, pieces
from pellucid.runtime import PellucidError
from pellucid.text.shards import Shards

SHAPE = ModelConfig(vocab_size=50, context_length=12, d_model=16, n_layers=2, n_heads=2)


@dataclass(frozen=True)
class Masked:
    """Examples of which very different numbers of tokens are trained."""

    ids: Tensor
    trained: Tensor

    @property
    def tokens(self) -> int:
        return self.ids.numel()


class Uneven:
    """A task of eight examples a step; one of them has no trained token."""

    name = "uneven"

    def batches(self, step: int) -> list[Masked]:
        dice = torch.Generator().manual_seed(step)
        ids = torch.randint(50, (8, 13), generator=dice)
        counts = torch.tensor([12, 1, 0, 3, 7, 1, 12, 2])
        return [Masked(ids, torch.arange(12) < counts[:, None])]

    def loss(self, model: Any, batch: Masked) -> Loss:
        return token_loss(model, batch.ids[:, :-1], batch.ids[:, 1:], batch.trained)

    def evaluate(self, model: Any) -> dict[str, float]:
        return {"loss": 0.0}

    def sample(self, model: Any) -> str:
        return ""


def after_a_step(rows: int, task: Task | None = None) -> tuple[dict[str, Any], Tensor]:
    """The record and all gradients' directions: with a rate of one and plain numbers, the weights that were moved."""
    torch.manual_seed(0)
    model = GPT(SHAPE)
    config = FitConfig(steps=2, batch_size=8, micro_batch_size=rows, optimizer="adamw", dtype="float32", clip=1e9)
    optimizers = [torch.optim.SGD(model.parameters(), lr=1.0)]
    record = train_step(model, task or Uneven(), optimizers, config, 0, 0.3)
    return record, torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


@pytest.mark.parametrize("rows", [1, 2, 3, 4])
def test_a_batch_of_eight_is_eight_of_one_whatever_is_trained_in_them(rows: int) -> None:
    whole, moved = after_a_step(0)
    record, parts = after_a_step(rows)
    assert math.isclose(record["loss"], whole["loss"], rel_tol=1e-6)
    assert math.isclose(record["grad_norm"], whole["grad_norm"], rel_tol=1e-6)
    assert record["count"] == whole["count"] == 38
    torch.testing.assert_close(parts, moved, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("shape", [PRESETS["laptop"], PRESETS["gpt2"], PRESETS["gpt2-xl"]])
@pytest.mark.parametrize("context", [128, 512, 1024])
def test_a_cpu_reads_equal_parts_of_a_batch_that_are_as_large_as_they_may_be(shape: ModelConfig, context: int) -> None:
    window = step.KEPT * shape.d_model * shape.n_layers * context
    for batch in range(1, 70):
        rows = step.micro_batch_of(batch, shape, context)
        parts = math.ceil(batch / rows)
        assert rows == 1 or rows * window <= step.AT_ONCE
        assert parts == 1 or math.ceil(batch / (parts - 1)) * window > step.AT_ONCE, "fewer parts would not fit"
        assert parts * rows - batch < parts, "as equal as they can be"


def test_a_large_batch_is_read_in_parts_by_itself_and_is_the_same_step(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, moved = after_a_step(0)
    monkeypatch.setattr(step, "AT_ONCE", 3 * 13 * step.KEPT * SHAPE.d_model * SHAPE.n_layers)  # three of its examples
    read: list[int] = []

    class Watched(Uneven):
        def loss(self, model: Any, batch: Any) -> Loss:
            read.append(len(batch.ids))
            return super().loss(model, batch)

    record, parts = after_a_step(0, Watched())
    assert read == [3, 3, 2]
    assert record["rows"] == 0
    assert math.isclose(record["loss"], whole["loss"], rel_tol=1e-6)
    torch.testing.assert_close(parts, moved, rtol=1e-6, atol=1e-6)


def test_only_the_batch_that_is_too_large_says_how_many_examples_are_read_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(step, "AT_ONCE", 100 * step.KEPT * SHAPE.d_model * SHAPE.n_layers)
    few, many, long = (
        Masked(torch.zeros(size, dtype=torch.long), torch.zeros(0)) for size in ((2, 9), (8, 9), (5, 50))
    )
    model = GPT(SHAPE)
    assert step.usual_rows(model, [few, many]) == 0
    assert step.usual_rows(model, [few, long, many]) == 2
    assert step.usual_rows(torch.nn.Linear(1, 1), [long]) == 0, "nothing is known of it"


@pytest.mark.parametrize("rows", [0, 1, 3, 8, 20])
@pytest.mark.parametrize("ranks", [1, 2, 3, 8])
def test_the_pieces_of_all_processes_together_are_the_batch_in_its_order(rows: int, ranks: int) -> None:
    batch = Masked(torch.arange(16).view(8, 2), torch.arange(8) > 3)
    each = [list(pieces([batch], rows, rank, ranks)) for rank in range(ranks)]
    parts = [piece for mine in each for piece, counts in mine if counts]
    assert torch.equal(torch.cat([piece.ids for piece in parts]), batch.ids)
    assert torch.equal(torch.cat([piece.trained for piece in parts]), batch.trained)
    assert all(len(piece.ids) <= (rows or 8) for piece in parts)


@pytest.mark.parametrize("rows", [0, 1, 2])
@pytest.mark.parametrize("count", [1, 2, 3, 5, 9])
def test_every_process_has_as_many_passes_and_each_has_an_example(rows: int, count: int) -> None:
    batch = Masked(torch.arange(count)[:, None], torch.arange(count) > 3)
    each = [list(pieces([batch, batch], rows, rank, 4)) for rank in range(4)]
    assert len({len(mine) for mine in each}) == 1
    assert all(len(piece.ids) > 0 for mine in each for piece, _ in mine)
    assert sum(len(piece.ids) for mine in each for piece, counts in mine if counts) == 2 * count


def test_computing_blocks_again_changes_no_bit_and_keeps_less() -> None:
    torch.manual_seed(0)
    model = GPT(replace(SHAPE, dropout=0.1)).train()
    ids = torch.randint(50, (4, 12))
    results, kept = [], []
    for recompute in (False, True):
        model.recompute, size = recompute, 0

        def keep(tensor: Tensor) -> Tensor:
            nonlocal size
            size += tensor.numel()
            return tensor

        torch.manual_seed(1)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = token_loss(model, ids, ids).total
        loss.backward()
        results.append([loss, *(parameter.grad for parameter in model.parameters())])
        kept.append(size)
        model.zero_grad()
    assert all(torch.equal(ours, plain) for plain, ours in zip(*results, strict=True))
    assert kept[1] < 0.5 * kept[0]


@pytest.mark.parametrize(
    ("schedule", "middle", "end"), [("linear", 1.0, 0.0), ("cosine", 0.55, 0.1), ("constant", 1.0, 1.0)]
)
def test_each_schedule_rises_and_then_falls_as_it_says(schedule: Any, middle: float, end: float) -> None:
    config = FitConfig(steps=100, schedule=schedule, warmup_share=0.1, decay_share=0.4)
    scales = [rate_scale(share, config) for share in np.linspace(0, 1, 1001)]
    assert 0 < scales[0] < 0.02
    assert max(scales) == pytest.approx(1.0, abs=1e-3)
    assert all(np.diff(scales[:99]) > 0) and all(np.diff(scales[110:]) <= 1e-12)
    assert scales[550] == pytest.approx(middle, abs=1e-3)
    assert scales[1000] == pytest.approx(end, abs=1e-9)


# ---------------------------------------------------------------- trouble


class Spoilt(LanguageModelling):
    """A task whose loss is no number in some steps, or far too large; it counts how often it is asked for them."""

    nan_in: tuple[int, ...] = ()
    jump_in: tuple[int, ...] = ()
    asked = ()

    def batches(self, step: int) -> Any:
        self.asked = (*self.asked, step)
        return super().batches(step)

    def loss(self, model: GPT, batch: Any) -> Loss:
        loss = super().loss(model, batch)
        factor = math.nan if self.asked[-1] in self.nan_in else 50.0 if self.asked[-1] in self.jump_in else 1.0
        return Loss(loss.total * factor, loss.count)


def spoilt(shards: Shards, config: FitConfig, **wrong: Any) -> Spoilt:
    task = Spoilt(shards, config, 16)
    for name, value in wrong.items():
        setattr(task, name, value)
    return task


def model_of(shape: ModelConfig) -> GPT:
    torch.manual_seed(11)
    return GPT(shape)


def test_a_loss_that_is_no_number_costs_its_step_and_the_run_goes_on_from_the_last_good_state(
    shards: Shards, shape: ModelConfig, config: FitConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task, model = spoilt(shards, config, nan_in=(6,)), model_of(shape)
    fit(model, task, config, tmp_path)
    said = capsys.readouterr().err
    assert "the loss is nan at step 7 (windows of the train split from tokens" in said
    assert "back to step 4, and that step is left out" in said
    assert task.asked == (0, 1, 2, 3, 4, 5, 6, 4, 5, 7, 8, 9, 10, 11)
    lines = [line for line in read_lines(tmp_path / "metrics.jsonl") if line["split"] == "train"]
    assert [line["step"] for line in lines] == list(range(1, 13))
    assert [line["step"] for line in lines if line.get("skipped")] == [7]
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())


def test_what_is_left_out_stays_left_out_when_a_run_goes_on_and_the_bits_are_the_same(
    shards: Shards, shape: ModelConfig, config: FitConfig, tmp_path: Path
) -> None:
    whole, gone_on = model_of(shape), model_of(shape)
    fit(whole, spoilt(shards, config, nan_in=(6,)), config, tmp_path / "whole")
    with pytest.raises(RuntimeError, match="pulled"):
        fit(model_of(shape), Pulled(shards, config, 16), config, tmp_path / "stopped")
    task = spoilt(shards, config, nan_in=(6,))
    fit(gone_on, task, config, tmp_path / "stopped", resume=True)
    assert task.asked == (8, 9, 10, 11)
    assert all(torch.equal(one, other) for one, other in zip(gone_on.parameters(), whole.parameters(), strict=True))


def test_a_step_that_is_left_out_leaves_no_trace_whether_there_was_a_checkpoint_or_none(
    shards: Shards, shape: ModelConfig, config: FitConfig, tmp_path: Path
) -> None:
    back, stayed = model_of(shape), model_of(shape)
    fit(back, spoilt(shards, config, nan_in=(6,)), config, tmp_path / "back")
    rarely = replace(config, checkpoint_every=50)
    fit(stayed, spoilt(shards, rarely, nan_in=(6,)), rarely, tmp_path / "stayed")
    assert all(torch.equal(one, other) for one, other in zip(stayed.parameters(), back.parameters(), strict=True))


@pytest.mark.parametrize("every", [4, 50])
def test_an_evaluation_that_is_due_after_a_step_that_was_left_out_takes_place(
    shards: Shards, shape: ModelConfig, config: FitConfig, tmp_path: Path, every: int
) -> None:
    config = replace(config, checkpoint_every=every)
    fit(model_of(shape), spoilt(shards, config, nan_in=(5,)), config, tmp_path)
    assert [line["step"] for line in read_lines(tmp_path / "metrics.jsonl") if line["split"] == "val"] == [3, 6, 9, 12]


class Blind(LanguageModelling):
    """A task whose first score is no number."""

    seen = 0

    def evaluate(self, model: GPT) -> dict[str, float]:
        self.seen += 1
        return {"loss": math.nan if self.seen == 1 else 5.0 - self.seen}


def test_a_score_that_is_no_number_is_not_the_best_one_and_stops_no_checkpoint(
    shards: Shards, shape: ModelConfig, config: FitConfig, tmp_path: Path
) -> None:
    config = replace(config, best=True, checkpoint_every=3, keep=9)
    progress = fit(model_of(shape), Blind(shards, config, 16), config, tmp_path)
    assert progress.best == 1.0
    names = {folder.name for folder in (tmp_path / "training").glob("step-*")}
    assert names == {f"step-{step:08d}" for step in (3, 6, 9, 12)}


class Pulled(Spoilt):
    """As above, and the plug is pulled in step 9."""

    nan_in = (6,)

    def batches(self, step: int) -> Any:
        if step == 9:
            raise RuntimeError("pulled")
        return super().batches(step)


def test_the_third_trouble_ends_the_run_with_all_three_reasons(
    shards: Shards, shape: ModelConfig, config: FitConfig, tmp_path: Path
) -> None:
    task = spoilt(shards, config, nan_in=(2, 5, 9))
    with pytest.raises(
        PellucidError, match=r"at step 3 .*; .* at step 6 .*; .* at step 10 .*number 3.*--lr, with another"
    ):
        fit(model_of(shape), task, config, tmp_path)
    assert (tmp_path / "training" / "step-00000008").is_dir()


def test_a_spike_is_trouble_where_it_is_asked_for(
    shards: Shards, shape: ModelConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = FitConfig(steps=44, batch_size=8, dtype="float32", checkpoint_every=10, spikes=True)
    task = spoilt(shards, config, jump_in=(41,))
    fit(model_of(shape), task, config, tmp_path)
    assert "in the steps before at step 42" in capsys.readouterr().err
    assert task.asked[40:44] == (40, 41, 40, 42)


def test_a_spike_is_told_from_noise() -> None:
    noise = list(3 + 0.2 * np.random.default_rng(0).standard_normal(RECENT))
    assert not any(spike(loss, noise) for loss in noise)
    assert not spike(3.9, noise)
    assert "the loss is 4.60, after" in spike(4.6, noise)
    assert not spike(1000.0, noise[:10])  # too few to know


# ---------------------------------------------------------------- memory

LITTLE_MEMORY = """
import resource, sys
from pathlib import Path
import torch
from pellucid.config import FitConfig, ModelConfig
from pellucid.model.gpt import GPT
from pellucid.pretrain import step
from pellucid.pretrain.optim import make_optimizers
from pellucid.pretrain.plan import RandomText
torch.set_num_threads(1)
torch.manual_seed(0)
shape = ModelConfig(vocab_size=1000, context_length=256, d_model=64, n_layers=2, n_heads=4)
config = FitConfig(steps=2, batch_size=int(sys.argv[1]), dtype="float32", optimizer="adamw")
model, task = GPT(shape), RandomText(config, 1000, 256)
optimizers = make_optimizers(model, config)
# Of fewer tokens, so that what it leaves free is not enough for the second one.
step.train_step(model, RandomText(config, 1000, 64), optimizers, config, 0, 0.5, rows=1)
taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (taken + int(sys.argv[2]) * 2**20,) * 2)
record = step.train_step(model, task, optimizers, config, 1, 0.5)
print(record["rows"], record["loss"])
"""


def with_little_memory(surroundings: dict[str, str], batch_size: int, mib: int) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", LITTLE_MEMORY, str(batch_size), str(mib)]
    return subprocess.run(command, env=surroundings, text=True, capture_output=True)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits a process's memory")
def test_where_memory_runs_out_micro_batches_are_halved_and_the_step_is_the_same(surroundings: dict[str, str]) -> None:
    done, free = (with_little_memory(surroundings, 32, mib) for mib in (60, 20_000))
    assert done.returncode == free.returncode == 0, done.stderr
    rows, loss = done.stdout.split()
    assert 1 <= int(rows) < 32
    assert (
        f"out of memory; micro-batches of {rows} instead of {2 * int(rows)} from now on, the batch stays 32"
        in done.stderr
    )
    assert free.stdout.split()[0] == "0"
    assert math.isclose(float(loss), float(free.stdout.split()[1]), rel_tol=1e-6)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits a process's memory")
def test_where_memory_is_too_little_for_one_example_it_says_what_to_lower(surroundings: dict[str, str]) -> None:
    done = with_little_memory(surroundings, 1, 0)
    assert done.returncode != 0
    assert "no memory left for 1 example at once" in done.stderr and "--micro-batch-size" in done.stderr
