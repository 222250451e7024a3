"""The data of the page Assistant: which tokens of an example are trained. The talk itself goes over the server."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pellucid.finetune.conversation import ROLE_TOKENS, ensure_role_tokens
from pellucid.finetune.instructions import Example, to_example
from pellucid.finetune.records import Record, open_records
from pellucid.runtime import PellucidError, read_json
from pellucid.see.shelf import Opened, Shelf
from pellucid.see.trace import token_text
from pellucid.text.tokenizer import Tokenizer


def examples(shelf: Shelf, name: str, number: int) -> dict[str, Any]:
    """One of the examples that the assistant was trained on, where they are still there; how many there are."""
    found = shelf.made.get(("examples", name), lambda: training_examples(shelf.folder(name)))
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


def training_examples(folder: Path) -> Sequence[Record]:
    """Of the file that run.json names, or of the corpus of the quickstart around the folder; else none."""
    candidates = [folder.parent / "corpus" / "instructions.jsonl"]
    record = read_json(folder / "run.json") if (folder / "run.json").is_file() else {}
    config = record.get("config") if isinstance(record, dict) else None
    if isinstance(config, dict) and isinstance(config.get("data"), str):
        candidates.insert(0, Path(config["data"]))
    for file in candidates:
        try:
            if file.suffix in (".json", ".jsonl") and file.is_file():
                return open_records(file)
        except PellucidError:
            continue
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
