"""The command line: quick to start, helpful about mistakes, and clean on stdout."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from pellucid import options, version
from pellucid.cli import VERBS, find_verb, imported, way_on
from pellucid.config import PRESETS
from pellucid.runtime import PellucidError, printable

Cli = Any
MESSAGE_LINES = 12  # more than this is no short message


def assert_short_message(done: subprocess.CompletedProcess[str], *said: str) -> None:
    """Exit code 2, nothing on stdout, and one short message that says the right things."""
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) <= MESSAGE_LINES, done.stderr
    for words in said:
        assert words in done.stderr


@pytest.mark.parametrize("arguments", [["-c", "import pellucid"], ["-m", "pellucid", "--help"]])
def test_the_start_takes_less_than_a_third_of_a_second(arguments: list[str]) -> None:
    times = []
    for _ in range(5):
        began = time.perf_counter()
        subprocess.run([sys.executable, *arguments], check=True, capture_output=True, cwd=Path(__file__).parents[1])
        times.append(time.perf_counter() - began)
    assert min(times) < 0.3


def test_the_garbage_collector_works_again_once_a_verb_is_imported() -> None:
    with pytest.raises(ModuleNotFoundError):
        imported("pellucid.nothing")
    assert imported("pellucid.version") is version and gc.isenabled()


@pytest.mark.parametrize("code", ["import pellucid", "import pellucid.cli; pellucid.cli.run(['--help'])"])
def test_neither_the_import_nor_the_help_loads_anything_heavy(code: str) -> None:
    heavy = "[name for name in ('torch', 'numpy', 'sklearn', 'rich', 'tyro', 'matplotlib') if name in sys.modules]"
    code = f"import sys; {code}; print({heavy}, file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=Path(__file__).parents[1]
    )
    assert done.stderr.strip() == "[]"


@pytest.mark.parametrize("name", VERBS)
def test_each_verb_has_settings_and_a_function(name: str) -> None:
    verb = VERBS[name]
    module, function = verb.function.split(":")
    assert callable(getattr(import_module(module), function))
    fields = options.__dict__[verb.settings].__dataclass_fields__
    assert "json" in fields
    assert find_verb([*name.split(), "more"]) == (name, ["more"])


@pytest.mark.parametrize("name", VERBS)
def test_each_verb_has_a_help_page_that_calls_its_arguments_by_their_names(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from pellucid.cli import run

    for arguments in ([*name.split(), "--help"], ["help", *name.split()]):
        with pytest.raises(SystemExit) as ended:
            run(arguments)
        assert ended.value.code == 0
        said = capsys.readouterr().out
        assert "--json" in said
        positional = said.partition("positional")[2].partition("options")[0]
        assert "PATH" not in positional and "STR" not in positional and "(default: )" not in positional


@pytest.mark.parametrize("first", ["tokenizer", "finetune"])
def test_the_help_of_a_first_word_lists_what_may_follow(call: Cli, first: str) -> None:
    for arguments in ([first, "--help"], [first, "-h"], ["help", first]):
        done = call(*arguments)
        assert done.returncode == 0
        listed = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("  pellucid")]
        assert listed == [first] * sum(name.startswith(f"{first} ") for name in VERBS)


def test_the_help_names_all_sizes_of_models(call: Cli) -> None:
    assert all(name in call("pretrain", "--help").stdout.split("--steps")[0] for name in PRESETS)


def test_the_help_lists_every_verb_and_the_version_is_one_line(cli: Cli) -> None:
    done = cli("--help")
    assert all(f"pellucid {name} " in done.stdout for name in VERBS)
    assert cli("--version").stdout.startswith("pellucid 0.")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["pretrian"], "Did you mean `pellucid pretrain`?"),
        (["finetune", "clasify"], "classify or instruct"),
        (["finetune"], "classify or instruct"),
        (["tokenizer", "train", "x.txt", "--out", "o", "--kind", "char", "--pattern", "cl100k"], "--kind bpe"),
        (["encode", "x.txt", "--out", "o", "--workers", "-3"], "--workers: found -3; expected 0 or more"),
        (["tokenizer", "train", "x.txt", "--out", "o", "--special-tokens", ""], "--special-tokens: found an empty"),
        (["generate", "x", "--prompt", "y", "--table", "--samples", "3"], "--table: found --samples beside it"),
        (["pretrain", "--data", "x", "--out", "o", "--shard"], "--shard: found a single process"),
        (["plan", "--no-probe", "--steps", "9", "--minutes", "-1"], "--minutes: found -1.0"),
        (["classify", "somewhere", "text", "--file", "x.txt"], "--file x.txt: found 1 of the command line, too"),
        (["classify", "somewhere", "text", "--text-column", "x"], "--text-column: found texts without columns"),
        (["compare", "a", "b", "--data", "x", "--judge-model", "m", "--repeats", "2"], "--judge-model, --repeats: "),
        (["plan", "--no-probe", "--context", "999"], "--context: found 999; expected at least 1 and at most 256"),
        (["plan", "--no-probe", "--context", "-1"], "--context: found -1"),
        (["doctor", "--against", "x", "--tokenizer", "gpt2"], "--against, --tokenizer: found no file"),
        (["xyzzy"], "`pellucid --help` lists them"),
        (["see", "somewhere", "--htlm", "x"], "--html"),
        (["see"], "Run folder"),
        (["serve"], "found no runs; expected one or more"),
        (["report", "--html", "x.html"], "found no runs; expected one or more"),
        (["tokenizer", "report"], "found no tokenizers; expected one or more"),
        (["generate", "somewhere", "--prompt", "x", "--max-tokens", "ten"], "--max-tokens"),
        (["generate", "nowhere", "--prompt", "x"], "nowhere: found no such folder"),
        (["doctor", "a word " * 50], "a wor…: found a name that is too long"),
        (["chat", "somewhere", "--config"], "--config needs a file"),
        (["chat", "somewhere", "--config", "no.toml"], "no.toml: cannot read"),
    ],
)
def test_a_mistake_gets_exit_code_2_and_a_short_message(call: Cli, arguments: list[str], said: str) -> None:
    assert_short_message(call(*arguments), said)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('max-tokns = 5\nprompt = "x"', "unknown setting 'max-tokns'; expected a known one. Did you mean max_tokens?"),
        ("max-tokens = 'five'", "max-tokens: found 'five'; expected a value of type int"),
        ("max-tokens = true", "expected a value of type int"),
        ("top_p = \n", "line 1"),
        ("[generate]\nmax-tokens = 5", "unknown setting 'generate'"),
    ],
)
def test_a_mistake_in_a_settings_file_names_the_file_and_the_key(
    call: Cli, tmp_path: Path, content: str, said: str
) -> None:
    (tmp_path / "my.toml").write_text(content)
    done = call("generate", "somewhere", "--prompt", "x", "--config", tmp_path / "my.toml")
    assert_short_message(done, "my.toml", said)


def test_the_command_line_stands_over_the_settings_file_and_the_file_over_the_defaults(
    call: Cli, tmp_path: Path, base_folder: Path
) -> None:
    (tmp_path / "my.toml").write_text('max-tokens = 5\ntemperature = 0\nprompt = "The"')
    by_file = json.loads(call("generate", base_folder, f"--config={tmp_path / 'my.toml'}", "--json").stdout)
    assert by_file["tokens"] == 5
    done = call("generate", base_folder, "--config", tmp_path / "my.toml", "--json", "--max-tokens", 3)
    assert json.loads(done.stdout)["tokens"] == 3


def test_json_is_one_object_and_nothing_else_on_stdout(call: Cli, base_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("The red fox has a lamp.\n" * 30)
    calls = [
        ("generate", base_folder, "--prompt", "The", "--max-tokens", 80),
        ("tokenizer", "show", "The fox", "--tokenizer", base_folder),
        ("tokenizer", "train", tmp_path / "text.txt", "--vocab-size", 270, "--out", tmp_path / "tokenizer"),
        ("encode", tmp_path / "text.txt", "--tokenizer", base_folder, "--out", tmp_path / "shards"),
        ("evaluate", base_folder, "--data", tmp_path / "text.txt"),
        ("see", base_folder, "--text", "The fox"),
    ]
    for arguments in calls:
        done = call(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        assert isinstance(json.loads(done.stdout), dict)
        assert done.stdout.count("\n") == 1


def test_a_terminal_that_knows_few_characters_gets_the_others_by_their_numbers(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", "cp1252")
    assert "text files \\u2192 token shards" in cli("--help").stdout
    (tmp_path / "text.txt").write_text("日本 🙂" * 9, encoding="utf-8")
    out = tmp_path / "🙂"
    train = ("tokenizer", "train", tmp_path / "text.txt", "--kind", "char", "--out", out)
    assert json.loads(cli(*train, "--json").stdout)["out"] == str(out)
    assert "\\u65e5" in cli("tokenizer", "show", "日本 🙂", "--tokenizer", out).stdout


def test_generated_json_says_how_fast_it_was(call: Cli, base_folder: Path) -> None:
    result = json.loads(call("generate", base_folder, "--prompt", "The", "--max-tokens", 8, "--json").stdout)
    assert result.keys() == {"text", "tokens", "tokens_per_s", "first_token_s"}
    assert result["tokens"] <= 8


def test_generation_shows_the_prompt_and_then_what_the_json_says(call: Cli, base_folder: Path) -> None:
    arguments = ("generate", base_folder, "--prompt", "The", "--max-tokens", 8, "--seed", 4)

    assert call(*arguments).stdout == "The" + printable(json.loads(call(*arguments, "--json").stdout)["text"]) + "\n"


@pytest.mark.parametrize("verb", ["tokenizer show - --tokenizer", "generate --max-tokens 3 --prompt -"])
def test_a_byte_order_mark_is_no_part_of_what_comes_along_a_pipe(cli: Cli, base_folder: Path, verb: str) -> None:
    marked, plain = (cli(*verb.split(), base_folder, stdin=f"{mark}The fox").stdout for mark in ("\ufeff", ""))
    assert marked == plain != ""


def test_decoding_loads_no_linear_algebra_and_leaves_it_to_who_wants_it(base_folder: Path) -> None:
    code = f"""
