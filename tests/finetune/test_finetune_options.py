"""What the one loop can do, asked for by each way to finetune: averages, the best weights, an early end."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from pellucid.config import FitConfig
from pellucid.finetune.classify import Classification, Classifier
from pellucid.finetune.instruct import InstructionTuning, prepare_model, save_assistant
from pellucid.finetune.instructions import read_instructions, split_examples
from pellucid.finetune.labelled import Columns
from pellucid.finetune.prefer import PreferenceTuning, read_pairs
from pellucid.finetune.recipes import (
    ADAPTER_RATES,
    CLASSIFY_RATES,
    INSTRUCT_RATES,
    PREFER_RATES,
    fit_config,
    open_model,
)
from pellucid.finetune.splits import read_splits
from pellucid.model.gpt import GPT
from pellucid.options import FinetuneClassify, FinetuneInstruct, FinetunePrefer, Finetuning, Fitting, WrittenRun
from pellucid.pretrain.metrics import read_lines
from pellucid.text.tokenizer import Tokenizer

INT8 = ["--train", "lora", "--base", "int8"]
CHOICES = {"classify": FinetuneClassify, "instruct": FinetuneInstruct, "prefer": FinetunePrefer}


@pytest.fixture(scope="module")
def contrary(base_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model, and data for each verb of which the val split says the opposite: what is learnt is wrong there."""
    folder = tmp_path_factory.mktemp("contrary")
    model, tokenizer = GPT.load(base_folder), Tokenizer.load(base_folder)
    prepare_model(model, tokenizer)
    save_assistant(model, tokenizer, folder / "base")
    lines: dict[str, list[dict[str, str]]] = {verb: [] for verb in CHOICES}
    for i in range(40):
        split = "val" if i < 8 else "test" if i < 12 else "train"
        said = ["Yes.", "No."] if split == "train" else ["No.", "Yes."]
        word = ("win", "fox")[i % 2 if split == "train" else 1 - i % 2]
        lines["classify"].append({"text": f"{word} {i}", "label": "ab"[i % 2], "split": split})
        lines["instruct"].append({"instruction": f"Say {i}.", "output": said[0], "split": split})
        lines["prefer"].append({"prompt": f"Say {i}.", "chosen": said[0], "rejected": said[1], "split": split})
    for verb, rows in lines.items():
        (folder / f"{verb}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture
def tune(call: Any, contrary: Path, tmp_path: Path) -> Any:
    """`pellucid finetune VERB` in a folder, with more options; the folder."""

    def run(verb: str, name: str, *more: object) -> Path:
        given = ["--batch-size", 8, *(["--teacher", "none"] if verb == "classify" else [])]
        given += [] if verb == "prefer" else ["--dtype", "float32"]
        data, out = contrary / f"{verb}.jsonl", tmp_path / name
        done = call("finetune", verb, contrary / "base", "--data", data, "--out", out, *given, *more)
        assert done.returncode == 0, done.stderr
        return out

    return run


def scores_of(out: Path) -> list[float]:
    return [line["loss"] for line in read_lines(out / "metrics.jsonl") if line["split"] == "val"]


def steps_of(out: Path) -> int:
    return max(line["step"] for line in read_lines(out / "metrics.jsonl"))


@torch.inference_mode()
def held_out_loss(verb: str, folder: Path, out: Path, scratch: Path) -> float:
    """The loss on the val split of the model that was written."""
    data, config = folder / f"{verb}.jsonl", FitConfig(steps=1)
    model, tokenizer = open_model(out)
    context = model.config.context_length
    if verb == "instruct":
        talks = split_examples(read_instructions(data))
        return InstructionTuning(talks, tokenizer, config, context).evaluate(model.eval())["loss"]
    if verb == "prefer":
        task = PreferenceTuning(split_examples(read_pairs(data)), tokenizer, config, context, beta=0.1)
        task.refer(GPT.load(folder / "base"), scratch / "reference.safetensors")
        return task.evaluate(model.eval())["loss"]
    classifier = Classifier.load(out)
    classifier.head.weight *= classifier.rule.temperature  # as it was before it was calibrated
    texts = read_splits(data, None, None, Columns("", "", False), 0)
    return Classification(texts, classifier.labels, tokenizer, config, context).evaluate(classifier)["loss"]


# ---------------------------------------------------------------- the end: early, the best, an average


@pytest.mark.parametrize(
    ("verb", "more"),
    [
        ("classify", ["--lr", 0.03, "--early-stop", 2]),
        ("classify", ["--lr", 0.5, "--best", "--train", "head"]),
        ("instruct", ["--lr", 0.3, "--best", "--average", 0.3]),
        ("instruct", ["--lr", 0.5, "--early-stop", 2, *INT8]),
        ("prefer", ["--lr", 0.02, "--early-stop", 2]),
        ("prefer", ["--lr", 0.05, "--best", "--train", "lora"]),
    ],
)
def test_the_model_that_is_written_is_that_of_the_best_evaluation(
    tune: Any, contrary: Path, tmp_path: Path, verb: str, more: list[Any]
) -> None:
    given = (verb, "run", "--epochs", 5, "--evaluations", 18, *more)
    out = tune(*given)
    scores = scores_of(out)
    assert scores[-1] > 1.001 * min(scores), "it got worse again"
    assert held_out_loss(verb, contrary, out, tmp_path) == pytest.approx(min(scores), rel=1e-5)
    if "--early-stop" in more:
        assert len(scores) == scores.index(min(scores)) + 3 and steps_of(out) == len(scores) < 18
    else:
        assert len(scores) == 18 == steps_of(out)
    record = json.loads((out / "run.json").read_text())["config"]
    assert (record["best"], record["early_stop"]) == ("--best" in more, 2 * ("--early-stop" in more))
    assert record["evaluations"] == 18
    written = (out / "model.safetensors").read_bytes()
    tune(*given, "--resume")
    assert (out / "model.safetensors").read_bytes() == written and scores_of(out) == scores, "it was at its end"


@pytest.mark.parametrize(("verb", "more"), [("classify", []), ("instruct", INT8), ("prefer", ["--train", "last-1"])])
def test_an_average_is_that_of_the_trained_weights_after_each_step(
    tune: Any, contrary: Path, tmp_path: Path, verb: str, more: list[Any]
) -> None:
    each_step = ["--checkpoint-every", 1, "--keep", 99, "--epochs", 2, *more]
    plain, averaged = tune(verb, "plain", *each_step), tune(verb, "averaged", "--average", 0.7, *each_step)
    paths = sorted((plain / "training").glob("step-*"))
    assert len(paths) == steps_of(plain) == 7
    expected = load_file(plain / "snapshots" / "step-00000000.safetensors")
    for step, path in enumerate(paths):
        keep = min(0.7, (1 + step) / (10 + step))
        for name, weight in load_file(path / "model.safetensors").items():
            if weight.is_floating_point():
                expected[name] = keep * expected[name] + (1 - keep) * weight
    stored = load_file(max((averaged / "training").glob("step-*")) / "optimizer.safetensors")
    found = {name.removeprefix("average."): weight for name, weight in stored.items() if name.startswith("average.")}
    if verb == "instruct":
        assert found and all(name.endswith((".a", ".b")) for name in found), "the adapters alone"
    if verb == "prefer":
        assert found and all(name.startswith(("blocks.1.", "final_norm.")) for name in found)
    for name, weight in found.items():
        torch.testing.assert_close(weight, expected[name], msg=name)
    assert scores_of(averaged)[-1] != scores_of(plain)[-1]
    assert held_out_loss(verb, contrary, averaged, tmp_path) == pytest.approx(scores_of(averaged)[-1], rel=1e-4)


# ---------------------------------------------------------------- the steps


def rates(out: Path) -> list[float]:
    return [line["lr"] for line in read_lines(out / "metrics.jsonl") if line["split"] == "train"]


def test_the_schedule_and_the_optimizer_are_those_that_are_asked_for(tune: Any) -> None:
    more = ["--epochs", 5, "--lr", 0.004]
    cosine = tune("instruct", "cosine", "--schedule", "cosine", *more)
    constant = tune("instruct", "constant", "--schedule", "constant", "--optimizer", "adamw", *more)
    linear = tune("instruct", "linear", *more)
    assert rates(constant)[-1] == 0.004 == max(rates(constant))
    assert 0.0004 < rates(cosine)[-1] < 0.0005
    assert rates(linear)[-1] < 0.0004

    def optimizers(out: Path) -> set[str]:
        names = load_file(max((out / "training").glob("step-*")) / "optimizer.safetensors")
        return {name.partition(".")[0] for name in names} & {"0", "1"}

    assert optimizers(linear) == {"0", "1"}, "Muon and AdamW"
    assert optimizers(constant) == {"0"}, "AdamW alone"


@pytest.mark.parametrize(
    ("verb", "more"),
    [
        ("classify", []),
        ("classify", ["--train", "head"]),
        ("instruct", ["--packing"]),
        ("instruct", INT8),
        ("prefer", []),
    ],
)
def test_recomputing_blocks_trains_the_same_model(
    tune: Any, monkeypatch: pytest.MonkeyPatch, verb: str, more: list[Any]
) -> None:
    from pellucid.model import gpt

    calls, real = [], gpt.checkpoint

    def counted(*arguments: Any, **named: Any) -> Any:
        calls.append(1)
        return real(*arguments, **named)

    monkeypatch.setattr(gpt, "checkpoint", counted)
    plain = tune(verb, "plain", "--epochs", 1, *more)
    assert not calls
    again = tune(verb, "again", "--epochs", 1, "--recompute", *more)
    assert len(calls) == 2 * steps_of(again), "each block, once a step"
    for name, weight in load_file(plain / "model.safetensors").items():
        torch.testing.assert_close(load_file(again / "model.safetensors")[name], weight, atol=1e-5, rtol=1e-4)


def test_tensorboard_shows_what_metrics_say(tune: Any) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    out = tune("classify", "run", "--log", "tensorboard", "--epochs", 1)
    events = EventAccumulator(str(out / "tensorboard"))
    events.Reload()
    for split, name in (("train", "loss"), ("val", "accuracy")):
        wanted = {line["step"]: line[name] for line in read_lines(out / "metrics.jsonl") if line["split"] == split}
        assert {event.step: event.value for event in events.Scalars(f"{split}/{name}")} == pytest.approx(wanted)


def test_the_cpu_is_a_device_and_one_that_is_not_there_is_refused_before_anything_is_written(
    call: Any, tune: Any, contrary: Path, tmp_path: Path
) -> None:
    out = tune("classify", "run", "--device", "cpu:0", "--epochs", 1)
    assert json.loads((out / "run.json").read_text())["config"]["device"] == "cpu:0"
    absent = "mps" if torch.cuda.is_available() else "cuda"
    for verb in CHOICES:
        for device in (absent, "abacus", "cpu:1", "cpu:", "cpu:x"):
            given = ["--data", tmp_path / "nothing.jsonl", "--out", tmp_path / "none", "--device", device]
            done = call("finetune", verb, contrary / "base", *given)
            assert done.returncode == 2
            assert f"--device: found '{device}'; expected auto or one that is here (cpu" in done.stderr
            assert not (tmp_path / "none").exists()


# ---------------------------------------------------------------- what is said, and what is refused


@pytest.mark.parametrize("verb", CHOICES)
def test_the_help_tells_of_all_that_the_loop_can_do(call: Any, verb: str) -> None:
    said = " ".join(call("finetune", verb, "--help").stdout.replace("│", "").split())
    for item in (*fields(Fitting), *fields(WrittenRun)):
        assert f"--{item.name.replace('_', '-')}" in said, item.name
    assert "End with the weights of the evaluation with the lowest loss" in said


@pytest.mark.parametrize(
    ("kind", "recipe", "more", "expected"),
    [
        (FinetuneClassify, CLASSIFY_RATES, {}, {**CLASSIFY_RATES, "optimizer": "muon"}),
        (FinetuneInstruct, INSTRUCT_RATES, {}, {**INSTRUCT_RATES, "optimizer": "muon"}),
        (FinetuneInstruct, INSTRUCT_RATES, {"train": "lora"}, {**ADAPTER_RATES, "optimizer": "adamw"}),
        (FinetunePrefer, PREFER_RATES, {}, {**PREFER_RATES, "optimizer": "adamw"}),
        (FinetunePrefer, PREFER_RATES, {"train": "lora"}, {**PREFER_RATES, "optimizer": "adamw"}),
    ],
)
def test_without_an_option_the_loop_does_what_the_recipe_says(
    base_folder: Path,
    tmp_path: Path,
    kind: type[Finetuning],
    recipe: dict[str, float],
    more: dict[str, Any],
    expected: dict[str, Any],
) -> None:
    options = kind(run=base_folder, out=tmp_path / "run", data=tmp_path / "d.jsonl", **more)  # type: ignore[call-arg]
    assert fit_config(options, recipe) == FitConfig(steps=1, **expected)


@pytest.mark.parametrize(
    ("verb", "more", "said"),
    [
        ("classify", ["--evaluations", 0], "--evaluations: found 0; expected 1 or more"),
        ("classify", ["--early-stop=-1"], "early_stop: found -1; expected 0 or more"),
        ("classify", ["--average", 1], "average: found 1.0; expected a share from 0 up to 1"),
        ("classify", ["--keep", 0], "keep: found 0; expected more than 0"),
        ("classify", ["--lr", "inf"], "lr: found inf"),
        ("classify", ["--epochs", "nan"], "found nan epochs"),
        ("instruct", ["--epochs", "inf"], "found inf epochs"),
        ("instruct", ["--checkpoint-every=-2"], "checkpoint_every: found -2"),
        ("instruct", ["--train", "lora", "--optimizer", "muon"], "--optimizer: found muon for LoRA's matrices"),
        ("instruct", ["--base", "int8"], "--base: found --train all; expected --train lora"),
        (
            "instruct",
            ["--lora-rank", 4, "--no-merge", "--train", "last-1"],
            "--lora-rank, --no-merge: found --train last-1",
        ),
        ("prefer", ["--no-merge"], "--no-merge: found --train all"),
        ("classify", ["--seed=-1"], "seed: found -1; expected a number from 0 up to"),
        ("prefer", ["--seed", 2**63], "seed: found 9223372036854775808"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line_before_the_data_are_read(
    call: Any, contrary: Path, tmp_path: Path, verb: str, more: list[Any], said: str
) -> None:
    given = ["--data", tmp_path / "nothing.jsonl", "--out", tmp_path / "run", *more]
    done = call("finetune", verb, contrary / "base", *given)
    assert done.returncode == 2
    assert said in done.stderr and len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_a_package_that_is_not_installed_is_missed_before_the_data_are_read(
    call: Any, contrary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "wandb", None)
    given = ["--data", tmp_path / "nothing.jsonl", "--out", tmp_path / "run", "--log", "wandb"]
    done = call("finetune", "instruct", contrary / "base", *given)
    assert done.returncode == 2 and "--log wandb: found no package wandb" in done.stderr
    assert not (tmp_path / "run").exists()


def test_a_batch_that_is_larger_than_the_data_is_refused_and_a_hundredth_of_an_epoch_is_a_step(
    call: Any, tune: Any, contrary: Path, tmp_path: Path
) -> None:
    for verb in CHOICES:
        given = ["--data", contrary / f"{verb}.jsonl", "--out", tmp_path / "none", "--batch-size", 1000]
        done = call("finetune", verb, contrary / "base", *given)
        assert done.returncode == 2
        assert "--batch-size: found 1,000; expected at most the 28 examples" in done.stderr
        assert not (tmp_path / "none").exists()
    assert steps_of(tune("classify", "short", "--epochs", 0.01, "--seed", 2**63 - 1)) == 1
