"""Pretraining that is killed at any moment, also while it saves, or whose disk is full, ends with the same bits."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pellucid.config import FitConfig, ModelConfig
from pellucid.model.gpt import GPT
from pellucid.pretrain.fit import fit
from pellucid.pretrain.language import LanguageModelling
from pellucid.pretrain.metrics import read_lines
from pellucid.text.shards import Shards
from tests.forked import start

STEPS = 80

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no kill -9")


def arguments(shards: Shards, shape_file: Path, out: Path) -> list[object]:
    names = ["--steps", STEPS, "--batch-size", 8, "--dtype", "float32", "--seed", 3, "--checkpoint-every", 3]
    return ["pretrain", "--data", shards.folder, "--model", shape_file, "--out", out, *names, "--resume"]


@pytest.fixture(scope="module")
def whole(shards: Shards, shape_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that nobody disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    process = start(*arguments(shards, shape_file, folder / "run"), out=folder / "said")
    process.join(120)
    assert process.exitcode == 0, (folder / "said").read_text()
    return folder / "run"


def steps_done(out: Path) -> int:
    lines = read_lines(out / "metrics.jsonl")
    return lines[-1]["step"] if lines else 0


def is_saving(out: Path) -> bool:
    return any((out / "training").glob(".step-*"))


def kill_often(kills: int, seed: int, command: list[object], out: Path, said: Path) -> int:
    """Start it again and again and kill -9 it, every second time as soon as it saves; then let it end.

    Returns how many kills met it while it was saving. A run that came to its end before it was killed so often is done
    over, and the third one is a failure.
    """
    dice, while_saving, killed, tries = np.random.default_rng(seed), 0, 0, 1
    while True:
        process = start(*command, out=said)
        begin = steps_done(out)
        target = begin + int(dice.integers(1, 12)) if killed < kills else STEPS + 1
        pause, wants_saving = float(dice.uniform(0, 0.02)), killed % 2 == 0
        deadline = time.monotonic() + 120
        while process.is_alive() and time.monotonic() < deadline:
            if steps_done(out) >= target and (not wants_saving or is_saving(out)):
                if not wants_saving:
                    time.sleep(pause)
                break
            time.sleep(0.0005)
        if killed < kills and process.is_alive():
            process.kill()
            process.join()
            while_saving += is_saving(out)
            killed += 1
            continue
        process.join(120)
        assert process.exitcode == 0, said.read_text()
        if killed == kills:
            return while_saving
        assert tries < 3, f"it was killed {killed} times only"
        shutil.rmtree(out)
        while_saving, killed, tries = 0, 0, tries + 1


def assert_undisturbed(out: Path, whole: Path) -> None:
    assert (out / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    for mine, theirs in zip(*(read_lines(folder / "metrics.jsonl") for folder in (out, whole)), strict=True):
        assert all(mine[key] == theirs[key] for key in theirs if key not in ("seconds", "tokens_per_s"))
    assert not is_saving(out)


def test_killed_five_times_it_ends_with_the_same_bits(
    shards: Shards,
    shape_file: Path,
    whole: Path,
    tmp_path: Path,
) -> None:
    out = tmp_path / "run"
    kill_often(5, 0, arguments(shards, shape_file, out), out, tmp_path / "said")
    assert_undisturbed(out, whole)


@pytest.mark.nightly
def test_killed_fifty_times_it_ends_with_the_same_bits(
    shards: Shards,
    shape_file: Path,
    whole: Path,
    tmp_path: Path,
) -> None:
    while_saving = 0
    for run in range(10):
        out = tmp_path / f"run-{run}"
        while_saving += kill_often(5, run + 1, arguments(shards, shape_file, out), out, tmp_path / "said")
        assert_undisturbed(out, whole)
    assert while_saving >= 5


# ---------------------------------------------------------------- a full disk


@contextlib.contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A disk of its own that is soon full; skips where this process may not mount one."""
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip("a small disk can be mounted by root only")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


class Filling(LanguageModelling):
    """A task beside which somebody fills the disk before step 6, and frees it once a checkpoint has failed."""

    ballast: Path

    def batches(self, step: int) -> Sequence[Any]:
        if step == 6:
            with contextlib.suppress(OSError), self.ballast.open("wb") as file:
                while True:
                    file.write(bytes(4096))
                    file.flush()
        if step == 11:
            for thread in threading.enumerate():
                if thread.name == "checkpoint":
                    thread.join()
            self.ballast.unlink()
        return super().batches(step)


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="a small disk can be mounted by root only")
def test_while_the_disk_is_full_training_goes_on_with_the_old_checkpoint_and_says_so(
    shards: Shards,
    shape: ModelConfig,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = FitConfig(steps=16, batch_size=8, dtype="float32", checkpoint_every=4, seed=5)
    models = []
    with small_disk(tmp_path / "disk", "2m") as disk:
        for out in (tmp_path / "roomy", disk / "run"):
            torch.manual_seed(11)
            model, task = GPT(shape), Filling(shards, config, shape.context_length)
            task.ballast = out.parent / "ballast" if out.parent == disk else tmp_path / "full"
            if out.parent != disk:
                task = LanguageModelling(shards, config, shape.context_length)
            fit(model, task, config, out)
            models.append(model)
        said = capsys.readouterr().err
        assert said.count("no checkpoint was saved, the one before it stays") == 1
        assert "No space left" in said or "disk is full" in said
        names = {path.name for path in (disk / "run" / "training").iterdir()}
        assert names == {"step-00000012", "step-00000016", "lock"}
    assert all(torch.equal(a, b) for a, b in zip(*(model.parameters() for model in models), strict=True))
