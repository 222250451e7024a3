"""Whatever a file, a name, a model or a question says is text: no verb lets it move the cursor or become markup.

Escape sequences of seven and of eight bits, a line that turns around, HTML, scripts, and Rich's own markup.
"""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pellucid.cli import run
from pellucid.finetune.classify import Classifier
from pellucid.finetune.instruct import prepare_model, save_assistant
from pellucid.model.gpt import GPT
from pellucid.runtime import DataError
from pellucid.text.bpe import BPETokenizer

Cli = Callable[..., "subprocess.CompletedProcess[str]"]
ATTACK = "<script>alert(1)</script> [bold]\x1b[2J\x1b]0;title\x07 \x9b31m\u202e \x08 <img src=x onerror=alert(2)>"
NAME = "run \x1b[31m\u202e<b>[red]"


def assert_harmless(done: subprocess.CompletedProcess[str], *codes: int) -> None:
    """It ended as expected, and neither output holds a character that a terminal obeys."""
    assert done.returncode in (codes or (0,)), done.stderr
    for text in (done.stdout, done.stderr):
        assert [c for c in text if not (c.isprintable() or c in "\n\t")] == [], ascii(text)


@pytest.fixture(scope="module")
def home(base_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data, a model whose tokens are escape sequences, a classifier with such labels, an assistant; all so named."""
    home = tmp_path_factory.mktemp("hostile") / NAME
    home.mkdir()
    texts = [f"{ATTACK} {number}" for number in range(10)] * 2
    (home / f"{NAME}.txt").write_text("\n\n".join(texts), encoding="utf-8")
    rows = [{"text": text, "label": ATTACK if i % 2 else "ham\x1b[0m"} for i, text in enumerate(texts * 3)]
    (home / "labelled.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    talks = [{"instruction": f"\x1b[2J{i}", "input": "", "output": "\x9b<b>"} for i in range(60)]
    (home / "talks.json").write_text(json.dumps(talks))
    pairs = [{"prompt": f"\x1b[2J{i}", "chosen": "\x9b<b>", "rejected": "\x1b[H"} for i in range(60)]
    (home / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pairs))
    model = GPT.load(base_folder)
    tokenizer = BPETokenizer.train([ATTACK * 8], vocab_size=299)
    tokenizer.add_special_tokens(["<|\x1b[2J\u202e|>"])
    model.save(home / "base", bos_token_id=tokenizer.end_of_text, eos_token_id=tokenizer.end_of_text)
    tokenizer.save(home / "base")
    Classifier(model, ["ham\x1b[0m", ATTACK]).save(home / "classifier", tokenizer)
    prepare_model(model, tokenizer)
    save_assistant(model, tokenizer, home / "assistant")
    return home


VERBS: dict[str, Callable[[Path, Path], list[Any]]] = {
    "train": lambda home, out: ["tokenizer", "train", home / f"{NAME}.txt", "--out", out, "--special-tokens", ATTACK],
    "show": lambda home, _: ["tokenizer", "show", ATTACK, "--tokenizer", home / "base", "--kinds", "--tree"],
    "report": lambda home, _: ["tokenizer", "report", home / "base", "--text", home / f"{NAME}.txt"],
    "encode": lambda home, out: ["encode", home / f"{NAME}.txt", "--tokenizer", home / "base", "--out", out],
    "doctor": lambda home, _: ["doctor", home / "labelled.jsonl", "--against", home / "talks.json"],
    "evaluate": lambda home, _: ["evaluate", home / "base", "--data", home / f"{NAME}.txt"],
    "generate": lambda home, _: ["generate", home / "base", "--prompt", ATTACK, "--max-tokens", 30, "--samples", 2],
    "why": lambda home, _: ["generate", home / "base", "--prompt", ATTACK, "--max-tokens", 5, "--table"],
    "classifier": lambda home, out: [
        "finetune", "classify", home / "base", "--data", home / "labelled.jsonl", "--epochs", 0.5, "--out", out],
    "classify": lambda home, _: ["classify", home / "classifier", ATTACK],
    "jsonl": lambda home, _: ["classify", home / "classifier", ATTACK, "--format", "jsonl"],
    "instruct": lambda home, out: [
        "finetune", "instruct", home / "base", "--data", home / "talks.json", "--epochs", 0.5, "--out", out],
    "prefer": lambda home, out: [
        "finetune", "prefer", home / "assistant", "--data", home / "pairs.jsonl", "--out", out],
    "compare": lambda home, out: [
        "compare", home / "assistant", home / "assistant", "--data", home / "talks.json", "--max-tokens", 8,
        "--html", out / "compare.html"],
    "see": lambda home, out: ["see", home / "base", "--text", ATTACK, "--html", out / "see.html"],
    "quantize": lambda home, out: ["quantize", home / "base", "--to", "int8", "--out", out],
    "export": lambda home, out: ["export", home / "base", "--to", "gguf", "--out", out / "model.gguf"],
}  # fmt: skip


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize("name", VERBS)
def test_what_a_verb_says_is_harmless(name: str, as_json: bool, home: Path, tmp_path: Path, call: Cli) -> None:
    done = call(*VERBS[name](home, tmp_path / NAME), *(["--json"] if as_json else []))
    assert_harmless(done)
    if as_json:
        json.loads(done.stdout)
    for page in (tmp_path / NAME).glob("*.html"):
        assert "<script>alert" not in page.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["show", "report", "why"])
def test_colours_are_our_own_and_no_others(
    name: str, home: Path, tmp_path: Path, call: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    done = call(*VERBS[name](home, tmp_path))
    plain = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout)
    assert plain != done.stdout, "it is coloured"
    assert name == "why" or "\\x1b[31m" in plain, "the folder's name is not"
    beside = re.sub(r"\x1b\[([0-9;]*m|2K|1A|\?25[lh])|\r", "", done.stderr)  # a progress bar is drawn anew
    assert_harmless(subprocess.CompletedProcess(done.args, done.returncode, plain, beside))


@pytest.mark.parametrize("as_json", [False, True])
def test_a_chat_is_harmless(home: Path, as_json: bool, call: Cli) -> None:
    asked = f"\x1b[2J\x9b\n/{ATTACK}\n/why\n/temperature {ATTACK}\n/load {ATTACK}\n"
    asked = "\x1b[2J\x9b" if as_json else asked
    done = call("chat", home / "assistant", "--max-tokens", 20, *(["--json"] if as_json else []), stdin=asked)
    assert_harmless(done)


def test_training_and_its_report_are_harmless(home: Path, tmp_path: Path, call: Cli) -> None:
    shards, run, page = tmp_path / "shards", tmp_path / NAME, tmp_path / "page.html"
    assert_harmless(call("encode", home / f"{NAME}.txt", "--tokenizer", home / "base", "--out", shards))
    shape = tmp_path / f"{NAME}.toml"
    shape.write_text('family = "gpt2"\nd_model = 16\nn_layers = 1\nn_heads = 1\ncontext_length = 16\n')
    recipe = ("--steps", 4, "--batch-size", 2, "--prompts", ATTACK)
    assert_harmless(call("pretrain", "--data", shards, "--model", shape, "--out", run, *recipe))
    assert_harmless(call("report", run, run.with_name("nothing"), "--html", page), 0, 2)
    assert_harmless(call("report", run, "--html", page))
    assert "<script>alert" not in page.read_text(encoding="utf-8")


WRONG: dict[str, Callable[[Path], list[Any]]] = {
    "verb": lambda _: [ATTACK],
    "value": lambda _: ["generate", "x", "--max-tokens", ATTACK],
    "folder": lambda home: ["generate", home / ATTACK.replace("/", "")],
    "preset": lambda _: ["plan", "--model", ATTACK],
    "file": lambda home: ["encode", home / "none\x1b[2J.txt", "--out", home / "nowhere"],
    "column": lambda home: [
        "finetune", "classify", home / "base", "--data", home / "labelled.jsonl", "--text-column", ATTACK,
        "--out", home / "nowhere"],
    "config": lambda home: ["generate", home / "base", "--config", home / "config.toml"],
    "model": lambda home: ["generate", home / "broken"],
    "tokenizer": lambda home: ["tokenizer", "show", "x", "--tokenizer", home / "broken"],
    "import": lambda home: ["import", home / "broken", "--out", home / "nowhere"],
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_complaint_is_harmless(name: str, home: Path, call: Cli) -> None:
    key = json.dumps(ATTACK)
    (home / "config.toml").write_text(f"{key} = {key}\n", encoding="utf-8")
    broken = home / "broken"
    if not broken.is_dir():
        shutil.copytree(home / "base", broken)
        config = json.loads((broken / "config.json").read_text())
        (broken / "config.json").write_text(json.dumps(config | {"model_type": ATTACK, "architectures": [ATTACK]}))
        (broken / "tokenizer.json").write_text(json.dumps({"model": {"type": ATTACK}, ATTACK: ATTACK}))
    done = call(*WRONG[name](home))
    assert_harmless(done, 2)
    assert done.stdout == "" and "Traceback" not in done.stderr


def test_json_is_the_same_text_to_whoever_reads_it(home: Path, call: Cli) -> None:
    done = call("classify", home / "classifier", ATTACK, "--json")
    assert json.loads(done.stdout)["results"][0]["text"] == ATTACK


@pytest.mark.parametrize("terminal", [False, True])
def test_csv_is_exact_in_a_file_and_harmless_on_a_terminal(
    home: Path, call: Cli, terminal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
    done = call("classify", home / "classifier", ATTACK, "--format", "csv")
    (row,) = csv.DictReader(io.StringIO(done.stdout, newline=""))
    assert (row["text"] == ATTACK) is not terminal
    if terminal:
        assert_harmless(done)


@pytest.mark.parametrize("verb", ["classify", "chat --json", "tokenizer show"])
def test_bytes_on_standard_input_that_are_no_utf8_are_named(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], verb: str
) -> None:
    given = {
        "classify": ["classify", home / "classifier"],
        "tokenizer show": ["tokenizer", "show", "-", "--tokenizer", home / "assistant"],
    }
    command = given.get(verb) or ["chat", home / "assistant", *verb.split()[1:]]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"ab\xff\n"), encoding="utf-8", errors="strict"))
    with pytest.raises(DataError, match="standard input: found the byte 0xff at 2; expected text in UTF-8"):
        run(list(map(str, command)))
