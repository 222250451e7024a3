"""Divides documents into train, val and test so that no text is in two of them.

A document's split follows from a hash of its text, so that it stays where it is when other files are added. One book
alone cannot be divided so: it is cut at paragraphs, and its end becomes val and test.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import regex

from pellucid.runtime import ConfigError, DataError, inform, problem
from pellucid.text.documents import SPLITS, Document

FEW = 3  # with fewer documents than this, each is divided itself
BLOCK_BYTES = (2_000, 8_000)  # the smallest and the largest block that a single book is cut into


def split_documents(
    documents: Sequence[Document], val: float = 0.05, test: float = 0.05, seed: int = 0
) -> dict[str, list[Document]]:
    """Documents by split, in their order. A split that a document brings along is honoured.

    Where hashing leaves val or test empty, the documents with the lowest hashes go there. Exact duplicates across
    splits are dropped, from train first, and counted in a message. Raises DataError where there is too little text.
    """
    check_shares(val, test)
    if not documents:
        raise DataError(problem("text", "no document with text in it", "some text", "Check the files that you gave."))
    if len(documents) < FEW and not any(document.split for document in documents):
        splits = _split_within(documents, val, test)
    else:
        splits = {name: [] for name in SPLITS}
        for document in documents:
            splits[document.split or _place(document, val, test, seed)].append(document)
        for name, share in (("test", test), ("val", val)):
            if share > 0 and not splits[name]:
                _fill(splits, name, max(1, round(share * len(documents))), seed)
    splits = _without_leaks(splits)
    if not splits["train"]:
        found = f"{len(documents)} documents, none of them left to train on"
        raise DataError(problem("text", found, "text for train, val and test", "Give more text."))
    return splits


def check_shares(val: float, test: float) -> None:
    """ConfigError for shares that leave nothing to train on."""
    if not (0 <= val < 1 and 0 <= test < 1 and val + test < 1):
        found = f"val={val}, test={test}"
        raise ConfigError(problem("split", found, "shares that leave some for train", "Lower them."))


def position(text: str, seed: int) -> float:
    """A number in [0, 1) that depends on the text and the seed alone."""
    digest = hashlib.sha256(f"{seed}\n{text}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def _place(document: Document, val: float, test: float, seed: int) -> str:
    place = position(document.text, seed)
    if place < test:
        return "test"
    return "val" if place < test + val else "train"


def _fill(splits: dict[str, list[Document]], name: str, wanted: int, seed: int) -> None:
    """Move `wanted` documents with the lowest hashes from train to the empty split `name`, but never the last one."""
    train = splits["train"]
    wanted = min(wanted, len(train) - 1)
    lowest = set(sorted(range(len(train)), key=lambda i: position(train[i].text, seed))[: max(0, wanted)])
    splits[name] = [train[i] for i in sorted(lowest)]
    splits["train"] = [document for i, document in enumerate(train) if i not in lowest]


def _without_leaks(splits: dict[str, list[Document]]) -> dict[str, list[Document]]:
    seen: set[str] = set()
    kept: dict[str, list[Document]] = {}
    dropped = 0
    for name in reversed(SPLITS):  # test keeps its documents, val those that are not in test
        kept[name] = [document for document in splits[name] if document.text not in seen]
        dropped += len(splits[name]) - len(kept[name])
        seen.update(document.text for document in kept[name])
    if dropped:
        inform(f"{dropped:,} documents were in two splits; the copies in train (or val) were dropped.")
    return {name: kept[name] for name in SPLITS}


# ---------------------------------------------------------------- one book


def _split_within(documents: Sequence[Document], val: float, test: float) -> dict[str, list[Document]]:
    splits: dict[str, list[Document]] = {name: [] for name in SPLITS}
    for document in documents:
        blocks = list(_blocks(document.text))
        for_val = max(1, round(val * len(blocks))) if val else 0
        for_test = max(1, round(test * len(blocks))) if test else 0
        for_train = len(blocks) - for_val - for_test
        if for_train < 1:
            if len(documents) > 1:
                splits["train"].append(document)
                continue
            found = f"a text of {len(document.text):,} characters in {len(blocks)} lines or paragraphs"
            raise DataError(problem(document.source, found, "enough to divide in three", "Give more text."))
        ends = {"train": (0, for_train), "val": (for_train, for_train + for_val), "test": (for_train + for_val, None)}
        for name, (start, end) in ends.items():
            text = "".join(blocks[start:end])
            if text.strip():
                whole = document.nats if name == "train" and for_train == len(blocks) else None
                splits[name].append(Document(text, f"{document.source} ({name})", name, whole))
    if not splits["train"] or (val and not splits["val"]) or (test and not splits["test"]):
        raise DataError(problem("text", f"{len(documents)} short documents", "enough to divide in three", "Give more."))
    return splits


def _blocks(text: str) -> Iterator[str]:
    """The text in blocks of about 2 to 8 kB that end with a paragraph, or else a line; smaller for a small text."""
    smallest, largest = BLOCK_BYTES
    size = max(smallest, min(largest, len(text) // 100))
    size = min(size, max(1, len(text) // (4 * FEW)))
    paragraphs = regex.findall(r"(?s).+?(?:\n\s*\n|\n*\Z)", text)
    parts = [line for part in paragraphs for line in ([part] if len(part) <= size else part.splitlines(keepends=True))]
    block = ""
    for part in parts:
        block += part
        if len(block) >= size:
            yield block
            block = ""
    if block:
        yield block
