"""The fast reader: what `Reader` does, by a model made for decoding (decoder.py), each row in a slot of its own.

Gives the same logits, so that all of generation runs on either. What any slot holds of a row's beginning is taken over,
so a prefix that rows share is read once. And it reads ahead: where the last three tokens of a row stood before, those
that followed then are read together with the next token, in one pass over the weights. If they are what the caller
chooses, their logits are there already; if not, they are forgotten, so the text never depends on the guess.
Paper: Saxena 2023, "Prompt Lookup Decoding"; Leviathan et al. 2023, "Fast Inference from Transformers via Speculative
Decoding".
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pellucid.generation.decoder import Decoder, DecoderSlots
from pellucid.generation.reader import FULL, TOO_LONG, common_beginning, newest
from pellucid.model.gpt import GPT
from pellucid.runtime import inform

# B rows, V vocabulary

SEEN = 3  # tokens in a row that must have stood before
SHORT, LONG = 3, 7  # tokens that are read ahead: at first, and while guesses are right


class FastReader:
    """`read(rows)` takes whole texts, `step(tokens)` one more token a row; both give the logits of what comes next."""

    def __init__(self, model: Decoder[Any], look_ahead: bool = True) -> None:
        self.model, self.look_ahead = model, look_ahead
        self.window = model.config.context_length
        self.rows: list[list[int]] = []  # what stands in each slot and counts
        self.read_tokens = 0  # tokens that went through the model, all rows together
        self.passes = 0  # times that a step had to read at all
        self._slots: DecoderSlots | None = None
        self._ahead = Ahead()
        self._said: set[str] = set()

    def read(self, rows: Sequence[Sequence[int]]) -> Tensor:
        """The logits (B, V) after each of `rows` (ValueError where one is empty). What is in the slots is not read."""
        if not all(rows):
            raise ValueError("each row needs at least one token (a text begins with end-of-text)")
        if any(len(row) > self.window for row in rows):
            self._say(TOO_LONG.format(self.window))
        with self._or_nothing():
            return self._read_all([newest(row, self.window) for row in rows])

    @contextmanager
    def _or_nothing(self) -> Iterator[None]:
        """What is broken off in the middle, by Ctrl-C for one: nothing of it is thought to stand in the slots."""
        try:
            yield
        except BaseException:
            self._slots, self._ahead = None, Ahead()
            raise

    def _read_all(self, fitting: Sequence[list[int]]) -> Tensor:
        self._ahead, slots = Ahead(), self._slots
        if slots is None or slots.count != len(fitting):
            self._slots = slots = self.model.slots(len(fitting))
            self.rows = [[] for _ in fitting]
        waiting: list[int] = []  # rows whose rest is to be read, in one go as far as they do not need each other
        known = [0] * len(fitting)
        found: dict[int, NDArray[np.float32]] = {}
        for row, text in enumerate(fitting):
            shared = [min(common_beginning(held, text), len(text) - 1) for held in self.rows]
            source = max(range(len(fitting)), key=lambda slot: (shared[slot], slot == row))
            if source in waiting:
                self._read(slots, fitting, waiting, known, found)
            slots.copy(source, row, shared[source])
            known[row], self.rows[row] = shared[source], list(text)
            waiting.append(row)
        self._read(slots, fitting, waiting, known, found)
        return torch.from_numpy(np.stack([found[row] for row in range(len(fitting))]))

    def _read(
        self,
        slots: DecoderSlots,
        texts: Sequence[list[int]],
        waiting: list[int],
        known: list[int],
        found: dict[int, NDArray[np.float32]],
    ) -> None:
        """Read what is not known of the waiting rows; note the logits after each."""
        ids = [token for row in waiting for token in texts[row][known[row] :]]
        which = [row for row in waiting for _ in texts[row][known[row] :]]
        places = [place for row in waiting for place in range(known[row], len(texts[row]))]
        ends = np.cumsum([len(texts[row]) - known[row] for row in waiting]) - 1
        logits = self.model.logits(slots, ids, which, places, ends.tolist())
        found |= dict(zip(waiting, logits, strict=True))
        self.read_tokens += len(ids)
        waiting.clear()

    def step(self, tokens: Sequence[int]) -> Tensor:
        """The logits (B, V) after one more token in each row."""
        assert self._slots is not None, "read something first"
        with self._or_nothing():
            return self._step(self._slots, tokens)

    def _step(self, slots: DecoderSlots, tokens: Sequence[int]) -> Tensor:
        if any(len(row) == self.window for row in self.rows):
            self._say(FULL.format(self.window))
            longer = [[*row, token] for row, token in zip(self.rows, tokens, strict=True)]
            return self._read_all([newest(row, self.window) for row in longer])
        known = self._ahead.take(tokens[0])
        if known is not None:
            self.rows[0].append(tokens[0])
            return torch.from_numpy(known[None])
        self.passes += 1
        places = [len(row) for row in self.rows]
        for row, token in zip(self.rows, tokens, strict=True):
            row.append(token)
        alone = len(tokens) == 1 and self.look_ahead
        guess = self._ahead.guess(self.rows[0], self.window - len(self.rows[0])) if alone else []
        ids, which = [*tokens, *guess], [*range(len(tokens)), *[0] * len(guess)]
        places += range(places[0] + 1, places[0] + 1 + len(guess))
        logits = self.model.logits(slots, ids, which, places, range(len(ids)))
        self.read_tokens += len(ids)
        self._ahead.keep(guess, logits[len(tokens) :])
        return torch.from_numpy(logits[: len(tokens)])

    def _say(self, message: str) -> None:
        if message not in self._said:
            inform(message)
        self._said.add(message)


class Ahead:
    """What was read of one text before it was asked for, and how much is worth reading next time."""

    def __init__(self) -> None:
        self._index = Index()
        self._most = SHORT
        self._read: list[tuple[int, NDArray[np.float32]]] = []  # tokens, each with the logits (V,) after it

    def take(self, token: int) -> NDArray[np.float32] | None:
        """The logits (V,) after `token`, where it was read as the next one; else all that was read is forgotten."""
        if not self._read:
            return None
        expected, logits = self._read.pop(0)
        if expected != token:
            self._read, self._most = [], SHORT  # it stands behind what counts, and will be overwritten
            return None
        if not self._read:
            self._most = LONG
        return logits

    def guess(self, text: Sequence[int], room: int) -> list[int]:
        """At most `room` tokens to read behind all of the text so far."""
        return self._index.following(text)[: min(self._most, room)]

    def keep(self, guess: Sequence[int], logits: Iterable[NDArray[np.float32]]) -> None:
        """These were read, with the logits after each."""
        self._read = list(zip(guess, logits, strict=True))


class Index:
    """Where each three tokens in a row last stood in one text, which only grows."""

    def __init__(self) -> None:
        self._places: dict[tuple[int, ...], int] = {}  # three tokens → the place behind them
        self._done = SEEN

    def following(self, text: Sequence[int]) -> list[int]:
        """What followed the last three tokens of `text` where they stood before; nothing where they did not."""
        for end in range(self._done, len(text)):
            self._places[tuple(text[end - SEEN : end])] = end
        self._done = max(self._done, len(text))
        place = self._places.get(tuple(text[-SEEN:]))
        return [] if place is None else list(text[place : place + LONG])


class FastSlots:
    """The slots of such a model, for `Continuous`. Of a text that goes on alone it reads ahead, too."""

    def __init__(self, model: Decoder[Any], slots: int) -> None:
        self.model = model
        self.lengths = [0] * slots
        self._slots = model.slots(slots, alike=True)
        self._at = list(range(slots))  # where each slot's row really lies
        self._ahead, self._whose = Ahead(), 0  # and in which of these rows that stands

    def read(self, slots: slice, new: list[list[int]]) -> Tensor:
        """Put new tokens behind each of these slots; the logits (B, V) after the last of each."""
        ids = [token for tokens in new for token in tokens]
        rows = list(zip(range(len(self.lengths))[slots], new, strict=True))
        which = [self._at[slot] for slot, tokens in rows for _ in tokens]
        places = [self.lengths[slot] + i for slot, tokens in rows for i in range(len(tokens))]
        ends = [sum(len(tokens) for _, tokens in rows[: i + 1]) - 1 for i in range(len(rows))]
        if self._whose in which:
            self._ahead = Ahead()
        logits = self.model.logits(self._slots, ids, which, places, ends)
        for slot, tokens in rows:
            self.lengths[slot] += len(tokens)
        return torch.from_numpy(logits)

    def go_on(self, slot: int, text: list[int]) -> Tensor:
        """Put the last token of `text`, of which the slot holds the rest, behind that; the logits (1, V) after it."""
        if not self._slots.looks_ahead:
            return self.read(slice(slot, slot + 1), [text[-1:]])
        if self._whose != self._at[slot]:
            self._ahead, self._whose = Ahead(), self._at[slot]
        found = self._ahead.take(text[-1])
        if found is None:
            guess = self._ahead.guess(text, self.model.config.context_length - len(text))
            ids, place = [text[-1], *guess], self.lengths[slot]
            places = range(place, place + len(ids))
            logits = self.model.logits(self._slots, ids, [self._whose] * len(ids), places, range(len(ids)))
            self._ahead.keep(guess, logits[1:])
            found = logits[0]
        self.lengths[slot] += 1
        return torch.from_numpy(found[None])

    def copy(self, source: int, target: int, tokens: int) -> None:
        """`target` holds the first `tokens` of `source`, and nothing else."""
        if self._whose == self._at[target]:
            self._ahead = Ahead()
        self._slots.copy(self._at[source], self._at[target], tokens)
        self.lengths[target] = tokens

    def swap(self, one: int, other: int) -> None:
        """Let two slots change places; nothing is moved."""
        for row in (self.lengths, self._at):
            row[one], row[other] = row[other], row[one]


def every_logits(model: GPT | Decoder[Any], ids: Sequence[int], start: int = 0) -> Tensor:
    """The logits (T, V) after each token of one text from `start` on."""
    if isinstance(model, GPT):
        hidden = model.hidden(torch.tensor([ids], device=model.device))[0, start:]
        return model.logits(hidden).float()
    places = list(range(len(ids)))
    return torch.from_numpy(model.logits(model.slots(1), ids, [0] * len(ids), places, places[start:]))
