"""A whole talk over a pipe, commands and all; and a person who has read enough of an answer."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from pellucid.assistant.chat import ChatSession, talk
from pellucid.finetune.instruct import prepare_model, save_assistant
from pellucid.generation.compiled.model import CompiledModel
from pellucid.generation.sampling import GREEDY
from pellucid.model.gpt import GPT
from pellucid.text.tokenizer import Tokenizer


@pytest.fixture
def run(base_folder: Path, tmp_path: Path) -> Path:
    model, tokenizer = GPT.load(base_folder), Tokenizer.load(base_folder)
    prepare_model(model, tokenizer)
    save_assistant(model, tokenizer, tmp_path / "run")
    return tmp_path / "run"


def test_every_command_works_on_a_pipe(call: Any, run: Path, tmp_path: Path) -> None:
    file = tmp_path / "talk.json"
    said = ["Hi", f"/save {file}", "/why", "/temperature 0.7", "/reset", "Who?", f"/load {file}", "", "/quit", "Never"]
    done = call("chat", run, "--max-tokens", 4, stdin="\n".join(said))
    assert done.returncode == 0, done.stderr
    for words in ("(2 turns kept in", "likeliest", "(temperature 0.7)", "(forgotten)", "(2 turns; go on)"):
        assert words in done.stdout
    assert "> " not in done.stdout, "the sign that waits for a person"
    assert json.loads(file.read_text())["messages"][0]["content"] == "Hi"


class Screen(io.StringIO):
    """Where an answer appears. The person presses Ctrl-C as the first piece of the first one does."""

    pressed = False

    def write(self, text: str) -> int:
        begins = self.getvalue().endswith("> ") and not self.pressed
        count = super().write(text)
        if begins:
            self.pressed = True
            raise KeyboardInterrupt
        return count


class Terminal(io.StringIO):
    """Input that a person types."""

    def isatty(self) -> bool:
        return True


def test_a_person_stops_an_answer_and_the_talk_goes_on(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokenizer, screen = CompiledModel.load(run), Tokenizer.load(run), Screen()
    session = ChatSession(model, tokenizer, GREEDY, max_tokens=9)
    monkeypatch.setattr(sys, "stdin", Terminal("Hi\n/help\nHi\n"))
    monkeypatch.setattr(sys, "stdout", screen)
    talk(session)
    out = screen.getvalue()
    assert out.index("(stopped") < out.rindex("/reset forgets")
    assert [message.role for message in session.history] == ["user", "assistant"]
    again = "".join(ChatSession(model, tokenizer, GREEDY, max_tokens=9).reply("Hi"))
    assert session.history[1].content == again
    monkeypatch.setattr(sys, "stdin", io.StringIO("Hi\n"))
    monkeypatch.setattr(screen, "pressed", False)  # over a pipe nothing asks; the last sign still stands there
    with pytest.raises(KeyboardInterrupt):
        talk(session)
