"""Weights in slices: a stopped run ends with the same bits, and a full disk costs a checkpoint, not the run."""

from __future__ import annotations

import contextlib
import io
import resource
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pellucid.config import FitConfig, ModelConfig
from pellucid.model.gpt import GPT
from pellucid.pretrain.distributed import joined
from pellucid.pretrain.fit import fit
from pellucid.pretrain.language import LanguageModelling
from pellucid.text.shards import Shards
from tests.forked import called_by_ranks

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="torchrun is tried on Linux and macOS")

CONFIG = FitConfig(steps=6, batch_size=8, dtype="float32", checkpoint_every=2, evaluate_share=1, shard=True)


class Pulled(LanguageModelling):
    """The plug is pulled before the fifth step."""

    def batches(self, step: int) -> Sequence[Any]:
        if step == 4:
            raise ConnectionError("pulled")
        return super().batches(step)


class Limited(LanguageModelling):
    """From the fourth step on the second process may write small files only."""

    rank = 0

    def batches(self, step: int) -> Sequence[Any]:
        if step == 3 and self.rank:
            resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
        return super().batches(step)


def train(task: LanguageModelling, shape: ModelConfig, out: Path, resume: bool = False) -> dict[str, Tensor]:
    """This process's slices at the end."""
    torch.manual_seed(11)
    model = GPT(shape)
    fit(model, task, CONFIG, out, resume)
    return {name: tensor.to_local() for name, tensor in model.state_dict().items()}  # type: ignore[attr-defined]


def stopped_and_whole(rank: int, folder: Path, shape: ModelConfig, out: Path) -> list[str]:
    """Which weights differ between a run that was stopped and one that was not."""
    shards = Shards.open(folder)
    with joined():
        whole = train(LanguageModelling(shards, CONFIG, 16), shape, out / "whole")
        with contextlib.suppress(ConnectionError):
            train(Pulled(shards, CONFIG, 16), shape, out / "stopped")
        ours = train(LanguageModelling(shards, CONFIG, 16), shape, out / "stopped", resume=True)
    return [name for name in whole if not torch.equal(whole[name], ours[name])]


def test_a_run_in_slices_that_was_stopped_ends_with_the_same_bits(
    shards: Shards, shape: ModelConfig, tmp_path: Path
) -> None:
    assert shape.dropout > 0, "its dice go on where they were"
    assert called_by_ranks(2, stopped_and_whole, shards.folder, shape, tmp_path) == [[], []]
    written = {file.suffix for file in tmp_path.glob("*/training/step-*/*")}
    assert written == {".safetensors", ".json"}, "what PyTorch usually writes is a pickle"


def with_little_room(rank: int, folder: Path, shape: ModelConfig, out: Path) -> str:
    """What is said where one process cannot write its slices."""
    task = Limited(Shards.open(folder), CONFIG, 16)
    task.rank = rank
    with joined(), contextlib.redirect_stderr(io.StringIO()) as said:
        train(task, shape, out)
    return said.getvalue()


def test_slices_that_one_process_cannot_write_cost_the_checkpoint_and_not_the_run(
    shards: Shards, shape: ModelConfig, tmp_path: Path
) -> None:
    first, other = called_by_ranks(2, with_little_room, shards.folder, shape, tmp_path)
    assert first.count("no checkpoint was saved, the one before it stays") == 2
    assert "File too large" in first
    assert not other
    assert {path.name for path in (tmp_path / "training").iterdir()} == {"lock", "step-00000002"}
