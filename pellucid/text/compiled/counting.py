"""Counts the distinct pieces of texts of any length, in bounded memory: the first half of `bpe_training.py`, compiled.

When the distinct pieces outgrow LARGEST bytes the rarest are dropped, which is said: the common ones decide the merges.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import numpy as np

from pellucid.runtime import inform, progress_bar
from pellucid.text.compiled import entry, inner
from pellucid.text.compiled.pieces import (
    SHORT,
    Bytes,
    character_classes,
    mix,
    padded,
    pattern_mark,
    piece_end,
    two_words,
)
from pellucid.text.pieces import utf8

LARGEST = 12_000_000  # bytes of distinct pieces; learning merges of them needs about 40 times as much
FIRST_PIECES, FIRST_BYTES = 1 << 17, 1 << 21  # room at the beginning: enough for most texts
QUIET_SECONDS = 2.0
NONE = -1


@inner
def _hash(words: Any, start: Any, length: Any) -> Any:
    """A hash of `length` bytes from `start` on."""
    h = np.uint64(length)
    while length > 0:
        a, b = two_words(words, start, min(length, SHORT))
        h = mix(h ^ a, b)
        start += SHORT
        length -= SHORT
    return h


@entry
def _count(
    data: Any, words: Any, start: Any, end: Any, classes: Any, pattern: Any,
    slots: Any, hashes: Any, places: Any, lengths: Any, counts: Any, arena: Any, used: Any,
) -> Any:  # fmt: skip
    """Count the pieces between `start` and `end` until a table is full; where it stopped.

    `slots` (a hash table) holds the number + 1 of a piece in the next four; `used` counts the pieces and arena's bytes.
    """
    while start < end:
        stop = piece_end(data, start, end, classes, pattern)
        length = stop - start
        if used[0] == counts.shape[0] or used[1] + length > arena.shape[0]:
            break
        h = _hash(words, start, length)
        slot = np.int64(h >> np.uint64(16)) & (slots.shape[0] - 1)
        while True:
            piece = np.int64(slots[slot]) - 1
            if piece == NONE:
                piece = used[0]
                slots[slot] = piece + 1
                hashes[piece], places[piece], lengths[piece], counts[piece] = h, used[1], length, 1
                for i in range(length):
                    arena[used[1] + i] = data[start + i]
                used[0] += 1
                used[1] += length
                break
            if hashes[piece] == h and lengths[piece] == length:
                same = True
                for i in range(length):
                    if arena[places[piece] + i] != data[start + i]:
                        same = False
                        break
                if same:
                    counts[piece] += 1
                    break
            slot = (slot + 1) & (slots.shape[0] - 1)
        start = stop
    return start


@entry
def _index(slots: Any, hashes: Any, pieces: Any) -> None:
    """Fill the empty hash table anew."""
    for piece in range(pieces):
        slot = np.int64(hashes[piece] >> np.uint64(16)) & (slots.shape[0] - 1)
        while slots[slot] != 0:
            slot = (slot + 1) & (slots.shape[0] - 1)
        slots[slot] = piece + 1


class PieceCounts:
    """Distinct pieces and how often each occurs, for texts of any length."""

    def __init__(self, pattern: str, largest: int = LARGEST) -> None:
        self._pattern = pattern_mark(pattern)
        self._largest = largest
        self.dropped = 0  # occurrences of pieces that were too rare to be kept
        self._used = np.zeros(2, dtype=np.int64)
        self._hashes = np.empty(0, np.uint64)
        self._places, self._counts = np.empty(0, np.int64), np.empty(0, np.int64)
        self._lengths = np.empty(0, np.int32)
        self._arena: Bytes = np.empty(0, np.uint8)
        self._grow(FIRST_PIECES, min(largest, FIRST_BYTES))

    def __len__(self) -> int:
        return int(self._used[0])

    def add(self, text: bytes) -> None:
        """Count the pieces of a text, given as valid UTF-8."""
        data = padded(text)
        words, place = data.view(np.uint64), 0
        while True:
            place = _count(
                data, words, place, len(text), character_classes(), self._pattern,
                self._slots, self._hashes, self._places, self._lengths, self._counts, self._arena, self._used,
            )  # fmt: skip
            if place == len(text):
                return
            pieces, size = len(self._counts), len(self._arena)
            if size >= self._largest:
                self._drop_rare()
            longest = len(text) - place  # the next piece cannot be longer than this
            self._grow(
                pieces * 2 if len(self) == pieces else pieces,
                size if int(self._used[1]) * 2 < size and size > longest else max(size * 2, size + longest // 64),
            )

    def pieces(self) -> tuple[Any, Any, Any]:
        """All bytes of the distinct pieces, how long each is, how often it occurs."""
        n, size = self._used
        return self._arena[:size], self._lengths[:n], self._counts[:n]

    def _grow(self, pieces: int, size: int) -> None:
        """Make room for `pieces` pieces and `size` bytes."""
        n = len(self)
        for name in ("_hashes", "_places", "_lengths", "_counts"):
            old = getattr(self, name)
            if pieces > len(old):
                new = np.empty(pieces, dtype=old.dtype)
                new[:n] = old[:n]
                setattr(self, name, new)
        if size > len(self._arena):
            arena = np.empty(size, dtype=np.uint8)
            arena[: self._used[1]] = self._arena[: self._used[1]]
            self._arena = arena
        self._slots = np.zeros(1 << (2 * len(self._counts)).bit_length(), dtype=np.int32)
        if n:
            _index(self._slots, self._hashes, n)

    def _drop_rare(self) -> None:
        """Keep the most frequent pieces, in half of the room."""
        n = len(self)
        lengths, counts = self._lengths[:n].astype(np.int64), self._counts[:n]
        rarest = 1
        while True:
            kept = counts > rarest
            if int(lengths[kept].sum()) * 2 <= self._largest:
                break
            rarest *= 2
        self.dropped += int(counts[~kept].sum())
        arena, ends = np.zeros(len(self._arena), np.uint8), np.cumsum(lengths[kept])
        size = int(ends[-1]) if len(ends) else 0
        arena[:size] = self._arena[: self._used[1]][np.repeat(kept, lengths)]
        m = int(kept.sum())
        self._places[:m], self._hashes[:m] = ends - lengths[kept], self._hashes[:n][kept]
        self._lengths[:m], self._counts[:m] = lengths[kept], counts[kept]
        self._arena = arena
        self._used[:] = m, size


def count_pieces_fast(texts: Iterable[str], pattern: str, largest: int = LARGEST) -> PieceCounts:
    """Count the pieces of all texts, and say when rare ones had to be dropped."""
    counts = PieceCounts(pattern, largest)
    read, began = 0, time.monotonic()
    with progress_bar() as bar:
        task = bar.add_task("reading text for the tokenizer", total=None, note="", visible=False)
        for text in texts:
            counts.add(utf8(text))
            read += len(text)
            late = time.monotonic() - began > QUIET_SECONDS
            bar.update(task, completed=read, visible=late, note=f"{len(counts):,} distinct pieces")
    if counts.dropped:
        inform(
            f"{counts.dropped:,} rare pieces were left out to keep memory bounded: the common ones decide the merges."
        )
    return counts
