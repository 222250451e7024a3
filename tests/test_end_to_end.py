"""The whole way, as a newcomer goes it: one command on the embedded corpus, then everything that it made is used."""

from __future__ import annotations

import json
import os
import shlex
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer as TheirTokenizer
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from pellucid.finetune.classify import Classifier
from pellucid.finetune.conversation import Conversation, Message
from pellucid.finetune.labelled import read_labelled
from pellucid.finetune.splits import split_labelled
from pellucid.model.gpt import GPT
from pellucid.options import Quickstart
from pellucid.pretrain.metrics import read_lines
from pellucid.quickstart.run import Run
from pellucid.quickstart.shown import farewell
from pellucid.quickstart.steps import repeated
from pellucid.runtime import PellucidError
from pellucid.text.documents import Document
from pellucid.text.shards import Shards
from pellucid.text.tinyworld import FAMILIES
from pellucid.text.tokenizer import END_OF_TEXT, Tokenizer

SENTENCE = "Lara gave the red lamp to Ted, didn't she? 12 + 30 = 42."


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    """Each file with its time and size."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path): (path.stat().st_mtime_ns, path.stat().st_size) for path in files}


# ---------------------------------------------------------------- what it leaves


def test_the_report_holds_the_numbers_of_every_stage(quickstart: Path) -> None:
    report = json.loads((quickstart / "report.json").read_text())
    stages = {"text", "model", "pretrain", "evaluate", "classify", "instruct", "report", "total"}
    assert report["seconds"].keys() >= stages
    parts = sum(seconds for name, seconds in report["seconds"].items() if name != "total")
    assert abs(parts - report["seconds"]["total"]) < 0.1
    assert report["seconds"]["total"] < 60
    asked = {
        "pretrain": {"val_loss", "test_loss", "test_bits_per_byte", "floor_loss", "tokens_per_s"},
        "classify": {"accuracy", "precision", "recall", "f1", "baseline_f1"},
        "instruct": {"exact_match", "baseline_exact_match", "families"},
    }
    for stage, names in asked.items():
        assert report[stage].keys() >= names
        assert all(isinstance(report[stage][name], float) for name in names - {"families"})
    assert set(report["instruct"]["families"]) <= set(FAMILIES)
    assert 0 < report["pretrain"]["floor_loss"] < report["pretrain"]["test_loss"] < 10
    assert 0 < report["machine"]["peak_memory_gb"] < 3


def test_the_report_page_loads_nothing_from_elsewhere(quickstart: Path) -> None:
    page = (quickstart / "report.html").read_text()
    assert "From raw text to your own assistant" in page
    assert 'src="http' not in page and 'href="http' not in page and "@import" not in page


def test_the_metrics_are_in_order_and_have_the_promised_names(quickstart: Path) -> None:
    for name in (".", "classifier", "assistant"):
        lines = read_lines(quickstart / name / "metrics.jsonl")
        train = [line for line in lines if line["split"] == "train"]
        assert [line["step"] for line in train] == list(range(1, len(train) + 1))
        assert all(line.keys() >= {"loss", "lr", "grad_norm", "tokens", "tokens_per_s", "seconds"} for line in train)
        assert any(line["split"] == "val" for line in lines)


def test_no_temporary_file_is_left(quickstart: Path) -> None:
    assert not list(quickstart.rglob(".*"))
    assert not list(quickstart.rglob("*.stopped.json"))


def test_splits_of_what_was_trained_and_tested_on_share_no_text(quickstart: Path) -> None:
    for name, keys in (("messages", ["text"]), ("instructions", ["instruction", "input"]), ("documents", ["text"])):
        rows = [json.loads(line) for line in (quickstart / "corpus" / f"{name}.jsonl").read_text().split("\n") if line]
        texts = {
            split: {tuple(r[k] for k in keys) for r in rows if r["split"] == split}
            for split in ("train", "val", "test")
        }
        assert all(texts.values())
        assert not texts["train"] & texts["test"]
        assert not texts["train"] & texts["val"]


# ---------------------------------------------------------------- promise P1: other tools open it


@pytest.mark.parametrize("name", [".", "assistant"])
def test_transformers_computes_the_same_logits_from_the_folder(quickstart: Path, name: str) -> None:
    theirs, report = AutoModelForCausalLM.from_pretrained(quickstart / name, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"] and not report["mismatched_keys"]
    ours = GPT.load(quickstart / name)
    ids = torch.tensor([Tokenizer.load(quickstart / name).encode(SENTENCE)])
    with torch.no_grad():
        torch.testing.assert_close(ours(ids), theirs.eval()(ids).logits, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("name", [".", "classifier", "assistant", "shards"])
def test_tokenizers_and_transformers_make_the_same_ids_from_the_folder(quickstart: Path, name: str) -> None:
    ours = Tokenizer.load(quickstart / name)
    direct = TheirTokenizer.from_file(str(quickstart / name / "tokenizer.json"))
    auto = AutoTokenizer.from_pretrained(quickstart / name)
    texts = [row["text"] for row in read_lines(quickstart / "corpus" / "documents.jsonl")[:50]]
    for text in [SENTENCE, "", " ", "\n\n", "naïve 日本語 🙂", *texts]:
        ids = ours.encode(text)
        assert ids == direct.encode(text).ids == auto(text)["input_ids"]
        assert auto.decode(ids) == ours.decode(ids) == text
    assert auto.eos_token_id == ours.end_of_text


def test_transformers_classifies_as_we_do(quickstart: Path) -> None:
    folder = quickstart / "classifier"
    theirs, report = AutoModelForSequenceClassification.from_pretrained(folder, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    ours, tokenizer = Classifier.load(folder), Tokenizer.load(folder)
    assert list(theirs.config.id2label.values()) == list(ours.labels) == ["ham", "spam"]
    ids = torch.tensor([tokenizer.encode(SENTENCE)])
    with torch.no_grad():
        torch.testing.assert_close(
            ours(ids, torch.tensor([ids.shape[1]])), theirs.eval()(ids).logits, atol=1e-4, rtol=1e-5
        )


def test_transformers_chat_template_makes_the_ids_that_the_assistant_was_trained_on(quickstart: Path) -> None:
    folder = quickstart / "assistant"
    talk = Conversation((Message("user", "Spell fox."), Message("assistant", "f-o-x"), Message("user", "Count: a, b")))
    messages = [{"role": message.role, "content": message.content} for message in talk.messages]
    theirs = AutoTokenizer.from_pretrained(folder).apply_chat_template(messages, add_generation_prompt=True)
    ids = theirs if isinstance(theirs, list) else theirs["input_ids"]
    assert list(ids) == talk.prompt(Tokenizer.load(folder))


# ---------------------------------------------------------------- what to type next


def test_chat_classify_see_and_report_work_on_what_it_made(quickstart: Path, call: Any, tmp_path: Path) -> None:
    chat = call("chat", quickstart / "assistant", stdin="Who are you?\nSpell fox.\n")
    assert chat.returncode == 0, chat.stderr
    assert chat.stdout.count("\n") >= 2
    result = json.loads(call("classify", quickstart / "classifier", "you won 500 dollars", "see you", "--json").stdout)
    assert [row["text"] for row in result["results"]] == ["you won 500 dollars", "see you"]
    # the threshold is chosen on val, and may lie below a half
    assert all(row["label"] in ("ham", "spam") and 0 < row["probability"] <= 1 for row in result["results"])
    for number, name in enumerate((".", "classifier", "assistant")):
        page = tmp_path / f"{number}.html"
        done = call("see", quickstart / name, "--text", "The opposite of hot is cold.", "--html", page)
        assert done.returncode == 0, done.stderr
        assert "opposite" in page.read_text()
    trace = json.loads(call("see", quickstart, "--text", "hot", "--json").stdout)
    assert trace["text"] == "hot"
    assert json.loads(call("see", quickstart, "--json").stdout)["text"]  # a text of its own
    assert call("report", quickstart, "--html", tmp_path / "one.html").returncode == 0
    assert "assistant" in (tmp_path / "one.html").read_text()
    runs = [quickstart, quickstart / "classifier"]
    assert call("report", *runs, "--html", tmp_path / "two.html").returncode == 0
    assert "2 runs side by side" in (tmp_path / "two.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["chat", "."], "pellucid finetune instruct"),
        (["classify", ".", "text"], "pellucid finetune classify"),
        (["classify", "classifier"], "standard input: found no text"),
        (["report", "shards", "--html", "x.html"], "found no metrics.jsonl"),
        (["see", "shards"], "no config.json"),
    ],
)
def test_the_wrong_folder_for_a_verb_is_refused_with_advice(
    quickstart: Path, call: Any, arguments: list[str], said: str, tmp_path: Path
) -> None:
    arguments = [arguments[0], str(quickstart / arguments[1]), *arguments[2:]]
    done = call(*(str(tmp_path / part) if part == "x.html" else part for part in arguments))
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stdout == ""


# ---------------------------------------------------------------- again, and stopped


def test_run_again_it_does_nothing_new_and_is_quick(quickstart: Path, cli: Any) -> None:
    before, began = snapshot(quickstart), time.monotonic()
    again = cli("quickstart", "--minutes", 0.05, "--out", quickstart, "--json")
    seconds = time.monotonic() - began
    assert again.returncode == 0, again.stderr
    assert snapshot(quickstart) == before
    assert again.stderr.count("(done before)") == 6
    assert json.loads(again.stdout) == json.loads((quickstart / "report.json").read_text())
    assert seconds < 15


def test_other_settings_in_the_same_folder_are_refused_and_nothing_is_touched(quickstart: Path, call: Any) -> None:
    before = snapshot(quickstart)
    done = call("quickstart", "--minutes", 0.06, "--out", quickstart)
    assert done.returncode == 2
    assert "other settings" in done.stderr
    assert snapshot(quickstart) == before


def wait_for(condition: Callable[[], bool], seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came so far"
        time.sleep(0.01)


def test_stopped_half_way_by_ctrl_c_it_exits_with_130_and_goes_on_from_there(
    start: Callable[..., Any], cli: Any, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    arguments = ("quickstart", "--minutes", 0.2, "--out", out)
    process = start(*arguments)
    wait_for(lambda: len(read_lines(out / "metrics.jsonl")) > 3)  # time is left, where a step takes half a second, too
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "goes on from there" in err
    assert "Traceback" not in err
    steps = read_lines(out / "metrics.jsonl")[-1]["step"]
    shards = snapshot(out / "shards")
    again = cli(*arguments)
    assert again.returncode == 0, again.stderr
    assert again.stderr.count("(done before)") == 2  # the text and the model's shape
    assert snapshot(out / "shards") == shards
    train = [line for line in read_lines(out / "metrics.jsonl") if line["split"] == "train"]
    assert [line["step"] for line in train] == list(range(1, len(train) + 1))
    assert len(train) > steps
    report = json.loads((out / "report.json").read_text())
    assert report["seconds"]["pretrain"] >= train[-1]["seconds"]  # both sittings count


# ---------------------------------------------------------------- own files, and bad ones

GOOD_LABELS = "text,label\n" + "".join(f"win {i} dollars now,spam\nsee you at {i},ham\n" for i in range(40))
GOOD_INSTRUCTIONS = json.dumps([{"instruction": f"Say {i}.", "output": f"It is {i}."} for i in range(60)])
GOOD_TEXT = "".join(f"Anna has {i} lamps, and Ben has {i + 1} of them.\n\n" for i in range(600))


def texts_of(folder: Path, split: str) -> list[str]:
    """The documents of a split of shards."""
    shards = Shards.open(folder)
    return shards.tokenizer().decode(np.asarray(shards.tokens(split))).split(END_OF_TEXT)


@pytest.mark.slow
def test_own_text_labels_and_instructions_go_the_whole_way(cli: Any, tmp_path: Path) -> None:
    (tmp_path / "book.txt").write_text(GOOD_TEXT)
    (tmp_path / "labels.csv").write_text(GOOD_LABELS)
    (tmp_path / "talk.json").write_text(GOOD_INSTRUCTIONS)
    own = (
        "--text",
        tmp_path / "book.txt",
        "--labels",
        tmp_path / "labels.csv",
        "--instructions",
        tmp_path / "talk.json",
    )
    done = cli("quickstart", "--minutes", 0.05, "--out", tmp_path / "run", *own, "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["pretrain"]["floor_loss"] is None
    assert report["instruct"]["families"].keys() == {"all"}
    assert (tmp_path / "run" / "report.html").is_file()
    labelled = split_labelled(read_labelled(tmp_path / "labels.csv"))
    read = {name: set(texts_of(tmp_path / "run" / "shards", name)) for name in ("train", "val", "test")}
    assert {example.text for example in labelled["train"]} <= read["train"]  # the model knows their words and spellings
    assert not {example.text for example in labelled["val"] + labelled["test"]} & set.union(*read.values())
    (tmp_path / "labels.csv").write_text(GOOD_LABELS + "see you soon,ham\n")
    changed = cli("quickstart", "--minutes", 0.05, "--out", tmp_path / "run", *own)
    assert changed.returncode == 2
    assert "other settings or files" in changed.stderr


def test_a_file_that_changed_in_a_folder_of_own_text_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "books").mkdir()
    (tmp_path / "books" / "one.txt").write_text(GOOD_TEXT)
    options = Quickstart(tmp_path / "run", text=(tmp_path / "books",))
    Run.open(options)
    (tmp_path / "run" / "results" / "text.json").write_text("{}")  # as if its first step were done
    Run.open(options)
    (tmp_path / "books" / "one.txt").write_text(GOOD_TEXT + "More.\n")
    with pytest.raises(PellucidError, match="other settings or files"):
        Run.open(options)


def test_at_the_end_own_data_gets_its_own_suggestions_and_paths_are_quoted() -> None:
    results = {"text": {"sentence": "Anna's lamp is red."}}
    report = {"seconds": {"total": 1}}
    said = farewell(Run(Quickstart(Path("my runs"), text=(Path("a.txt"),), labels=Path("b.csv")), results), report)
    assert "pellucid chat 'my runs/assistant'" in said and "dollars" not in said and "opposite" not in said
    commands = [shlex.split(line) for line in said.splitlines() if line.startswith("  pellucid")]
    assert commands[2] == ["pellucid", "see", "my runs", "--text", "Anna's lamp is red."]


@pytest.mark.parametrize(("text", "times"), [(1_000, 1), (6_000, 6), (10**6, 10)])
def test_own_messages_are_repeated_to_a_sixth_of_the_text_at_most_ten_times(text: int, times: int) -> None:
    messages = [Document("m" * 100, "labels.csv"), Document("n" * 100, "labels.csv")]
    assert repeated(messages, [Document("t" * text, "book.txt")]) == messages * times
    assert repeated([], []) == []


BAD: list[tuple[str, bytes | None, str]] = [
    ("--text", None, "no such file"),
    ("--text", b"", "no text"),
    ("--text", b"\x00\x01\x02", "binary"),
    ("--text", "Caf\u00e9.\n".encode("latin-1"), "not UTF-8"),
    ("--text", b"One line only.\n", "Give more text"),
    ("--labels", None, "cannot read"),
    ("--labels", b"", "no labelled text"),
    ("--labels", b"text,label\n" + b"hello,spam\n" * 30, "only the label 'spam'"),
    ("--labels", b"text,label\na,spam\nb\nc,ham\n", "line 3"),
    ("--labels", b"text,label\na,spam\nb,\nc,ham\n", "line 3: found no label"),
    ("--instructions", None, "cannot read"),
    ("--instructions", b"[]", "no record"),
    ("--instructions", b'[\n{"instruction": "a", "output": "b"},\n{"instruction": \n]', "line 4"),
    ("--instructions", b'[{"instruction": "a"}]', "record 1: found no output"),
    ("--instructions", b'[{"instruction": "a", "output": "b"}]', "too few"),
]


@pytest.mark.parametrize(("flag", "content", "said"), BAD, ids=[f"{flag} {said}" for flag, _, said in BAD])
def test_a_bad_file_is_refused_in_one_message_before_anything_is_written(
    call: Any, tmp_path: Path, flag: str, content: bytes | None, said: str
) -> None:
    suffix = {"--text": ".txt", "--labels": ".csv", "--instructions": ".json"}[flag]
    file = tmp_path / f"bad{suffix}"
    if content is not None:
        file.write_bytes(content)
    done = call("quickstart", "--minutes", 0.05, "--out", tmp_path / "run", flag, file)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert file.name in done.stderr or said == "too few"
    assert len(done.stderr.strip().splitlines()) <= 3
    assert done.stdout == ""
    assert not (tmp_path / "run").exists()


def test_a_folder_in_place_of_a_file_and_a_file_in_place_of_a_folder_are_refused(call: Any, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("mine")
    for arguments, said in [
        (("--labels", tmp_path / "folder", "--out", tmp_path / "run"), "folder"),
        (("--instructions", tmp_path / "folder", "--out", tmp_path / "run"), "folder"),
        (("--text", tmp_path / "folder", "--out", tmp_path / "run"), "a folder without text"),
        (("--out", tmp_path / "file"), "a file stands where a folder is needed"),
    ]:
        done = call("quickstart", "--minutes", 0.05, *arguments)
        assert done.returncode == 2, done.stderr
        assert said in done.stderr
        assert len(done.stderr.splitlines()) == 1
    assert (tmp_path / "file").read_text() == "mine"


def test_a_folder_with_something_else_in_it_is_left_alone(call: Any, tmp_path: Path) -> None:
    (tmp_path / "diary.txt").write_text("mine")
    done = call("quickstart", "--minutes", 0.05, "--out", tmp_path)
    assert done.returncode == 2
    assert "is not empty and holds no quickstart" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["diary.txt"]


def test_a_folder_that_may_not_be_written_is_named(call: Any, tmp_path: Path) -> None:
    folder = tmp_path / "locked"
    folder.mkdir()
    folder.chmod(0o500)
    out = folder / "run"
    if os.access(folder, os.W_OK):  # nothing is locked for root, but the kernel's own files are
        out = Path("/sys/pellucid")
        if not Path("/sys/kernel").is_dir():
            pytest.skip("this user may write everywhere")
    done = call("quickstart", "--minutes", 0.05, "--out", out)
    assert done.returncode == 2, done.stderr
    assert "cannot write" in done.stderr
    assert str(out) in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("minutes", ["-1", "nan", "inf"])
def test_impossible_minutes_are_refused(call: Any, tmp_path: Path, minutes: str) -> None:
    done = call("quickstart", f"--minutes={minutes}", "--out", tmp_path / "run")
    assert done.returncode == 2
    assert "--minutes" in done.stderr
    assert not (tmp_path / "run").exists()


def test_after_a_bad_file_is_mended_the_same_command_goes_on(call: Any, tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("text,label\na,spam\n")
    arguments = ("quickstart", "--minutes", 0.05, "--out", tmp_path / "run", "--labels", tmp_path / "labels.csv")
    assert call(*arguments).returncode == 2
    (tmp_path / "labels.csv").write_text("text,label\na,ham\n")
    assert "only the label 'ham'" in call(*arguments).stderr  # and not: other settings
