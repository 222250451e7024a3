"""Hashes of each five words that stand together in a text: what tells near duplicates (see `leaks.py`)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pellucid.text.compiled import entry, inner
from pellucid.text.compiled.pieces import padded

WORDS = 5
LONG = 0xE0  # the first byte of a character of three or four bytes, U+0800 and above


@inner
def _together(recent: Any, words: Any, count: Any) -> Any:
    """One hash of the last `count` words."""
    total = np.uint64(0)
    for back in range(count):
        total = (total ^ recent[(words - 1 - back) % WORDS]) * np.uint64(0x9E3779B97F4A7C15)
        total ^= total >> np.uint64(32)
    return total


@entry
def _shingles(data: Any, end: Any, recent: Any, out: Any) -> Any:
    """Write the hash of each WORDS words before byte `end` into `out`, of all words where there are fewer; how many.

    Words are what stands between ASCII white space, capitals like small letters; a character of three or four bytes
    is a word by itself, since Chinese, Japanese and Thai have no spaces. `recent` holds the last words' hashes.
    """
    words, made, h, inside = 0, 0, np.uint64(0), False
    alone: Any = False
    for i in range(end + 1):
        byte = np.uint64(data[i]) if i < end else np.uint64(32)
        if inside and (byte <= 32 or byte >= LONG or (alone and (byte < 0x80 or byte >= 0xC0))):
            inside = False
            recent[words % WORDS] = h ^ (h >> np.uint64(29))
            words += 1
            if words >= WORDS:
                out[made] = _together(recent, words, WORDS)
                made += 1
        if byte > 32:
            if 65 <= byte <= 90:
                byte |= np.uint64(32)
            if not inside:
                alone = byte >= LONG
            h = (h ^ byte) * np.uint64(0x100000001B3) if inside else (np.uint64(0xCBF29CE484222325) ^ byte)
            inside = True
    if made == 0 and words:
        out[0], made = _together(recent, words, words), 1
    return made


def shingles(text: bytes) -> NDArray[np.uint64]:
    """The hashes of all five words in a row in a text; one of all its words where there are fewer; none of no words."""
    out = np.empty(len(text) // 2 + 1, dtype=np.uint64)
    made = _shingles(padded(text), len(text), np.zeros(WORDS, np.uint64), out)
    return out[:made]
