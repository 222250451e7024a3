"""The data of the page Assistant: which tokens of an example are trained. The talk itself goes over the server."""

from __future__ import annotations

import copy
from collections.abc import Collection, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pellucid.finetune.conversation import ROLE_TOKENS, ensure_role_tokens
from pellucid.finetune.instructions import Example, to_example
from pellucid.finetune.records import TABLES, Record, open_records
from pellucid.opened import file_state
from pellucid.runtime import PellucidError, read_json, sha256
from pellucid.see.shelf import Opened, Shelf
from pellucid.see.trace import token_text
from pellucid.text.tokenizer import Tokenizer


def examples(shelf: Shelf, name: str, number: int) -> dict[str, Any]:
    """One of the examples that the assistant was trained on, where they are still there; how many there are."""
    found = training_examples(shelf, shelf.folder(name))
    if not found:
        return {"count": 0}
    example = to_example(found[max(0, min(number, len(found) - 1))])
    return {
        "count": len(found),
        "number": max(0, min(number, len(found) - 1)),
        "instruction": example.instruction,
        "input": example.input,
        "output": example.output,
    }


def training_examples(shelf: Shelf, folder: Path) -> Sequence[Record]:
    """Of the file that run.json names, or of the corpus of the quickstart around the folder; else none."""
    record = read_json(folder / "run.json") if (folder / "run.json").is_file() else {}
    config, hashes = (record.get(name) if isinstance(record, dict) else None for name in ("config", "data"))
    named = config.get("data") if isinstance(config, dict) else None
    known = tuple(map(str, hashes.values())) if isinstance(hashes, dict) else ()
    own = folder.parent / "corpus" / "instructions.jsonl"
    for file, digests in ((Path(str(named)), known), (own, None)):
        key = ("examples", file, digests, file_state(file))
        if found := shelf.made.get(key, partial(records_of, file, digests)):
            return found
    return []


def records_of(file: Path, digests: Collection[str] | None) -> Sequence[Record]:
    """The records of a file; none where it is not one of these.

    A run folder may come from anywhere: only who has had a file knows its hash, so its run.json opens no other.
    """
    try:
        if file.suffix not in (".json", ".jsonl", *TABLES) or not file.is_file():
            return []
        return open_records(file) if digests is None or sha256(file) in digests else []
    except PellucidError:
        return []


def mask(opened: Opened, instruction: str, extra: str, output: str) -> dict[str, Any]:
    """The tokens of an example, each with whether it is trained, by the very function that makes the training data."""
    tokenizer = opened.tokenizer
    if any(name not in tokenizer.special_tokens for name in ROLE_TOKENS):
        tokenizer = with_roles(opened.tokenizer)
    example = Example(instruction, extra, output)
    ids, trained = example.whole().encode(tokenizer)
    rows = [
        {"id": i, "text": token_text(tokenizer, i), "trained": is_trained}
        for i, is_trained in zip(ids, trained, strict=True)
    ]
    return {"tokens": rows, "trained": sum(trained), "count": len(ids)}


def with_roles(tokenizer: Tokenizer) -> Tokenizer:
    """A copy of the tokenizer that knows the roles, as instruction tuning would make it."""
    made = copy.deepcopy(tokenizer)
    ensure_role_tokens(made)
    return made
