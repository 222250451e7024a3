"""A cache whose rows come and go: each slot holds one row, flush left, as long as it happens to be.

Unlike the `KVCache` it extends, whose rows grow together, each slot has a length of its own, so that rows at different
places of different texts go through the model together. The rows of one pass stand side by side; `swap` sees to that.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from pellucid.config import ModelConfig
from pellucid.model.cache import KVCache
from pellucid.model.gpt import GPT

# B rows of this pass, T new tokens, S columns, G heads of keys and values, K width of a head

LEAST = 64  # columns that a slot begins with, where the window has as many


class AnySlots(Protocol):
    """What `Continuous` asks of its slots: these, or the fast ones (fast.py)."""

    lengths: list[int]

    def read(self, slots: slice, new: list[list[int]]) -> Tensor:
        """Put new tokens behind each of these slots; the logits (B, V) after the last of each."""

    def go_on(self, slot: int, text: list[int]) -> Tensor:
        """Put the last token of `text`, of which the slot holds the rest, behind that; the logits (1, V) after it."""

    def copy(self, source: int, target: int, tokens: int) -> None:
        """`target` holds the first `tokens` of `source`, and nothing else."""

    def swap(self, one: int, other: int) -> None:
        """Let two slots change places."""


class SlotCache(KVCache):
    """`take(slots)` says which rows the next pass is about; `lengths[slot]` how many tokens each slot holds.

    All slots grow together, doubling, up to the model's window; they never shrink.
    """

    def __init__(self, config: ModelConfig, slots: int, dtype: torch.dtype, device: torch.device) -> None:
        super().__init__(config, slots, min(LEAST, config.context_length), None, dtype, device)
        self.window = config.context_length
        self.lengths = [0] * slots
        self._taken = slice(0, 0)
        self._starts = torch.empty(0, dtype=torch.long, device=device)  # (B,): the next column of each row
        self._total = 0
        self._masks: dict[int, Tensor] = {}  # the layers of a pass share them

    def take(self, taken: slice, new: int) -> None:
        """The next pass adds `new` tokens to each of these slots: to one slot, or one token to each of several."""
        lengths = self.lengths[taken]
        assert len(lengths) == 1 or new == 1, "rows of different lengths grow by one token at a time"
        self._taken, self._total = taken, max(lengths) + new
        self._starts = torch.tensor(lengths, device=self.keys.device)
        self._masks = {}
        self.make_room(self._total, self.window)

    def positions(self, new: int) -> Tensor:
        """(B, T): each row counted from its own first token."""
        return self._starts[:, None] + torch.arange(new, device=self.keys.device)

    def mask(self, new: int, window: int = 0) -> Tensor:
        """Which columns each new token may look at, (B, 1, T, S) booleans: its own row's, up to itself."""
        if window not in self._masks:
            rows = self.positions(new)[:, :, None]
            columns = torch.arange(self._total, device=self.keys.device)
            seen = columns <= rows
            self._masks[window] = (seen & (columns > rows - window) if window else seen)[:, None]
        return self._masks[window]

    def store(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Put the new (B, G, T, K) keys and values behind each row's old ones; return (B, G, S, K)."""
        all_keys, all_values = self.keys[layer, self._taken], self.values[layer, self._taken]
        if len(keys) == 1:
            columns = slice(self._total - keys.shape[2], self._total)
            all_keys[:, :, columns], all_values[:, :, columns] = keys, values
        else:
            rows = torch.arange(len(keys), device=keys.device)
            all_keys[rows, :, self._starts], all_values[rows, :, self._starts] = keys[:, :, 0], values[:, :, 0]
        return all_keys[:, :, : self._total], all_values[:, :, : self._total]

    def advance(self, new: int) -> None:
        """Count `new` tokens as stored in each row of this pass."""
        self.lengths[self._taken] = [length + new for length in self.lengths[self._taken]]

    def copy(self, source: int, target: int, tokens: int) -> None:
        """`target` holds the first `tokens` of `source`, and nothing else."""
        if source != target:
            for part in (self.keys, self.values):
                part[:, target, :, :tokens] = part[:, source, :, :tokens]
        self.lengths[target] = tokens

    def swap(self, one: int, other: int) -> None:
        """Let two slots change places."""
        longest = max(self.lengths[one], self.lengths[other])
        if one != other:
            for layer in (*self.keys, *self.values):  # one by one: the copy between is small
                layer[[one, other], :, :longest] = layer[[other, one], :, :longest]
        self.lengths[one], self.lengths[other] = self.lengths[other], self.lengths[one]


class TorchSlots(SlotCache):
    """The slots of a readable model."""

    def __init__(self, model: GPT, slots: int) -> None:
        super().__init__(model.config, slots, model.token_embedding.weight.dtype, model.device)
        self.model = model.eval()

    def read(self, slots: slice, new: list[list[int]]) -> Tensor:
        """Put new tokens behind each of these slots; the logits (B, V) after the last of each."""
        self.take(slots, len(new[0]))
        hidden = self.model.hidden(torch.tensor(new, device=self.model.device), self)
        return self.model.logits(hidden[:, -1]).float()

    def go_on(self, slot: int, text: list[int]) -> Tensor:
        """Put the last token of `text` behind the rest; the logits (1, V) after it."""
        return self.read(slice(slot, slot + 1), [text[-1:]])
