"""Where tensors lie in files, and how they come into memory: a few megabytes at a time.

The header of a safetensors file is checked here before a byte of memory is taken for what it claims: no length, shape
or offset is believed that the file's own size does not bear out. Tensors are read, not memory-mapped: mapped pages
would count beside the converted copies, and a file cut short meanwhile would kill the process instead of raising.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import torch
from torch import Tensor

from pellucid.runtime import DataError, problem, shown

if TYPE_CHECKING:
    from pellucid.model.formats.quantised import Quantised

FLOATS = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}  # what weights may be kept in
WHOLE = {"I8": torch.int8, "U8": torch.uint8}  # and quantised ones
OTHERS = {"BOOL": 1, "U8": 1, "I8": 1, "F8_E5M2": 1, "F8_E4M3": 1, "I16": 2, "U16": 2, "I32": 4, "U32": 4}
SIZES = {name: kind.itemsize for name, kind in FLOATS.items()} | OTHERS | {"F64": 8, "I64": 8, "U64": 8, "C64": 8}
HEADER_LIMIT = 16 * 2**20  # bytes; a model of 10,000 tensors needs 1 MB
CHUNK = 2**20  # bytes that are read at a time
DAMAGED = "Copy or make it again."


@dataclass(frozen=True)
class Stored:
    """A tensor in a file: its precision (as safetensors spells it), its shape, and the place of its first byte."""

    path: Path
    dtype: str
    shape: tuple[int, ...]
    offset: int

    @property
    def nbytes(self) -> int:
        """Its size in the file."""
        return math.prod(self.shape) * SIZES[self.dtype]


class Piece(NamedTuple):
    """Some rows of a weight of ours, from `start` on."""

    name: str
    start: int
    rows: Tensor | Quantised


def rows_of(stored: Stored) -> Iterator[tuple[slice, Tensor]]:
    """The rows of a tensor, a few megabytes at a time, as the file keeps them; each is gone when the next comes."""
    total = stored.shape[0]
    row = stored.nbytes // total
    step = max(1, min(total, CHUNK // row))
    buffer = torch.empty((step, *stored.shape[1:]), dtype=(FLOATS | WHOLE)[stored.dtype], device="cpu")
    raw = memoryview(buffer.view(torch.uint8).numpy().data).cast("B")
    with stored.path.open("rb", buffering=0) as file:
        file.seek(stored.offset)
        for start in range(0, total, step):
            count = min(step, total - start)
            _fill(raw[: count * row], file, stored.path)
            yield slice(start, start + count), buffer[:count]


def _fill(target: memoryview, file: Any, path: Path) -> None:
    """Read until `target` is full."""
    while len(target):
        got = file.readinto(target)
        if not got:
            damaged(path, "its end in the middle of a tensor", "all of it")
        target = target[got:]


def same(one: Stored, other: Stored) -> bool:
    """Whether two tensors in files hold the same numbers."""
    if one.shape != other.shape:
        return False
    return all(torch.equal(a.float(), b.float()) for (_, a), (_, b) in zip(rows_of(one), rows_of(other), strict=False))


# ---------------------------------------------------------------- safetensors


def read_header(path: Path) -> dict[str, Stored]:
    """The tensors of a safetensors file, by name. DataError for anything that the format or the file's size forbids."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > min(size - 8, HEADER_LIMIT):
                damaged(path, f"a header of {length:,} bytes in a file of {size:,}", "a shorter one")
            text = file.read(length)
    except OSError as error:
        raise DataError(f"{path}: cannot read: {error.strerror}.") from error
    header = strict_json(text, path)
    if not isinstance(header, dict):
        damaged(path, "a header that is no JSON object", "one")
    notes = header.pop("__metadata__", {})
    if not isinstance(notes, dict) or not all(isinstance(note, str) for note in notes.values()):
        damaged(path, "a broken __metadata__", "an object of strings")
    start = 8 + length
    extents = {name: _extent(name, entry, size - start, path) for name, entry in header.items()}
    _check_cover(extents, size - start, path)
    return {name: Stored(path, e["dtype"], tuple(e["shape"]), start + extents[name][0]) for name, e in header.items()}


def _extent(name: str, entry: Any, room: int, path: Path) -> tuple[int, int]:
    """First and last byte of a tensor behind the header; the entry is found to be sound."""
    name = shown(name)
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        damaged(path, f"the entry of {name}", "dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in SIZES:
        damaged(path, f"{name} of dtype {shown(dtype)}", ", ".join(SIZES))
    if not _naturals(shape) or len(shape) > 16:
        damaged(path, f"{name} of shape {shown(shape)}", "a few whole numbers")
    if not _naturals(offsets) or len(offsets) != 2 or not offsets[0] <= offsets[1] <= room:
        damaged(path, f"{name} at {shown(offsets)}", f"two places in the {room:,} bytes of tensors")
    needed = math.prod(shape) * SIZES[dtype]
    if needed != offsets[1] - offsets[0]:
        found = f"{name} of {offsets[1] - offsets[0]:,} bytes"
        damaged(path, found, f"{shown(needed)} for its shape {shown(shape)} and dtype {dtype}")
    return offsets[0], offsets[1]


def _naturals(values: Any) -> bool:
    """Whether this is a list of whole numbers from 0 up to what a file can be long."""
    return isinstance(values, list) and all(type(value) is int and 0 <= value < 2**63 for value in values)


def _check_cover(extents: dict[str, tuple[int, int]], room: int, path: Path) -> None:
    """The format wants each byte behind the header in exactly one tensor."""
    end = 0
    for name, (first, last) in sorted(extents.items(), key=lambda item: item[1]):
        if first != end:
            what = "overlaps the tensor before it" if first < end else "leaves a gap before it"
            damaged(path, f"{shown(name)}, which {what}", "one tensor after the other")
        end = last
    if end != room:
        damaged(path, f"tensors of {end:,} bytes in {room:,}", "no byte without a tensor")


# ---------------------------------------------------------------- JSON from anywhere


def strict_json(content: bytes, path: Path) -> Any:
    """JSON that may come from anywhere: a key given twice, or nesting without end, is a DataError, too."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(pairs)
        if len(result) < len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            damaged(path, f"the key {shown(twice)} twice", "each key once")
        return result

    try:
        return json.loads(content.decode("utf-8"), object_pairs_hook=unique)
    except json.JSONDecodeError as error:
        damaged(f"{path}, line {error.lineno}", f"broken JSON: {error.msg}", "valid JSON", error)
    except UnicodeDecodeError as error:
        damaged(path, "bytes that are not UTF-8", "JSON in UTF-8", error)
    except RecursionError as error:
        damaged(path, "JSON nested without end", "a few levels", error)
    except ValueError as error:  # a number of thousands of digits
        damaged(path, f"a JSON value that cannot be read: {error}", "valid JSON", error)


def read_strict_json(path: Path) -> Any:
    """As `strict_json`, from a file."""
    try:
        return strict_json(path.read_bytes(), path)
    except OSError as error:
        raise DataError(f"{path}: cannot read: {error.strerror}.") from error


def damaged(where: str | Path, found: str, expected: str, cause: Exception | None = None) -> NoReturn:
    """Raise the DataError that names a damaged file and what shows the damage."""
    raise DataError(problem(where, f"a damaged file ({found})", expected, DAMAGED)) from cause
