"""Sums of the small world, in words, and which of them the training text may show.

Two numbers of two digits, no digit a nought, nothing to carry: "twenty three plus fifty four is seventy seven". So the
answer to a pair that was never shown can be worked out, place by place, from the pairs that were.
"""

from __future__ import annotations

from functools import cache
from typing import Final

from pellucid.text.tinyworld.dice import ranked_splits

HELD_OUT: Final = 0.15  # share of the test part, and of the val part, of every kind of instruction

TENS: Final = ("", "ten", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
UNITS: Final = ("", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def spoken(number: int) -> str:
    """`twenty three` for 23, without a hyphen: one word follows the other.

    Only for numbers of two digits above 20 whose last digit is not 0.
    """
    return f"{TENS[number // 10]} {UNITS[number % 10]}"


@cache
def pairs() -> tuple[tuple[int, int], ...]:
    """All ordered pairs that are added in this world."""
    numbers = [10 * tens + units for tens in range(2, 8) for units in range(1, 9)]
    return tuple((x, y) for x in numbers for y in numbers if x % 10 + y % 10 <= 9 and x // 10 + y // 10 <= 9)


def _key(x: int, y: int) -> str:
    return f"{min(x, y)} plus {max(x, y)}"


@cache
def _splits() -> dict[str, str]:
    return ranked_splits((_key(x, y) for x, y in pairs()), HELD_OUT)


def sum_split(x: int, y: int) -> str:
    """The split of the unordered pair: 25 plus 31 and 31 plus 25 lie in the same one."""
    return _splits()[_key(x, y)]


@cache
def train_pairs() -> tuple[tuple[int, int], ...]:
    """The ordered pairs whose sum documents may state."""
    return tuple((x, y) for x, y in pairs() if sum_split(x, y) == "train")
