"""Training on a GPU: the losses of the processor, stopped and gone on with, and through the command line."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from pellucid.config import FitConfig, ModelConfig
from pellucid.model.gpt import GPT
from pellucid.pretrain.fit import fit
from pellucid.pretrain.language import LanguageModelling
from pellucid.pretrain.metrics import read_lines
from pellucid.text.shards import Shards
from tests.pretrain.conftest import CONTEXT
from tests.pretrain.test_fit import Stopping

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device here"),
]
DEVICE = "cuda"


@pytest.mark.parametrize(("optimizer", "tolerance"), [("adamw", 1e-4), ("muon", 0.01)])  # muon computes in bfloat16
def test_the_losses_are_those_of_the_processor(
    shards: Shards, shape: ModelConfig, tmp_path: Path, optimizer: Any, tolerance: float
) -> None:
    config = FitConfig(steps=12, batch_size=8, optimizer=optimizer, dtype="float32", seed=1)
    losses = {}
    for device in ("cpu", DEVICE):
        torch.manual_seed(11)
        model = GPT(replace(shape, dropout=0.0)).to(device)
        fit(model, LanguageModelling(shards, config, CONTEXT), config, tmp_path / device)
        lines = [line for line in read_lines(tmp_path / device / "metrics.jsonl") if line["split"] == "train"]
        losses[device] = [line["loss"] for line in lines]
    assert len(losses["cpu"]) == 12
    assert losses[DEVICE] == pytest.approx(losses["cpu"], rel=tolerance)


def test_stopped_and_gone_on_it_ends_where_the_run_does_that_was_never_stopped(
    shards: Shards, shape: ModelConfig, config: FitConfig, tmp_path: Path
) -> None:
    """Dropout is on: the GPU's own random numbers are in the checkpoint. Its sums are not always the same bits."""
    config = replace(config, optimizer="adamw")

    def train(out: str, resume: bool = False, stop: int = -1) -> list[float]:
        torch.manual_seed(11)
        model, task = GPT(shape).to(DEVICE), Stopping(shards, config, CONTEXT)
        task.stop_before = stop
        with pytest.raises(ConnectionError) if stop >= 0 else contextlib.nullcontext():
            fit(model, task, config, tmp_path / out, resume)
        lines = read_lines(tmp_path / out / "metrics.jsonl")
        return [line["loss"] for line in lines if line["split"] == "train"]

    whole = train("whole")
    assert len(train("stopped", stop=10)) < len(whole) == 12
    assert train("stopped", resume=True) == pytest.approx(whole, rel=1e-4)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_command_line_trains_and_writes_on_the_gpu(
    call: Any, shards: Shards, shape_file: Path, tmp_path: Path, dtype: str
) -> None:
    asked = ("--data", shards.folder, "--model", shape_file, "--steps", 60, "--batch-size", 8, "--dtype", dtype)
    done = call("pretrain", *asked, "--out", tmp_path / "run", "--device", DEVICE)
    assert done.returncode == 0, done.stderr
    losses = [line["loss"] for line in read_lines(tmp_path / "run" / "metrics.jsonl") if line["split"] == "train"]
    assert losses[-1] < 0.6 * losses[0]
    written = call("generate", tmp_path / "run", "--prompt", "Anna", "--max-tokens", 5, "--json", "--device", DEVICE)
    assert written.returncode == 0, written.stderr
    assert json.loads(written.stdout)["tokens"] > 0
