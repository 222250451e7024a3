"""What the tests of encoding share: texts, files of all kinds, and shards read back."""

from __future__ import annotations

import csv
import gzip
import json
import random
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from pellucid.text.encode import FIVE_PERCENT, encode_sources
from pellucid.text.held_out import Shares
from pellucid.text.shards import Shards
from pellucid.text.sources import find_sources
from pellucid.text.tokenizer import Tokenizer

WORDS = [
    "the",
    "a",
    "fox",
    "grape",
    "Anna",
    "fell,",
    "red",
    "42",
    "naïve",
    "日本語",
    "🙂",
    "and\nwith",
    "who's\n\nso",
    ".",
]


def some_text(chance: random.Random, words: int) -> str:
    """Text that is near to no other: every third word is a number of its own."""
    return " ".join(
        str(chance.getrandbits(60)) if number % 3 == 0 else chance.choice(WORDS) for number in range(words)
    ).strip()


def encoded(
    paths: Sequence[Path], tokenizer: Tokenizer, out: Path, shares: Shares = FIVE_PERCENT, **more: Any
) -> Shards:
    return encode_sources(find_sources(list(paths)), tokenizer, out, shares, **more)


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def read_back(shards: Shards) -> dict[str, list[str]]:
    """The documents of each split; each stream begins and ends with an end-of-text."""
    tokenizer = shards.tokenizer()
    found = {}
    for split in shards.splits:
        tokens, offsets = shards.tokens(split), shards.offsets(split).tolist()
        assert offsets[0] == 0
        assert offsets[-1] == len(tokens) - 1
        assert (np.flatnonzero(tokens[:] == tokenizer.end_of_text) == offsets).all()
        found[split] = [tokenizer.decode(tokens[a + 1 : b].tolist()) for a, b in pairwise(offsets)]
        assert shards.bytes(split) == sum(len(text.encode()) for text in found[split])
        assert shards.documents(split) == len(found[split])
    return found


def write_lines(path: Path, records: Sequence[Any]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def some_texts() -> list[str]:
    """Three hundred texts."""
    chance = random.Random(0)
    return [some_text(chance, chance.randint(5, 60)) for _ in range(300)]


def write_folder(folder: Path, texts: Sequence[str]) -> Path:
    """Texts in files of all kinds that need no extra."""
    folder.mkdir()
    (folder / "a.txt").write_text("\n<|endoftext|>\n".join(texts[:100]))
    write_lines(folder / "b.jsonl", [{"text": text} for text in texts[100:180]])
    with (folder / "c.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["text", "n"], *([text, 1] for text in texts[180:240])])
    with gzip.open(folder / "d.txt.gz", "wt") as packed:
        packed.write("\n<|endoftext|>\n".join(texts[240:290]))
    for number, text in enumerate(texts[290:]):
        (folder / f"e{number}.md").write_text(text)
    return folder
