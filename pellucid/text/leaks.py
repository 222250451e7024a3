"""Finds texts that are in two splits, word for word or nearly: a test set that was trained on measures nothing.

MinHash (Broder, 1997): of many hash functions over all five words in a row, the smallest values stay; the share of
these minima that two texts have in common estimates the share of five-word runs that they have in common (Jaccard).
Texts that agree in one of the bands of minima are compared; those of 0.8 and more count as near duplicates. Words are
what stands between white space, and in scripts without spaces each character.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from pellucid.text.pieces import utf8

MINIMA = 128  # an estimate of 0.8 is right to ± 0.035
BANDS = 16  # of eight minima each: two texts of Jaccard 0.85 share one with a probability of 0.99
NEAR = 0.8
HEAD_CHARACTERS = 1 << 20  # of a longer text, this beginning stands for all of it
NOTHING = np.uint16(0xFFFF)  # each minimum of a text without words

Signatures = NDArray[np.uint16]  # (texts, MINIMA)


def signatures(texts: Sequence[str]) -> Signatures:
    """The minima of each text, 16 bits of each."""
    from pellucid.text.compiled.minima import fill_minima
    from pellucid.text.compiled.shingles import shingles

    rows = np.empty((len(texts), MINIMA), dtype=np.uint16)
    if texts:
        hashes = [shingles(utf8(text)) for text in texts]
        numbers = np.random.PCG64(7).random_raw(2 * MINIMA)
        factors, shifts = numbers[:MINIMA] | np.uint64(1), numbers[MINIMA:]
        fill_minima(np.concatenate(hashes), np.cumsum([0, *map(len, hashes)]), factors, shifts, rows)
    return rows


class NearIndex:
    """Signatures to compare others with. Once made it does not change, so threads may share it."""

    def __init__(self, known: Iterable[Signatures]) -> None:
        self._known = np.concatenate([signatures([]), *known])
        keys = _bands(self._known)
        self._order = np.empty(keys.shape, dtype=np.uint32)
        for band, order in zip(keys, self._order, strict=True):
            order[:] = band.argsort(kind="stable")
            band[:] = band[order]
        self._keys = keys  # (BANDS, texts), each band sorted

    def __len__(self) -> int:
        return len(self._known)

    def near(self, asked: Signatures) -> NDArray[np.bool_]:
        """For each signature, whether a known one is near."""
        return self.nearest(asked, enough=NEAR)[1] >= NEAR

    def nearest(self, asked: Signatures, enough: float = 1.0) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """For each signature, the number of the known one most like it (-1: none is), and how alike they are.

        It need not be the most alike where both agree in `enough` of their minima.
        """
        which, score = np.full(len(asked), -1, dtype=np.int64), np.zeros(len(asked))
        wordless = (asked == NOTHING).all(axis=1)
        for keys, order, wanted in zip(self._keys, self._order, _bands(asked), strict=True):
            first, last = np.searchsorted(keys, wanted, "left"), np.searchsorted(keys, wanted, "right")
            for text in np.flatnonzero((last > first) & (score < enough) & ~wordless):
                found = order[first[text] : last[text]]
                alike = (self._known[found] == asked[text]).mean(axis=1)
                best = alike.argmax()
                if alike[best] > score[text]:
                    which[text], score[text] = found[best], alike[best]
        return which, score


def _bands(rows: Signatures) -> NDArray[np.uint32]:
    """One number for each band of each text: (BANDS, texts)."""
    parts = rows.reshape(len(rows), BANDS, MINIMA // BANDS)
    keys = np.zeros((len(rows), BANDS), dtype=np.uint64)
    for place in range(parts.shape[2]):
        keys = (keys ^ parts[:, :, place]) * np.uint64(0x9E3779B97F4A7C15)
        keys ^= keys >> np.uint64(32)
    return np.ascontiguousarray(keys.T.astype(np.uint32))
