"""Token shards: each split as memory-mapped arrays of token ids, made once and read by any number of runs.

A split's stream is <|endoftext|> document <|endoftext|> document ... <|endoftext|>, so that each document has an
end-of-text before it and after it; it lies in one file or several, one behind the other. `shards.json` says what is in
them, by SHA-256, and which tokenizer made them; the tokenizer lies beside. Files are plain NumPy (.npy, no pickle).
`shard_writer.py` writes them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self, cast

import numpy as np
from numpy.typing import NDArray

from pellucid.runtime import DataError, problem, read_json, sha256
from pellucid.text.tokenizer import Tokenizer

VERSION = 2
AGAIN = "Make the shards anew with `pellucid encode`."


def smallest_dtype(vocab_size: int) -> np.dtype[Any]:
    """The smallest unsigned integer that holds every id."""
    return np.dtype(np.uint8 if vocab_size <= 1 << 8 else np.uint16 if vocab_size <= 1 << 16 else np.uint32)


class Joined:
    """Arrays one behind the other, to be indexed as one: by a slice, or by an array of places."""

    def __init__(self, arrays: Sequence[NDArray[Any]]) -> None:
        self._arrays = arrays
        self._ends = np.cumsum([len(array) for array in arrays])
        self.dtype = arrays[0].dtype

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, places: slice | NDArray[np.int64]) -> NDArray[Any]:
        if isinstance(places, slice):
            start, stop, step = places.indices(len(self))
            return self._between(start, stop)[::step] if step > 0 else self[np.arange(start, stop, step)]
        flat = np.where(places < 0, places + len(self), places).ravel()
        which = np.searchsorted(self._ends, flat, side="right")
        found = np.empty(len(flat), dtype=self.dtype)
        for number in np.unique(which):
            here = which == number
            found[here] = self._arrays[number][flat[here] - self._begin(number)]
        return found.reshape(places.shape)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return self[:].astype(dtype or self.dtype, copy=False)

    def _begin(self, number: int) -> int:
        return int(self._ends[number]) - len(self._arrays[number])

    def _between(self, start: int, stop: int) -> NDArray[Any]:
        parts = [
            array[max(0, start - self._begin(number)) : max(0, stop - self._begin(number))]
            for number, array in enumerate(self._arrays)
        ]
        return np.concatenate(parts)


class Shards:
    """A folder of token shards, opened: sizes are checked always, contents by SHA-256 unless told otherwise."""

    def __init__(self, folder: Path, description: dict[str, Any]) -> None:
        self.folder = folder
        self.description = description

    @classmethod
    def open(cls, folder: Path | str, verify: bool = True) -> Self:
        """Open `folder`. Raises DataError for files that are missing, cut short, changed, or of another version."""
        folder = Path(folder)
        path = folder / "shards.json"
        if not path.is_file():
            found = "no shards.json" if folder.is_dir() else "no such folder"
            raise DataError(problem(folder, found, "a folder of token shards", AGAIN))
        shards = cls(folder, _checked_description(read_json(path), path))
        for name in shards.splits:
            shards._check_size(name)
        if verify:
            shards.verify()
        return shards

    @property
    def splits(self) -> list[str]:
        """The names of the splits."""
        return list(self.description["splits"])

    @property
    def vocab_size(self) -> int:
        """The number of ids that the tokenizer of these shards has."""
        return int(self.description["vocab_size"])

    def tokens(self, split: str) -> NDArray[Any]:
        """The stream of token ids, memory-mapped, read-only."""
        arrays = [self._array(_file(shard, "")) for shard in self._of(split)["shards"]]
        return arrays[0] if len(arrays) == 1 else cast("NDArray[Any]", Joined(arrays))

    def offsets(self, split: str) -> NDArray[np.int64]:
        """Positions of the end-of-text tokens: before each document and after the last (documents + 1 of them)."""
        shards = self._of(split)["shards"]
        begins = np.cumsum([0, *(shard["tokens"] for shard in shards)])
        arrays = [self._array(_file(shard, ".offsets")) + begin for shard, begin in zip(shards, begins, strict=False)]
        return np.concatenate(arrays).astype(np.int64, copy=False)

    def bytes(self, split: str) -> int:
        """UTF-8 bytes of the split's text, without the end-of-text tokens: what bits per byte divide by."""
        return int(self._of(split)["bytes"])

    def documents(self, split: str) -> int:
        """The number of documents."""
        return int(self._of(split)["documents"])

    def nats(self, split: str) -> float | None:
        """The text's own information, where its generator knows it for each document."""
        nats = self._of(split)["nats"]
        return None if nats is None else float(nats)

    def hashes(self) -> dict[str, str]:
        """SHA-256 of each file of tokens, by its name."""
        files = (shard["files"] for split in self.splits for shard in self._of(split)["shards"])
        return {name: str(found) for shard in files for name, found in shard.items() if ".offsets" not in name}

    def tokenizer(self) -> Tokenizer:
        """The tokenizer that made these shards, from beside them."""
        tokenizer = Tokenizer.load(self.folder)
        self.require_tokenizer(tokenizer)
        return tokenizer

    def require_tokenizer(self, tokenizer: Tokenizer) -> None:
        """Raise DataError unless `tokenizer` is the one that made these shards."""
        found, expected = tokenizer.fingerprint(), self.description["tokenizer"]
        if found != expected:
            what = f"shards of another tokenizer ({expected[:12]}…)"
            raise DataError(problem(self.folder, what, f"shards of this one ({found[:12]}…)", AGAIN))

    def require_documents(self, split: str) -> None:
        """Raise DataError where a split is empty: the loss over nothing is 0, and nothing is better than that."""
        if not self.documents(split):
            advice = f"Make the shards anew, with `pellucid encode` and a --{split} above 0."
            raise DataError(problem(self.folder, f"no text in the {split} split", "some, to judge a model by", advice))

    def verify(self) -> None:
        """Compare each file with its SHA-256. Raises DataError for the first that differs."""
        for shard in (shard for split in self.splits for shard in self._of(split)["shards"]):
            for name, expected in shard["files"].items():
                found = sha256(self.folder / name)
                if found != expected:
                    what = f"changed content (SHA-256 {found[:12]}…)"
                    raise DataError(problem(self.folder / name, what, f"{expected[:12]}…", f"It is damaged. {AGAIN}"))

    def _of(self, split: str) -> dict[str, Any]:
        if split not in self.description["splits"]:
            expected = ", ".join(self.splits)
            raise DataError(problem(self.folder, f"no split {split!r}", expected, "Choose one of these."))
        return cast("dict[str, Any]", self.description["splits"][split])

    def _array(self, name: str) -> NDArray[Any]:
        path = self.folder / name
        try:
            return cast("NDArray[Any]", np.load(path, mmap_mode="r", allow_pickle=False))
        except FileNotFoundError as error:
            raise DataError(problem(path, "no file", "a token shard", AGAIN)) from error
        except (ValueError, OSError, EOFError) as error:
            raise DataError(problem(path, f"a damaged file ({error})", "a NumPy array", AGAIN)) from error

    def _check_size(self, split: str) -> None:
        about, dtype, marks = self._of(split), np.dtype(self.description["dtype"]), 0
        for shard in about["shards"]:
            array, offsets = self._array(_file(shard, "")), self._array(_file(shard, ".offsets"))
            marks += offsets.size
            if array.shape != (shard["tokens"],) or array.dtype != dtype:
                found = f"{array.size:,} numbers of type {array.dtype}"
                expected = f"{shard['tokens']:,} of type {dtype}"
                raise DataError(problem(self.folder / _file(shard, ""), found, expected, AGAIN))
        if marks != about["documents"] + 1 or sum(shard["tokens"] for shard in about["shards"]) != about["tokens"]:
            found = f"{marks:,} document offsets in {split!r}"
            raise DataError(problem(self.folder, found, f"{about['documents'] + 1:,}", AGAIN))


