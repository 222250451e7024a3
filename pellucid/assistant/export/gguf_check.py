"""Reads a GGUF file again, with gguf's own reader, and compares: each key, each tensor bit by bit, the tokenizer's ids.

The tokenizer is built anew from the file's tokens and merges, and must be the one that was written.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pellucid.assistant.export.gguf_file import (
    CONTROL,
    GGML_TYPES,
    KINDS,
    MERGES,
    PRE,
    PRE_TOKENIZERS,
    TOKENS,
    UNUSED,
    Metadata,
    kept_in,
)
from pellucid.assistant.export.gguf_names import ROPE_FREQS, Row, joined, part, rope_divisors, table
from pellucid.config import ModelConfig
from pellucid.runtime import DataError, problem
from pellucid.text.bpe import BPETokenizer
from pellucid.text.gpt2_files import build_bpe, parse_merges

ADVICE = "The file was not kept. The disk or memory may be broken: try again, or on another disk."
BROKEN = (ValueError, KeyError, IndexError, OverflowError, TypeError, MemoryError)  # what gguf raises on damage


def read_gguf(path: Path) -> Any:
    """gguf's reader of a file. DataError where it cannot read it."""
    from gguf import GGUFReader

    try:
        return GGUFReader(path)
    except BROKEN as error:
        found = f"a file that gguf cannot read ({error})"
        raise DataError(problem(path, found, "GGUF", ADVICE)) from error


def check_gguf(
    path: Path,
    config: ModelConfig,
    weights: dict[str, Tensor],
    tokenizer: BPETokenizer,
    said: Metadata,
    dtype: torch.dtype,
    advance: Callable[[int], None],
) -> tuple[int, float]:
    """How many tensors were compared, and how far the precision moved a weight. DataError names what differs."""
    try:
        reader = read_gguf(path)
        check_metadata(reader, said, path)
        if tokenizer_in(reader, path).fingerprint() != tokenizer.fingerprint():
            raise DataError(problem(path, "a tokenizer that gives other ids", "the run's", ADVICE))
        return check_tensors(reader, config, weights, dtype, path, advance)
    except BROKEN as error:
        raise DataError(problem(path, f"a part that cannot be read ({error})", "what was written", ADVICE)) from error


# ---------------------------------------------------------------- what the file says about itself


def check_metadata(reader: Any, said: Metadata, where: Path) -> None:
    """Each key that was written is there with its value, and no other."""
    there = {name for name in reader.fields if not name.startswith("GGUF.")}
    if odd := there ^ said.keys():
        found = f"{'the key' if min(odd) in there else 'no key'} {min(odd)}"
        raise DataError(problem(where, found, "the keys that were written", ADVICE))
    for key, value in said.items():
        found = reader.fields[key].contents()
        if found != (float(np.float32(value)) if isinstance(value, float) else value):
            raise DataError(problem(where, f"another {key}: {str(found)[:60]}", str(value)[:60], ADVICE))


def tokenizer_in(reader: Any, where: Path) -> BPETokenizer:
    """A tokenizer of ours from nothing but the file's tokens, kinds, merges and the name of its pattern."""
    try:
        tokens, kinds, merges, pre = (reader.fields[key].contents() for key in (TOKENS, KINDS, MERGES, PRE))
    except KeyError as error:
        raise DataError(problem(where, f"no key {error}", "a tokenizer", ADVICE)) from error
    ids = {token: number for number, (token, kind) in enumerate(zip(tokens, kinds, strict=True)) if kind != UNUSED}
    special = {token: number for token, number in ids.items() if kinds[number] == CONTROL}
    pattern = next((pattern for pattern, name in PRE_TOKENIZERS.items() if name == pre), str(pre))
    return build_bpe(ids, parse_merges(merges, where), special, pattern, where)


# ---------------------------------------------------------------- tensors


def check_tensors(
    reader: Any,
    config: ModelConfig,
    weights: dict[str, Tensor],
    dtype: torch.dtype,
    where: Path,
    advance: Callable[[int], None],
) -> tuple[int, float]:
    """Each tensor, its heads laid back, has the bits of ours in the file's precision; and there is no other."""
    there = {tensor.name: tensor for tensor in reader.tensors}
    rows = table(config)
    expected = [row.theirs for row in rows] + ([ROPE_FREQS] if config.rope_scaling is not None else [])
    if odd := there.keys() ^ set(expected):
        raise DataError(problem(where, f"the odd tensor {min(odd)}", "those of the model", ADVICE))
    moved = 0.0
    for row in rows:
        ours = joined(row, weights)
        kept = kept_in(row.theirs, ours, dtype)
        same_bits(row, content(there[row.theirs], kept, where), ours.to(kept), where)
        if kept != torch.float32:
            moved = max(moved, float((ours.to(kept).float() - ours).abs().max()))
        advance(there[row.theirs].n_bytes)
    if config.rope_scaling is not None:
        divisors = rope_divisors(config, config.rope_scaling)
        same_bits(Row(ROPE_FREQS, ()), content(there[ROPE_FREQS], torch.float32, where), divisors, where)
    return len(expected), moved


def content(tensor: Any, kind: torch.dtype, where: Path) -> Tensor:
    """A tensor of the reader's, found to be of this precision."""
    if tensor.tensor_type != GGML_TYPES[kind]:
        found = f"{tensor.name} in {tensor.tensor_type.name}"
        raise DataError(problem(where, found, str(kind).removeprefix("torch."), ADVICE))
    raw = np.array(tensor.data).reshape(-1).view(np.uint8)  # a copy: torch wants memory that may be written to
    return torch.from_numpy(raw).view(kind).view([int(size) for size in reversed(tensor.shape)])


def same_bits(row: Row, found: Tensor, ours: Tensor, where: Path) -> None:
    """DataError that names the tensor and by how much it differs."""
    if found.shape != ours.shape:
        shapes = f"{row.theirs} of shape {tuple(found.shape)}", str(tuple(ours.shape))
        raise DataError(problem(where, *shapes, ADVICE))
    found = part(found, row.heads) if row.heads else found
    bits = torch.int32 if ours.dtype == torch.float32 else torch.int16
    if not torch.equal(found.contiguous().view(bits), ours.contiguous().view(bits)):
        difference = float((found.double() - ours.double()).abs().max())
        what = f"{row.theirs} that differs by up to {difference:g}"
        raise DataError(problem(where, what, "the same numbers bit by bit", ADVICE))
