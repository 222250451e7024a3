"""`pellucid generate`: settings, samples, standard input, stop strings, the table, and mistakes."""

from __future__ import annotations

import io
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from pellucid.config import ModelConfig
from pellucid.generation.commands import in_brief, read_prompt, show
from pellucid.generation.writer import Writer
from pellucid.model.formats.folder import WEIGHTS
from pellucid.model.gpt import GPT
from pellucid.runtime import DataError, printable
from pellucid.text.tokenizer import Tokenizer


def found(call: Any, folder: Path, *arguments: object, stdin: str = "") -> dict[str, Any]:
    done = call("generate", folder, "--max-tokens", 12, "--json", *arguments, stdin=stdin)
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def test_every_setting_reaches_the_choice(call: Any, base_folder: Path) -> None:
    plain = found(call, base_folder, "--prompt", "The", "--temperature", 0)["text"]
    for setting in (("--top-k", 1), ("--top-p", 0.0001), ("--min-p", 1)):
        assert found(call, base_folder, "--prompt", "The", "--temperature", 2, *setting)["text"] == plain
    penalised = found(call, base_folder, "--prompt", "The", "--temperature", 0, "--repetition-penalty", 5)["text"]
    assert penalised != plain


@pytest.mark.parametrize("kept", [torch.float32, torch.bfloat16])
def test_the_usual_precision_says_what_float32_says(
    call: Any, base_folder: Path, tmp_path: Path, kept: torch.dtype
) -> None:
    folder = shutil.copytree(base_folder, tmp_path / "kept")
    weights = {name: weight.to(kept) for name, weight in load_file(base_folder / WEIGHTS).items()}
    save_file(weights, folder / WEIGHTS)

    def texts(*more: object) -> list[str]:
        prompts = ("The", "Anna gives", "Where is", "3 + 4", "Ben")
        return [found(call, folder, "--prompt", prompt, "--temperature", 0, *more)["text"] for prompt in prompts]

    assert texts() == texts("--dtype", "float32") != texts("--dtype", "int4")


def test_samples_come_as_a_list_the_first_as_the_text(call: Any, base_folder: Path) -> None:
    one = found(call, base_folder, "--prompt", "The", "--seed", 2)
    three = found(call, base_folder, "--prompt", "The", "--seed", 2, "--samples", 3)
    assert "samples" not in one
    assert three["samples"][0]["text"] == three["text"] == one["text"]
    assert sum(sample["tokens"] for sample in three["samples"]) == three["tokens"]
    shown = call("generate", base_folder, "--max-tokens", 12, "--prompt", "The", "--seed", 2, "--samples", 3).stdout
    expected = [f"── {i + 1} of 3 ──\nThe{sample['text']}" for i, sample in enumerate(three["samples"])]
    assert shown == printable("\n\n".join(expected)) + "\n"


def test_what_is_said_while_the_prompt_is_read_stands_on_a_line_of_its_own(
    capsys: pytest.CaptureFixture[str], base_folder: Path
) -> None:
    def pieces() -> Iterator[tuple[int, str]]:
        print("a note")
        yield 0, " fox"

    show(pieces(), [Writer(Tokenizer.load(base_folder))], "The")
    assert capsys.readouterr().out == "a note\nThe fox\n"
    show([], [Writer(Tokenizer.load(base_folder))], "The")
    assert capsys.readouterr().out == "The\n"


def test_a_dash_reads_the_prompt_from_standard_input(call: Any, base_folder: Path) -> None:
    piped = found(call, base_folder, "--prompt", "-", stdin="The fox\n")
    assert piped["text"] == found(call, base_folder, "--prompt", "The fox")["text"]


def test_standard_input_that_is_no_text_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"ab\xff"), encoding="utf-8"))
    with pytest.raises(DataError, match="standard input: found the byte 0xff at 2; expected text in UTF-8"):
        read_prompt("-")


def test_the_text_ends_before_any_stop_string(call: Any, base_folder: Path) -> None:
    whole = found(call, base_folder, "--prompt", "The", "--seed", 1)["text"]
    stop = [mark for mark in ("e", "a", " ", "o") if mark in whole]
    until = min((whole[: whole.index(mark)] for mark in stop), key=len)
    assert found(call, base_folder, "--prompt", "The", "--seed", 1, "--stop", *stop)["text"] == until


