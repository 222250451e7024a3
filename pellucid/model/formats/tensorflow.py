"""OpenAI's own GPT-2 folders, as TensorFlow wrote them in 2019, read without TensorFlow.

hparams.json holds the sizes, model.ckpt.data-… the numbers one after the other, and model.ckpt.index says where each
tensor lies. The index is a table as LevelDB keeps them (blocks of sorted keys, each key without what it shares with the
one before, and a footer that points to the block of blocks) whose values are small protocol buffers. Every block and
every tensor carries a checksum (CRC-32C), and each is checked. Names are GPT-2's table in TensorFlow's spelling.
Formats: tensorflow/core/lib/io/format.cc, tensorflow/core/protobuf/tensor_bundle.proto.
"""

from __future__ import annotations

import functools
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray
from torch import Tensor

from pellucid.config import ModelConfig
from pellucid.model.formats import gpt2
from pellucid.model.formats.folder import as_it_is, read_weights
from pellucid.model.formats.tensor_files import HEADER_LIMIT, Stored, damaged, read_strict_json
from pellucid.runtime import ConfigError, DataError, problem, shown

FOOTER = 48  # bytes: two handles, padded, and the magic number
MAGIC = 0xDB4775248B80FB57
KINDS = {1: "F32", 2: "F64", 3: "I32", 9: "I64", 14: "BF16", 19: "F16"}  # TensorFlow's numbers for precisions
HPARAMS = {"n_vocab": "vocab_size", "n_ctx": "context_length", "n_embd": "d_model", "n_head": "n_heads"}
SPELLING = (  # TensorFlow's names → transformers'
    (r"^model/", ""),
    (r"^h(\d+)/", r"h.\1/"),
    (r"^(w[tp]e)$", r"\1/w"),
    (r"/[wg]$", "/weight"),
    (r"/b$", "/bias"),
    (r"/", "."),
)


def read_tensorflow_folder(folder: Path) -> tuple[ModelConfig, dict[str, Tensor]]:
    """Config and weights under our names. DataError for a file that is missing, damaged or of another model."""
    config = _read_hparams(folder / "hparams.json")
    index = find_index(folder)
    stored = {theirs_of(name): place for name, place in read_index(index).items()}
    return config, read_weights(gpt2, config, stored, str(index), as_it_is)


def theirs_of(name: str) -> str:
    """model/h0/attn/c_attn/w → h.0.attn.c_attn.weight."""
    for pattern, spelt in SPELLING:
        name = re.sub(pattern, spelt, name)
    return name


def _read_hparams(path: Path) -> ModelConfig:
    if not path.is_file():
        advice = "Put the hparams.json there that belongs to the checkpoint."
        raise DataError(problem(path, "no file", "the model's sizes", advice))
    sizes = read_strict_json(path)
    names = HPARAMS | {"n_layer": "n_layers"}
    if not isinstance(sizes, dict) or not names.keys() <= sizes.keys():
        raise DataError(problem(path, "other settings", ", ".join(names), "Take OpenAI's hparams.json."))
    try:
        config = ModelConfig(**{ours: sizes[name] for name, ours in names.items()})
    except ConfigError as error:
        raise DataError(f"{path}: {error}") from error
    if config.n_layers > 10_000:
        raise DataError(problem(path, f"n_layer {shown(config.n_layers)}", "at most 10,000", "The file is damaged."))
    return config


def find_index(folder: Path) -> Path:
    """The .index file: the one that the file `checkpoint` names, or else the only one."""
    there = sorted(folder.glob("*.index"))
    note = folder / "checkpoint"
    if note.is_file() and note.stat().st_size < 2**20:
        named = re.search(r'^model_checkpoint_path: "(.*)"$', note.read_text("utf-8", errors="replace"), re.MULTILINE)
        newest = named and folder / (re.split(r"[/\\]", named[1])[-1] + ".index")
        if newest in there:
            return newest
    if len(there) != 1:
        advice = "Copy all files of the checkpoint; the file `checkpoint` names the one to take."
        raise DataError(problem(folder, f"{len(there)} files *.index", "one", advice))
    return there[0]


