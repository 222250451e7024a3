"""What the command line does with text: train a tokenizer, show its tokens, write token shards."""

from __future__ import annotations

from typing import Any

from pellucid.config import Encode, TokenizerShow, TokenizerTrain
from pellucid.runtime import ConfigError, printable, problem
from pellucid.text.documents import read_documents
from pellucid.text.shards import write_shards
from pellucid.text.splits import split_documents
from pellucid.text.tokenizer import Tokenizer
from pellucid.text.tokenizer_format import KINDS

Outcome = tuple[dict[str, Any], str]  # what --json prints, and what people read


def train_tokenizer(options: TokenizerTrain) -> Outcome:
    """`pellucid tokenizer train`."""
    if options.vocab_size < 1:
        found = str(options.vocab_size)
        raise ConfigError(problem("--vocab-size", found, "a whole number above 0", "4096 suits small models."))
    documents = read_documents(options.files)
    tokenizer = KINDS[options.kind].train((document.text for document in documents), vocab_size=options.vocab_size)
    tokenizer.save(options.out)
    sample = documents[0].text[:20_000]
    ratio = len(sample.encode()) / max(1, len(tokenizer.encode_ordinary(sample)))
    result = {"out": str(options.out), "kind": options.kind, "vocab_size": tokenizer.vocab_size}
    result["bytes_per_token"] = round(ratio, 3)
    return result, (
        f"{options.out}: a {options.kind} tokenizer of {tokenizer.vocab_size:,} tokens, {ratio:.2f} bytes a token.\n"
        f"Look at it: pellucid tokenizer show 'some text' --tokenizer {options.out}"
    )


def show_tokens(options: TokenizerShow) -> Outcome:
    """`pellucid tokenizer show`."""
    tokenizer = Tokenizer.load(options.tokenizer)
    pieces = tokenizer.pieces(options.text)
    rows = [{"id": piece.id, "text": piece.text, "start": piece.start, "end": piece.end} for piece in pieces]
    shown = "|".join(printable(piece.text).replace("\n", "\\n") for piece in pieces)
    ids = " ".join(str(piece.id) for piece in pieces)
    return {"tokens": rows, "count": len(rows)}, f"{shown}\n{ids}\n{len(rows)} tokens"


def encode(options: Encode) -> Outcome:
    """`pellucid encode`."""
    tokenizer = Tokenizer.load(options.tokenizer)
    splits = split_documents(read_documents(options.files))
    shards = write_shards(splits, tokenizer, options.out)
    counts = {name: len(shards.tokens(name)) for name in shards.splits}
    lines = [f"{name:>6}: {shards.documents(name):>7,} documents  {counts[name]:>12,} tokens" for name in shards.splits]
    return {"out": str(options.out), "tokens": counts}, "\n".join([str(options.out), *lines])
