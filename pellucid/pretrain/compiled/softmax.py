"""Softmax in the place of logits that lie token by token: (V, R), a column for each position.

Laid like that they are the faster products by far: the table times the vectors, and their gradient times the vectors
(docs/performance.md). A thread takes some columns, 16 at a time through a few rows, so that what it goes through twice
is near. Paper: Milakov and Gimelshein 2018, "Online normalizer calculation for softmax".
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from pellucid.compiled.team import share
from pellucid.compiled.vectors import (
    COMPILED,
    LANES,
    WITHIN,
    exponentials,
    larger,
    load,
    minus,
    multiply_add,
    put,
    put_rounded,
    spread,
    times,
)

ROWS = 16  # gone through for the largest number, and then again for the sum
LEAST = np.float32(-3e38)


@njit(**COMPILED)
def softmax(logits: Any, words: Any, last: Any, norms: Any, sums: Any, part: Any, parts: Any) -> None:
    """Each column's first `words` rows become their softmax, of which the last row stands for `last` tokens.

    `norms`, a number for each column, become the logarithms of the sums of exponentials, and `sums` is room for as
    many. The number of columns is a multiple of 16.
    """
    columns = norms.shape[0]
    begin, end = share(columns // LANES, part, parts)
    begin, end = begin * LANES, end * LANES
    for r in range(begin, end):
        norms[r], sums[r] = LEAST, np.float32(0)
    for top in range(0, words, ROWS):
        for r in range(begin, end, LANES):
            add_exponentials(logits, top, min(top + ROWS, words), words, last, r, norms, sums)
    for r in range(begin, end):
        norms[r] += np.log(sums[r])
    for v in range(words):
        for r in range(begin, end, LANES):
            this = exponentials(minus(load(logits, v * columns + r), load(norms, r)))
            put_rounded(logits, v * columns + r, times(this, tokens_of(v, words, last)))


@njit(**COMPILED)
def add_exponentials(
    logits: Any, top: Any, bottom: Any, words: Any, last: Any, r: Any, largest: Any, sums: Any
) -> None:
    """Some rows of 16 columns, added to the sums of e to the power of what they are less than the largest so far."""
    before, columns = load(largest, r), largest.shape[0]
    most = before
    for v in range(top, bottom):
        most = larger(load(logits, v * columns + r), most)
    total = times(load(sums, r), exponentials(minus(before, most)))
    for v in range(top, bottom):
        this = exponentials(minus(load(logits, v * columns + r), most))
        total = multiply_add(this, tokens_of(v, words, last), total)
    put(sums, r, total)
    put(largest, r, most)


@njit(**WITHIN)
def tokens_of(v: Any, words: Any, last: Any) -> Any:
    """How many tokens row v stands for, 16 times."""
    return spread(np.float32(last if v == words - 1 else 1))
