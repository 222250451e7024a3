"""Finetuning by several processes, as torchrun starts them, has the losses of one."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from pellucid.config import ModelConfig
from pellucid.model.gpt import GPT
from pellucid.pretrain.metrics import read_lines
from pellucid.text.tokenizer import Tokenizer
from tests.forked import finish, start_ranks

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="torchrun is tried on Linux and macOS")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Some lines of each kind, as long as chance has it, so that processes have different numbers of trained tokens."""
    folder = tmp_path_factory.mktemp("data")
    rows = [{"text": f"win {i} lamps now" * (1 + i % 3), "label": "spam"} for i in range(30)]
    rows += [{"text": f"the fox is with Ben {i}", "label": "ham"} for i in range(30)]
    talk = [{"instruction": f"Say {i}.", "output": "Yes. " * (i % 4 + 1)} for i in range(60)]
    pairs = [{"instruction": f"Say {i}.", "chosen": "Yes." * (i % 3 + 1), "rejected": "No."} for i in range(60)]
    kinds = {"classify": rows, "instruct": talk, "prefer": pairs}
    files = {name: folder / f"{name}.jsonl" for name in kinds}
    for name, lines in kinds.items():
        files[name].write_text("".join(json.dumps(line) + "\n" for line in lines))
    return files


def tuned(count: int, verb: str, base: Path, data: Path, out: Path, *more: object) -> list[tuple[Any, ...]]:
    """The losses, by step."""
    settings = ["--batch-size", 8, "--epochs", 1, "--dtype", "float32"] if verb != "prefer" else ["--batch-size", 8]
    command = ["finetune", verb, base, "--data", data, "--out", out, *settings, *more]
    codes = finish(start_ranks(count, *command, out=out.with_name(f"{out.name}.said")))
    said = "\n".join(path.read_text() for path in sorted(out.parent.glob("*.said.*")))
    assert codes == [0] * count, said
    assert (out / "scores.json").is_file()
    return [(line["step"], line["split"], line["loss"], line["tokens"]) for line in read_lines(out / "metrics.jsonl")]


@pytest.mark.parametrize(
    ("verb", "more"),
    [
        ("classify", ["--best", "--early-stop", 9, "--recompute"]),
        ("instruct", ["--packing", "--batch-size", 2, "--epochs", 0.5]),  # two talks are one row: none for the second
        ("instruct", ["--train", "lora", "--base", "int8", "--average", 0.8, "--schedule", "cosine"]),
        ("prefer", []),
        pytest.param("classify", ["--batch-size", 1, "--epochs", 0.2], marks=pytest.mark.nightly),
    ],
)
def test_two_processes_have_the_losses_of_one(
    base_folder: Path, data: dict[str, Path], tmp_path: Path, verb: str, more: list[Any]
) -> None:
    base = base_folder
    if verb == "prefer":
        base = tmp_path / "assistant"
        tuned(1, "instruct", base_folder, data["instruct"], base)
    alone = tuned(1, verb, base, data[verb], tmp_path / "alone", *more)
    together = tuned(2, verb, base, data[verb], tmp_path / "together", *more)
    assert [(step, split, tokens) for step, split, _, tokens in together] == [(a, b, d) for a, b, _, d in alone]
    assert len(alone) > 5
    for (_, _, mine, _), (_, _, other, _) in zip(together, alone, strict=True):
        assert mine == pytest.approx(other, rel=1e-5, abs=1e-7)
    assert (tmp_path / "together" / "model.safetensors").stat().st_size


def test_two_processes_make_a_classifier_of_a_model_whose_output_layer_it_does_not_need(
    base_folder: Path, data: dict[str, Path], tmp_path: Path
) -> None:
    tokenizer = Tokenizer.load(base_folder)
    shape = ModelConfig("llama", tokenizer.vocab_size, 64, d_model=32, n_layers=2, n_heads=2, tied=False)
    GPT(shape).save(tmp_path / "base", bos_token_id=tokenizer.end_of_text, eos_token_id=tokenizer.end_of_text)
    tokenizer.save(tmp_path / "base")
    alone, together = (tuned(n, "classify", tmp_path / "base", data["classify"], tmp_path / f"{n}") for n in (1, 2))
    assert len(together) > 5
    for (_, _, mine, _), (_, _, other, _) in zip(together, alone, strict=True):
        assert mine == pytest.approx(other, rel=1e-5, abs=1e-7)
