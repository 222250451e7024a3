"""Instructions: read, refused with file and line, split without leaks, and trained so that answers end."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from pellucid.config import FitConfig
from pellucid.finetune.answers import Answer, answer_all, assistant_scores, same_text
from pellucid.finetune.instruct import InstructionTuning, prepare_model
from pellucid.finetune.instruct_commands import Lead, finetune_assistant
from pellucid.finetune.instructions import Example, once, read_instructions, split_examples
from pellucid.finetune.nearest import nearest_answers
from pellucid.model.gpt import GPT
from pellucid.pretrain.fit import fit
from pellucid.pretrain.loss import Loss
from pellucid.runtime import DataError, PellucidError
from pellucid.text.tokenizer import Tokenizer

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
