"""The whole way, as a newcomer goes it: one command on the embedded corpus, then everything that it made is used."""

from __future__ import annotations

import json
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
from pellucid.pretrain.metrics import read_lines
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
    # Untrained it is 10.75, and beside other tests the seconds of this run may be enough for a single step.
    assert 0 < report["pretrain"]["floor_loss"] < report["pretrain"]["test_loss"] < 11
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


def test_no_file_is_a_pickle(quickstart: Path) -> None:
    files = [file for file in quickstart.rglob("*") if file.is_file()]
    known = {".csv", ".html", ".json", ".jsonl", ".npy", ".safetensors", ".txt", ".tsv", ""}
    assert {file.suffix for file in files} <= known, "formats that can hold numbers and text alone"
    others = [file for file in files if file.suffix != ".safetensors"]
    assert not [file for file in others if file.read_bytes()[:1] == b"\x80" or file.read_bytes()[:2] == b"PK"]


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