def _file(shard: dict[str, Any], kind: str) -> str:
    """The name of a shard's file of tokens (kind "") or of offsets (kind ".offsets")."""
    names: list[str] = list(shard["files"])
    return next(name for name in names if (".offsets" in name) == bool(kind))


def _checked_description(content: object, path: Path) -> dict[str, Any]:
    if isinstance(content, dict) and content.get("version", VERSION) != VERSION:
        found = f"version {json.dumps(content['version'])}"
        raise DataError(problem(path, found, f"version {VERSION}", AGAIN))
    fields = {"version": int, "tokenizer": str, "vocab_size": int, "dtype": str, "splits": dict}
    for name, kind in fields.items():
        if not isinstance(content, dict) or not isinstance(content.get(name), kind):
            raise DataError(problem(path, f"no valid {name!r}", "a description of shards", f"It is damaged. {AGAIN}"))
    content = cast("dict[str, Any]", content)
    for split, about in content["splits"].items():
        if not _is_description(about):
            found = f"a broken description of {split!r}"
            raise DataError(problem(path, found, "tokens, bytes, documents, shards", f"It is damaged. {AGAIN}"))
    if content["dtype"] not in ("uint8", "uint16", "uint32"):
        raise DataError(problem(path, f"the type {content['dtype']!r}", "uint8, uint16 or uint32", AGAIN))
    return content


def _is_description(about: Any) -> bool:
    """Whether this says of a split what is needed, and names two plain files for each of its shards."""
    numbers = ("tokens", "bytes", "documents")
    if not isinstance(about, dict) or not all(isinstance(about.get(name), int) for name in numbers):
        return False
    shards = about.get("shards")
    if not isinstance(shards, list) or not shards:
        return False
    for shard in shards:
        files = shard.get("files") if isinstance(shard, dict) else None
        if not isinstance(files, dict) or not isinstance(shard.get("tokens"), int):
            return False
        if sorted(".offsets" in name for name in files) != [False, True] or any(Path(n).name != n for n in files):
            return False
    return True