import sys
from pellucid.cli import run
run(["generate", {str(base_folder)!r}, "--prompt", "The", "--max-tokens", "2"])
print("numba" in sys.modules, "scipy.linalg" in sys.modules)
import scipy.linalg.cython_blas
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[1])
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("True False\n")


def test_a_closed_pipe_is_no_error(base_folder: Path) -> None:
    line = f"{sys.executable} -m pellucid generate {base_folder} --prompt The --max-tokens 300 | head -c 3"
    done = subprocess.run(
        ["bash", "-c", line], capture_output=True, text=True, cwd=Path(__file__).parents[1], check=True
    )
    assert "Traceback" not in done.stderr
    assert "Error" not in done.stderr


def test_a_verb_of_one_word_too_few_is_explained() -> None:
    with pytest.raises(PellucidError, match="'tokenizer' needs a second word: train or show"):
        find_verb(["tokenizer"])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("encode a.txt --out shards", "the same command goes on"),
        ("pretrain --data shards --out run", "the same command with --resume goes on"),
        ("finetune instruct run --data d.json --out run3", "the same command with --resume goes on"),
        ("pretrain --resume --data shards --out run", "the same command goes on"),
        ("chat run", "/save FILE keeps it"),
    ],
)
def test_who_stops_is_told_what_goes_on_from_there(arguments: str, said: str) -> None:
    assert said in way_on(arguments.split())


@pytest.mark.parametrize("verb", ["serve", "generate", "see", "evaluate", "compare"])
def test_who_stops_what_keeps_nothing_is_promised_nothing(verb: str) -> None:
    assert way_on([verb, "run"]) == ""
