"""`pellucid chat`: a talk with an assistant in the terminal, or over a pipe, a line in and a reply out.

The history goes along as far as it fits into the context; the oldest turns are dropped, and that is said.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import asdict
from io import TextIOWrapper
from pathlib import Path
from typing import Any, Literal

import torch

from pellucid.finetune.conversation import Conversation, Message, lacks
from pellucid.generation.decoder import Decoder, load_decoder
from pellucid.generation.engine import stream_ids
from pellucid.generation.fast import FastReader, every_logits
from pellucid.generation.reader import AnyReader, Reader
from pellucid.generation.sampling import Sampling
from pellucid.model.formats.folder import check_fits, say_if_classifier
from pellucid.model.gpt import GPT
from pellucid.options import Chat
from pellucid.runtime import (
    ConfigError,
    DataError,
    PellucidError,
    inform,
    printable,
    problem,
    read_json,
    utf8_input,
    write_json,
)
from pellucid.text.tokenizer import Tokenizer

HELP = (
    "/reset forgets the talk, /save FILE keeps it, /load FILE goes on with it, /temperature 0.8 sets how free the "
    "choice of words is, /why shows how likely each token of the last answer was, /quit ends (or Ctrl-D)."
)


class ChatSession:
    """One talk with one assistant."""

    def __init__(
        self,
        model: GPT | Decoder[Any],
        tokenizer: Tokenizer,
        sampling: Sampling,
        max_tokens: int = 200,
        seed: int = 0,
        system: str = "",
    ) -> None:
        if found := lacks(tokenizer):
            advice = "Make one with `pellucid finetune instruct`, or try `pellucid generate` for this folder."
            raise DataError(problem("chat", found, "an assistant", advice))
        self.model, self.tokenizer = model, tokenizer
        self.reader: AnyReader = Reader(model) if isinstance(model, GPT) else FastReader(model)
        self.sampling, self.max_tokens, self.seed = sampling, max_tokens, seed
        self.system = [Message("system", system)] if system else []
        self.history: list[Message] = []
        self.last: tuple[list[int], list[int]] = [], []  # the ids of the last prompt and of its answer
        self.check_system(self.system, "--system")

    @property
    def limit(self) -> int:
        """Tokens that a talk and its system prompt may have: a quarter of the context is left for the answer."""
        return self.model.config.context_length * 3 // 4

    def check_system(self, system: list[Message], where: str) -> None:
        """DataError where a system prompt leaves no room for a message."""
        least = len(Conversation((*system, Message("user", "."))).prompt(self.tokenizer))
        if least > self.limit:
            found, expected = f"{least} tokens with the shortest message", f"at most {self.limit}"
            raise DataError(problem(where, found, expected, "Say it in fewer words."))

    def reply(self, text: str) -> Iterator[str]:
        """The reply to `text`, in pieces as they are made; both turns join the history when it is whole.

        DataError, and the history as it was, where the text alone is too long for the context.
        """
        history, prompt = self._prompt([*self.history, Message("user", text)])
        stream, pieces, said = self.tokenizer.stream(), [], []
        room = max(1, min(self.max_tokens, self.model.config.context_length - len(prompt)))
        self.seed += 1
        end, size = self.tokenizer.end_of_text, self.tokenizer.vocab_size
        for token in stream_ids(self.reader, prompt, room, self.sampling, self.seed, end, size):
            said.append(token)
            pieces.append(stream.push(token))
            yield pieces[-1]
        pieces.append(stream.flush())
        yield pieces[-1]
        self.history = [*history, Message("assistant", "".join(pieces))]
        self.last = prompt, said

    @torch.inference_mode()
    def why(self) -> list[tuple[str, float, str, float]]:
        """For each token of the last answer: its text, the model's own probability for it, the likeliest token, its."""
        prompt, said = self.last
        if not said:
            return []
        logits = every_logits(self.model, (prompt + said)[:-1], len(prompt) - 1)
        probabilities = logits[:, : self.tokenizer.vocab_size].softmax(dim=-1)  # (T, V)
        best, place = probabilities.max(dim=-1)
        return [
            (self.tokenizer.decode([token]), float(row[token]), self.tokenizer.decode([int(other)]), float(most))
            for token, row, other, most in zip(said, probabilities, place, best, strict=True)
        ]

    def _prompt(self, history: list[Message]) -> tuple[list[Message], list[int]]:
        """What of the talk is kept, and its ids: the oldest turns go until a quarter of the context is left."""
        for dropped in range(0, len(history), 2):
            kept = history[dropped:]
            prompt = Conversation((*self.system, *kept)).prompt(self.tokenizer)
            if len(prompt) <= self.limit:
                if dropped:
                    inform(f"(the talk is longer than the context: {dropped} of the oldest turns forgotten)")
                return kept, prompt
        found = f"{len(prompt)} tokens{' with the system prompt' if self.system else ''}"
        raise DataError(problem("message", found, f"at most {self.limit}", "Say it in fewer words."))