def test_the_table_shows_how_the_next_token_is_chosen(call: Any, base_folder: Path) -> None:
    arguments = ("--prompt", "The", "--temperature", 0.7, "--top-k", 4, "--repetition-penalty", 1.5, "--table")
    result = found(call, base_folder, *arguments)
    rows = result["next"]
    assert len(rows) == 10 or (len(rows) == 11 and rows[-1]["drawn"])
    for row in rows:
        assert row["scaled"] == pytest.approx(row["penalised"] / 0.7, abs=1e-4)
        assert (row["probability"] > 0) == row["kept"]
    assert [row["kept"] for row in rows] == [True] * 4 + [False] * (len(rows) - 4)
    assert rows[3]["cumulative"] == pytest.approx(1, abs=1e-5)
    assert result["others"]["probability"] == 0
    (drawn,) = [row for row in rows if row["drawn"]]
    first = found(call, base_folder, *arguments[:-1], "--max-tokens", 1)["text"]
    assert first == drawn["text"]
    shown = call("generate", base_folder, *arguments).stdout
    assert shown.startswith('After "The" (temperature 0.7, top k 4, repetition penalty 1.5, seed 0):\n')
    for name in ("token", "logit", "penalised", "scaled", "kept", "probability", "cumulative"):
        assert name in shown.splitlines()[1]
    assert "█" in shown
    assert "0 % together" in shown.splitlines()[-1]


def test_a_token_that_is_drawn_from_far_down_stands_below_the_ten_likeliest(call: Any, base_folder: Path) -> None:
    for seed in range(5):
        rows = found(call, base_folder, "--prompt", "The", "--temperature", 50, "--seed", seed, "--table")["next"]
        assert sum(row["drawn"] for row in rows) == 1
        assert len(rows) == 11 or any(row["drawn"] for row in rows[:10])


def test_a_long_prompt_shows_its_end() -> None:
    assert in_brief("a\nb") == '"a⏎b"'
    assert in_brief("x" * 50 + "the end") == '"…' + "x" * 32 + 'the end"'


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--max-tokens", 0), "--max-tokens: found 0; expected 1 or more"),
        (("--samples", 0), "--samples: found 0; expected 1 or more"),
        (("--stop", "a", ""), "--stop: found an empty text"),
        (("--temperature", -1), "temperature: found -1.0; expected 0, or from 1e-06 up"),
        (("--temperature", "nan"), "temperature: found nan"),
        (("--top-k", -3), "top_k: found -3"),
        (("--top-p", 0), "top_p: found 0.0"),
        (("--min-p", 2), "min_p: found 2.0; expected 0 to 1"),
        (("--repetition-penalty", 0), "repetition_penalty: found 0.0; expected above 0"),
    ],
)
def test_a_bad_setting_is_one_message_before_anything_is_loaded(
    call: Any, tmp_path: Path, arguments: tuple[object, ...], said: str
) -> None:
    done = call("generate", tmp_path / "nowhere", "--prompt", "x", *arguments)
    assert done.returncode == 2
    assert done.stderr.startswith(f"pellucid: {said}")
    assert done.stdout == ""


def test_a_model_and_a_tokenizer_that_do_not_belong_together_are_refused(
    call: Any, base_folder: Path, tmp_path: Path
) -> None:
    tokenizer = Tokenizer.load(base_folder)
    GPT(ModelConfig(vocab_size=tokenizer.vocab_size - 20, context_length=16, d_model=16, n_layers=1, n_heads=1)).save(
        tmp_path
    )
    tokenizer.save(tmp_path)
    (tmp_path / "text.txt").write_text("The fox")
    for verb in (
        ("generate", tmp_path, "--prompt", "The fox", "--dtype", "float32"),
        ("generate", tmp_path, "--prompt", "The fox", "--dtype", "int8"),
        ("evaluate", tmp_path, "--data", tmp_path / "text.txt"),
        ("quantize", tmp_path, "--to", "int8", "--out", tmp_path / "small", "--data", tmp_path / "text.txt"),
    ):
        done = call(*verb)
        assert (done.returncode, done.stdout) == (2, ""), verb
        assert f"a tokenizer of {tokenizer.vocab_size} tokens" in done.stderr
    assert not (tmp_path / "small").exists()


@pytest.mark.parametrize("verb", ["generate", "chat", "serve"])
def test_a_senseless_number_of_threads_is_refused(call: Any, base_folder: Path, verb: str) -> None:
    for threads in (-1, 100_000):
        more = ("--prompt", "The") if verb == "generate" else ()
        done = call(verb, base_folder, *more, "--threads", threads, stdin="Hi\n")
        assert done.returncode == 2
        assert "--threads: found" in done.stderr
