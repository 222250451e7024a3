"""A metrics.jsonl that another process writes: each whole line is read once, all of them where it is another file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from pellucid.pretrain.metrics import MetricsLog
from pellucid.see.views.training import QUIET, Followed


def test_each_line_is_read_once_and_a_curve_is_the_mean_of_neighbours(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    losses = np.random.default_rng(7).normal(size=3000)
    lines = [
        json.dumps({"step": i, "split": "train", "loss": loss, "tokens": 2 * i} | ({"lr": 0.5} if i % 2 else {}))
        for i, loss in enumerate(losses.tolist(), 1)
    ]
    followed = Followed(file)
    assert followed.curves() == {"train": [], "val": [], "scores": {}, "patience": QUIET}
    file.write_text("\n".join(lines[:1500]) + "\n" + lines[1500][:20])
    assert followed.curves()["train"][-1][0] == 1500
    with file.open("a") as end:
        end.write(lines[1500][20:] + '\n7\n{"step": 1501, "split": "val", "loss": NaN, "bits": 2}\n')
        end.write("\n".join(lines[1501:]) + "\n")
    found = followed.curves()
    assert found == Followed(file).curves()
    assert found["val"] == [[1501, *[None] * 5]] and found["scores"] == {"bits": 2}
    assert [row[:2] for row in found["train"]] == [[6 * i, 12 * i] for i in range(1, 501)]
    assert [row[2] for row in found["train"]] == pytest.approx(losses.reshape(500, 6).mean(axis=1))
    assert {row[3] for row in found["train"]} == {0.5} and {row[4] for row in found["train"]} == {None}
    with file.open("r+b") as begin:
        begin.write(b"#")
    assert followed.curves() == found, "what was read is not read again"
    with file.open("r+b") as begin:
        begin.write(b"{")
    MetricsLog(tmp_path, step=10)  # the run is stopped, and goes on from its tenth step
    assert [row[0] for row in followed.curves()["train"]] == list(range(1, 11))
    file.unlink()
    assert followed.curves()["train"] == []


def test_a_run_of_slow_steps_may_be_quiet_for_longer(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    line = '{"step": %d, "split": "train", "loss": 1, "tokens": %d, "tokens_per_s": 100}\n'
    file.write_text("".join(line % (step, 6000 * step) for step in (1, 2, 3)))  # a step takes a minute
    assert Followed(file).curves()["patience"] > 120