# ---------------------------------------------------------------- the index, a table of LevelDB's kind


def read_index(index: Path) -> dict[str, Stored]:
    """Where each tensor of a checkpoint lies, by TensorFlow's name; the numbers are checked against their CRC-32C."""
    if index.stat().st_size > HEADER_LIMIT:
        damaged(index, f"{index.stat().st_size:,} bytes", f"an index of at most {HEADER_LIMIT:,}")
    content = index.read_bytes()
    if len(content) < FOOTER or content[-8:] != struct.pack("<Q", MAGIC):
        damaged(index, "no table's end", "a checkpoint's index")
    stored: dict[str, Stored] = {}
    try:
        _, _, place = _handle(content, len(content) - FOOTER)  # the first handle is of a block that nobody uses
        start, size, _ = _handle(content, place)
        shards = 0
        for _, value in _entries(_block(content, start, size, index), index):
            start, size, _ = _handle(value, 0)
            for key, entry in _entries(_block(content, start, size, index), index):
                if not key:
                    shards = _message(entry).get(1, 1)
                elif (name := key.decode("utf-8")) in stored:
                    damaged(index, f"{shown(name)} twice", "each tensor once")
                else:
                    stored[name] = _stored(name, _message(entry), shards, index)
    except (IndexError, KeyError, ValueError, TypeError, struct.error) as error:
        damaged(index, f"an entry that cannot be read: {shown(error)}", "a checkpoint's index", error)
    return stored


def _handle(content: bytes, place: int) -> tuple[int, int, int]:
    """Where a block begins, its length, and the place behind this handle; the first handle's are thrown away."""
    start, place = _varint(content, place)
    size, place = _varint(content, place)
    return start, size, place


def _varint(content: bytes, place: int) -> tuple[int, int]:
    """A number of seven bits a byte, and the place behind it."""
    value = 0
    for shift in range(0, 70, 7):
        byte = content[place]
        place += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, place
    raise ValueError("a number without end")


def _block(content: bytes, start: int, size: int, index: Path) -> bytes:
    """A block of the table, found to have the checksum that stands behind it."""
    behind = start + size
    if behind + 5 > len(content) - FOOTER:
        damaged(index, "a block outside the file", "blocks in it")
    kind, check = struct.unpack_from("<BI", content, behind)
    if checksum(content[start : behind + 1]) != check:
        damaged(index, "a block with another checksum", "the one it was written with")
    if kind:
        damaged(index, "a compressed block", "blocks as TensorFlow writes them")
    return content[start:behind]


def _entries(block: bytes, index: Path) -> Iterator[tuple[bytes, bytes]]:
    """Key and value of each entry; a key goes on from the first bytes of the one before."""
    (restarts,) = struct.unpack_from("<I", block, len(block) - 4)
    end = len(block) - 4 * (restarts + 1)  # behind the entries stand the places at which a search may start
    key, place = b"", 0
    while place < end:
        shared, place = _varint(block, place)
        fresh, place = _varint(block, place)
        length, place = _varint(block, place)
        if shared > len(key) or place + fresh + length > end:
            damaged(index, "an entry outside its block", "entries in it")
        key = key[:shared] + block[place : place + fresh]
        yield key, block[place + fresh : place + fresh + length]
        place += fresh + length


