"""The data of the page Tokens: one text as words, characters, byte pairs and GPT-2 cut it; how a word was merged."""

from __future__ import annotations

from typing import Any

import regex

from pellucid.runtime import DataError, problem
from pellucid.see.shelf import Shelf
from pellucid.text.bpe import BPETokenizer
from pellucid.text.gpt2_files import gpt2_if_at_hand
from pellucid.text.look import LONGEST, Split, merge_tree, split_by, split_by_rules
from pellucid.text.pieces import cut, utf8
from pellucid.text.tokenizer import Tokenizer

TITLES = {"words": "Words", "characters": "Characters", "model": "This model’s tokens", "gpt2": "GPT-2’s byte pairs"}


def tokens(shelf: Shelf, name: str, text: str) -> dict[str, Any]:
    """Each way to cut `text`: pieces with ids and bytes, and of byte pairs the word that each piece belongs to."""
    ways = [way(split.name, split, None) for split in split_by_rules(text)]
    for key, tokenizer in tokenizers(shelf, name).items():
        ways.append(way(key, split_by(key, tokenizer, text), tokenizer) | {"words": words(tokenizer, text)})
    return {"text": text, "ways": ways}


def tree(shelf: Shelf, name: str, way: str, piece: str) -> dict[str, Any]:
    """How one word became tokens: the merge trees, with each merge's rank and its step in this word."""
    tokenizer = tokenizers(shelf, name).get(way)
    if not isinstance(tokenizer, BPETokenizer):
        raise DataError(problem("tokenizer", repr(way), "one of byte pairs, since only these merge", "Choose another."))
    content = utf8(piece)
    if not 0 < len(content) <= LONGEST:
        raise DataError(problem("piece", f"{len(content)} bytes", f"1 to {LONGEST}", "Choose a shorter word."))
    return {"piece": piece, "roots": [root.json() for root in merge_tree(tokenizer, content)]}


def tokenizers(shelf: Shelf, name: str) -> dict[str, Tokenizer]:
    """The model's own tokenizer, and GPT-2's where its files are at hand."""
    own = shelf.runs.load(name, Tokenizer.load)
    gpt2 = shelf.made.get("gpt2", gpt2_if_at_hand)
    return {"model": own} | ({"gpt2": gpt2} if gpt2 is not None else {})


def way(key: str, split: Split, tokenizer: Tokenizer | None) -> dict[str, Any]:
    """One way to cut the text; `hex` are the bytes of a piece."""
    found = split.json()
    rows = [row | {"hex": content.hex(" ")} for row, (_, content) in zip(found["tokens"], split.tokens, strict=True)]
    kind = tokenizer.kind if tokenizer else key
    known = tokenizer.vocab_size if tokenizer else None
    return found | {"key": key, "title": TITLES[key], "kind": kind, "vocab_size": known, "tokens": rows}


def words(tokenizer: Tokenizer, text: str) -> list[dict[str, Any]]:
    """The pieces that merges stay inside of, with the bytes that they cover; empty where nothing merges."""
    if not isinstance(tokenizer, BPETokenizer):
        return []
    found, start = [], 0
    for piece in cut(regex.compile(tokenizer.pattern), text):
        end = start + len(utf8(piece))
        found.append({"text": piece, "start": start, "end": end})
        start = end
    return found
