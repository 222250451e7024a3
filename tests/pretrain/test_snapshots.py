"""Snapshots: the weights at each evaluation, as many as fit, and none of a try that was given up."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from pellucid.pretrain import snapshots as module
from pellucid.pretrain.snapshots import drop_snapshots, save_snapshot, snapshots


def test_a_snapshot_is_the_weights_of_its_step(tmp_path: Path) -> None:
    model = nn.Linear(3, 2)
    before = model.weight.detach().clone()
    save_snapshot(tmp_path, model, 12, 1, 10)
    with torch.no_grad():
        model.weight += 1
    file = snapshots(tmp_path)["step-00000012"]
    assert torch.equal(load_file(file)["weight"], before)


def test_where_not_all_fit_they_are_spread_evenly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.Linear(4, 4, bias=False)  # 64 bytes
    monkeypatch.setattr(module, "MOST_BYTES", 64 * 4)
    for number in range(11):
        save_snapshot(tmp_path, model, 10 * number, number, 10)
    assert list(snapshots(tmp_path)) == ["step-00000000", "step-00000030", "step-00000060", "step-00000090"]
    monkeypatch.setattr(module, "MOST_BYTES", 63)
    save_snapshot(tmp_path / "other", model, 0, 0, 10)
    assert snapshots(tmp_path / "other") == {}


def test_those_of_a_try_that_was_given_up_are_dropped(tmp_path: Path) -> None:
    for step in (0, 4, 8):
        save_snapshot(tmp_path, nn.Linear(1, 1), step, 0, 2)
    (tmp_path / "snapshots" / "step-mine.safetensors").write_bytes(b"")  # no number: left alone, and not shown
    drop_snapshots(tmp_path, 4)
    assert list(snapshots(tmp_path)) == ["step-00000000", "step-00000004"]
