"""Questions: found by looking, scored by the model's own probabilities, counted as the harness counts."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from pellucid.model.gpt import GPT
from pellucid.pretrain.harness import end_that_fits
from pellucid.pretrain.questions import Question, likelihoods, read_questions, score_questions, split_ids, wilson
from pellucid.runtime import DataError
from pellucid.text.tokenizer import Tokenizer

HELLASWAG = {"ctx": "Anna gives the red", "endings": ["lamp to Ben.", "fox.", "none"], "label": "2"}
LAMBADA = {"context": "The blue fox has", "target": "lamps"}


@pytest.fixture(scope="module")
def model(base_folder: Path) -> GPT:
    return GPT.load(base_folder)


@pytest.fixture(scope="module")
def tokenizer(base_folder: Path) -> Tokenizer:
    return Tokenizer.load(base_folder)


def written(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_rows_are_told_apart_by_looking(tmp_path: Path) -> None:
    assert read_questions(written(tmp_path / "a.jsonl", HELLASWAG)) == [
        Question("Anna gives the red", (" lamp to Ben.", " fox.", " none"), 2)
    ]
    assert read_questions(written(tmp_path / "b.jsonl", LAMBADA)) == [Question("The blue fox has", (" lamps",), 0)]
    text = written(tmp_path / "c.jsonl", {"text": "Where is the fox"})
    assert read_questions(text) == []
    assert read_questions(text, last_word=True) == [Question("Where is the", (" fox",), 0)]


@pytest.mark.parametrize(
    "row",
    [
        {"ctx": "a", "endings": ["b"], "label": 5},
        {"ctx": "a", "endings": ["b", "c", "d"], "label": "²"},
        {"ctx": "a", "endings": ["b", ""], "label": 0},
        {"ctx": "a", "endings": ["b"], "label": "0" * 5000},
        {"other": 1},
        [],
        {"ctx": "a"},
    ],
)
def test_a_row_that_is_none_of_them_is_named(tmp_path: Path, row: Any) -> None:
    with pytest.raises(DataError, match=r"q\.jsonl, line 2"):
        read_questions(written(tmp_path / "q.jsonl", HELLASWAG, row))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot read: No such file"),
        (b'{"ctx": "a", "endings": ["", "b"], "label": 1}', "line 1: found an empty ending"),
        ("Käse".encode("latin-1"), "not UTF-8"),
        (b'{"ctx": ' * 9999, "broken JSON"),
        (b'{"ctx": "a", "endings": ["b"], "label": ' + b"1" * 5000 + b"}", "broken JSON"),
    ],
)
def test_what_cannot_be_read_is_said_in_one_line(
    call: Any, base_folder: Path, tmp_path: Path, content: bytes | None, said: str
) -> None:
    if content is not None:
        (tmp_path / "q.jsonl").write_bytes(content)
    done = call("evaluate", base_folder, "--data", tmp_path / "q.jsonl")
    assert done.returncode == 2 and said in done.stderr and len(done.stderr.splitlines()) == 1


def test_a_line_ends_where_jsonl_says_and_not_at_every_separator_of_unicode(tmp_path: Path) -> None:
    file = tmp_path / "q.jsonl"
    file.write_bytes(b"\xef\xbb\xbf" + '{"context": "The blue\u2028fox", "target": "has"}\r\n'.encode())
    assert read_questions(file) == [Question("The blue\u2028fox", (" has",), 0)]


def test_likelihoods_are_those_of_the_model_one_by_one(model: GPT, tokenizer: Tokenizer) -> None:
    pairs = [split_ids(tokenizer, "The blue fox has", f" {word}") for word in ("12 lamps, and Ben", "none", "x" * 90)]
    pairs.append(split_ids(tokenizer, "", "Ben"))
    for (context, ending), (log, greedy) in zip(pairs, likelihoods(model, pairs), strict=True):
        row = torch.tensor((context + ending)[-(model.config.context_length + 1) :])
        logs = model(row[None, :-1])[0].log_softmax(-1)
        kept = min(len(ending), len(row) - 1)
        picked = logs[range(len(row) - 1), row[1:]][-kept:]
        assert log == pytest.approx(picked.sum().item(), rel=1e-5)
        assert greedy == bool((logs.argmax(-1)[-kept:] == row[-kept:]).all())


def test_a_context_and_its_ending_are_encoded_as_one_text(tokenizer: Tokenizer) -> None:
    for context, ending in (("Anna gives", " the red"), ("Anna gives ", "the red"), ("", "Ben")):
        begin, rest = split_ids(tokenizer, context, ending)
        assert tokenizer.decode([i for i in begin if i != tokenizer.end_of_text] + rest) == context + ending


def test_scores_are_shares_of_what_is_likeliest(model: GPT, tokenizer: Tokenizer) -> None:
    question = Question("Anna gives the red", (" lamp", " fox", " Ben has none"), 0)
    logs = [log for log, _ in likelihoods(model, [split_ids(tokenizer, question.context, e) for e in question.endings])]
    best = max(range(3), key=logs.__getitem__)
    questions = [Question(question.context, question.endings, right) for right in range(3)]
    scores = score_questions(model, tokenizer, questions)
    assert scores["accuracy"] == pytest.approx(1 / 3) == scores["guess"]
    assert score_questions(model, tokenizer, [questions[best]])["accuracy"] == 1.0
    word = score_questions(model, tokenizer, [Question("Anna gives the red", (" lamp",), 0)])
    assert word["perplexity"] == pytest.approx(math.exp(-logs[0]), rel=1e-5)


def test_the_interval_of_a_share_is_wilsons() -> None:
    assert wilson([True] * 5 + [False] * 5) == pytest.approx([0.2366, 0.7634], abs=1e-4)
    assert wilson([True] * 10)[1] == pytest.approx(1.0)


def test_the_verb_finds_questions_by_looking(call: Any, base_folder: Path, tmp_path: Path) -> None:
    done = call("evaluate", base_folder, "--data", written(tmp_path / "q.jsonl", HELLASWAG, HELLASWAG))
    assert done.returncode == 0 and "a guess: 0.333" in done.stdout and "over 2 questions" in done.stdout
    plain = written(tmp_path / "t.jsonl", {"text": "Anna gives the red lamp to Ben."})
    assert "bits per byte" in call("evaluate", base_folder, "--data", plain).stdout
    assert "perplexity" in call("evaluate", base_folder, "--data", plain, "--last-word").stdout
    nothing = call("evaluate", base_folder)
    assert nothing.returncode == 2 and "--data" in nothing.stderr
    for ignored, said in [(("--limit", 2), "--limit: found no --tasks"), (("--tasks", "x"), "--data: found --tasks")]:
        done = call("evaluate", base_folder, "--data", plain, *ignored)
        assert done.returncode == 2 and said in done.stderr


def test_a_small_model_of_the_harness_is_told_what_is_asked_however_long_the_answer_may_be() -> None:
    prompt = list(range(300))
    assert end_that_fits(prompt, 1024, 256) == prompt
    assert end_that_fits(prompt, 256, 128) == prompt[-128:]
    assert end_that_fits(prompt, 128, 256) == prompt[-64:]
    assert end_that_fits([], 128, 256) == []


def test_the_harness_scores_a_local_task_as_we_do(base_folder: Path, call: Any, tmp_path: Path) -> None:
    pytest.importorskip("lm_eval")
    rows = [HELLASWAG | {"label": number % 3} for number in range(6)]
    data = written(tmp_path / "rows.jsonl", *rows)
    (tmp_path / "mine.yaml").write_text(
        "task: pellucid_mine\ndataset_path: json\n"
        f"dataset_kwargs:\n  data_files:\n    test: {data}\n"
        "test_split: test\noutput_type: multiple_choice\n"
        'doc_to_text: "{{ctx}}"\ndoc_to_target: "{{label}}"\ndoc_to_choice: "{{endings}}"\n'
        "metric_list:\n  - metric: acc\n"
    )
    done = call("evaluate", base_folder, "--tasks", "pellucid_mine", "--task-folder", tmp_path, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["pellucid_mine"]["acc"]
    ours = json.loads(call("evaluate", base_folder, "--data", data, "--json").stdout)["accuracy"]
    assert found == pytest.approx(ours)
