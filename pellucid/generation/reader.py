"""What a model has read so far, as an object of the caller: rows of ids, and the keys and values they left behind.

Unlike most libraries' caches it knows which ids it holds. So a conversation hands over its whole text every time, only
what is new is read, and a text that begins otherwise is simply read again: a stale cache can't answer in silence.
Rows of different lengths stand flush right. Past the context window the older half of a row is dropped and the rest
read again (learned positions cannot slide).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from pellucid.model.cache import KVCache
from pellucid.model.gpt import GPT
from pellucid.runtime import inform

# B rows, V vocabulary; a column is a place in the cache

LEAST = 64  # columns that a cache begins with, where the window has as many
TOO_LONG = "a prompt is longer than the context of {} tokens: only its end is read"
FULL = "the context of {} tokens is full: going on with its newer half"


class AnyReader(Protocol):
    """What generation asks of a reader: this one, or the fast one (fast.py)."""

    def read(self, rows: Sequence[Sequence[int]]) -> Tensor:
        """The logits (B, V) after each of whole texts."""

    def step(self, tokens: Sequence[int]) -> Tensor:
        """The logits (B, V) after one more token in each row."""


class Reader:
    """`read(rows)` takes whole texts, `step(tokens)` one more token a row; both give the logits of what comes next.

    Change the model's weights, and this needs a new reader.
    """

    def __init__(self, model: GPT) -> None:
        self.model = model
        self.rows: list[list[int]] = []  # what stands in the cache, row by row
        self.padding: list[int] = []  # empty columns before each row
        self.cache: KVCache | None = None
        self.read_tokens = 0  # tokens that went through the model, all rows together
        self._said: set[str] = set()

    @property
    def window(self) -> int:
        """Tokens that the model can look at."""
        return self.model.config.context_length

    def read(self, rows: Sequence[Sequence[int]]) -> Tensor:
        """The logits (B, V) after each of `rows` (ValueError where one is empty). Equal rows are read once.

        What the cache already holds of them is not read again, as long as all rows grew by as many tokens.
        """
        if not all(rows):
            raise ValueError("each row needs at least one token (a text begins with end-of-text)")
        self.model.eval()
        if any(len(row) > self.window for row in rows):
            self._say(TOO_LONG.format(self.window))
        if len(rows) > 1 and all(row == rows[0] for row in rows):
            logits = self._read(rows[:1])
            self._repeat(len(rows))
            return logits.expand(len(rows), -1)
        return self._read(rows)

    @torch.inference_mode()
    def step(self, tokens: Sequence[int]) -> Tensor:
        """The logits (B, V) after one more token in each row."""
        assert self.cache is not None, "read something first"
        rows = [[*row, token] for row, token in zip(self.rows, tokens, strict=True)]
        if self.cache.used == self.window:
            self._say(FULL.format(self.window))
            return self._read(rows)
        self.cache.make_room(self.cache.used + 1, self.window)
        self.rows = rows
        return self._forward(torch.tensor(tokens, device=self.model.device)[:, None], self.cache)

    @torch.inference_mode()
    def _read(self, rows: Sequence[Sequence[int]]) -> Tensor:
        fitting = [newest(row, self.window) for row in rows]
        known = self._known(fitting)
        if self.cache is None or not known:
            longest = max(map(len, fitting))
            self.padding = [longest - len(row) for row in fitting]
            self.cache = self._empty_cache(longest)
        total = self.padding[0] + len(fitting[0])
        self.cache.make_room(total, self.window)
        self.cache.used = known
        self.rows = fitting
        columns = [([0] * empty + row)[known:] for empty, row in zip(self.padding, fitting, strict=True)]
        return self._forward(torch.tensor(columns, device=self.model.device), self.cache)

    def _forward(self, ids: Tensor, cache: KVCache) -> Tensor:
        self.read_tokens += ids.numel()
        return self.model.logits(self.model.hidden(ids, cache)[:, -1]).float()

    def _known(self, rows: Sequence[Sequence[int]]) -> int:
        """How many columns of the cache hold the beginnings of `rows`, at least one token of each left to read."""
        if self.cache is None or len(rows) != len(self.rows):
            return 0
        if len({empty + len(row) for empty, row in zip(self.padding, rows, strict=True)}) > 1:
            return 0  # they would no longer stand flush right
        known = self.cache.used
        for empty, old, new in zip(self.padding, self.rows, rows, strict=True):
            known = min(known, empty + min(common_beginning(old, new), len(new) - 1))
        return known if known > max(self.padding) else 0

    def _empty_cache(self, longest: int) -> KVCache:
        weight = self.model.token_embedding.weight
        lengths = min(self.window, max(LEAST, 2 * longest))
        padding = torch.tensor(self.padding, device=weight.device) if any(self.padding) else None
        return KVCache(self.model.config, len(self.padding), lengths, padding, weight.dtype, weight.device)

    def _repeat(self, times: int) -> None:
        """The one row that was read becomes `times` rows."""
        assert self.cache is not None and len(self.rows) == 1
        self.rows = [list(self.rows[0]) for _ in range(times)]
        self.padding *= times
        self.cache.keys = self.cache.keys.repeat_interleave(times, dim=1)
        self.cache.values = self.cache.values.repeat_interleave(times, dim=1)

    def _say(self, message: str) -> None:
        if message not in self._said:
            inform(message)
        self._said.add(message)


def newest(row: Sequence[int], window: int) -> list[int]:
    """The row itself where it fits into the window, else as much of its end as fills half of it."""
    return list(row if len(row) <= window else row[-max(1, window // 2) :])


def common_beginning(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens both begin with."""
    shorter = min(len(one), len(other))
    if list(one[:shorter]) == list(other[:shorter]):
        return shorter
    return next(i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
