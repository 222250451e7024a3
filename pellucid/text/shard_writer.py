"""Writes token shards: each split of a unit of work as one file, whole or not at all, and what describes them all."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np

from pellucid.runtime import (
    LITTER,
    DataError,
    atomic_folder,
    explained_disk_errors,
    inform,
    problem,
    sha256,
    write_json,
)
from pellucid.text.documents import SPLITS, Document
from pellucid.text.shards import VERSION, Shards, smallest_dtype
from pellucid.text.tokenizer import Tokenizer

GROUP_CHARACTERS = 1 << 20  # documents are encoded in groups of about this size
OURS = re.compile(r"\w+-\d{5}(\.offsets)?\.npy|shards\.json|tokenizer(_config)?\.json|vocab\.txt")  # names of files
Json = dict[str, Any]


class ShardWriter:
    """One shard of one split. As a context: at its end the file gets its name, unless an error ended it."""

    def __init__(self, folder: Path, split: str, number: int, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._dtype = smallest_dtype(tokenizer.vocab_size)
        self._end = np.array([tokenizer.end_of_text], dtype=self._dtype).tobytes()
        self._path = folder / f"{split}-{number:05d}.npy"
        self._offsets: list[int] = []
        self._group: list[Document] = []
        self._size = 0
        self.about: Json = {"tokens": 0, "bytes": 0, "documents": 0, "nats": 0.0, "unknown": 0}

    def __enter__(self) -> Self:
        self._temporary = self._path.with_suffix(".part")
        self._file: BinaryIO = self._temporary.open("wb")
        _write_header(self._file, self._dtype, 0)
        return self

    def add(self, document: Document) -> None:
        """Write a document behind the others."""
        self._group.append(document)
        self._size += len(document.text)
        if self._size >= GROUP_CHARACTERS:
            self._encode_group()

    def end_split(self) -> None:
        """Write the end-of-text behind the last document of the split."""
        self._encode_group()
        self._mark()

    def _mark(self) -> None:
        self._offsets.append(self.about["tokens"])
        self._file.write(self._end)
        self.about["tokens"] += 1

    def _encode_group(self) -> None:
        about, group = self.about, self._group
        encoded = self._tokenizer.encode_arrays([document.text for document in group])
        for document, ids in zip(group, encoded, strict=True):
            if not document.continues:
                self._mark()
                about["documents"] += 1
            self._file.write(ids.astype(self._dtype).tobytes())
            about["tokens"] += len(ids)
            about["bytes"] += len(document.text) if document.text.isascii() else len(document.text.encode())
            known = about["nats"] is not None and document.nats is not None
            about["nats"] = about["nats"] + document.nats if known else None
            if self._tokenizer.unknown_id is not None:
                about["unknown"] += int((ids == self._tokenizer.unknown_id).sum())
        self._group, self._size = [], 0

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            with suppress(OSError):  # a full disk does not take what is still to be written
                self._file.close()
            self._temporary.unlink(missing_ok=True)

    def _finish(self) -> None:
        self._encode_group()
        self._file.seek(0)
        _write_header(self._file, self._dtype, self.about["tokens"])
        self._file.close()
        offsets = self._path.with_suffix(".offsets.npy")
        np.save(offsets, np.array(self._offsets, dtype=np.int64), allow_pickle=False)
        self.about["files"] = {self._path.name: sha256(self._temporary), offsets.name: sha256(offsets)}
        self._temporary.replace(self._path)


def _write_header(file: BinaryIO, dtype: np.dtype[Any], count: int) -> None:
    """NumPy's header; NumPy pads it so that a later, larger count fits into the same place."""
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (count,)}
    np.lib.format.write_array_header_1_0(file, header)


def write_unit(
    documents: Iterable[tuple[str, Document]], tokenizer: Tokenizer, folder: Path, number: int, closing: Iterable[str]
) -> dict[str, Json]:
    """Write documents, each with its split, as one shard for each split; what is in each.

    `closing` are the splits that end here: they get a shard even without a document, and their last end-of-text.
    """
    writers: dict[str, ShardWriter] = {}
    with explained_disk_errors(folder), ExitStack() as stack:

        def writer(split: str) -> ShardWriter:
            if split not in writers:
                writers[split] = stack.enter_context(ShardWriter(folder, split, number, tokenizer))
            return writers[split]

        for split, document in documents:
            writer(split).add(document)
        for split in closing:
            writer(split).end_split()
    return {split: writer.about for split, writer in writers.items()}


def write_description(units: Sequence[Mapping[str, Json]], tokenizer: Tokenizer, folder: Path) -> None:
    """Write shards.json and the tokenizer: what makes a folder of shard files one whole."""
    there = {split for unit in units for split in unit}
    splits: dict[str, Json] = {
        split: {"tokens": 0, "bytes": 0, "documents": 0, "nats": 0.0, "shards": []}
        for split in sorted(there, key=lambda name: (*SPLITS, name).index(name))
    }
    for unit in units:
        for split, about in unit.items():
            total = splits[split]
            for name in ("tokens", "bytes", "documents"):
                total[name] += about[name]
            if about["documents"]:
                known = total["nats"] is not None and about["nats"] is not None
                total["nats"] = total["nats"] + about["nats"] if known else None
            total["shards"].append({"tokens": about["tokens"], "files": about["files"]})
    unknown = {split: sum(unit[split]["unknown"] for unit in units if split in unit) for split in splits}
    for split, count in unknown.items():
        if count:
            tokens = f"{count:,} of {splits[split]['tokens']:,} tokens"
            inform(f"{split}: {tokens} are not in the {tokenizer.kind} vocabulary (unknown).")
    for total in splits.values():
        total["nats"] = total["nats"] if total["documents"] else None
    tokenizer.save(folder)
    write_json(
        folder / "shards.json",
        {
            "version": VERSION,
            "tokenizer": tokenizer.fingerprint(),
            "vocab_size": tokenizer.vocab_size,
            "dtype": smallest_dtype(tokenizer.vocab_size).name,
            "splits": splits,
        },
    )


def require_place_for_shards(out: Path) -> None:
    """DataError where `out` holds something other than shards, which would be lost."""
    there = {path.name for path in out.iterdir()} - LITTER if out.is_dir() else {out.name} if out.exists() else set()
    if (out / "shards.json").is_file():
        there = {name for name in there if not OURS.fullmatch(name)}
    if there:
        found, expected = f"something else there ({min(there)})", "a new or empty folder, or shards to replace"
        raise DataError(problem(out, found, expected, "Move it, or give --out another name."))


def tell_replaced(out: Path, tokenizer: Tokenizer) -> None:
    """Say where shards of another tokenizer give way: what was trained on them could not go on with these."""
    with suppress(DataError):  # what is not there, or damaged, is no loss
        if Shards.open(out, verify=False).description["tokenizer"] != tokenizer.fingerprint():
            inform(f"{out}: the shards there are of another tokenizer; they will be replaced.")


def write_shards(splits: Mapping[str, Iterable[Document]], tokenizer: Tokenizer, out: Path | str) -> Shards:
    """Encode documents that are at hand, one shard a split, into `out`, atomically, and open it.

    Raises DataError where `out` holds something other than shards. `encode.py` does the same for text of any size.
    """
    out = Path(out)
    require_place_for_shards(out)
    documents = ((name, document) for name, members in splits.items() for document in members)
    with atomic_folder(out) as folder:
        write_description([write_unit(documents, tokenizer, folder, 0, splits)], tokenizer, folder)
    return Shards.open(out, verify=False)