def chat(options: Chat) -> tuple[dict[str, Any], str]:
    """`pellucid chat`."""
    if options.max_tokens < 1:
        raise ConfigError(problem("--max-tokens", str(options.max_tokens), "1 or more", "200 is the default."))
    sampling = Sampling(options.temperature)
    say_if_classifier(Path(options.run))
    model = load_decoder(options.run, options.dtype, options.threads, options.device)
    tokenizer = Tokenizer.load(options.run)
    check_fits(model.config, tokenizer, options.run)
    session = ChatSession(model, tokenizer, sampling, options.max_tokens, options.seed, options.system)
    if options.json:
        with utf8_input():
            question = sys.stdin.read().strip()
        if not question:
            raise DataError(problem("standard input", "no message", "one to answer", "Pipe it in."))
        return {"reply": "".join(session.reply(question))}, ""
    talk(session)
    return {}, ""


def talk(session: ChatSession) -> None:
    """Read lines and answer them until the end of input; a person also gets a prompt sign and a greeting.

    On a pipe a message that is refused has an empty line for its reply, and DataError comes at the end.
    """
    person = sys.stdin.isatty()
    if person:
        print(f"Talk with {session.model.parameter_count():,} parameters. {HELP}")
    if isinstance(sys.stdin, TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")  # a line that is no UTF-8 is refused alone
    asked, refused = False, 0
    while True:
        try:
            line = input("> " if person else "")
        except EOFError:
            break
        except KeyboardInterrupt:  # a talk that would be lost is offered to be kept, once
            if asked or not (person and session.history):
                raise
            asked = True
            print("\n(/save FILE keeps the talk; Ctrl-C once more ends it)")
            continue
        if not line.strip():
            continue
        if line.startswith("/"):
            if line.strip() in ("/quit", "/exit"):
                break
            print(printable(command(session, line.strip())))
            continue
        try:
            with utf8_input():
                line = line.encode(errors="surrogateescape").decode()
            for piece in session.reply(line):
                print(printable(piece), end="", flush=True)
            print(flush=True)
            asked = False  # there is something new to lose
        except DataError as error:
            inform(str(error))
            if not person:
                refused += 1
                print(flush=True)  # in place of a reply, so that the next one belongs to the next message
        except KeyboardInterrupt:  # a person has read enough of this answer; a second one ends the talk
            if not person:
                raise
            print("\n(stopped; what was said is forgotten)", flush=True)
    if refused:
        raise DataError(f"messages refused: {refused:,}, each with an empty line for a reply. The reasons stand above.")


def command(session: ChatSession, line: str) -> str:
    """Carry out a line that begins with a slash; returns what to say."""
    name, _, value = line.partition(" ")
    if name == "/reset":
        session.history, session.last = [], ([], [])
        return "(forgotten)"
    if name == "/why":
        rows = [f"{said!r:>16} {p:6.1%}   likeliest {best!r} {most:.1%}" for said, p, best, most in session.why()]
        return "\n".join(rows) or "(nothing was said yet)"
    if name in ("/save", "/load"):
        if not value.strip():
            return f"({name}: found no file name; expected one, such as {name} talk.json)"
        try:
            return (save_talk if name == "/save" else load_talk)(session, Path(value.strip()).expanduser())
        except PellucidError as error:
            return f"({error})"
    if name == "/temperature":
        try:
            session.sampling = Sampling(float(value))
        except (ValueError, ConfigError):
            return f"(temperature: found {value!r}; expected a number from 0 up, such as 0.8)"
        return f"(temperature {session.sampling.temperature})"
    return f"({HELP})"


def save_talk(session: ChatSession, path: Path) -> str:
    """Keep the talk as JSON, in the form of chat messages; returns what to say."""
    write_json(path, {"messages": [asdict(message) for message in (*session.system, *session.history)]})
    return f"({len(session.history)} turns kept in {path})"


def load_talk(session: ChatSession, path: Path) -> str:
    """Go on with a talk that was kept, under its own system prompt; the one before is forgotten.

    DataError, and nothing lost, for another file.
    """
    content = read_json(path)
    turns = content.get("messages") if isinstance(content, dict) else None
    if not isinstance(turns, list):
        raise DataError(problem(path, "no list of messages", "a talk that /save wrote", "Check the path."))
    first = turns[0] if turns else None
    system = []
    if isinstance(first, dict) and first.get("role") == "system" and isinstance(first.get("content"), str):
        system, turns = [Message("system", first["content"])], turns[1:]
    history = []
    for number, turn in enumerate(turns):
        role: Literal["user", "assistant"] = "assistant" if number % 2 else "user"
        if not isinstance(turn, dict) or turn.get("role") != role or not isinstance(turn.get("content"), str):
            raise DataError(
                problem(f"{path}, message {len(system) + number + 1}", "another", f"one of the {role}", "Mend it.")
            )
        history.append(Message(role, turn["content"]))
    if len(history) % 2:
        raise DataError(problem(path, "a last turn without an answer", "pairs of turns", "Remove it."))
    session.check_system(system, f"{path}, message 1")
    Conversation(tuple(history)).encode(session.tokenizer)  # refuses half a character
    session.system, session.history, session.last = system or session.system, history, ([], [])
    return f"({len(history)} turns; go on)"
