"""Several texts in one row, none of which sees another: block-diagonal attention, positions counted from each start.

It stands where a cache stands, and keeps nothing: so the forward pass needs to know nothing about it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pellucid.model.cache import KVCache

# B rows, T tokens, G heads of keys and values, K width of a head


class Segments(KVCache):
    """Rows of `length` tokens; `lengths[b]` are those of the texts in row b, in their order.

    What is left of a row at its end (padding) counts as one more text, which no other sees.
    """

    def __init__(self, lengths: Sequence[Sequence[int]], length: int, device: torch.device | str = "cpu") -> None:
        numbers, places = [], []
        for row in lengths:
            sizes = torch.tensor([*row, length - sum(row)])
            numbers.append(torch.repeat_interleave(torch.arange(len(sizes)), sizes))
            places.append(torch.arange(length) - torch.repeat_interleave(sizes.cumsum(0) - sizes, sizes))
        self._numbers = torch.stack(numbers).to(device)  # (B, T): which text of its row a token belongs to
        self._places = torch.stack(places).to(device)
        self._masks: dict[int, Tensor] = {}  # the layers of a pass share them

    def positions(self, new: int) -> Tensor:
        """(B, T): each token counted from the first of its own text; those of padding stay within the context."""
        return self._places

    def mask(self, new: int, window: int = 0) -> Tensor:
        """Which columns each token may look at, (B, 1, T, T) booleans: its own text's, up to itself."""
        if window not in self._masks:
            columns = torch.arange(new, device=self._places.device)
            seen = (self._numbers[:, :, None] == self._numbers[:, None, :]) & (columns <= columns[:, None])
            self._masks[window] = (seen & (columns > columns[:, None] - window) if window else seen)[:, None]
        return self._masks[window]

    def store(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Nothing was there before: the new (B, G, T, K) keys and values are all there is."""
        return keys, values

    def advance(self, new: int) -> None:
        """Nothing is kept."""


def pack(lengths: Sequence[int], room: int) -> list[list[int]]:
    """Which of the texts stand together in a row of `room` tokens: the longest first, each where it first fits."""
    rows: list[list[int]] = []
    left: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        assert lengths[index] <= room, "a text is cut to the context before it is packed"
        place = next((row for row, free in enumerate(left) if free >= lengths[index]), len(rows))
        if place == len(rows):
            rows.append([])
            left.append(room)
        rows[place].append(index)
        left[place] -= lengths[index]
    return rows
