"""Writes tinyworld to files of the kinds that users bring, so that the embedded corpus goes the same way as theirs."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

from pellucid.runtime import atomic_file
from pellucid.text.tinyworld import Document
from pellucid.text.tinyworld.lessons import lessons
from pellucid.text.tinyworld.spam import messages
from pellucid.text.tinyworld.tasks import instructions

ALONE = 0.1  # share of the corpus, at its beginning, that is dialogues only


def write_messages(path: Path, count: int, seed: int) -> None:
    """`count` labelled text messages, as jsonl with text, label and split."""
    _write(path, (asdict(message) for message in islice(messages(seed), count)))


def write_instructions(path: Path, count: int, seed: int) -> None:
    """`count` instructions with answers, as jsonl with instruction, input, output, family and split."""
    _write(path, (asdict(example) for example in islice(instructions(seed), count)))


def write_lesson(path: Path, name: str, count: int, seed: int) -> None:
    """`count` questions of a lesson, as jsonl like that of the instructions."""
    _write(path, (asdict(example) for example in islice(lessons(seed, name), count)))


def write_documents(path: Path, documents: Iterable[Document], seed: int) -> None:
    """Documents as jsonl with text, kind, split and nats; first dialogues alone, then fewer and fewer: a curriculum.

    Dialogues are short and full of things to look up and words to say again; read alone they teach a small model to
    copy within minutes, and mixed with all the rest they don't (docs/performance.md). Only the order is changed, so
    what is said of the documents' probabilities stays true.
    """
    generator = random.Random(seed)

    def place(document: Document) -> float:
        drawn = generator.random()
        return drawn**2 if document.kind == "dialogue" else ALONE + (1 - ALONE) * drawn

    _write(path, (asdict(document) for _, document in sorted(((place(d), d) for d in documents), key=lambda p: p[0])))


def _write(path: Path, records: Iterable[dict[str, Any]]) -> None:
    with atomic_file(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for record in records:
            file.write(json.dumps(record, ensure_ascii=False) + "\n")