def _message(content: bytes) -> dict[int, Any]:
    """A protocol buffer: field → value; of the fields that repeat, a list under minus its number."""
    fields: dict[int, Any] = {}
    place = 0
    while place < len(content):
        tag, place = _varint(content, place)
        number, kind = tag >> 3, tag & 7
        if kind == 0:
            value: Any
            value, place = _varint(content, place)
        elif kind == 2:
            length, place = _varint(content, place)
            value, place = content[place : place + length], place + length
        elif kind == 5:
            (value,), place = struct.unpack_from("<I", content, place), place + 4
        else:
            raise ValueError(f"field {number} of kind {kind}")
        fields[number] = value
        fields.setdefault(-number, []).append(value)
    if place != len(content):
        raise ValueError("a message that was cut short")
    return fields


def _stored(name: str, entry: dict[int, Any], shards: int, index: Path) -> Stored:
    """The tensor that a BundleEntryProto describes: dtype 1, shape 2, shard 3, offset 4, size 5, CRC-32C 6."""
    dimensions = [_message(dimension).get(1, 0) for dimension in _message(entry.get(2, b"")).get(-2, [])]
    shape = tuple(dimensions[1:] if len(dimensions) == 3 and dimensions[0] == 1 else dimensions)  # 1 × in × out
    path = index.with_suffix(f".data-{entry.get(3, 0):05}-of-{shards:05}")
    stored = Stored(path, KINDS[entry[1]], shape, entry.get(4, 0))
    if not path.is_file():
        raise DataError(problem(index, f"no file {path.name}", "it beside the index", "Copy it, too."))
    room = path.stat().st_size
    if (
        len(shape) > 2
        or any(size < 1 for size in shape)
        or stored.nbytes != entry.get(5, 0)
        or stored.offset + stored.nbytes > room
    ):
        found = f"{shown(name)} of shape {shown(shape)} at {shown(stored.offset)}"
        damaged(path, f"{found} in {room:,} bytes", "all of it in the file")
    if checksum_of_file(stored) != entry.get(6, 0):
        damaged(path, f"{shown(name)} with another checksum", "the one it was written with")
    return stored


# ---------------------------------------------------------------- CRC-32C


def checksum(content: bytes) -> int:
    """CRC-32C of some bytes, masked as TensorFlow and LevelDB store it."""
    return masked(int(_crc32c(np.frombuffer(content, np.uint8), _crc_tables(), 0)))


def checksum_of_file(stored: Stored) -> int:
    """The same of a tensor, a few megabytes at a time."""
    tables, crc, rest = _crc_tables(), 0, stored.nbytes
    with stored.path.open("rb") as file:
        file.seek(stored.offset)
        while rest and (part := file.read(min(rest, 2**22))):
            crc = int(_crc32c(np.frombuffer(part, np.uint8), tables, crc))
            rest -= len(part)
    return masked(crc)


def masked(crc: int) -> int:
    """So that a checksum over data that holds checksums is not weakened by them."""
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


@functools.cache
def _crc_tables() -> NDArray[np.int64]:
    """What a byte does to the checksum, by the polynomial of Castagnoli, with 0 to 3 bytes behind it."""
    table = np.arange(256)
    for _ in range(8):
        table = np.where(table & 1, table >> 1 ^ 0x82F63B78, table >> 1)
    tables = [table]
    for _ in range(3):
        tables.append(table[tables[-1] & 255] ^ tables[-1] >> 8)
    return np.stack(tables)


@njit(cache=True, nogil=True)
def _crc32c(content: Any, tables: Any, crc: Any) -> Any:
    """The checksum after some more bytes: four at a time, and what is left one by one."""
    state = crc ^ 0xFFFFFFFF
    whole = len(content) // 4 * 4
    for i in range(0, whole, 4):
        a, b = (state ^ content[i]) & 255, (state >> 8 ^ content[i + 1]) & 255
        c, d = (state >> 16 ^ content[i + 2]) & 255, (state >> 24 ^ content[i + 3]) & 255
        state = tables[3, a] ^ tables[2, b] ^ tables[1, c] ^ tables[0, d]
    for byte in content[whole:]:
        state = tables[0, (state ^ byte) & 255] ^ state >> 8
    return state ^ 0xFFFFFFFF
