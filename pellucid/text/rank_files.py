"""tiktoken's rank files (*.tiktoken), two-way: each line is a token in base64 and its rank, which is its id, too.

Such a file holds no merges. They are found again by joining each token's bytes with the ranks below its own, which must
leave exactly two parts. Nor does it hold split pattern and special tokens: the name of the encoding stands for them.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from pellucid.runtime import DataError, problem, write_text
from pellucid.text.bpe import BPETokenizer
from pellucid.text.tokenizer import END_OF_TEXT, Tokenizer


class Encoding(NamedTuple):
    """What a rank file does not say."""

    pattern: str
    size: int | None = None  # how many ranks there must be; None where that is not known
    special_tokens: Mapping[int, str] = {}  # without any, <|endoftext|> takes the next id


CL100K_SPECIAL = {
    100257: END_OF_TEXT,
    100258: "<|fim_prefix|>",
    100259: "<|fim_middle|>",
    100260: "<|fim_suffix|>",
    100276: "<|endofprompt|>",
}
ENCODINGS = {
    "gpt2": Encoding("gpt2"),
    "cl100k": Encoding("cl100k"),
    "r50k_base": Encoding("gpt2", 50_256),
    "cl100k_base": Encoding("cl100k", 100_256, CL100K_SPECIAL),
}
DAMAGED = "The file is damaged or of another kind; fetch it again."


def load_ranks(path: Path, encoding: str) -> BPETokenizer:
    """A tokenizer from tiktoken's ranks; `encoding` is a key of ENCODINGS.

    Ids between the special tokens that tiktoken leaves free become special tokens <|unused_ID|>, so that every id has a
    token. Raises DataError where the file is damaged or the encoding unknown.
    """
    if encoding not in ENCODINGS:
        expected = f"one of {', '.join(ENCODINGS)} (ranks do not say how text is split)"
        advice = f"Put it behind the name: {path}#gpt2 or {path}#cl100k."
        raise DataError(problem(path, f"the encoding {encoding!r}", expected, advice))
    pattern, size, special = ENCODINGS[encoding]
    ranks = _read_ranks(path)
    if size is not None and len(ranks) != size:
        raise DataError(problem(path, f"{len(ranks):,} ranks", f"the {size:,} of {encoding}", DAMAGED))
    merges = []
    for token, parts in _halves(ranks):
        if len(parts) != 2:
            found = f"the token {token!r} of rank {ranks[token]:,}, which falls into {len(parts)} parts"
            raise DataError(problem(path, found, "tokens made of two of lower rank", DAMAGED))
        merges.append((ranks[parts[0]], ranks[parts[1]]))
    tokenizer = BPETokenizer(list(ranks), merges, {}, pattern)
    last = max(special, default=len(ranks))
    names = special or {last: END_OF_TEXT}
    tokenizer.add_special_tokens(names.get(i, f"<|unused_{i}|>") for i in range(len(ranks), last + 1))
    return tokenizer


def save_ranks(tokenizer: Tokenizer, path: Path) -> None:
    """Write a BPE's ranks, without its special tokens. DataError where tiktoken would give other ids."""
    advice = "Keep it as tokenizer.json."
    if tokenizer.kind != "bpe":
        raise DataError(problem(path, f"a {tokenizer.kind} tokenizer to write", "byte-level BPE", advice))
    if path.suffix != ".tiktoken":
        raise DataError(problem(path, "a name that says nothing", "NAME.tiktoken", "Give the file that ending."))
    ranks = {token: token_id for token_id, token in tokenizer.ordinary_tokens().items()}
    found_again = [tuple(ranks[part] for part in parts) for _, parts in _halves(ranks)]
    if list(ranks.values()) != list(range(len(ranks))) or found_again != tokenizer.merges():
        found, expected = "ids that are no ranks", "bytes, merges in their order, then special tokens"
        raise DataError(problem(path, found, expected, advice))
    write_text(path, "".join(f"{base64.b64encode(token).decode()} {rank}\n" for token, rank in ranks.items()))


def _read_ranks(path: Path) -> dict[bytes, int]:
    """Token → rank, lowest first; each rank from 0 on once, each byte a token."""
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise DataError(problem(path, f"no readable file ({error.strerror})", "ranks", "Check the path.")) from error
    ranks: dict[bytes, int] = {}
    line_of: dict[int, int] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            encoded, digits = line.split()
            token, rank = base64.b64decode(encoded, validate=True), int(digits)
        except ValueError as error:
            found, fit = repr(line[:60])[1:], "a token in base64 and a rank"
            raise DataError(problem(f"{path}, line {number:,}", found, fit, DAMAGED)) from error
        if rank in line_of or token in ranks:
            earlier = line_of.get(rank) or line_of[ranks[token]]
            found = f"the {'rank' if rank in line_of else 'token of rank'} {rank:,} again (as in line {earlier:,})"
            raise DataError(problem(f"{path}, line {number:,}", found, "each once", DAMAGED))
        ranks[token], line_of[rank] = rank, number
    for expected in range(len(ranks)):
        if expected not in line_of:
            raise DataError(problem(path, f"no rank {expected:,}", f"{len(ranks):,} ranks from 0 on", DAMAGED))
    if missing := {bytes([value]) for value in range(256)} - ranks.keys():
        raise DataError(problem(path, f"no token for the byte {min(missing)!r}", "all 256 bytes", DAMAGED))
    return dict(sorted(ranks.items(), key=lambda item: item[1]))


def _halves(ranks: Mapping[bytes, int]) -> Iterator[tuple[bytes, list[bytes]]]:
    """Each token of more than a byte, and the parts into which the ranks below its own merge its bytes."""
    for token, limit in ranks.items():
        if len(token) < 2:
            continue
        parts = [bytes([value]) for value in token]
        while len(parts) > 2:
            found = [ranks.get(left + right, limit) for left, right in pairwise(parts)]
            if (best := min(found)) >= limit:
                break
            at = found.index(best)
            parts[at : at + 2] = [parts[at] + parts[at + 1]]
        yield token, parts
