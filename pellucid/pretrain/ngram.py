"""What counting can do: a unigram and an interpolated n-gram model, the baselines that a trained model must beat.

Interpolated Kneser-Ney: each order gives away a discount of its counts to the next shorter one, and shorter orders
count in how many contexts a token was seen, not how often. One n-gram is one 64-bit key, so all is sorting and lookup.
Paper: Chen and Goodman 1999, "An empirical study of smoothing techniques for language modeling".
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Keys = NDArray[np.uint64]


@dataclass(frozen=True)
class _Order:
    """Counts of one order: n-grams, and for each context its total, distinct followers and discount."""

    grams: Keys
    counts: NDArray[np.float64]
    contexts: Keys
    totals: NDArray[np.float64]
    followers: NDArray[np.float64]
    discount: float


class NGram:
    """An interpolated n-gram model of order `order` over ids below `vocab_size`, counted from `tokens`."""

    def __init__(self, tokens: NDArray[Any], vocab_size: int, order: int = 4) -> None:
        self.vocab_size = vocab_size
        longest = int(64 / math.log2(max(vocab_size, 2)))  # a key has 64 bits
        self.order = max(1, min(order, longest, len(tokens)))
        self._orders: list[_Order] = []
        grams, counts = np.unique(self._keys(tokens, self.order), return_counts=True)
        for n in range(self.order, 0, -1):
            self._orders.append(self._count(grams, counts.astype(np.float64)))
            if n > 1:  # the next shorter order counts the distinct tokens in front of each of its n-grams
                grams, counts = np.unique(grams % np.uint64(vocab_size ** (n - 1)), return_counts=True)
        self._orders.reverse()

    def _keys(self, tokens: NDArray[Any], n: int) -> Keys:
        """One key for each run of n tokens."""
        ids = tokens.astype(np.uint64)
        keys = np.zeros(max(0, len(ids) - n + 1), dtype=np.uint64)
        for k in range(n):
            keys = keys * np.uint64(self.vocab_size) + ids[k : k + len(keys)]
        return keys

    def _count(self, grams: Keys, counts: NDArray[np.float64]) -> _Order:
        contexts, first = np.unique(grams // np.uint64(self.vocab_size), return_index=True)
        totals = np.add.reduceat(counts, first)
        followers = np.diff(np.append(first, len(grams))).astype(np.float64)
        once, twice = float((counts == 1).sum()), float((counts == 2).sum())
        discount = once / (once + 2 * twice) if once and twice else 0.5
        return _Order(grams, counts, contexts, totals, followers, discount)

    def nats(self, tokens: NDArray[Any]) -> NDArray[np.float64]:
        """−log probability of every token but the first, each given the up to `order` − 1 tokens before it."""
        probability = np.full(len(tokens) - 1, 1 / self.vocab_size)
        for n, counted in enumerate(self._orders, start=1):
            keys = self._keys(tokens, n)[1 if n == 1 else 0 :]  # a unigram predicts from the second token on, too
            seen = probability[n - 2 :] if n > 1 else probability
            seen[:] = _interpolate(counted, keys, self.vocab_size, seen)
        result: NDArray[np.float64] = -np.log(probability)
        return result


def _interpolate(counted: _Order, keys: Keys, vocab_size: int, shorter: NDArray[np.float64]) -> NDArray[np.float64]:
    """Probability by this order's counts, with the discounted rest shared out by the shorter order."""
    counts, _ = _lookup(counted.grams, counted.counts, keys)
    context = keys // np.uint64(vocab_size)
    totals, known = _lookup(counted.contexts, counted.totals, context)
    followers, _ = _lookup(counted.contexts, counted.followers, context)
    totals = np.where(known, totals, 1.0)
    mixed = np.maximum(counts - counted.discount, 0) / totals + counted.discount * followers / totals * shorter
    return np.where(known, mixed, shorter)


def _lookup(table: Keys, values: NDArray[np.float64], keys: Keys) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """The value of each key (0 where it is not in the sorted table), and whether it is there."""
    place = np.minimum(np.searchsorted(table, keys), len(table) - 1)
    known = table[place] == keys
    return np.where(known, values[place], 0.0), known


def unigram_nats(train: NDArray[Any], tokens: NDArray[Any], vocab_size: int) -> NDArray[np.float64]:
    """−log probability of every token but the first by frequency alone (one is added to every count)."""
    counts = np.bincount(train, minlength=vocab_size).astype(np.float64) + 1
    probability: NDArray[np.float64] = (counts / counts.sum())[tokens[1:].astype(np.int64)]
    return -np.log(probability)
