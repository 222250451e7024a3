"""The thread of one model: what fails in a step ends the texts of that step alone."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from pellucid.assistant.server.engine import Engine, Wish
from pellucid.generation.engine import stream_ids
from pellucid.generation.sampling import GREEDY
from pellucid.model.gpt import GPT
from pellucid.text.tokenizer import Tokenizer


def test_a_step_that_fails_ends_its_texts_and_those_that_come_next_are_made(
    base_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, tokenizer = GPT.load(base_folder), Tokenizer.load(base_folder)
    hidden, broken = model.hidden, [True]

    def once(*arguments: Any) -> Any:
        return 1 / 0 if broken and broken.pop() else hidden(*arguments)

    async def ask(engine: Engine, wishes: list[Wish]) -> list[int]:
        ticket = engine.order(wishes, at_once=False)
        await ticket.begun()
        return [event.token async for _, event in ticket.events()]

    async def ask_twice() -> list[int]:
        engine = Engine(model, tokenizer, rows=2)
        try:
            with pytest.raises(ZeroDivisionError):
                await ask(engine, [Wish([1, 2], 5)] * 3)
            assert engine.count == 0
            return await ask(engine, [Wish([1, 2], 5)])
        finally:
            engine.close()

    monkeypatch.setattr(model, "hidden", once)
    assert asyncio.run(ask_twice()) == list(stream_ids(model, [1, 2], 5, GREEDY))
