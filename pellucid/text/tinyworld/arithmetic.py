"""Sums of the small world, and which of them the training text may show."""

from __future__ import annotations

from functools import cache
from typing import Final

from pellucid.text.tinyworld.dice import ranked_splits

LARGEST: Final = 12  # both numbers of a sum lie in 1..LARGEST
HELD_OUT: Final = 0.1  # share of the test part, and of the val part, of every kind of instruction
# The two smallest and two largest results have one or two pairs each: held out, their result would never be seen.
EDGE: Final = 2


def _key(x: int, y: int) -> str:
    return f"{min(x, y)} plus {max(x, y)}"


@cache
def _splits() -> dict[str, str]:
    numbers = range(1, LARGEST + 1)
    inner = [_key(x, y) for x in numbers for y in numbers if 2 + EDGE <= x + y <= 2 * LARGEST - EDGE]
    return ranked_splits(inner, HELD_OUT)


def sum_split(x: int, y: int) -> str:
    """The split of the unordered pair: 7 plus 5 and 5 plus 7 lie in the same one."""
    return _splits().get(_key(x, y), "train")


@cache
def train_pairs() -> tuple[tuple[int, int], ...]:
    """The ordered pairs whose sum documents may state."""
    numbers = range(1, LARGEST + 1)
    return tuple((x, y) for x in numbers for y in numbers if sum_split(x, y) == "train")
