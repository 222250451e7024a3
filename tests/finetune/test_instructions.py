"""Instructions: read, refused with file and line, split without leaks, and trained so that answers end."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from pellucid.config import FitConfig
from pellucid.finetune.answers import Answer, answer_all, assistant_scores, same_text
from pellucid.finetune.conversation import Message
from pellucid.finetune.instruct import InstructionTuning, prepare_model
from pellucid.finetune.instruct_commands import Lead, Pupil, examined, finetune_assistant
from pellucid.finetune.instructions import Example, once, read_instructions, split_examples
from pellucid.finetune.nearest import nearest_answers
from pellucid.model.gpt import GPT
from pellucid.model.importing import import_model
from pellucid.options import Import
from pellucid.pretrain.alike import start_alike
from pellucid.pretrain.fit import fit
from pellucid.pretrain.loss import Loss
from pellucid.runtime import DataError, PellucidError
from pellucid.text.tokenizer import Tokenizer

ROLE = "<|system|>"  # the first of them
RECORDS = [
    {"instruction": "Say a.", "input": "", "output": "a"},
    {"instruction": "Add.", "input": "1 2", "output": "3"},
]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.json", json.dumps(RECORDS)),
        ("a.jsonl", "\n\n".join(map(json.dumps, RECORDS))),
        ("a.json", json.dumps(RECORDS, indent=1)),
    ],
)
def test_lists_and_lines_are_read(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    assert read_instructions(tmp_path / name) == [Example("Say a.", "", "a"), Example("Add.", "1 2", "3")]


def test_a_line_separator_inside_an_answer_does_not_end_the_record(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"instruction": "x", "output": "one\u2028two"}\n', encoding="utf-8")
    assert read_instructions(tmp_path / "a.jsonl")[0].output == "one\u2028two"


BAD: list[tuple[str, bytes | None, str]] = [
    ("a.json", None, "cannot read"),
    ("a.json", b"", "line 1: found broken JSON"),
    ("a.jsonl", b"", "no record"),
    ("a.json", b"[]", "no record"),
    ("a.json", b"{}", "no list"),
    ("a.json", b"\x00", "binary"),
    ("a.json", '[{"instruction": "caf\u00e9"}]'.encode("latin-1"), "line 1: found the byte 0xe9"),
    ("a.json", b'[\n{"instruction": "a", "output": "b"},\n{"instruction" "a"}\n]', "line 3: found broken JSON"),
    ("a.jsonl", b'{"instruction": "a", "output": "b"}\n{"instruction\n', "line 2: found broken JSON"),
    ("a.json", b'[{"instruction": "a", "output": "b"}, {"instruction": "a"}]', "record 2: found no output"),
    ("a.json", b'[{"instruction": "a", "output": "  "}]', "record 1: found no output"),
    ("a.json", b'[{"input": "a", "output": "b"}]', "record 1: found no instruction"),
    ("a.json", b'[{"instruction": 5, "output": "b"}]', "record 1: found instruction 5"),
    ("a.json", b'[["a", "b"]]', "record 1: found no JSON object"),
    ("a.json", b'[{"instruction": "a", "output": "b", "split": "tset"}]', "record 1: found split 'tset'"),
]


@pytest.mark.parametrize(("name", "content", "said"), BAD, ids=[f"{name} {said}" for name, _, said in BAD])
def test_a_bad_file_is_refused_with_its_name_and_place(
    tmp_path: Path, name: str, content: bytes | None, said: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as error:
        read_instructions(tmp_path / name)
    assert said in str(error.value)
    assert str(tmp_path / name) in str(error.value)


def many(count: int, split: str = "") -> list[Example]:
    return [Example(f"Say {i}.", "", f"It is {i}.", split=split) for i in range(count)]


def test_a_split_shares_no_question_and_keeps_every_different_answer(capsys: pytest.CaptureFixture[str]) -> None:
    more = [
        Example("say  7.", "", "another answer"),
        Example("SAY 7.", "", "It is 7."),
        Example("Say 8.", "", "Eight."),
    ]
    splits = split_examples([*many(100), *more])
    keys = {name: [example.key for example in members] for name, members in splits.items()}
    assert {name: len(set(members)) for name, members in keys.items()} == {"train": 85, "val": 5, "test": 10}
    assert len({key for members in keys.values() for key in members}) == 100
    assert sum(map(len, keys.values())) == 102
    assert "left out as repeats of others: 1 of 103 instructions." in capsys.readouterr().err
    assert [example.output for example in once([*many(9), more[0]])] == [f"It is {i}." for i in range(9)]


def test_a_question_that_the_file_names_for_two_splits_stays_in_the_test() -> None:
    named = [Example("Say 1.", "", "one", split="train"), Example("say 1.", "", "One.", split="test")]
    splits = split_examples([*named, Example("say 1.", "", "1"), *many(40, "train")[2:]])
    assert sorted(example.output for example in splits["test"]) == ["1", "One."]
    assert "say 1." not in {example.key for name in ("train", "val") for example in splits[name]}


def grown(number: int, turns: int, split: str = "") -> Example:
    """A talk as it stood after so many answers."""
    said = [Message("assistant" if i % 2 else "user", f"{number}, turn {i}") for i in range(2 * turns)]
    return Example(said[-2].content, "", said[-1].content, split=split, earlier=tuple(said[:-2]))


@pytest.mark.parametrize("seed", range(3))
def test_no_question_is_held_out_that_a_longer_talk_of_train_answers_on_its_way(seed: int) -> None:
    talks = [grown(number, turns) for number in range(20) for turns in (1, 2, 3)]
    splits = split_examples([*talks, *many(20)], seed=seed)
    assert {name: len(members) for name, members in splits.items()} == {"train": 68, "val": 4, "test": 8}
    learnt = {message.content for example in splits["train"] for message in example.whole().messages}
    for name in ("val", "test"):
        assert not [example for example in splits[name] if example.output in learnt]
        assert {len(example.earlier) for example in splits[name]} <= {0, 4}


def test_a_talk_that_answers_a_question_that_the_file_names_for_the_test_is_left_out(
    capsys: pytest.CaptureFixture[str],
) -> None:
    named = [grown(1, 1, "test"), grown(1, 2, "train"), grown(2, 1, "train"), grown(2, 2, "test"), grown(1, 3)]
    splits = split_examples([*named, *many(40, "train")])
    kept = {example.output for members in splits.values() for example in members}
    assert kept.isdisjoint({named[1].output, named[4].output})
    assert named[2].output in kept and len(splits["test"]) == 2
    assert "left out as repeats of others: 2 of 45" in capsys.readouterr().err


@pytest.mark.parametrize("there", [("train", "val"), ("train", "test"), ("train",)])
def test_splits_that_the_file_names_are_kept_and_a_missing_one_is_taken_from_train(there: tuple[str, ...]) -> None:
    named = [Example(f"{name}?", "", "Yes.", split=name) for name in there[1:]]
    splits = split_examples([*many(40, "train"), *named])
    expected = {"val": 2, "test": 4} | dict.fromkeys(there[1:], 1)
    assert {name: len(splits[name]) for name in ("val", "test")} == expected
    assert sum(map(len, splits.values())) == 40 + len(named)
    assert all(splits[example.split] == [example] for example in named)


def test_two_instructions_are_too_few() -> None:
    with pytest.raises(DataError, match="too few"):
        split_examples(many(2))


def test_the_nearest_example_gives_its_answer() -> None:
    train = [Example("What is the opposite of hot?", "", "cold"), Example("Spell the word fox.", "", "f-o-x")]
    asked = [Example("Spell the word hen.", "", "?"), Example("The opposite of wet?", "", "?")]
    assert nearest_answers(train, asked) == ["f-o-x", "cold"]


@pytest.fixture
def pair(base_folder: Path) -> tuple[GPT, Tokenizer]:
    model, tokenizer = GPT.load(base_folder), Tokenizer.load(base_folder)
    prepare_model(model, tokenizer)
    return model, tokenizer


def task_of(tokenizer: Tokenizer, examples: list[Example], config: FitConfig, context: int = 64) -> InstructionTuning:
    return InstructionTuning({"train": examples, "val": examples[:3], "test": []}, tokenizer, config, context)


def test_a_batch_trains_answers_and_their_end_and_neither_prompts_nor_padding(pair: tuple[GPT, Tokenizer]) -> None:
    model, tokenizer = pair
    examples = [Example("Say a.", "", "a"), Example("Where is the fox?", "The fox is with Anna.", "With Anna, Ben.")]
    task = task_of(tokenizer, examples, FitConfig(steps=1, batch_size=2))
    (batch,) = task.batches(0)
    learnt = {tokenizer.decode(row[mask].tolist()) for row, mask in zip(batch.targets, batch.trained, strict=True)}
    assert learnt == {"a<|endoftext|>", "With Anna, Ben.<|endoftext|>"}
    assert torch.equal(batch.inputs[:, 1:], batch.targets[:, :-1])
    assert task.loss(model, batch).count == int(batch.trained.sum()), "and nothing else counts in the loss"


def test_role_tokens_that_pretraining_left_alike_are_learnt_beside_adapters(base_folder: Path, tmp_path: Path) -> None:
    model, tokenizer = GPT.load(base_folder), Tokenizer.load(base_folder)
    start_alike(model.token_embedding.weight, torch.arange(tokenizer.vocab_size) < tokenizer.special_tokens[ROLE])
    for part in (model, tokenizer):
        part.save(tmp_path / "base")
    for train in ("lora", "last-1"):
        assert not Pupil.open(base_folder, FitConfig(steps=1), train).model.token_embedding.weight.requires_grad
        assert Pupil.open(tmp_path / "base", FitConfig(steps=1), train).model.token_embedding.weight.requires_grad
    pupil = Pupil.open(tmp_path / "base", FitConfig(steps=1), "lora")
    weight = pupil.model.token_embedding.weight
    with torch.no_grad():
        weight += 1
    pupil.save(tmp_path / "run", merge=False)
    import_model(Import(str(tmp_path / "run" / "adapter"), tmp_path / "merged"))
    assert torch.equal(GPT.load(tmp_path / "merged").token_embedding.weight, weight)


def test_leads_are_runs_of_their_own_one_after_the_other_before_all_the_rest(
    pair: tuple[GPT, Tokenizer], tmp_path: Path
) -> None:
    hard = [Example(f"Where is {n}?", "", f"hard {n}", "hard") for n in range(4)]
    easy = [Example(f"Say {n}.", "", "easy", "easy") for n in range(4)]
    splits = {"train": [*easy, *hard], "val": [easy[0], hard[0]], "test": easy[:1]}
    for part in pair:
        part.save(tmp_path / "base")
    config = FitConfig(steps=2, batch_size=4, dtype="float32")

    def after(out: str, *leads: Lead) -> dict[str, float]:
        finetune_assistant(tmp_path / "base", splits, config, tmp_path / out, False, leads=leads)
        return {name: float(tensor.sum()) for name, tensor in GPT.load(tmp_path / out).state_dict().items()}

    alone = {"train": hard, "val": hard[:1], "test": []}
    led = after("led", Lead("first", alone, config), Lead("second", alone, config))
    assert led != after("once", Lead("first", alone, config)) != after("plain")
    for name in ("first", "second"):
        lines = (tmp_path / "led" / "lead" / name / "metrics.jsonl").read_text().splitlines()
        assert [json.loads(line)["step"] for line in lines if json.loads(line)["split"] == "train"] == [1, 2]


def test_the_time_that_a_lead_leaves_when_it_is_learnt_goes_to_the_rest(
    pair: tuple[GPT, Tokenizer], tmp_path: Path
) -> None:
    splits = {"train": many(8), "val": many(2), "test": many(1)}
    for part in pair:
        part.save(tmp_path / "base")
    config = FitConfig(minutes=0.05, batch_size=4, dtype="float32", evaluate_share=0.1, enough=1e9)
    begun: list[FitConfig] = []
    finetune_assistant(
        tmp_path / "base", splits, config, tmp_path / "out", False, leads=[Lead("first", splits, config)],
        begin=lambda config, tried: begun.append(config),
    )  # fmt: skip
    assert 0.05 < begun[0].minutes < 0.1


def test_examples_longer_than_the_context_are_cut_or_left_out_and_counted(
    pair: tuple[GPT, Tokenizer], capsys: pytest.CaptureFixture[str]
) -> None:
    long = Example("fox " * 200, "", "yes")
    task = task_of(pair[1], [*many(4), long], FitConfig(steps=1, batch_size=2))
    assert len(task.rows["train"]) == 4
    assert "1 of 5 train examples are longer than the context" in capsys.readouterr().err
    cut = Example("Say it.", "", "fox " * 200)
    rows = task_of(pair[1], [*many(4), cut], FitConfig(steps=1, batch_size=2)).rows["train"]
    assert [len(ids) for ids, _ in rows][-1] == 65, "64 inputs, and a target for the last"
    said = capsys.readouterr().err
    assert "1 cut at the end, 0 left out" in said
    assert "That leaves 5, 4 with the end of their answer" in said
    assert [ids[-1] == pair[1].end_of_text and trained[-1] for ids, trained in rows] == [True] * 4 + [False]
    with pytest.raises(DataError, match="no train example that fits"):
        task_of(pair[1], [long] * 4, FitConfig(steps=1, batch_size=2))
    capsys.readouterr()
    task = task_of(pair[1], [long] * 3 + many(4), FitConfig(steps=1, batch_size=2))
    assert task.rows["val"] == task.rows["train"][:1]
    assert "the loss of one of train is shown instead" in capsys.readouterr().err


class Broken(InstructionTuning):
    """A task whose loss is no number."""

    def loss(self, model: GPT, batch: Any) -> Loss:
        loss = super().loss(model, batch)
        return Loss(loss.total * math.nan, loss.count)


def test_examples_with_which_the_loss_is_no_number_are_shown(pair: tuple[GPT, Tokenizer], tmp_path: Path) -> None:
    config = FitConfig(steps=9, batch_size=2, dtype="float32")
    task = Broken({"train": many(4), "val": many(1), "test": []}, pair[1], config, 64)
    with pytest.raises(PellucidError, match=r"the loss is nan at step 1 \(texts that begin with '<\|user\|>Say \d\."):
        fit(pair[0], task, config, tmp_path)


def test_it_learns_to_answer_and_to_end(pair: tuple[GPT, Tokenizer], tmp_path: Path) -> None:
    tokenizer = pair[1]
    torch.manual_seed(0)
    model = GPT(pair[0].config)
    examples = [Example("Who has the lamp?", "", "Anna."), Example("Where is the fox?", "", "With Ben.")]
    config = FitConfig(steps=80, batch_size=2, lr=5e-3, dtype="float32", weight_decay=0.0)
    fit(model, task_of(tokenizer, [*examples, examples[0]], config), config, tmp_path)
    answers = answer_all(model, tokenizer, examples, same_text)
    assert [answer.said for answer in answers] == ["Anna.", "With Ben."]
    assert all(answer.right and answer.ended for answer in answers)


def test_an_answer_may_be_as_long_as_the_right_ones_are(pair: tuple[GPT, Tokenizer]) -> None:
    tokenizer = pair[1]
    torch.manual_seed(0)
    model = GPT(replace(pair[0].config, context_length=512)).eval()  # knows no end
    for words, room in [(3, 100), (200, 3 * len(tokenizer.encode("fox " * 200)) // 2), (999, 512)]:
        examples = [Example("Say it.", "", "fox " * words), Example("Say no.", "", "No.")]
        scores = examined(model, tokenizer, {"train": examples, "test": examples}, same_text, 9)["scores"]
        assert (scores["stop_rate"], scores["tokens"]) == (0, room)


def test_scores_count_right_answers_by_family_and_ends() -> None:
    rows: list[Any] = [("x", True, True), ("x", False, True), ("y", True, False), ("y", True, True)]
    answers = [Answer(Example("q", "", "a", family), "", right, ended) for family, right, ended in rows]
    scores = assistant_scores(answers)
    assert scores["exact_match"] == scores["stop_rate"] == 0.75
    assert scores["families"] == {"x": 0.5, "y": 1.0}
    assert scores["questions"] == 4
    low, high = scores["intervals"]["exact_match"]
    assert 0 <= low < 0.75 < high <= 1


def test_white_space_at_the_ends_is_no_mistake_and_anything_else_is() -> None:
    example = Example("q", "", "Cold.")
    assert same_text(example, " Cold.\n")
    assert not same_text(example, "cold.")
