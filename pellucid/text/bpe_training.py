"""How byte-pair encoding is learnt: count the pieces of a text, then merge the most frequent pair, again and again.

The textbook recounts the whole text for each merge. Here the text is reduced to its distinct pieces once, an index says
which pieces hold a pair, and a heap says which pair comes next: each merge touches only what it changes.
Memory grows with the distinct pieces, not with the text. Long texts take the compiled twin, `compiled/`.
"""

from __future__ import annotations

import heapq
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from itertools import chain, pairwise

import regex

from pellucid.runtime import DataError, problem, progress_bar
from pellucid.text.counting import QUIET_SECONDS, count_pieces
from pellucid.text.pieces import PATTERNS, cut, utf8

Pair = tuple[int, int]
LONG_TEXT = 1 << 20  # characters; from here on compiling the twin pays


def learn(texts: Iterable[str], merges: int, pattern: str) -> tuple[list[Pair], list[int]]:
    """Up to `merges` pairs of ids in the order learnt, and for each id how often it was met (see `learn_merges`).

    Texts are read once, and not kept. Raises DataError where there is no text, and for lone surrogates.
    """
    texts, beginning, length = iter(texts), [], 0
    for text in texts:
        beginning.append(text)
        length += len(text)
        if length >= LONG_TEXT:
            break
    if length >= LONG_TEXT and pattern in PATTERNS.values() and sys.byteorder == "little":
        from pellucid.text.compiled.counting import count_pieces_fast
        from pellucid.text.compiled.learning import learn_merges_fast

        return learn_merges_fast(count_pieces_fast(chain(beginning, texts), pattern), merges)
    counts = count_pieces(chain(beginning, texts), partial(cut, regex.compile(pattern)))
    if not counts:
        raise DataError(problem("training text", "no text", "some", "Check the files that you gave."))
    return learn_merges({utf8(piece): count for piece, count in counts.items()}, merges)


def learn_merges(counts: Mapping[bytes, int], merges: int) -> tuple[list[Pair], list[int]]:
    """Up to `merges` pairs of ids in the order learnt; ids below 256 are bytes, merge i makes the id 256 + i.

    The second list says of each byte how often it is in the text, of each merge how often its pair was there when it
    was merged. Ties go to the lexicographically greater pair of byte strings (left one first).
    """
    state = _Pieces(counts)
    learnt: list[Pair] = []
    met = [0] * 256
    for piece, count in counts.items():
        for value in piece:
            met[value] += count
    began = time.monotonic()
    with progress_bar() as bar:
        task = bar.add_task("learning merges", total=merges, note="", visible=False)
        while len(learnt) < merges:
            pair = state.most_frequent()
            if pair is None:
                break
            learnt.append(pair)
            met.append(state.pair_counts[pair])
            state.merge(pair)
            if len(learnt) % 64 == 0:
                bar.update(task, completed=len(learnt), visible=time.monotonic() - began > QUIET_SECONDS)
    return learnt, met


class _Pieces:
    """Distinct pieces as token ids, the count of each pair, where it occurs, and a heap that knows the next one."""

    def __init__(self, counts: Mapping[bytes, int]) -> None:
        self.pieces = [list(piece) for piece in counts]
        self.counts = list(counts.values())
        self.pair_counts: dict[Pair, int] = defaultdict(int)
        self.holders: dict[Pair, set[int]] = defaultdict(set)  # may also name pieces that held the pair once
        for index, (piece, count) in enumerate(zip(self.pieces, self.counts, strict=True)):
            for pair in pairwise(piece):
                self.pair_counts[pair] += count
                self.holders[pair].add(index)
        # Reversed order of bytes as text: the heap gives its smallest, ties want the greatest. The end mark, above all
        # characters, makes a longer token come before its own beginning.
        self.reversed = [chr(255 - value) + "\u0100" for value in range(256)]
        self.heap = [self._entry(pair, count) for pair, count in self.pair_counts.items()]
        heapq.heapify(self.heap)

    def _entry(self, pair: Pair, count: int) -> tuple[int, str, str, Pair]:
        return (-count, self.reversed[pair[0]], self.reversed[pair[1]], pair)

    def most_frequent(self) -> Pair | None:
        """The pair to merge next; entries of the heap whose count has fallen since are put back with the right one."""
        while self.heap:
            negative, _, _, pair = heapq.heappop(self.heap)
            count = self.pair_counts.get(pair, 0)
            if count == -negative:
                return pair
            if 0 < count < -negative:
                heapq.heappush(self.heap, self._entry(pair, count))
        return None

    def merge(self, pair: Pair) -> None:
        """Replace `pair` by a new token everywhere; counts of its neighbours change, nothing else."""
        new = len(self.reversed)
        self.reversed.append(self.reversed[pair[0]][:-1] + self.reversed[pair[1]])
        grown: set[Pair] = set()
        pair_counts, holders = self.pair_counts, self.holders
        for index in holders.pop(pair):
            count = self.counts[index]

            def change(changed: Pair, sign: int, count: int = count, index: int = index) -> None:
                pair_counts[changed] += sign * count
                if sign > 0:
                    holders[changed].add(index)
                    grown.add(changed)

            self.pieces[index] = _merge_in(self.pieces[index], pair, new, change)
        del pair_counts[pair]
        for changed in grown:
            if pair_counts.get(changed, 0) > 0:
                heapq.heappush(self.heap, self._entry(changed, pair_counts[changed]))


def _merge_in(piece: list[int], pair: Pair, new: int, change: Callable[[Pair, int], None]) -> list[int]:
    """`piece` with each `pair`, from the left, replaced by `new`; `change` is told of each neighbour pair, +1 or -1."""
    left, right = pair
    merged: list[int] = []
    i, last = 0, len(piece) - 1
    while i <= last:
        if piece[i] == left and i < last and piece[i + 1] == right:
            if merged:
                change((merged[-1], left), -1)
                change((merged[-1], new), +1)
            if i + 1 < last:
                change((right, piece[i + 2]), -1)
                change((new, piece[i + 2]), +1)
            merged.append(new)
            i += 2
        else:
            merged.append(piece[i])
            i += 1
    return merged
