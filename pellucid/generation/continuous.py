"""Continuous batching: texts that come and go at any time, decoded together.

Each `step` reads at most a chunk of the prompts that wait, in the order in which they came, and then gives every text
that is read its next token. So a long prompt delays the others' tokens by a chunk, never by itself. A text gets the
tokens that it would get alone (`stream_ids`), whoever runs beside it and whenever it came: rows don't see each other,
and each has dice of its own. (Where a long prompt's products are torch's, they may round otherwise in the last bit of
their precision when it is cut elsewhere; where two tokens are as close as that, and only there, either may be chosen.)

What a finished text left in its slot stays until another needs the room: a prompt that begins as any text in a slot
does takes over the keys and values of that beginning, so a shared prefix, or a conversation so far, is read once.
Paper: Yu et al. 2022, "Orca: A Distributed Serving System for Transformer-Based Generative Models".
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from pellucid.generation.decoder import Decoder
from pellucid.generation.engine import make_dice, seen_tokens
from pellucid.generation.fast import FastSlots
from pellucid.generation.reader import common_beginning, newest
from pellucid.generation.sampling import GREEDY, Sampling, draw
from pellucid.generation.slots import AnySlots, TorchSlots
from pellucid.generation.writer import Writer
from pellucid.model.gpt import GPT
from pellucid.runtime import ConfigError, DataError, problem
from pellucid.text.tokenizer import Tokenizer

# B rows, V vocabulary


@dataclass(frozen=True)
class Event:
    """One more token of one text. The last event of a text says in `ended` why it is the last.

    `text` is what became certain with this token, perhaps nothing. `logprob` is the natural logarithm of the model's
    own probability, before temperature or penalty; `alternatives` the likeliest ids with theirs, the likeliest first.
    Both stay empty where they were not asked for.
    """

    handle: int
    token: int
    text: str
    ended: str = ""
    """"", or "stop token", "stop string", "max tokens"."""
    logprob: float | None = None
    alternatives: tuple[tuple[int, float], ...] = ()


@dataclass(eq=False)
class _Text:
    """One text on its way: `ids` is all of it, of which its slot holds the first `cache.lengths[slot]`."""

    handle: int
    ids: list[int]
    left: int
    sampling: Sampling
    writer: Writer
    die: random.Random
    alternatives: int | None
    seen: Tensor | None = None  # (1, V): which tokens the text holds, for the penalty
    logits: Tensor | None = None  # (1, V), once the prompt is read
    waiting: list[int] = field(default_factory=list)  # what must be in the cache before the next token


class Continuous:
    """`add` texts and `remove` them at any time; each `step` gives the events of one round. For one thread.

    At most `max_rows` texts are decoded together, and further ones wait; the memory is theirs alone, however many come.
    `chunk` is the most prompt tokens that a step reads. Change the model's weights, and this needs a new one.
    """

    def __init__(self, model: GPT | Decoder[Any], tokenizer: Tokenizer, max_rows: int = 8, chunk: int = 256) -> None:
        for name, number in (("max_rows", max_rows), ("chunk", chunk)):
            if number < 1:
                raise ConfigError(problem(name, str(number), "1 or more", "8 rows and chunks of 256 are usual."))
        self.model = model
        self.tokenizer = tokenizer
        self.max_rows = max_rows
        self.chunk = chunk
        self.read_tokens = 0  # prompt tokens that went through the model
        self._device = model.device if isinstance(model, GPT) else torch.device("cpu")
        self._cache: AnySlots = TorchSlots(model, max_rows) if isinstance(model, GPT) else FastSlots(model, max_rows)
        self._held: list[list[int]] = [[] for _ in range(max_rows)]  # the ids in each slot
        self._owner: list[_Text | None] = [None] * max_rows
        self._used: list[int] = [0] * max_rows  # when a slot's text ended: the oldest is overwritten first
        self._ready = 0  # the slots below this one hold texts that are read
        self._queue: deque[_Text] = deque()  # to be read: those with a slot before those without
        self._next = 0

    @property
    def active(self) -> list[int]:
        """The handles of all texts that have not ended: those in decoding, and those that wait."""
        return [text.handle for text in (*self._owner[: self._ready], *self._queue) if text is not None]

    def add(
        self,
        prompt: Sequence[int],
        max_tokens: int = 100,
        sampling: Sampling = GREEDY,
        seed: int = 0,
        stop: Sequence[str] = (),
        stop_tokens: Collection[int] | None = None,
        alternatives: int | None = None,
        row: int = 0,
    ) -> int:
        """A text to continue by at most `max_tokens`; the handle by which its events are known.

        It ends at a token of `stop_tokens` (None: end-of-text) or a text in `stop`. `alternatives` asks for the
        logprobs of the chosen token and of as many of the likeliest. With `row` it is that sample of the seed, as
        `generate_samples` draws it. Of a prompt longer than the model's window the end is read, as `newest` has it.
        ConfigError for what is out of range, DataError for ids that are.
        """
        if max_tokens < 1:
            raise ConfigError(problem("max_tokens", str(max_tokens), "1 or more", "100 is a paragraph."))
        vocabulary = self.model.config.vocab_size
        if alternatives is not None and not 0 <= alternatives <= vocabulary:
            raise ConfigError(problem("alternatives", str(alternatives), f"0 to {vocabulary}", "5 are usual."))
        if not prompt:
            advice = "A text begins with end-of-text: see engine.prompt_ids."
            raise DataError(problem("prompt", "no tokens", "at least one", advice))
        wrong = next((token for token in prompt if not 0 <= token < vocabulary), None)
        if wrong is not None:
            advice = "Is it the tokenizer of this model?"
            raise DataError(problem("prompt", f"the id {wrong}", f"ids from 0 to {vocabulary - 1}", advice))
        ends = {self.tokenizer.end_of_text} if stop_tokens is None else stop_tokens
        ids = list(prompt)
        text = _Text(
            self._next, ids, max_tokens, sampling, Writer(self.tokenizer, stop, ends), make_dice(seed, [row])[0],
            alternatives, waiting=newest(ids, self.model.config.context_length),
        )  # fmt: skip
        if sampling.repetition_penalty != 1:
            text.seen = seen_tokens([ids], torch.empty(1, self.tokenizer.vocab_size, device=self._device))
        self._queue.append(text)
        self._next += 1
        return text.handle

    def remove(self, handle: int) -> None:
        """Forget a text, wherever it stands; one that has ended or was never there is no error."""
        waiting = next((text for text in self._queue if text.handle == handle), None)
        if waiting is not None:
            self._queue.remove(waiting)
        owned = next((slot for slot, text in enumerate(self._owner) if text and text.handle == handle), None)
        if owned is not None:
            self._release(owned)

    @torch.inference_mode()
    def step(self) -> list[Event]:
        """One round: a chunk of waiting prompts, and the next token of each text that is read.

        [] where prompts alone were read, or nothing is left: `active` tells which.
        """
        self._read()
        texts = [text for text in self._owner[: self._ready] if text is not None]
        if not texts:
            return []
        drawn = self._draw(texts)
        events = [self._event(text, token) for text, token in zip(texts, drawn, strict=True)]
        for slot in reversed(range(self._ready)):
            if texts[slot].writer.ended:
                self._release(slot)
            else:
                self._make_room(slot)
        if self._ready:
            self._advance()
        return events

    def _read(self) -> None:
        """Read at most `chunk` tokens of those that wait, in their order; whoever is read becomes ready."""
        budget = self.chunk
        while budget and self._queue:
            text = self._queue[0]
            slot = self._slot_of(text)
            if slot is None:
                return
            done = self._cache.lengths[slot]
            new = text.waiting[done : done + budget]
            logits = self._forward(slice(slot, slot + 1), [new])
            budget -= len(new)
            self.read_tokens += len(new)
            if self._cache.lengths[slot] == len(text.waiting):
                text.logits = logits
                self._queue.popleft()
                self._swap(slot, self._ready)
                self._ready += 1

    def _slot_of(self, text: _Text) -> int | None:
        """The slot that a text has, or now gets; None when all are taken. What others have read of it is copied.

        A text that goes on from all of what an ended one left stays there: a copy would only push out another's.
        """
        if text in self._owner:
            return self._owner.index(text)
        free = [slot for slot, owner in enumerate(self._owner) if owner is None]
        if not free:
            return None
        known = [common_beginning(held, text.waiting) if held else 0 for held in self._held]
        source = max(range(self.max_rows), key=known.__getitem__)
        goes_on = source in free and known[source] == len(self._held[source])
        target = source if goes_on else min(free, key=lambda slot: (self._used[slot], slot == source))
        common = min(known[source], len(text.waiting) - 1)  # the last token is read for its logits
        self._cache.copy(source, target, common)
        self._held[target] = text.waiting[:common]
        self._owner[target] = text
        return target

    def _draw(self, texts: Sequence[_Text]) -> list[int]:
        """The next token of each text; texts with the same settings are looked at together."""
        drawn = [0] * len(texts)
        groups: dict[Sampling, list[int]] = {}
        for row, text in enumerate(texts):
            groups.setdefault(text.sampling, []).append(row)
        for sampling, rows in groups.items():
            logits = torch.cat([_known(texts[row].logits) for row in rows])
            penalised = sampling.repetition_penalty != 1
            seen = torch.cat([_known(texts[row].seen) for row in rows]) if penalised else None
            numbers = [texts[row].die.random() for row in rows]
            for row, token in zip(rows, draw(logits, sampling, seen, numbers).tolist(), strict=True):
                drawn[row] = token
        return drawn

    def _event(self, text: _Text, token: int) -> Event:
        """Note the token in the text; what there is to tell about it."""
        logprob: float | None = None
        alternatives: tuple[tuple[int, float], ...] = ()
        if text.alternatives is not None:
            logprobs = _known(text.logits)[0].log_softmax(dim=0)
            values, ids = logprobs.topk(min(text.alternatives, len(logprobs)))
            logprob, alternatives = float(logprobs[token]), tuple(zip(ids.tolist(), values.tolist(), strict=True))
        piece = text.writer.push(token)
        text.ids.append(token)
        text.left -= 1
        if text.seen is not None:
            text.seen[0, token] = True
        if not text.left:
            piece += text.writer.finish()
        return Event(text.handle, token, piece, text.writer.ended, logprob, alternatives)

    def _make_room(self, slot: int) -> None:
        """A text that fills the window goes on with its newer half, which must be read again: before all others."""
        if self._cache.lengths[slot] == self.model.config.context_length:
            text = self._owner[slot]
            assert text is not None
            window = self.model.config.context_length
            text.waiting = newest(self._held[slot] + text.ids[-1:], window)
            text.logits = None
            self._held[slot], self._cache.lengths[slot] = [], 0
            self._ready -= 1
            self._swap(slot, self._ready)
            self._queue.appendleft(text)

    def _advance(self) -> None:
        """Put the newest token of each ready text through the model; behind one alone its slot may read ahead."""
        ready = slice(0, self._ready)
        texts = [text for text in self._owner[ready] if text is not None]
        logits = self._forward(ready, [text.ids[-1:] for text in texts], alone=len(texts) == 1)
        for row, text in enumerate(texts):
            text.logits = logits[row : row + 1]

    def _forward(self, slots: slice, new: list[list[int]], alone: bool = False) -> Tensor:
        """The logits (B, V) after these new tokens, one row a slot; `alone` is the next token of a single text."""
        if alone:
            logits = self._cache.go_on(slots.start, self._held[slots.start] + new[0])
        else:
            logits = self._cache.read(slots, new)
        for held, more in zip(self._held[slots], new, strict=True):
            held += more
        return logits[:, : self.tokenizer.vocab_size]

    def _release(self, slot: int) -> None:
        """The slot's text has ended; what it left stays to be taken over."""
        self._owner[slot] = None
        self._used[slot] = self._next
        if slot < self._ready:
            self._ready -= 1
            self._swap(slot, self._ready)

    def _swap(self, one: int, other: int) -> None:
        self._cache.swap(one, other)
        self._held[one], self._held[other] = self._held[other], self._held[one]
        self._owner[one], self._owner[other] = self._owner[other], self._owner[one]
        self._used[one], self._used[other] = self._used[other], self._used[one]


def _known(value: Tensor | None) -> Tensor:
    assert value is not None
    return value
