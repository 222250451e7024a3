"""What several processes do together: run out of memory, are stopped, save, and end."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from pellucid.config import FitConfig, ModelConfig
from pellucid.model.gpt import GPT
from pellucid.pretrain.checkpoint import Snapshot, State, newest_checkpoint, snapshot, write_checkpoint
from pellucid.pretrain.distributed import joined, shared_model
from pellucid.pretrain.fit import fit
from pellucid.pretrain.language import LanguageModelling
from pellucid.pretrain.metrics import read_lines
from pellucid.pretrain.speed import settle_precision
from pellucid.runtime import PellucidError
from pellucid.text.shards import Shards
from tests.forked import called_by_ranks, finish, start, surroundings

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="torchrun is tried on Linux and macOS")


def trained(task: LanguageModelling, shape: ModelConfig, out: Path, resume: bool = False) -> GPT:
    torch.manual_seed(11)
    model = GPT(shape)
    fit(model, task, task.config, out, resume)
    return model


def same_bits(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


# ---------------------------------------------------------------- memory


class Cramped(LanguageModelling):
    """In the second process there is memory for two windows at once."""

    rank = 0

    def loss(self, model: GPT, batch: Any) -> Any:
        if self.rank and len(batch.inputs) > 2:
            raise MemoryError("out of memory")
        return super().loss(model, batch)


def cramped(rank: int, folder: Path, shape: ModelConfig, out: Path, rows: int, fitting: int) -> tuple[bool, str]:
    """Whether a run that finds too little memory for `rows` is that of `fitting` from the beginning; what is said."""
    shards = Shards.open(folder)
    models: list[GPT] = []
    with joined(), contextlib.redirect_stderr(io.StringIO()) as said:
        for kind, size in ((Cramped, rows), (LanguageModelling, fitting)):
            config = FitConfig(steps=4, batch_size=8, micro_batch_size=size, dtype="float32", evaluate_share=1.0)
            task = kind(shards, config, shape.context_length)
            task.rank = rank  # type: ignore[attr-defined]
            models.append(trained(task, shape, out / kind.__name__))
    return same_bits(*models), said.getvalue()


@pytest.mark.parametrize(("rows", "fitting"), [(0, 2), (3, 1)])  # in the only pass of a step, and in one of two
def test_where_memory_runs_out_in_one_process_all_halve_what_they_read_at_once(
    shards: Shards, shape: ModelConfig, tmp_path: Path, rows: int, fitting: int
) -> None:
    assert shape.dropout > 0, "its dice are thrown anew"
    (same, said), (also, other) = called_by_ranks(2, cramped, shards.folder, shape, tmp_path, rows, fitting)
    assert same and also
    assert said.count("out of memory") == 1
    assert f"micro-batches of {fitting} instead of {rows or 4} from now on, the batch stays 8" in said
    assert not other
    state = json.loads((tmp_path / "Cramped" / "training" / "step-00000004" / "state.json").read_text())
    assert state["progress"]["micro_batch_size"] == fitting


class Hopeless(Cramped):
    """There is not even memory for one."""

    def loss(self, model: GPT, batch: Any) -> Any:
        raise MemoryError("out of memory")


def hopeless(rank: int, folder: Path, shape: ModelConfig, out: Path) -> str:
    config = FitConfig(steps=4, batch_size=8, dtype="float32")
    try:
        with joined():
            trained(Hopeless(Shards.open(folder), config, shape.context_length), shape, out)
    except Exception as error:
        return str(error)
    return ""


def test_where_no_process_has_memory_for_one_window_all_say_what_to_lower(
    shards: Shards, shape: ModelConfig, tmp_path: Path
) -> None:
    for said in called_by_ranks(2, hopeless, shards.folder, shape, tmp_path):
        assert "no memory left for" in said and "--micro-batch-size" in said


# ---------------------------------------------------------------- stopping


class Told(LanguageModelling):
    """One process is told to stop before its sixth step."""

    rank = 0

    def batches(self, step: int) -> Sequence[Any]:
        if step == 5 and self.rank == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return super().batches(step)


def stopped(rank: int, folder: Path, shape: ModelConfig, out: Path) -> tuple[str, bool]:
    """Where the run stood, and whether gone on it ended as one that was never stopped."""
    shards, config = Shards.open(folder), FitConfig(steps=9, batch_size=8, dtype="float32", checkpoint_every=4)
    task = Told(shards, config, shape.context_length)
    task.rank = rank
    with joined() as here:
        with contextlib.suppress(KeyboardInterrupt):
            trained(task, shape, out / "stopped")
        here.wait()
        newest = newest_checkpoint(out / "stopped" / "training")
        plain = LanguageModelling(shards, config, shape.context_length)
        ours = trained(plain, shape, out / "stopped", resume=True)
        whole = trained(plain, shape, out / "whole")
    assert newest
    return newest.name, same_bits(ours, whole)


def test_one_process_that_is_told_to_stop_stops_all_of_them_at_the_same_step(
    shards: Shards, shape: ModelConfig, tmp_path: Path
) -> None:
    assert called_by_ranks(2, stopped, shards.folder, shape, tmp_path) == [("step-00000006", True)] * 2


# ---------------------------------------------------------------- what each does, and what only the first


def copied(rank: int) -> int:
    with joined():
        return len(snapshot(State(nn.Linear(3, 3), [], {})).weights)


def test_only_who_writes_a_checkpoint_copies_the_weights() -> None:
    assert called_by_ranks(2, copied) == [2, 0]


def buffer_after_a_pass(rank: int) -> float:
    model, kept = nn.Linear(1, 1), torch.zeros(1)
    model.register_buffer("kept", kept)
    with joined():
        shared = shared_model(model, shard=False)
        kept.fill_(rank)
        shared.run(lambda module: module(torch.ones(1, 1)).sum()).backward()
    return float(kept)


def test_what_is_never_trained_is_not_sent_around_in_each_step() -> None:
    assert called_by_ranks(2, buffer_after_a_pass) == [0.0, 1.0]


def precision(rank: int, out: Path) -> str:
    with joined() as here:
        if here.first:
            record = {"progress": {"step": 1}, "settings": {"dtype": "bfloat16"}}
            write_checkpoint(out / "training", Snapshot({}, {}, record))
        here.wait()
        config = FitConfig(steps=2, shard=True)
        return settle_precision(nn.Linear(1, 1), None, config, out, resume=True)[0].dtype  # type: ignore[arg-type]


def test_slices_go_on_in_the_precision_in_which_one_process_began(tmp_path: Path) -> None:
    assert called_by_ranks(2, precision, tmp_path) == ["bfloat16"] * 2


def test_more_processes_than_gpus_are_refused_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "2", "LOCAL_RANK": "2", "WORLD_SIZE": "3"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(PellucidError, match=r"process 3 on a machine; expected 2, a GPU each\. Lower"), joined():
        raise AssertionError("it got in")


def test_what_comes_behind_training_asks_nothing_of_the_other_processes(
    shards: Shards, shape_file: Path, tmp_path: Path
) -> None:
    """Here they do not even see the first one's folder, as a file system of a network may show it late."""
    outs = [tmp_path / "run", tmp_path / "elsewhere"]
    command = ["pretrain", "--data", shards.folder, "--model", shape_file, "--steps", 2, "--dtype", "float32"]
    processes = [
        start(*command, "--out", out, out=tmp_path / f"said.{rank}", environment=environment)
        for rank, (out, environment) in enumerate(zip(outs, surroundings(2), strict=True))
    ]
    assert finish(processes) == [0, 0], "\n".join(path.read_text() for path in tmp_path.glob("said.*"))
    assert (outs[0] / "model.safetensors").is_file()
    assert not read_lines(outs[1] / "metrics.jsonl")
