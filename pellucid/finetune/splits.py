"""An honest split of labelled texts: by class, and no text in two of them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pellucid.finetune.labelled import Columns, Labelled, check_classes, read_examples
from pellucid.runtime import DataError, inform, problem, shown
from pellucid.text.documents import SPLITS


def normalised(text: str) -> str:
    """What makes two texts the same for a split: letter case and white space do not."""
    return " ".join(text.casefold().split())


def read_splits(
    data: Path, val: Path | None, test: Path | None, columns: Columns, seed: int
) -> dict[str, list[Labelled]]:
    """Train, val and test of one file, or with files of their own for val and test."""
    examples = read_examples(data, columns)
    files = {name: file for name, file in (("val", val), ("test", test)) if file}
    made = {"val", "test"} - files.keys() - {example.split for example in examples}  # of the training examples
    check_classes(data, examples, columns.several, parts=1 + len(made))
    for name, file in files.items():
        examples += [replace(example, split=name) for example in read_examples(file, columns)]
    return split_labelled(examples, seed=seed, several=columns.several)


def split_labelled(
    examples: Sequence[Labelled], val: float = 0.1, test: float = 0.2, seed: int = 0, several: bool = False
) -> dict[str, list[Labelled]]:
    """Train, val and test: stratified by class, and no text twice. Splits named by the file are kept as they are; one
    that it does not name is taken from the rest, or where there is none from its train.

    A text that stands twice is kept once, in test before val before train (the dropped ones are counted in a message).
    """
    unique = without_repeats(examples)
    splits: dict[str, list[Labelled]] = {name: [] for name in SPLITS}
    rest: list[Labelled] = []
    for example in unique:
        (splits[example.split] if example.split else rest).append(example)
    if not rest and not (splits["val"] and splits["test"]):
        rest, splits["train"] = splits["train"], []
    shares = {name: 0.0 if splits[name] else share for name, share in (("test", test), ("val", val))}
    for name, members in stratified(rest, shares, seed, several).items():
        splits[name] += [replace(example, split=name) for example in members]
    check_splits(splits, several)
    return splits


def without_repeats(examples: Sequence[Labelled]) -> list[Labelled]:
    """Each text once; how many were dropped, and how many of them had another label, is said."""
    kept: dict[str, Labelled] = {}
    contrary = 0
    for example in sorted(examples, key=lambda example: {"test": 0, "val": 1}.get(example.split, 2)):
        first = kept.setdefault(normalised(example.text), example)
        contrary += first.label != example.label
    if len(kept) < len(examples):
        note = f", {contrary} of them with another label" if contrary else ""
        inform(f"left out as repeats of others: {len(examples) - len(kept)} of {len(examples)} texts{note}.")
    return list(kept.values())


def stratified(
    examples: Sequence[Labelled], shares: dict[str, float], seed: int, several: bool
) -> dict[str, list[Labelled]]:
    """Examples by split: of each class its share (at least one), by the hash of the text, so that order is nothing.

    With several labels a text counts for the rarest of its own.
    """
    classes: dict[str, list[Labelled]] = {}
    counts: dict[str, int] = {}
    for example in examples:
        for label in example.labels if several else (example.label,):
            counts[label] = counts.get(label, 0) + 1
    for example in examples:
        own = min(example.labels, key=lambda label: (counts[label], label), default="") if several else example.label
        classes.setdefault(own, []).append(example)

    def place(example: Labelled) -> bytes:
        return hashlib.sha256(f"{seed}\0{normalised(example.text)}".encode()).digest()

    result: dict[str, list[Labelled]] = {"train": []}
    for members in classes.values():
        members.sort(key=place)
        first = 0
        for name, share in shares.items():
            count = max(1, round(share * len(members))) if share else 0
            result.setdefault(name, []).extend(members[first : first + count])
            first += count
        result["train"] += members[first:]
    return result


def check_splits(splits: dict[str, list[Labelled]], several: bool) -> None:
    """DataError where a split has nothing to tell apart, or a label that training never meets."""
    known = {label for example in splits["train"] for label in (example.labels if several else (example.label,))}
    for name, members in splits.items():
        found = {label for example in members for label in (example.labels if several else (example.label,))}
        if len(found) < (1 if several else 2):
            raise DataError(
                f"the {name} split has fewer than two classes after dropping repeated texts: give more examples."
            )
        if unseen := sorted(found - known):
            example = next(e for e in members if unseen[0] in (e.labels if several else (e.label,)))
            advice = "Is it spelt differently? Add examples of it, or leave it out."
            what = f"the label {shown(unseen[0])!r}"
            expected = f"labels that the training split has ({shown(', '.join(sorted(known)))})"
            raise DataError(problem(example.where or f"the {name} split", what, expected, advice))
