"""`pellucid quantize`: a folder that every verb takes, what it costs said and small, and nothing else opens it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from pellucid.generation.compiled.model import CompiledModel, kept_in
from pellucid.model.formats.folder import read_model_folder
from pellucid.model.formats.quantised import GROUP, QUANTISED, quantise
from pellucid.model.gpt import GPT
from pellucid.pretrain.quantize import compared
from pellucid.runtime import DataError

LIMIT = {"int8": 0.005, "int4": 0.03}  # how much higher the loss may be


@pytest.fixture(params=list(LIMIT))
def to(request: Any) -> str:
    return str(request.param)


@pytest.fixture
def quantised(call: Any, base_folder: Path, tmp_path: Path, to: str) -> Path:
    done = call("quantize", base_folder, "--to", to, "--out", tmp_path / to, "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["bytes"] < result["bytes_before"] and "loss" not in result
    return tmp_path / to


def test_a_trained_model_loses_little(call: Any, quickstart: Path, tmp_path: Path, to: str) -> None:
    done = call("quantize", quickstart, "--to", to, "--out", tmp_path / to, "--data", quickstart / "shards", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["tokens"] > 1000
    assert abs(result["loss_rise"]) < LIMIT[to]
    assert result["loss_rise"] == result["loss"] / result["loss_before"] - 1
    low, high = result["loss_rise_interval"]
    assert low < result["loss_rise"] < high and high - low < LIMIT[to]
    assert result["bytes_before"] / result["bytes"] > {"int8": 3, "int4": 3}[to]


def test_every_verb_takes_the_folder(call: Any, quantised: Path, base_folder: Path, to: str) -> None:
    assert kept_in(quantised) == to and kept_in(base_folder) == "float32"
    _, weights, _ = read_model_folder(quantised)
    _, before, _ = read_model_folder(base_folder)
    assert weights.keys() == before.keys()
    for name, weight in weights.items():
        most = float(before[name].abs().max()) * (
            1.5 / 8 if to == "int4" else 0.5 / 127
        )  # int4 may cut off the largest
        assert float((weight - before[name]).abs().max()) <= most + 1e-7, name
    ids = torch.arange(20)[None]
    assert torch.isfinite(GPT.load(quantised)(ids)).all()
    asked = ("--prompt", "The", "--max-tokens", 5, "--temperature", 0, "--json")
    texts = [json.loads(call("generate", run, *asked).stdout)["text"] for run in (quantised, quantised)]
    direct = json.loads(call("generate", base_folder, "--dtype", to, *asked).stdout)["text"]
    assert texts[0] == texts[1] == direct  # rounded when it was written, or while it is read


def test_who_asks_for_other_bits_is_told_that_it_is_rounded_twice(
    quantised: Path, to: str, capsys: pytest.CaptureFixture[str]
) -> None:
    other: Any = {"int8": "int4", "int4": "int8"}[to]
    capsys.readouterr()
    CompiledModel.load(quantised, other)
    assert f"{to} is rounded a second time, to {other}" in capsys.readouterr().err
    once: tuple[Any, ...] = ("auto", to, "float32")
    for dtype in once:
        CompiledModel.load(quantised, dtype)
    assert "rounded" not in capsys.readouterr().err


def test_transformers_refuses_it_instead_of_reading_other_numbers(quantised: Path) -> None:
    with pytest.raises(OSError, match=r"model\.safetensors"):
        AutoModelForCausalLM.from_pretrained(quantised)


def test_it_is_not_rounded_twice_nor_written_over_something_else(
    call: Any, quantised: Path, base_folder: Path, tmp_path: Path, to: str
) -> None:
    again = call("quantize", quantised, "--to", to, "--out", tmp_path / "again")
    assert again.returncode == 2 and f"found a folder in {to}" in again.stderr
    over = call("quantize", base_folder, "--to", to, "--out", base_folder)
    assert over.returncode == 2 and "files of something else" in over.stderr
    assert call("quantize", base_folder, "--to", to, "--out", quantised).returncode == 0  # its own kind may be renewed


def test_what_others_have_put_beside_it_is_not_lost_when_it_is_renewed(
    call: Any, quantised: Path, base_folder: Path, to: str
) -> None:
    (quantised / "assistant").mkdir()
    again = call("quantize", base_folder, "--to", to, "--out", quantised)
    assert again.returncode == 2 and "found assistant, which no quantising wrote" in again.stderr
    assert (quantised / "assistant").is_dir()


def test_the_rise_of_a_loss_has_the_spread_of_parts_that_both_models_read() -> None:
    before = np.array([10.0, 200.0, 30.0, 4.0])
    alike = compared(before, before * 1.01, tokens=100)
    assert alike["loss_rise"] == pytest.approx(0.01) and alike["loss"] == pytest.approx(2.4644)
    assert alike["loss_rise_interval"] == pytest.approx([0.01, 0.01])  # however hard a part is
    low, high = compared(before, before + np.array([1, -1, 0, 1]), tokens=100)["loss_rise_interval"]
    assert low < 0 < high
    assert compared(before[:1], before[:1], tokens=5)["loss_rise_interval"] == []


def test_a_damaged_file_is_named(quantised: Path, tmp_path: Path) -> None:
    name = "blocks.0.attention.query.weight"
    tensors = load_file(quantised / QUANTISED)
    for damage in (
        {key: value for key, value in tensors.items() if key != name},
        tensors | {name: tensors[name][:-1].clone()},
        tensors | {f"{name}.scale": tensors[f"{name}.scale"] * torch.nan},
        tensors | {"more": torch.zeros(1)},
        tensors | {"final_norm.weight.scale": torch.ones(len(tensors["final_norm.weight"]))},
    ):
        broken = tmp_path / "broken"
        shutil.copytree(quantised, broken, dirs_exist_ok=True)
        save_file(damage, broken / QUANTISED)
        with pytest.raises(DataError, match=r"quantized\.safetensors: found .* expected "):
            CompiledModel.load(broken)


def test_rounding_takes_the_nearest_number_and_for_four_bits_a_better_scale_than_the_largest_number_gives() -> None:
    weight = torch.randn(6, 200, generator=torch.Generator().manual_seed(0))
    eight, four = quantise(weight, 8), quantise(weight, 4)
    assert ((eight.plain() - weight).abs() <= eight.scales[:, None] / 2 + 1e-7).all()
    assert four.plain().shape == weight.shape and four.numbers.shape == (6, 128)
    groups = torch.nn.functional.pad(weight, (0, 56)).view(6, -1, GROUP)
    scales = groups.abs().amax(dim=2, keepdim=True).clamp_min(1e-9) / 7
    plain = ((groups / scales).round() * scales).flatten(1)[:, :200]
    assert float((four.plain() - weight).square().sum()) < 0.9 * float((plain - weight).square().sum())
    assert torch.equal(quantise(torch.zeros(4, 128), 4).plain(), torch.zeros(4, 128))
    assert torch.equal(quantise(torch.zeros(4, 128), 8).plain(), torch.zeros(4, 128))
