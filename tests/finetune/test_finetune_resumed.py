"""What is finetuned further is what was begun: the same model, data and options, which run.json says from the start."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from pellucid.finetune.instruct import prepare_model, save_assistant
from pellucid.model.gpt import GPT
from pellucid.text.tokenizer import Tokenizer

CHANGES: dict[str, list[tuple[Sequence[object], str]]] = {
    "classify": [
        (["--train", "last-1"], "--train 'last-1', where it was 'all'"),
        (["--class-weight", "balanced", "--cut", "start"], "--class-weight 'balanced', where it was 'none'"),
        (["--lr", 0.5], "--lr 0.5, where it was 0.001"),
        (["--epochs", 2], "--epochs 2.0, where it was 1.0"),
    ],
    "instruct": [
        (["--packing"], "--packing True, where it was False"),
        (["--dtype", "bfloat16"], "--dtype"),
        (["--average", 0.9, "--best"], "--average 0.9, where it was 0.0; --best True, where it was False"),
        (["--evaluations", 3], "--evaluations 3, where it was 10"),
    ],
    "prefer": [
        (["--beta", 0.2], "--beta 0.2, where it was 0.1"),
        (["--optimizer", "muon"], "--optimizer 'muon', where it was 'adamw'"),
    ],
}


@pytest.fixture(scope="module")
def begun(base_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a base model and a data file for each verb."""
    folder = tmp_path_factory.mktemp("begun")
    model, tokenizer = GPT.load(base_folder), Tokenizer.load(base_folder)
    prepare_model(model, tokenizer)
    save_assistant(model, tokenizer, folder / "base")
    kinds = {
        "classify": [{"text": f"{'win' if i % 2 else 'fox'} {i}", "label": "ab"[i % 2]} for i in range(30)],
        "instruct": [{"instruction": f"Say {i}.", "output": "Yes."} for i in range(30)],
        "prefer": [{"prompt": f"Say {i}.", "chosen": "Yes.", "rejected": "No."} for i in range(30)],
    }
    for verb, rows in kinds.items():
        (folder / f"{verb}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def command(verb: str, base: Path, data: Path, out: Path, *more: object) -> list[object]:
    epochs = [] if "--epochs" in more else ["--epochs", 1]
    given = ["finetune", verb, base, "--data", data, "--out", out, "--batch-size", 8, *epochs]
    return [*given, *(["--dtype", "float32"] if verb != "prefer" and "--dtype" not in more else []), *more]


@pytest.mark.parametrize("verb", CHANGES)
def test_other_options_another_model_or_other_data_are_refused_and_named(
    call: Any, begun: Path, tmp_path: Path, verb: str
) -> None:
    base, data, out = tmp_path / "base", tmp_path / "data.jsonl", tmp_path / "run"
    shutil.copytree(begun / "base", base)
    shutil.copy(begun / f"{verb}.jsonl", data)
    done = call(*command(verb, base, data, out))
    assert done.returncode == 0, done.stderr
    record = (out / "run.json").read_bytes()

    def refused(said: str, *more: object) -> None:
        done = call(*command(verb, base, data, out, "--resume", *more))
        assert done.returncode == 2, done.stderr
        assert f"--resume {out}: found {said}" in done.stderr
        assert "another --out" in done.stderr
        assert (out / "run.json").read_bytes() == record

    for more, said in CHANGES[verb]:
        refused(said, *more)
    another = "instruct" if verb == "classify" else "classify"
    done = call(*command(another, base, begun / f"{another}.jsonl", out, "--resume"))
    assert done.returncode == 2 and f"found a run of `pellucid finetune {verb}`" in done.stderr
    lines = data.read_text()
    data.write_text(lines + lines.splitlines()[0].replace("1", "99"))
    refused("other data")
    data.write_text(lines)
    model = GPT.load(base)
    torch.nn.init.zeros_(model.final_norm.weight)
    model.save(base)
    refused("another model")


def test_another_place_of_the_same_things_and_what_training_does_not_know_may_change(
    call: Any, begun: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    adapters = ("--train", "lora")
    assert call(*command("instruct", begun / "base", begun / "instruct.jsonl", out, *adapters)).returncode == 0
    for file in ("base", "instruct.jsonl"):
        (shutil.copytree if file == "base" else shutil.copy)(begun / file, tmp_path / file)
    kept = (*adapters, "--optimizer", "adamw")  # by which adapters are trained anyway
    more = ("--resume", "--checkpoint-every", 2, "--keep", 5, "--micro-batch-size", 3, "--recompute", "--no-merge")
    done = call(*command("instruct", tmp_path / "base", tmp_path / "instruct.jsonl", out, "--json", *kept, *more))
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("verb", CHANGES)
def test_a_run_that_never_ended_says_what_it_was_with_the_precision_that_was_settled(
    call: Any, begun: Path, tmp_path: Path, verb: str
) -> None:
    base, out = tmp_path / "base", tmp_path / "run"
    shutil.copytree(begun / "base", base)
    model = GPT.load(base)
    torch.nn.init.constant_(model.final_norm.weight, 3e38)  # finite, and all that comes of it is not
    model.save(base)
    done = call(*command(verb, base, begun / f"{verb}.jsonl", out, "--epochs", 9))
    assert done.returncode == 2 and "trouble number" in done.stderr
    begin = (
        "texts that begin with '"
        + {"classify": "(win|fox) ", "instruct": "<.user.>Say ", "prefer": "<.user.>Say "}[verb]
    )
    assert re.search(begin, done.stderr), "the examples of the step"
    record = json.loads((out / "run.json").read_text())
    assert record["verb"] == f"finetune {verb}"
    assert record["config"]["dtype"] == "float32"
    assert record["data"].keys() == {f"{verb}.jsonl"}
    assert "model.safetensors" in record["config"]["weights"]
