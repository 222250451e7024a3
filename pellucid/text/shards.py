"""Token shards: each split as one memory-mapped array of token ids, made once and read by any number of runs.

A split's stream is <|endoftext|> document <|endoftext|> document ... <|endoftext|>, so that each document has an
end-of-text before it and after it. `shards.json` says what is in the files, by SHA-256, and which tokenizer made them;
the tokenizer lies beside. Files are plain NumPy (.npy, no pickle), and the folder appears whole or not at all.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Self, cast

import numpy as np
from numpy.typing import NDArray

from pellucid.runtime import DataError, atomic_folder, inform, problem, progress_bar, read_json, sha256, write_json
from pellucid.text.documents import Document
from pellucid.text.tokenizer import Tokenizer

VERSION = 1
GROUP_CHARACTERS = 4_000_000  # documents are encoded in groups of about this size
QUIET_SECONDS = 2.0
AGAIN = "Make the shards anew with `pellucid encode`."


def smallest_dtype(vocab_size: int) -> np.dtype[Any]:
    """The smallest unsigned integer that holds every id."""
    return np.dtype(np.uint8 if vocab_size <= 1 << 8 else np.uint16 if vocab_size <= 1 << 16 else np.uint32)


# ---------------------------------------------------------------- writing


def write_shards(splits: Mapping[str, Iterable[Document]], tokenizer: Tokenizer, out: Path | str) -> Shards:
    """Encode each split into `out`, atomically, and open it. Documents may be an iterator: they are read once.

    Raises DataError where `out` holds something other than shards, which would be lost.
    """
    out = Path(out)
    if out.exists() and not (out / "shards.json").is_file() and (not out.is_dir() or any(out.iterdir())):
        expected = "a new or empty folder, or shards to replace"
        raise DataError(problem(out, "something else there", expected, "Give --out another name."))
    with atomic_folder(out) as folder:
        written = {name: _write_split(name, documents, tokenizer, folder) for name, documents in splits.items()}
        tokenizer.save(folder)
        description = {
            "version": VERSION,
            "tokenizer": tokenizer.fingerprint(),
            "vocab_size": tokenizer.vocab_size,
            "dtype": smallest_dtype(tokenizer.vocab_size).name,
            "splits": written,
        }
        write_json(folder / "shards.json", description)
    return Shards.open(out, verify=False)


def _write_split(name: str, documents: Iterable[Document], tokenizer: Tokenizer, folder: Path) -> dict[str, Any]:
    dtype = smallest_dtype(tokenizer.vocab_size)
    end = np.array([tokenizer.end_of_text], dtype=dtype)
    offsets, total, text_bytes, unknown = [0], 1, 0, 0
    nats: float | None = 0.0
    tokens_file, offsets_file = folder / f"{name}.npy", folder / f"{name}.offsets.npy"
    began = time.monotonic()
    with tokens_file.open("wb") as file, progress_bar() as bar:
        task = bar.add_task(f"encoding {name}", total=None, note="", visible=False)
        _write_header(file, dtype, 0)
        file.write(end.tobytes())
        for group in _groups(documents):
            for document, ids in zip(group, tokenizer.encode_arrays([d.text for d in group]), strict=True):
                file.write(ids.astype(dtype).tobytes())
                file.write(end.tobytes())
                offsets.append(total + len(ids))
                total += len(ids) + 1
                text_bytes += len(document.text.encode("utf-8"))
                nats = nats + document.nats if nats is not None and document.nats is not None else None
                if tokenizer.unknown_id is not None:
                    unknown += int((ids == tokenizer.unknown_id).sum())
            late = time.monotonic() - began > QUIET_SECONDS
            bar.update(task, completed=len(offsets) - 1, visible=late, note=f"documents, {total:,} tokens")
        file.seek(0)
        _write_header(file, dtype, total)
    np.save(offsets_file, np.array(offsets, dtype=np.int64), allow_pickle=False)
    if unknown:
        inform(f"{name}: {unknown:,} of {total:,} tokens are not in the {tokenizer.kind} vocabulary (unknown).")
    return {
        "tokens": total,
        "bytes": text_bytes,
        "documents": len(offsets) - 1,
        "nats": nats if len(offsets) > 1 else None,
        "files": {path.name: sha256(path) for path in (tokens_file, offsets_file)},
    }


def _groups(documents: Iterable[Document]) -> Iterator[list[Document]]:
    group: list[Document] = []
    size = 0
    for document in documents:
        group.append(document)
        size += len(document.text)
        if size >= GROUP_CHARACTERS:
            yield group
            group, size = [], 0
    if group:
        yield group


def _write_header(file: BinaryIO, dtype: np.dtype[Any], count: int) -> None:
    """NumPy's header; NumPy pads it so that a later, larger count fits into the same place."""
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (count,)}
    np.lib.format.write_array_header_1_0(file, header)


# ---------------------------------------------------------------- reading


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
        return self._array(f"{self._named(split)}.npy")

    def offsets(self, split: str) -> NDArray[np.int64]:
        """Positions of the end-of-text tokens: before each document and after the last (documents + 1 of them)."""
        return cast("NDArray[np.int64]", self._array(f"{self._named(split)}.offsets.npy"))

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
        return {f"{split}.npy": str(self._of(split)["files"][f"{split}.npy"]) for split in self.splits}

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

    def verify(self) -> None:
        """Compare each file with its SHA-256. Raises DataError for the first that differs."""
        for split in self.splits:
            for name, expected in self._of(split)["files"].items():
                found = sha256(self.folder / name)
                if found != expected:
                    what = f"changed content (SHA-256 {found[:12]}…)"
                    raise DataError(problem(self.folder / name, what, f"{expected[:12]}…", f"It is damaged. {AGAIN}"))

    def _named(self, split: str) -> str:
        self._of(split)
        return split

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
        about = self._of(split)
        for array, name, dtype, count in (
            (self.tokens(split), f"{split}.npy", self.description["dtype"], about["tokens"]),
            (self.offsets(split), f"{split}.offsets.npy", "int64", about["documents"] + 1),
        ):
            if array.shape != (count,) or array.dtype != np.dtype(dtype):
                found = f"{array.size:,} numbers of type {array.dtype}"
                raise DataError(problem(self.folder / name, found, f"{count:,} of type {dtype}", AGAIN))


def _checked_description(content: object, path: Path) -> dict[str, Any]:
    fields = {"version": int, "tokenizer": str, "vocab_size": int, "dtype": str, "splits": dict}
    if isinstance(content, dict) and content.get("version", VERSION) != VERSION:
        found = f"version {json.dumps(content['version'])}"
        raise DataError(problem(path, found, f"version {VERSION}", AGAIN))
    for name, kind in fields.items():
        if not isinstance(content, dict) or not isinstance(content.get(name), kind):
            raise DataError(problem(path, f"no valid {name!r}", "a description of shards", f"It is damaged. {AGAIN}"))
    content = cast("dict[str, Any]", content)
    numbers = {"tokens": int, "bytes": int, "documents": int, "files": dict}
    for split, about in content["splits"].items():
        valid = isinstance(about, dict) and all(isinstance(about.get(name), kind) for name, kind in numbers.items())
        if not valid or set(about["files"]) != {f"{split}.npy", f"{split}.offsets.npy"}:
            found = f"a broken description of {split!r}"
            raise DataError(problem(path, found, "tokens, bytes, documents, files", f"It is damaged. {AGAIN}"))
    if content["dtype"] not in ("uint8", "uint16", "uint32"):
        raise DataError(problem(path, f"the type {content['dtype']!r}", "uint8, uint16 or uint32", AGAIN))
    return content
