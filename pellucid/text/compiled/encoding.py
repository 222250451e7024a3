"""Encodes as `bpe.py` does, compiled, and without the interpreter's lock.

A piece of up to 16 bytes is two machine words, looked up whole in a table of the pieces met so far; only a piece never
met is merged.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pellucid.text.compiled import entry, inner
from pellucid.text.compiled.pieces import (
    SHORT,
    Bytes,
    Words,
    character_classes,
    mix,
    padded,
    pattern_mark,
    piece_end,
    two_words,
)

LONG = 128  # bytes; a longer piece is merged by a heap, which is compiled only when one is met
PART = 1 << 20  # ids that one call of the kernel makes at most
SLOTS = 1 << 17  # of a thread's table of pieces
NONE = -1
NO_IDS = np.zeros(0, dtype=np.uint32)

# ---------------------------------------------------------------- one piece


@inner
def _rank(pairs: Any, shift: Any, left: Any, right: Any) -> Any:
    """The rank of a pair of ids, or NONE. `pairs` is (slots, 2): the pair + 1, and its rank."""
    key = (np.uint64(left) << np.uint64(32) | np.uint64(right)) + np.uint64(1)
    slot = np.int64(mix(key, np.uint64(0)) >> shift)
    while True:
        found = pairs[slot, 0]
        if found == key:
            return np.int64(pairs[slot, 1])
        if found == 0:
            return NONE
        slot = (slot + 1) & (pairs.shape[0] - 1)


@entry
def _fill_pairs(pairs: Any, shift: Any, merges: Any) -> None:
    """Put each merge (rank: left, right) into the table; of the same pair twice, the first counts."""
    for rank in range(merges.shape[0]):
        key = (np.uint64(merges[rank, 0]) << np.uint64(32) | np.uint64(merges[rank, 1])) + np.uint64(1)
        slot = np.int64(mix(key, np.uint64(0)) >> shift)
        while pairs[slot, 0] != 0 and pairs[slot, 0] != key:
            slot = (slot + 1) & (pairs.shape[0] - 1)
        if pairs[slot, 0] == 0:
            pairs[slot, 0], pairs[slot, 1] = key, np.uint64(rank)


@inner
def _merge_small(ids: Any, count: Any, pairs: Any, shift: Any, merged: Any) -> Any:
    """Merge the first `count` ids in place, always the pair of lowest rank, the leftmost first; how many are left."""
    ranks = np.empty(count, np.int64)
    for i in range(count - 1):
        ranks[i] = _rank(pairs, shift, ids[i], ids[i + 1])
    while count > 1:
        best, at = NONE, 0
        for i in range(count - 1):
            if ranks[i] != NONE and (best == NONE or ranks[i] < best):
                best, at = ranks[i], i
        if best == NONE:
            break
        ids[at] = merged[best]
        count -= 1
        for i in range(at + 1, count):
            ids[i], ranks[i] = ids[i + 1], ranks[i + 1]
        if at + 1 < count:
            ranks[at] = _rank(pairs, shift, ids[at], ids[at + 1])
        if at > 0:
            ranks[at - 1] = _rank(pairs, shift, ids[at - 1], ids[at])
    return count


@inner
def _sift(heap: Any, size: Any, entry: Any) -> Any:
    """Put `entry` into the heap of `size`; the new size."""
    i = size
    while i > 0 and heap[(i - 1) >> 1] > entry:
        heap[i] = heap[(i - 1) >> 1]
        i = (i - 1) >> 1
    heap[i] = entry
    return size + 1


@inner
def _pop(heap: Any, size: Any) -> Any:
    """Take the smallest entry out of the heap of `size`; the new size."""
    size -= 1
    entry = heap[size]
    i = 0
    while 2 * i + 1 < size:
        child = 2 * i + 1
        if child + 1 < size and heap[child + 1] < heap[child]:
            child += 1
        if heap[child] >= entry:
            break
        heap[i] = heap[child]
        i = child
    heap[i] = entry
    return size


@entry
def _merge_long(ids: Any, count: Any, pairs: Any, shift: Any, merged: Any) -> Any:
    """As `_merge_small`, by a heap: for a megabyte without a space."""
    after, before, gone = np.empty(count, np.int64), np.empty(count, np.int64), np.empty(count, np.uint8)
    for i in range(count):
        after[i], before[i], gone[i] = i + 1, i - 1, 0
    heap, size = np.empty(3 * count, np.int64), 0  # rank << 32 | place
    for i in range(count - 1):
        rank = _rank(pairs, shift, ids[i], ids[i + 1])
        if rank != NONE:
            size = _sift(heap, size, rank << 32 | i)
    while size:
        rank, i = heap[0] >> 32, heap[0] & 0xFFFFFFFF
        size = _pop(heap, size)
        j = after[i]
        if gone[i] or j == count or _rank(pairs, shift, ids[i], ids[j]) != rank:
            continue  # the pair at this place has changed since
        ids[i] = merged[rank]
        gone[j] = 1
        after[i] = after[j]
        if after[i] < count:
            before[after[i]] = i
            rank = _rank(pairs, shift, ids[i], ids[after[i]])
            if rank != NONE:
                size = _sift(heap, size, rank << 32 | i)
        if before[i] >= 0:
            rank = _rank(pairs, shift, ids[before[i]], ids[i])
            if rank != NONE:
                size = _sift(heap, size, rank << 32 | before[i])
    kept = 0
    for i in range(count):
        if not gone[i]:
            ids[kept] = ids[i]
            kept += 1
    return kept


# ---------------------------------------------------------------- a text


@entry
def _encode(
    data: Any, words: Any, start: Any, end: Any, classes: Any, pattern: Any,
    pairs: Any, pair_shift: Any, byte_ids: Any, merged: Any,
    table: Any, table_shift: Any, pool: Any, used: Any, out: Any,
) -> Any:  # fmt: skip
    """Encode the bytes from `start` to `end`, up to a full `out` or a long piece: where it stopped, and how many ids.

    The third number is where the long piece ends, if that is why it stopped.

    `table` is (slots, 4): two words of bytes; length << 8 | number of ids (0: an empty slot); the id, or where in
    `pool` the ids begin. `used` counts what is taken of the table's slots and of the pool.
    """
    made = 0
    while start < end:
        stop = piece_end(data, start, end, classes, pattern)
        length = stop - start
        if length > LONG:
            return start, made, stop
        if made + length > out.shape[0]:
            break
        if length <= SHORT:
            a, b = two_words(words, start, length)
            slot = np.int64(mix(a, b) >> table_shift)
            about = table[slot, 2]
            while about != 0 and not (
                table[slot, 0] == a and table[slot, 1] == b and np.int64(about >> np.uint64(8)) == length
            ):
                slot = (slot + 1) & (table.shape[0] - 1)
                about = table[slot, 2]
            if about != 0:
                known: Any = np.int64(about & np.uint64(0xFF))
                if known == 1:
                    out[made] = table[slot, 3]
                else:
                    place = np.int64(table[slot, 3])
                    for i in range(known):
                        out[made + i] = pool[place + i]
                made += known
                start = stop
                continue
        ids = out[made : made + length]
        for i in range(length):
            ids[i] = byte_ids[data[start + i]]
        count = _merge_small(ids, length, pairs, pair_shift, merged)
        if length <= SHORT and used[0] * 2 < table.shape[0] and used[1] + count <= pool.shape[0]:
            table[slot, 0], table[slot, 1], table[slot, 2] = a, b, np.uint64(length << 8 | count)
            table[slot, 3] = np.uint64(used[1]) if count > 1 else np.uint64(ids[0])
            for i in range(count):
                pool[used[1] + i] = ids[i]
            used[0] += 1
            used[1] += count
        made += count
        start = stop
    return start, made, NONE


class FastBPE:
    """Encodes by the same merges as the readable way, compiled. Safe to call from several threads at once."""

    def __init__(
        self, byte_ids: Sequence[int], merges: Sequence[tuple[int, int]], merged: Sequence[int], pattern: str
    ) -> None:
        """`merged` are the ids that the merges make; `pattern` is one of PATTERNS."""
        self._pattern = pattern_mark(pattern)
        self._byte_ids = np.array(byte_ids, dtype=np.uint32)
        self._merged = np.array(merged or [0], dtype=np.uint32)
        slots = 1 << max(10, (2 * len(merges)).bit_length())
        self._pairs = np.zeros((slots, 2), dtype=np.uint64)
        self._pair_shift = np.uint64(64 - (slots.bit_length() - 1))
        _fill_pairs(self._pairs, self._pair_shift, np.array(merges, dtype=np.uint32).reshape(-1, 2))
        self._workspaces = threading.local()

    def encode(self, text: bytes) -> NDArray[np.uint32]:
        """The ids of one text, given as valid UTF-8."""
        return self.encode_many([text])[0]

    def encode_many(self, texts: Sequence[bytes]) -> list[NDArray[np.uint32]]:
        """The ids of each text."""
        ends = np.cumsum([0, *map(len, texts)]).tolist()
        data = padded(*texts)
        return [np.concatenate(list(self._encode(data, start, end)) or [NO_IDS]) for start, end in pairwise(ends)]

    def _encode(self, data: Bytes, start: int, end: int) -> Iterator[NDArray[np.uint32]]:
        """The ids of the bytes from `start` to `end`, in arrays of a million at most."""
        words, room = data.view(np.uint64), min(PART, max(LONG, end - start))
        while start < end:
            table, shift, pool, used = self._workspace()
            out = np.empty(room, dtype=np.uint32)
            start, made, stop = _encode(
                data, words, start, end, character_classes(), self._pattern, self._pairs, self._pair_shift,
                self._byte_ids, self._merged, table, shift, pool, used, out,
            )  # fmt: skip
            yield out[:made]
            if stop != NONE:
                ids = self._byte_ids[data[start:stop]]
                yield ids[: _merge_long(ids, len(ids), self._pairs, self._pair_shift, self._merged)]
                start = stop

    def _workspace(self) -> tuple[Words, np.uint64, NDArray[np.uint32], NDArray[np.int64]]:
        """This thread's table of pieces, emptied when it has become half full."""
        mine = self._workspaces
        if not hasattr(mine, "table"):
            mine.table = np.zeros((SLOTS, 4), dtype=np.uint64)
            mine.pool = np.empty(4 * SLOTS, dtype=np.uint32)
            mine.used = np.zeros(2, dtype=np.int64)
        elif mine.used[0] * 2 >= SLOTS or mine.used[1] + SHORT > len(mine.pool):
            mine.table[:] = 0
            mine.used[:] = 0
        return mine.table, np.uint64(64 - (SLOTS.bit_length() - 1)), mine.pool, mine.used
