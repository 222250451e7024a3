"""Learns the merges from counted pieces: the second half of `bpe_training.py`, compiled.

Distinct pieces lie one behind the other in one array of bytes, where a token is named by the place of its first byte.
The places of each pair form a linked list, so that a merge visits only what it changes, and forgets what is gone.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pellucid.runtime import progress_bar
from pellucid.text.compiled import entry, inner
from pellucid.text.compiled.counting import PieceCounts
from pellucid.text.compiled.pieces import mix

QUIET_SECONDS = 2.0
NONE = -1
LEARNT, STOP, CURRENT, KNOWN, FIRST, ENTRIES = range(6)  # what `state` holds: merges done; whether to stop; the pair
# being merged; the pairs known; the first of them that is not in the heap yet; the entries of the heap

Counts = NDArray[np.int64]


@inner
def _greater(blob: Any, offsets: Any, a: Any, b: Any) -> Any:
    """1 if token `a`'s bytes are lexicographically greater than `b`'s, -1 if smaller, 0 if they are the same."""
    i, j, end_a, end_b = offsets[a], offsets[b], offsets[a + 1], offsets[b + 1]
    while i < end_a and j < end_b:
        if blob[i] != blob[j]:
            return 1 if blob[i] > blob[j] else -1
        i += 1
        j += 1
    if i < end_a:
        return 1
    return -1 if j < end_b else 0


@inner
def _before(count_a: Any, a: Any, count_b: Any, b: Any, pairs: Any, blob: Any, offsets: Any) -> Any:
    """Whether pair `a` is merged before pair `b`: it is more frequent, or its bytes are greater."""
    if count_a != count_b:
        return count_a > count_b
    left = _greater(blob, offsets, pairs[a, 0], pairs[b, 0])
    if left != 0:
        return left > 0
    return _greater(blob, offsets, pairs[a, 1], pairs[b, 1]) > 0


@inner
def _push(heap: Any, size: Any, count: Any, pair: Any, pairs: Any, blob: Any, offsets: Any) -> Any:
    """Put (count, pair) into the heap; its new size."""
    i = size
    while i > 0:
        up = (i - 1) >> 1
        if not _before(count, pair, heap[up, 0], heap[up, 1], pairs, blob, offsets):
            break
        heap[i, 0], heap[i, 1] = heap[up, 0], heap[up, 1]
        i = up
    heap[i, 0], heap[i, 1] = count, pair
    return size + 1


@inner
def _pop(heap: Any, size: Any, pairs: Any, blob: Any, offsets: Any) -> Any:
    """Take the first entry out of the heap; its new size."""
    size -= 1
    count, pair = heap[size, 0], heap[size, 1]
    i = 0
    while 2 * i + 1 < size:
        child = 2 * i + 1
        if child + 1 < size and _before(
            heap[child + 1, 0], heap[child + 1, 1], heap[child, 0], heap[child, 1], pairs, blob, offsets
        ):
            child += 1
        if not _before(heap[child, 0], heap[child, 1], count, pair, pairs, blob, offsets):
            break
        heap[i, 0], heap[i, 1] = heap[child, 0], heap[child, 1]
        i = child
    heap[i, 0], heap[i, 1] = count, pair
    return size


@inner
def _slot_of(table: Any, pairs: Any, left: Any, right: Any) -> Any:
    """Where the pair stands in the hash table, or where it would be put."""
    key = np.uint64(left) << np.uint64(32) | np.uint64(right)
    slot = np.int64(mix(key, np.uint64(0)) >> np.uint64(16)) & (table.shape[0] - 1)
    while table[slot] != NONE and (pairs[table[slot], 0] != left or pairs[table[slot], 1] != right):
        slot = (slot + 1) & (table.shape[0] - 1)
    return slot


@inner
def _leave(place: Any, pair: Any, weight: Any, heads: Any, after: Any, before: Any, counts: Any) -> None:
    """The pair at `place` is gone."""
    counts[pair] -= weight
    if before[place] == NONE:
        heads[pair] = after[place]
    else:
        after[before[place]] = after[place]
    if after[place] != NONE:
        before[after[place]] = before[place]


@inner
def _enter(place: Any, pair: Any, weight: Any, heads: Any, after: Any, before: Any, counts: Any) -> None:
    """The pair stands at `place` now."""
    counts[pair] += weight
    after[place], before[place] = heads[pair], NONE
    if heads[pair] != NONE:
        before[heads[pair]] = place
    heads[pair] = place


@inner
def _pair_of(table: Any, pairs: Any, known: Any, left: Any, right: Any) -> Any:
    """The number of a pair, a new one if it was never met, and how many are known then."""
    slot = _slot_of(table, pairs, left, right)
    if table[slot] == NONE:
        pairs[known, 0], pairs[known, 1], table[slot] = left, right, known
        known += 1
    return table[slot], known


@entry
def _index(table: Any, pairs: Any, known: Any) -> None:
    """Fill the empty hash table with the pairs known."""
    for pair in range(known):
        table[_slot_of(table, pairs, np.int64(pairs[pair, 0]), np.int64(pairs[pair, 1]))] = pair


@inner
def _replace(
    i: Any, left: Any, left_size: Any, right_size: Any, new: Any, text: Any, places: Any, pair_table: Any, known: Any
) -> Any:
    """Join the pair at place `i` (in a run of one token: at the run's beginning); how many pairs are known then."""
    token, start, piece_of, weights = text
    pair_at, after, before = places
    table, pairs, counts, heads = pair_table
    piece = piece_of[i]
    if left_size == right_size:  # perhaps the same token twice: in "aaa" the leftmost pair is the one
        while i > 0 and piece_of[i - 1] == piece and token[start[i - 1]] == left == token[i + left_size]:
            i = np.int64(start[i - 1])
    j = i + left_size
    k = j + right_size
    weight = weights[piece]
    _leave(i, pair_at[i], weight, heads, after, before, counts)
    token[i], start[k - 1] = new, i
    if k < token.shape[0] and piece_of[k] == piece:
        _leave(j, pair_at[j], weight, heads, after, before, counts)
        pair_at[i], known = _pair_of(table, pairs, known, new, np.int64(token[k]))
        _enter(i, pair_at[i], weight, heads, after, before, counts)
    if i > 0 and piece_of[i - 1] == piece:
        h = np.int64(start[i - 1])
        _leave(h, pair_at[h], weight, heads, after, before, counts)
        pair_at[h], known = _pair_of(table, pairs, known, np.int64(token[h]), new)
        _enter(h, pair_at[h], weight, heads, after, before, counts)
    return known


@entry
def _begin(text: Any, places: Any, pair_table: Any) -> Any:
    """Enter all pairs of bytes; how many different ones there are."""
    token, _, piece_of, weights = text
    pair_at, after, before = places
    table, pairs, counts, heads = pair_table
    known = np.int64(0)  # a plain 0 would be a type of its own, and `_pair_of` compiled twice
    for i in range(token.shape[0] - 1):
        if piece_of[i] == piece_of[i + 1]:
            pair_at[i], known = _pair_of(table, pairs, known, np.int64(token[i]), np.int64(token[i + 1]))
            _enter(i, pair_at[i], weights[piece_of[i]], heads, after, before, counts)
    return known


@entry
def _learn(
    text: Any, places: Any, pair_table: Any, heap: Any, blob: Any, offsets: Any, merges: Any, found: Any, state: Any
) -> Any:
    """Go on filling `merges` (left, right) and `found` (how often) in the order learnt; whether that is all.

    It is not where one of the arrays has become too small; then it goes on with larger ones. `state` is what it
    remembers, and what the waiting thread reads (LEARNT) and writes (STOP).
    """
    _, pairs, counts, heads = pair_table
    while True:
        if state[CURRENT] == NONE:
            if state[ENTRIES] + state[KNOWN] - state[FIRST] + 1 > heap.shape[0]:
                return False
            for pair in range(state[FIRST], state[KNOWN]):  # only pairs of a new token ever become more frequent
                if counts[pair] > 0:
                    state[ENTRIES] = _push(heap, state[ENTRIES], counts[pair], pair, pairs, blob, offsets)
            state[FIRST] = state[KNOWN]
            if state[LEARNT] == merges.shape[0] or not state[ENTRIES] or state[STOP]:
                return True
            count, first = heap[0, 0], heap[0, 1]
            state[ENTRIES] = _pop(heap, state[ENTRIES], pairs, blob, offsets)
            if counts[first] != count:  # it has become rarer since it was put there
                if counts[first] > 0:
                    state[ENTRIES] = _push(heap, state[ENTRIES], counts[first], first, pairs, blob, offsets)
                continue
            state[CURRENT] = first
            found[state[LEARNT]] = count
        best, new = state[CURRENT], 256 + state[LEARNT]
        left, right = np.int64(pairs[best, 0]), np.int64(pairs[best, 1])
        left_size, right_size = offsets[left + 1] - offsets[left], offsets[right + 1] - offsets[right]
        if offsets[new] + left_size + right_size > blob.shape[0]:
            return False
        for i in range(left_size):
            blob[offsets[new] + i] = blob[offsets[left] + i]
        for i in range(right_size):
            blob[offsets[new] + left_size + i] = blob[offsets[right] + i]
        offsets[new + 1] = offsets[new] + left_size + right_size
        while heads[best] != NONE:
            if state[KNOWN] + 2 > counts.shape[0]:
                return False
            at = np.int64(heads[best])
            state[KNOWN] = _replace(at, left, left_size, right_size, new, text, places, pair_table, state[KNOWN])
        merges[state[LEARNT], 0], merges[state[LEARNT], 1] = left, right
        state[LEARNT] += 1
        state[CURRENT] = NONE


def learn_merges_fast(counted: PieceCounts, merges: int) -> tuple[list[tuple[int, int]], list[int]]:
    """As `bpe_training.learn_merges`: pairs of ids in the order learnt, and for each id how often it was met."""
    state = np.array([0, 0, NONE, 0, 0, 0])
    with ThreadPoolExecutor(1) as pool, progress_bar() as bar:
        task = bar.add_task("learning merges", total=merges, note="", visible=False)
        future = pool.submit(_learn_all, counted, merges, state)
        try:
            while not future.done():
                bar.update(task, completed=int(state[LEARNT]))
                wait([future], timeout=QUIET_SECONDS)
                bar.update(task, visible=True)
        finally:
            state[STOP] = 1  # Ctrl-C ends the work too
        pairs, counts = future.result()
    return [(left, right) for left, right in pairs.tolist()], count_bytes(counted) + counts.tolist()


def count_bytes(counted: PieceCounts) -> list[int]:
    """How often each of the 256 bytes is in the text."""
    arena, lengths, weights = counted.pieces()
    met = np.bincount(arena, np.repeat(weights.astype(np.float64), lengths), minlength=256)
    return [int(count) for count in met]


def _learn_all(counted: PieceCounts, merges: int, state: NDArray[np.int64]) -> tuple[NDArray[np.int32], Counts]:
    """Make the arrays, let the kernel learn, and make larger ones where it asks for them."""
    arena, lengths, weights = counted.pieces()
    size, capacity = len(arena), 1 << 17
    piece_of = np.repeat(np.arange(len(lengths), dtype=np.int32), lengths)
    # of each token: its id at its first byte, where it begins at its last byte; then the piece of each byte
    text = (arena.astype(np.int32), np.arange(size, dtype=np.int32), piece_of, weights)
    # at the first byte of a token: the pair that it makes with the next, and where that pair stands next and last
    places = (np.full(size, NONE, np.int32), np.empty(size, np.int32), np.empty(size, np.int32))
    table, pairs = np.full(4 * capacity, NONE, np.int32), np.empty((capacity, 2), np.int32)
    counts, heads = np.zeros(capacity, np.int64), np.full(capacity, NONE, np.int32)
    blob, offsets = np.arange(1 << 16).astype(np.uint8), np.arange(merges + 257)  # the bytes of each token
    heap = np.empty((capacity, 2), np.int64)
    learnt, found = np.empty((merges, 2), np.int32), np.empty(merges, np.int64)
    known = state[KNOWN] = _begin(text, places, (table, pairs, counts, heads))
    while not _learn(text, places, (table, pairs, counts, heads), heap, blob, offsets, learnt, found, state):
        known = int(state[KNOWN])
        if known + 2 > len(counts):
            pairs, counts = _larger(pairs), _larger(counts)
            heads, table = _larger(heads), np.full(2 * len(table), NONE, np.int32)
            heads[known:] = NONE
            counts[known:] = 0
            _index(table, pairs, known)
        if state[ENTRIES] + known - state[FIRST] + 1 > len(heap):
            heap = _larger(heap, known)
        blob = _larger(blob)
    done = int(state[LEARNT])
    return learnt[:done], found[:done]


def _larger(array: NDArray[Any], more: int = 0) -> NDArray[Any]:
    """A copy with twice as many rows, and `more`."""
    new = np.empty((2 * len(array) + more, *array.shape[1:]), array.dtype)
    new[: len(array)] = array
    return new
