"""Which documents of a large text are held out for val and test, and which are too near to one of these to be kept.

A document's split follows from a hash of its beginning, so that it stays where it is when other files are added. A
first look over all units of a text gathers the signatures of what is held out, some 400 bytes of memory a document;
with these, each unit can be encoded by itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from pellucid.runtime import inform
from pellucid.text.content import Slice
from pellucid.text.documents import Document, read_slice, read_unit
from pellucid.text.leaks import HEAD_CHARACTERS, NearIndex, Signatures, signatures
from pellucid.text.runners import Runner
from pellucid.text.sources import Unit
from pellucid.text.splits import position

GROUP_CHARACTERS = 1 << 20  # documents are taken in groups of about this size
PEEK_BYTES = 1 << 16
LOWEST = 1000  # hashes that are kept of a unit
LARGEST_HELD_OUT = 100_000  # documents: their signatures take some 65 MB at most
SHORT_DOCUMENT = 100  # bytes; a text of longer ones has fewer


@dataclass(frozen=True)
class Shares:
    """Which documents are held out: those whose hash falls below `test`, then those below `test + val`."""

    val: float = 0.05
    test: float = 0.05
    seed: int = 0

    def of(self, documents: Sequence[Document], heads: Sequence[str]) -> tuple[list[str], list[float]]:
        """The split of each document, the one it brings along or else by its hash; and the hashes of the latter."""
        splits: list[str] = []
        places: list[float] = []
        for document, head in zip(documents, heads, strict=True):
            if document.split:
                splits.append(document.split)
            else:
                places.append(place := position(head, self.seed))
                splits.append("test" if place < self.test else "val" if place < self.test + self.val else "train")
        return splits, places


@dataclass(frozen=True)
class HeldOut:
    """The shares as they are meant, what val and test hold, and how documents go on from unit to unit."""

    shares: Shares
    val: NearIndex = field(default_factory=lambda: NearIndex([]))
    test: NearIndex = field(default_factory=lambda: NearIndex([]))
    last: tuple[str | None, ...] = ()  # for each unit, the split of the last document that begins there or before

    def keep(self, splits: Sequence[str], heads: Sequence[str]) -> list[str | None]:
        """The split of each document, or None where it is near one in test, or one of train near one in val."""
        return self.keep_rows(splits, signatures(heads))

    def keep_rows(self, splits: Sequence[str], rows: Signatures) -> list[str | None]:
        """The same, of signatures."""
        near_test, near_val = self.test.near(rows), self.val.near(rows)
        return [
            None if (split != "test" and test) or (split == "train" and val) else split
            for split, test, val in zip(splits, near_test, near_val, strict=True)
        ]

    def continued(self, number: int) -> str | None:
        """The split of a document that a unit begins in the midst of; None where it is left out."""
        return self.last[number - 1] if number else None


# ---------------------------------------------------------------- reading


def groups(unit: Unit) -> Iterator[tuple[list[Document], list[str]]]:
    """The documents of a unit in groups of about GROUP_CHARACTERS, and the head of each that begins in the group.

    A head is a document's beginning of up to HEAD_CHARACTERS, also where the unit ends before that: so nothing that
    is told by heads depends on the units.
    """
    group: list[Document] = []
    heads: list[str] = []
    size = 0
    for document in read_unit(unit):
        goes_on = document.continues and heads and len(heads[-1]) < HEAD_CHARACTERS
        if size >= GROUP_CHARACTERS and not goes_on:
            yield group, heads
            group, heads, size = [], [], 0
        if not document.continues:
            heads.append(document.text[:HEAD_CHARACTERS])
        elif goes_on:
            heads[-1] += document.text[: HEAD_CHARACTERS - len(heads[-1])]
        group.append(document)
        size += len(document.text)
    if heads:
        heads[-1] += behind(unit, HEAD_CHARACTERS - len(heads[-1]))
    if group:
        yield group, heads


def behind(unit: Unit, wanted: int) -> str:
    """Up to `wanted` characters by which the last document of a unit goes on in the next one."""
    last = unit.slices[-1]
    found = ""
    if last.source.format != "text":  # whose records lie in one unit
        return found
    for start in range(last.end, last.source.end, PEEK_BYTES):
        for document in read_slice(Slice(last.source, start, min(start + PEEK_BYTES, last.source.end))):
            if not document.continues or len(found) >= wanted:
                return found[:wanted]
            found += document.text
    return found[:wanted]


# ---------------------------------------------------------------- the first look


@dataclass(frozen=True)
class Survey:
    """What a unit holds: where the hashes of its documents fall, and the signatures of those held out."""

    counts: tuple[int, int, int]  # of documents whose hash puts them into test, val and train
    places: NDArray[np.float64]  # their hashes, the lowest ones: enough to fill a split that came out empty
    brought: frozenset[str]  # splits that documents bring along
    val: Signatures
    test: Signatures
    last: tuple[str, Signatures] | None  # of the last document that begins in it


def survey_unit(task: tuple[Sequence[Unit], Shares], number: int) -> Survey:
    """Look over one unit."""
    units, shares = task
    places: list[float] = []
    brought: set[str] = set()
    rows: dict[str, list[Signatures]] = {"val": [signatures([])], "test": [signatures([])]}
    last = None
    for group, heads in groups(units[number]):
        begun = [document for document in group if not document.continues]
        splits, found = shares.of(begun, heads)
        places += found
        brought.update(document.split for document in begun if document.split)
        for split, known in rows.items():
            known.append(signatures([head for head, chosen in zip(heads, splits, strict=True) if chosen == split]))
        if begun:
            last = (splits[-1], signatures(heads[-1:]))
    val, test = np.concatenate(rows["val"]), np.concatenate(rows["test"])
    found_places = np.unique(np.array(places))
    bounds = np.searchsorted(found_places, [shares.test, shares.test + shares.val])
    counts = (int(bounds[0]), int(bounds[1] - bounds[0]), int(len(found_places) - bounds[1]))
    return Survey(counts, found_places[:LOWEST].copy(), frozenset(brought), val, test, last)


def find_held_out(units: Sequence[Unit], shares: Shares, run: Runner) -> HeldOut:
    """Look over all units. Where hashing leaves a split empty, the shares are moved until it is not, if possible."""
    shares = affordable(shares, units)
    while True:
        surveys = run(survey_unit, (units, shares), len(units), "looking for what is held out")
        moved = enough(shares, surveys)
        if moved == shares:
            break
        shares = moved
    val, test = NearIndex(survey.val for survey in surveys), NearIndex(survey.test for survey in surveys)
    held_out = HeldOut(shares, val, test)
    last: list[str | None] = []
    for survey in surveys:
        if survey.last is not None:
            last.append(held_out.keep_rows([survey.last[0]], survey.last[1])[0])
        else:
            last.append(last[-1] if last else None)
    return replace(held_out, last=tuple(last))


def affordable(shares: Shares, units: Sequence[Unit]) -> Shares:
    """Smaller shares where so much of a very large text would be held out that its signatures fill the memory.

    How many documents there are is carried over from the first unit, so the same text gives the same shares.
    """
    sizes = [sum(min(part.end - part.start, part.source.size) for part in unit.slices) for unit in units]
    wanted = shares.val + shares.test
    if wanted * sum(sizes) <= LARGEST_HELD_OUT * SHORT_DOCUMENT:
        return shares
    first = sum(not document.continues for document in read_unit(units[0]))
    documents = first * sum(sizes) / max(1, sizes[0])
    if wanted * documents <= LARGEST_HELD_OUT:
        return shares
    less = LARGEST_HELD_OUT / documents / wanted
    inform(f"about {documents:,.0f} documents: {LARGEST_HELD_OUT:,} of them are held out, not {wanted:.0%}.")
    return replace(shares, val=shares.val * less, test=shares.test * less)


def enough(shares: Shares, surveys: Sequence[Survey]) -> Shares:
    """Shares that give each split a document, the same where they do so already; train comes first, then val."""
    brought = frozenset[str]().union(*(survey.brought for survey in surveys))
    filled = [sum(survey.counts[place] for survey in surveys) > 0 for place in range(3)]
    wanted = (shares.test > 0, shares.val > 0, True)
    needed = [want and split not in brought for want, split in zip(wanted, ("test", "val", "train"), strict=True)]
    if not any(need and not full for need, full in zip(needed, filled, strict=True)):
        return shares
    places = np.unique(np.concatenate([survey.places for survey in surveys]))
    count = len(places)
    for_test = int(np.searchsorted(places, shares.test))
    for_both = int(np.searchsorted(places, shares.test + shares.val))
    need_train = "train" not in brought
    need_val = shares.val > 0 and "val" not in brought
    need_test = shares.test > 0 and "test" not in brought
    test, val = for_test, for_both - for_test
    if need_test and not test:
        test = max(1, round(shares.test * count))
    if need_val and not val:
        val = max(1, round(shares.val * count))
    test = max(0, min(test, count - need_train - need_val))
    val = max(0, min(val, count - need_train - test))
    if (test, test + val) == (for_test, for_both):
        return shares
    between = np.concatenate([[0.0], (places[1:] + places[:-1]) / 2, [1.0]])
    upper = shares.test if test == for_test else float(between[test])
    both = shares.test + shares.val if test + val == for_both else float(between[test + val])
    return replace(shares, val=both - upper, test=upper)
