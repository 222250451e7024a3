"""What the command line does with generation: continue a text, or show how its next token is chosen."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from pellucid.generation.decoder import load_decoder
from pellucid.generation.engine import make_dice, prompt_ids, seen_tokens, write
from pellucid.generation.fast import FastReader
from pellucid.generation.reader import AnyReader
from pellucid.generation.sampling import Sampling, choose, next_token
from pellucid.generation.writer import Writer
from pellucid.model.formats.folder import check_fits, say_if_classifier
from pellucid.options import Generate
from pellucid.runtime import ConfigError, printable, problem, utf8_input
from pellucid.text.tokenizer import Tokenizer

Outcome = tuple[dict[str, Any], str]  # what --json prints, and what people read


def generate_text(options: Generate) -> Outcome:
    """`pellucid generate`: the text appears as it is made; with --json it comes at the end, with its speed."""
    check(options)
    sampling = Sampling(options.temperature, options.top_k, options.top_p, options.min_p, options.repetition_penalty)
    prompt = read_prompt(options.prompt)
    say_if_classifier(Path(options.run))
    model = load_decoder(options.run, options.dtype, options.threads, options.device)
    tokenizer = Tokenizer.load(options.run)
    check_fits(model.config, tokenizer, options.run)
    reader = FastReader(model)
    if options.table:
        return show_next_token(reader, tokenizer, prompt, sampling, options.seed)
    writers = [Writer(tokenizer, options.stop, {tokenizer.end_of_text}) for _ in range(options.samples)]
    ids = prompt_ids(tokenizer, prompt)
    clock = Clock()
    pieces = clock.watch(write(reader, tokenizer, ids, writers, options.max_tokens, sampling, options.seed))
    if options.json:
        for _ in pieces:
            pass
    else:
        show(pieces, writers, prompt)
    tokens = sum(len(writer.ids) for writer in writers)
    speed = round(tokens / clock.seconds, 1)
    if sys.stderr.isatty() and not options.json:
        print(f"({tokens} tokens, {speed} tokens/s)", file=sys.stderr)
    times = {"tokens_per_s": speed, "first_token_s": round(clock.first, 4)}
    result: dict[str, Any] = {"text": writers[0].text, "tokens": tokens, **times}
    if len(writers) > 1:
        result["samples"] = [{"text": writer.text, "tokens": len(writer.ids)} for writer in writers]
    return result, ""


def check(options: Generate) -> None:
    """ConfigError for a setting that makes no sense, before anything is loaded."""
    for name, number, advice in (
        ("--max-tokens", options.max_tokens, "100 is a paragraph."),
        ("--samples", options.samples, "1 is one text."),
    ):
        if number < 1:
            raise ConfigError(problem(name, str(number), "1 or more", advice))
    if options.table:
        given = [f"--{name}" for name in ("samples", "stop") if getattr(options, name) != getattr(Generate, name)]
        if given:
            advice = "It shows a single token: leave one of them out."
            raise ConfigError(problem("--table", f"{', '.join(given)} beside it", "one of them", advice))
    if "" in options.stop:
        raise ConfigError(problem("--stop", "an empty text", "one that can be found", "Leave it out for none."))


def read_prompt(prompt: str) -> str:
    """The text itself, or standard input for `-`, without the newline that ends it."""
    if prompt != "-":
        return prompt
    with utf8_input():
        return sys.stdin.read().removesuffix("\n")


class Clock:
    """When the first token came, and the last, in seconds from the beginning."""

    def __init__(self) -> None:
        self.began = time.perf_counter()
        self.first = self.seconds = 0.0

    def watch(self, pieces: Iterable[tuple[int, str]]) -> Iterator[tuple[int, str]]:
        """The pieces themselves, timed as they pass."""
        for piece in pieces:
            self.seconds = time.perf_counter() - self.began
            self.first = self.first or self.seconds
            yield piece


def show(pieces: Iterable[tuple[int, str]], writers: Sequence[Writer], prompt: str) -> None:
    """Print one text after the other, each as it is made as far as those before it are done.

    The first begins with its first piece, so that what is said of the prompt meanwhile has a line of its own.
    """
    many = len(writers)
    held = [f"── {row + 1} of {many} ──\n" * (many > 1) + prompt for row in range(many)]
    shown = 0

    def say(ending: str = "") -> None:
        print(printable(held[shown]), end=ending, flush=True)
        held[shown] = ""

    for row, piece in pieces:
        held[row] += piece
        say()
        while writers[shown].ended and shown + 1 < many:
            say("\n\n")
            shown += 1
            say()
    say("\n")


def show_next_token(reader: AnyReader, tokenizer: Tokenizer, prompt: str, sampling: Sampling, seed: int) -> Outcome:
    """`--table`: the ten likeliest next tokens with every column, and the one that this seed draws."""
    from rich.console import Console

    from pellucid.generation.table import draw_table, look_at

    ids = prompt_ids(tokenizer, prompt)
    logits = reader.read([ids])[:, : tokenizer.vocab_size]
    penalty = sampling.repetition_penalty != 1
    columns = next_token(logits, sampling, seen_tokens([ids], logits) if penalty else None)
    numbers = [die.random() for die in make_dice(seed, range(1))]
    choice = look_at(columns, int(choose(columns, numbers)[0]), tokenizer)
    title = f"After {in_brief(prompt)} ({', '.join(settings_of(sampling))}, seed {seed}):"
    text = draw_table(choice, title, penalty, Console(highlight=False, markup=False, emoji=False))
    return {"prompt": prompt, **choice.json()}, text


def in_brief(text: str, longest: int = 40) -> str:
    """The end of a text in quotation marks, on one line."""
    line = printable(text).replace("\n", "⏎").replace("\t", "⇥")
    return f'"{line}"' if len(line) <= longest else f'"…{line[1 - longest :]}"'


def settings_of(sampling: Sampling) -> list[str]:
    """The temperature, and the other settings that change anything."""
    all_of_them = [
        (field.name.replace("_", " "), getattr(sampling, field.name), field.default) for field in fields(sampling)
    ]
    return [f"{name} {value:g}" for name, value, usual in all_of_them if value != usual or name == "temperature"]
