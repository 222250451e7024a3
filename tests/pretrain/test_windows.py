"""Which windows of the shards a step of pretraining reads: at documents, every few tokens, or anywhere."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pellucid.config import FitConfig
from pellucid.pretrain.language import LanguageModelling, Stride
from pellucid.text.shards import Shards
from tests.conftest import Cli
from tests.pretrain.conftest import CONTEXT


@pytest.mark.parametrize("stride", [0, 5, "random"])
def test_a_step_is_a_pure_function_and_its_targets_are_one_token_later(
    stride: Stride, shards: Shards, config: FitConfig
) -> None:
    task, again = (LanguageModelling(shards, config, CONTEXT, stride=stride) for _ in range(2))
    stream = np.asarray(shards.tokens("train"))
    places = np.lib.stride_tricks.sliding_window_view(stream, CONTEXT + 1)
    begun: set[int] = set()
    for step in (7, 0, 1000):
        (batch,), (same,) = task.batches(step), again.batches(step)
        assert batch.inputs.equal(same.inputs)
        assert batch.inputs[:, 1:].equal(batch.targets[:, :-1])
        for row, target in zip(batch.inputs.tolist(), batch.targets.tolist(), strict=True):
            found = np.flatnonzero((places == [*row, target[-1]]).all(axis=1))
            assert len(found)
            begun.update(found.tolist())
    another = LanguageModelling(shards, replace(config, seed=6), CONTEXT, stride=stride)
    assert not another.batches(7)[0].inputs.equal(task.batches(7)[0].inputs)
    if stride == "random":
        assert any(start % 5 for start in begun)


def test_a_run_of_random_windows_goes_on_with_random_windows_only(
    call: Cli, shards: Shards, shape_file: Path, tmp_path: Path
) -> None:
    run = ["pretrain", "--data", shards.folder, "--model", shape_file, "--out", tmp_path / "run", "--batch-size", 4]
    done = call(*run, "--steps", 2, "--checkpoint-every", 1, "--stride", "random")
    assert done.returncode == 0, done.stderr
    other = call(*run, "--steps", 3, "--stride", 5, "--resume")
    assert other.returncode == 2
    assert "'stride': 'random'" in other.stderr


@pytest.mark.parametrize("batch", [1, 7, 8, 1000])
@pytest.mark.parametrize("in_order", [True, False])
def test_each_time_through_meets_every_window_once(shards: Shards, batch: int, in_order: bool) -> None:
    task = LanguageModelling(shards, FitConfig(steps=1, batch_size=batch, seed=3), 16, in_order)
    count = len(task.starts)
    assert count % 7 and count % 8, "a part of a batch is left at the end"
    met = np.concatenate([task._starts(step) for step in range(2 * count // batch + 1)])
    for begin in (0, count):
        assert sorted(met[begin : begin + count]) == sorted(task.starts)
