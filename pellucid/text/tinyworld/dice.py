"""Choices that account for their surprisal.

A generator that draws everything here knows -log p of what it made: the sum over its choices. Where the text also tells
every choice that was made, that sum is exactly -log p(text), the floor that no model of the text can beat.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable, Sequence
from itertools import accumulate
from math import comb, log
from typing import TypeVar

T = TypeVar("T")


class Dice:
    """A seeded source of choices. `nats` is the surprisal of all choices since `restart`."""

    def __init__(self, seed: int | str) -> None:
        self._random = random.Random(seed)
        self.nats = 0.0

    def restart(self) -> None:
        """Count from zero again (the stream of choices goes on)."""
        self.nats = 0.0

    def choose(self, options: Sequence[T], weights: Sequence[float] | None = None) -> T:
        """One of `options`, all alike or by `weights`. The options must differ from each other."""
        if weights is None:
            self.nats += log(len(options))
            return options[int(self._random.random() * len(options))]
        total = list(accumulate(weights))
        point = self._random.random() * total[-1]
        index = next(i for i, upper in enumerate(total) if point < upper)
        self.nats -= log(weights[index] / total[-1])
        return options[index]

    def sample(self, options: Sequence[T], count: int) -> list[T]:
        """`count` different options, in an order that is part of the choice (the text must show it)."""
        self.nats += sum(log(len(options) - taken) for taken in range(count))
        return self._random.sample(options, count)

    def subset(self, options: Sequence[T], count: int) -> list[T]:
        """`count` different options, in the order in which they stand in `options`."""
        self.nats += log(comb(len(options), count))
        return [options[i] for i in sorted(self._random.sample(range(len(options)), count))]

    def chance(self, probability: float) -> bool:
        """True with `probability` (strictly between 0 and 1)."""
        if self._random.random() < probability:
            self.nats -= log(probability)
            return True
        self.nats -= log(1 - probability)
        return False

    def number(self, low: int, high: int) -> int:
        """A whole number from `low` to `high`, both included."""
        return self.choose(range(low, high + 1))


def split_of(key: str, held_out: float) -> str:
    """`train`, `val` or `test` for a content key, the same on every machine and for every seed.

    `held_out` is the share of val and of test, each.
    """
    point = int.from_bytes(hashlib.sha256(key.encode()).digest()[:6]) / 2**48
    if point < held_out:
        return "test"
    return "val" if point < 2 * held_out else "train"


def ranked_splits(keys: Iterable[str], held_out: float) -> dict[str, str]:
    """The split of each of a fixed list of keys, in exact shares: for lists so short that chance would be uneven."""
    ranked = sorted(set(keys), key=lambda key: hashlib.sha256(key.encode()).digest())
    part = max(1, round(len(ranked) * held_out))
    return {key: "test" if i < part else "val" if i < 2 * part else "train" for i, key in enumerate(ranked)}
