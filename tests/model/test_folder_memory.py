"""Loading takes little more memory than the weights, measured in a process of its own."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from pellucid.config import ModelConfig
from pellucid.model.gpt import GPT

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"

MEASURE = """
import pathlib, sys, torch
from pellucid.model.gpt import GPT
torch.ones(64, 64) @ torch.ones(64, 64)
GPT.load(sys.argv[1])  # a tiny one, so that what the libraries take for themselves is there already
def memory(name):  # VmRSS now, VmHWM at its peak; ru_maxrss would still hold that of the process that started this one
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(name))) * 1024
resident = memory("VmRSS")
model = GPT.load(sys.argv[2])
print((memory("VmHWM") - resident) / (4 * model.parameter_count()))
"""


@pytest.fixture(scope="module", params=[1, 8])
def tensors(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Tensor]]:
    """The folder of a model of GPT-2's width, without weights, and these."""
    folder = tmp_path_factory.mktemp("large")
    GPT(ModelConfig(d_model=768, n_layers=request.param, n_heads=12)).save(folder)
    loaded = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    return folder, loaded


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc to see the memory that is in use")
@pytest.mark.parametrize(("kind", "shards"), [("float32", 1), ("bfloat16", 1), ("float32", 3)])
def test_loading_peaks_at_most_15_percent_above_the_weights(
    base_folder: Path, tensors: Any, tmp_path: Path, surroundings: dict[str, str], kind: str, shards: int
) -> None:
    shutil.copytree(tensors[0], tmp_path, dirs_exist_ok=True)
    tensors = {name: tensor.to(getattr(torch, kind)) for name, tensor in tensors[1].items()}
    if shards > 1:
        places = {name: f"part-{number % shards}.safetensors" for number, name in enumerate(tensors)}
        for shard in set(places.values()):
            save_file({name: tensors[name] for name, place in places.items() if place == shard}, tmp_path / shard)
        (tmp_path / INDEX).write_text(json.dumps({"weight_map": places}))
    else:
        save_file(tensors, tmp_path / WEIGHTS)
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, base_folder, tmp_path],
        env=surroundings,
        capture_output=True,
        text=True,
        check=True,
    )
    print(f"{len(tensors)} tensors, {kind}, {shards} files: peak {float(done.stdout):.3f} × the weights")
    assert 0.9 < float(done.stdout) <= 1.15
