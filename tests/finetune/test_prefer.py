"""Preference tuning: pairs found by looking, the loss that trl computes, a reference that is computed once."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from pellucid.config import FitConfig
from pellucid.finetune.conversation import Message
from pellucid.finetune.instruct import prepare_model, save_assistant
from pellucid.finetune.instructions import split_examples
from pellucid.finetune.lora import Lora
from pellucid.finetune.prefer import (
    REFERENCE,
    Pair,
    PreferenceTuning,
    answer_log_probabilities,
    pair_batch,
    preference_losses,
    read_pairs,
)
from pellucid.finetune.prefer_commands import prefer
from pellucid.model.gpt import GPT
from pellucid.pretrain.task import pieces
from pellucid.runtime import DataError
from pellucid.text.tokenizer import Tokenizer

TALK = [
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Yes?"},
    {"role": "user", "content": "Who?"},
]
BETTER, WORSE = {"role": "assistant", "content": "Anna."}, {"role": "assistant", "content": "Nobody."}
EARLIER = (Message("user", "Hi"), Message("assistant", "Yes?"))
KINDS: dict[str, tuple[dict[str, Any], Pair]] = {
    "instruction": (
        {"instruction": "Who?", "input": "the lamp", "output": "x", "chosen": "Anna.", "rejected": "Nobody."},
        Pair("Who?", "the lamp", "Anna.", rejected="Nobody."),
    ),
    "history": (
        {"instruction": "Who?", "history": [["Hi", "Yes?"]], "chosen": "Anna.", "rejected": "Nobody."},
        Pair("Who?", "", "Anna.", earlier=EARLIER, rejected="Nobody."),
    ),
    "prompt": (
        {"prompt": "Who?", "chosen": "Anna.", "rejected": "Nobody."},
        Pair("Who?", "", "Anna.", rejected="Nobody."),
    ),
    "prompt of turns": (
        {"prompt": TALK, "chosen": [BETTER], "rejected": [WORSE]},
        Pair("Who?", "", "Anna.", earlier=EARLIER, rejected="Nobody."),
    ),
    "a prompt in one text": (
        {
            "prompt": " Human: Hi\n\nAssistant: Yes?\n\nHuman: Who?\n\nAssistant:",
            "chosen": "Anna.",
            "rejected": "Nobody.",
        },
        Pair("Who?", "", "Anna.", earlier=EARLIER, rejected="Nobody."),
    ),
    "talks in one text": (
        {
            "chosen": "\n\nHuman: Hi\n\nAssistant: Yes?\n\nHuman: Who?\n\nAssistant: Anna.",
            "rejected": "\n\nHuman: Hi\n\nAssistant: Yes?\n\nHuman: Who?\n\nAssistant: Nobody.",
        },
        Pair("Who?", "", "Anna.", earlier=EARLIER, rejected="Nobody."),
    ),
    "whole talks": (
        {"chosen": [*TALK, BETTER], "rejected": [*TALK, WORSE]},
        Pair("Who?", "", "Anna.", earlier=EARLIER, rejected="Nobody."),
    ),
}


def test_every_pair_of_a_question_is_kept_in_one_split() -> None:
    many = [Pair(f"Who has {i}?", "", f"Anna {j}.", rejected=f"No {j}.") for i in range(20) for j in range(3)]
    splits = split_examples([*many, many[0]])
    assert {name: len(members) for name, members in splits.items()} == {"train": 51, "val": 3, "test": 6}
    assert len({pair.key for pair in splits["test"]}) == 2


@pytest.mark.parametrize("kind", KINDS)
def test_pairs_are_found_in_each_kind_and_equal_answers_dropped_with_a_count(
    tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    record, expected = KINDS[kind]
    same = {**record, "rejected": record["chosen"]}
    (tmp_path / "a.json").write_text(json.dumps([record, same]))
    assert read_pairs(tmp_path / "a.json") == [expected]
    assert "1 of 2 pairs have the same answer twice" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({"prompt": "a", "chosen": "b"}, "no rejected"),
        ({"prompt": "a", "rejected": "b", "chosen": " "}, "no chosen"),
        ({"chosen": "b", "rejected": "c"}, "no instruction"),
        ({"chosen": [*TALK, BETTER], "rejected": [TALK[0], WORSE]}, "answers to different talks"),
        ({"chosen": TALK, "rejected": [*TALK, WORSE]}, "no answer at the end"),
        ({"prompt": "a", "chosen": "b", "rejected": "c", "split": "x"}, "split 'x'"),
    ],
)
def test_a_bad_pair_is_named(tmp_path: Path, record: dict[str, Any], said: str) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps(record))
    with pytest.raises(DataError, match=r"line 1, record 1: found") as error:
        read_pairs(tmp_path / "a.jsonl")
    assert said in str(error.value)


def pairs(count: int) -> list[Pair]:
    return [
        Pair(f"Who has lamp {i}?", "", f"Anna has {i}.", rejected="Ben, he has " + "many lamps " * (i % 3))
        for i in range(count)
    ]


@pytest.fixture(scope="module")
def assistant(base_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("assistant") / "run"
    model, tokenizer = GPT.load(base_folder), Tokenizer.load(base_folder)
    prepare_model(model, tokenizer)
    torch.manual_seed(1)
    torch.nn.init.normal_(model.token_embedding.weight, std=0.2)
    save_assistant(model, tokenizer, folder)
    return folder


def moved(model: GPT) -> GPT:
    """The model as if it had been trained a little."""
    torch.manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.02 * torch.randn_like(parameter)
    return model


def test_the_losses_are_those_of_trl_on_the_same_pairs(assistant: Path, tmp_path: Path) -> None:
    trl = pytest.importorskip("trl", reason="trl is not installed")
    datasets = pytest.importorskip("datasets", reason="datasets is not installed")
    tokenizer, chosen = Tokenizer.load(assistant), pairs(6)
    moved(GPT.load(assistant)).save(tmp_path / "moved")
    rows = [
        {
            "prompt": [{"role": "user", "content": pair.instruction}],
            "chosen": [{"role": "assistant", "content": pair.output}],
            "rejected": [{"role": "assistant", "content": pair.rejected}],
        }
        for pair in chosen
    ]
    settings = trl.DPOConfig(
        output_dir=str(tmp_path / "trl"),
        beta=0.3,
        per_device_train_batch_size=6,
        report_to=[],
        use_cpu=True,
        bf16=False,
    )
    trainer = trl.DPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(tmp_path / "moved"),
        ref_model=AutoModelForCausalLM.from_pretrained(assistant),
        args=settings,
        train_dataset=datasets.Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(assistant),
    )
    batch = trainer.data_collator(list(trainer.train_dataset))
    with torch.no_grad():
        theirs = trainer.compute_loss(trainer.model.eval(), batch)
        task = PreferenceTuning(
            {"train": chosen, "val": chosen}, tokenizer, FitConfig(steps=1, batch_size=6), 64, beta=0.3
        )
        task.refer(GPT.load(assistant), tmp_path / "reference.safetensors")
        model = GPT.load(tmp_path / "moved")
        ours = pair_batch(task.rows["train"], tokenizer.end_of_text)
        losses = preference_losses(answer_log_probabilities(model, ours), task.reference["train"], 0.3)
    theirs_first = [part.transpose(0, 1).flatten(0, 1) for part in (ours.inputs, ours.trained)]  # all chosen ones first
    assert torch.equal(theirs_first[0], batch["input_ids"][:, :-1])
    assert torch.equal(theirs_first[1], batch["completion_mask"][:, 1:].bool())
    assert abs(float(losses.mean()) - math.log(2)) > 1e-3, "the models differ"
    torch.testing.assert_close(losses.mean(), theirs, atol=1e-5, rtol=0)


def test_a_model_that_has_not_moved_has_the_loss_of_a_coin(assistant: Path, tmp_path: Path) -> None:
    model, tokenizer = GPT.load(assistant), Tokenizer.load(assistant)
    config = FitConfig(steps=1, batch_size=4)
    task = PreferenceTuning({"train": pairs(8), "val": pairs(4)}, tokenizer, config, 64, beta=0.1)
    task.refer(model, tmp_path / REFERENCE)
    (batch,) = task.batches(0)
    loss = task.loss(model, batch)
    assert loss.count == 4
    assert float(loss.total) / 4 == pytest.approx(math.log(2), abs=1e-6)


def test_a_batch_cut_into_pieces_has_the_same_loss(assistant: Path, tmp_path: Path) -> None:
    model, tokenizer = GPT.load(assistant), Tokenizer.load(assistant)
    task = PreferenceTuning({"train": pairs(9), "val": pairs(4)}, tokenizer, FitConfig(steps=1, batch_size=7), 64, 0.1)
    task.refer(model, tmp_path / REFERENCE)
    moved(model)
    (batch,) = task.batches(0)
    parts = [task.loss(model, piece) for piece, _ in pieces([batch], rows=2)]
    whole = task.loss(model, batch)
    assert [part.count for part in parts] == [2, 2, 2, 1]
    torch.testing.assert_close(sum(part.total for part in parts), whole.total, atol=1e-5, rtol=1e-5)


def test_the_reference_is_computed_once_and_only_kept_for_the_same_pairs_and_the_same_model(
    assistant: Path, tmp_path: Path
) -> None:
    model, tokenizer, file = GPT.load(assistant), Tokenizer.load(assistant), tmp_path / REFERENCE
    config = FitConfig(steps=1, batch_size=4)

    def reference(count: int, model: GPT) -> torch.Tensor:
        task = PreferenceTuning({"train": pairs(count), "val": pairs(3)}, tokenizer, config, 64, beta=0.1)
        task.refer(model, file)
        return task.reference["train"]

    first, written = reference(8, model), file.stat().st_mtime_ns
    assert torch.equal(reference(8, model), first)
    assert file.stat().st_mtime_ns == written, "taken from the file"
    assert len(reference(9, model)) == 9
    assert not torch.equal(reference(8, moved(GPT.load(assistant))), first), "another model says something else"
    assert torch.equal(reference(8, model), first)


def test_pairs_too_long_are_cut_or_left_out_with_a_count(assistant: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tokenizer, config = Tokenizer.load(assistant), FitConfig(steps=1, batch_size=2)
    long = [Pair("Who?", "", "fox " * 99, rejected="no"), Pair("fox " * 99, "", "yes", rejected="no")]
    task = PreferenceTuning({"train": [*pairs(2), *long], "val": pairs(2)}, tokenizer, config, 64, beta=0.1)
    assert len(task.rows["train"]) == 3
    assert "2 of 4 train pairs are longer than the context of 64 tokens: 1 cut at the end, 1 left out" in (
        capsys.readouterr().err
    )
    for name in ("train", "val", "test"):
        splits = {"train": pairs(2), "val": pairs(2), "test": pairs(2)} | {name: long[1:]}
        with pytest.raises(DataError, match=f"no {name} pair that fits"):
            PreferenceTuning(splits, tokenizer, config, 64, beta=0.1)


@pytest.mark.parametrize("lora", [None, Lora(rank=2), Lora(rank=2, base="int8")])
def test_it_learns_what_is_preferred_and_a_stopped_run_goes_on_to_the_same_bits(
    assistant: Path, tmp_path: Path, lora: Lora | None
) -> None:
    members = pairs(24)
    splits = {"train": members[:16], "val": members[16:20], "test": members[20:]}
    rate = 2e-2 if lora else 1e-3
    config = FitConfig(
        steps=8, batch_size=8, lr=rate, dtype="float32", checkpoint_every=3, optimizer="adamw", weight_decay=0.0
    )
    train, one, two = "lora" if lora else "all", tmp_path / "one", tmp_path / "two"
    result = prefer(assistant, splits, config, one, resume=False, train=train, lora=lora)
    assert result["preference"]["preferred"] == 1.0
    assert result["preference"]["loss"] < math.log(2)
    shutil.copytree(one / "training", two / "training")
    shutil.rmtree(two / "training" / "step-00000008")
    again = prefer(assistant, splits, config, two, resume=True, train=train, lora=lora)
    assert again["preference"] == result["preference"]
    assert (one / "model.safetensors").read_bytes() == (two / "model.safetensors").read_bytes()


def test_the_command_makes_a_better_assistant_of_an_assistant_alone(
    call: Any, base_folder: Path, assistant: Path, tmp_path: Path
) -> None:
    data, out = tmp_path / "pairs.jsonl", tmp_path / "run"
    rows = [{"prompt": pair.instruction, "chosen": pair.output, "rejected": pair.rejected} for pair in pairs(30)]
    data.write_text("\n".join(map(json.dumps, rows)))
    done = call("finetune", "prefer", assistant, "--data", data, "--out", out, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["preference"]["pairs"] == found["questions"] == 3
    assert call("chat", out, "--max-tokens", 3, stdin="Hi\n").returncode == 0
    for base, more, said in [
        (base_folder, [], "not taught to talk"),
        (assistant, ["--beta", 0], "--beta"),
        (assistant, ["--dtype", "bfloat16"], "float32"),
    ]:
        done = call("finetune", "prefer", base, "--data", data, "--out", tmp_path / "no", *more)
        assert done.returncode == 2
        assert said in done.stderr
        assert not (tmp_path / "no").exists()
