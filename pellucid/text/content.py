"""The files that text comes from: what is known of each, and its bytes, unpacked and decoded in blocks.

What cannot be read goes to `on_bad` as an error that names the line: `stop` raises it, `pellucid doctor` notes it and
reads on.
"""

from __future__ import annotations

import gzip
import importlib
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal, NoReturn

from pellucid.runtime import DataError, PellucidError, problem

Format = Literal["text", "jsonl", "json", "csv", "tsv", "parquet"]
OnBad = Callable[[DataError], None]
BLOCK_BYTES = 1 << 20
FOREVER = 1 << 62
DIVISIBLE = ("text", "jsonl", "parquet")


class NotUTF8Error(DataError):
    """Bytes of a file that are no text in UTF-8."""


@dataclass(frozen=True)
class Source:
    """A file, what was found about it by looking, and which of its bytes are text."""

    path: Path
    format: Format
    size: int  # bytes on disk
    compression: Literal["gz", "zst"] | None = None
    text_field: str | None = None
    start: int = 0  # behind a byte order mark and Gutenberg's header
    end: int = FOREVER  # before Gutenberg's footer; both count unpacked bytes
    columns: tuple[str, ...] = ()  # of a table whose first line does not name them
    name: str = ""

    def __str__(self) -> str:
        return self.name or str(self.path)

    @property
    def divisible(self) -> bool:
        """Whether reading can begin in the middle."""
        return self.format in DIVISIBLE and self.compression is None

    def content(self, start: int = 0, end: int = FOREVER) -> Iterator[bytes]:
        """The unpacked bytes from start to end in blocks. DataError for a file that cannot be opened or unpacked."""
        position = 0
        try:
            with self.path.open("rb") as file:
                if self.compression is None:
                    position = file.seek(start)
                for block in _UNPACK[self.compression](file):
                    if piece := block[max(0, start - position) : max(0, end - position)]:
                        yield piece
                    position += len(block)
                    if position >= end:
                        return
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            found = f"a damaged {self.compression} file ({error})"
            expected = f"a whole one (it breaks off or is broken after {position:,} unpacked bytes)"
            raise DataError(problem(str(self), found, expected, "Fetch or pack it anew.")) from error
        except OSError as error:
            raise DataError(
                f"{self}: cannot read: {error.strerror or error}. Check the path and its permissions."
            ) from error

    def line_at(self, offset: int) -> int:
        """The number of the line in which the byte at `offset` is; counted anew each time, for error messages."""
        return 1 + sum(block.count(b"\n") for block in self.content(0, offset)) if offset > 3 else 1

    def where(self, place: str) -> str:
        """A record's place for a message: the bytes that stand for a line in the midst of a file become its number."""
        offset = place.removeprefix("byte ")
        return f"{self}, {place if offset == place else f'line {self.line_at(int(offset))}'}"


@dataclass(frozen=True)
class Slice:
    """The part of a source that begins in [start, end): texts up to a safe cut, whole lines, or groups of rows."""

    source: Source
    start: int
    end: int


def whole(source: Source) -> Slice:
    """All of a source as one slice."""
    return Slice(source, source.start, source.end)


def stop(error: DataError) -> NoReturn:
    """What is bad ends the reading."""
    raise error


def extra(module: str, purpose: str, group: str = "data") -> Any:
    """Import what only some need; a PellucidError says how to install it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        found, advice = f"no package {package}", f"Install it: pip install 'pellucid[{group}]'"
        expected = f"{package}, which reads them" if group == "data" else package
        raise PellucidError(problem(purpose, found, expected, advice)) from error


# ---------------------------------------------------------------- bytes


def _plain(file: BinaryIO) -> Iterator[bytes]:
    return iter(lambda: file.read(BLOCK_BYTES), b"")


def _gz(file: BinaryIO) -> Iterator[bytes]:
    with gzip.GzipFile(fileobj=file) as unpacked:
        yield from iter(lambda: unpacked.read(BLOCK_BYTES), b"")


def _zst(file: BinaryIO) -> Iterator[bytes]:
    """Frame after frame; unlike zstandard's own stream reader it notices a frame that breaks off."""
    zstandard = extra("zstandard", "zst files")
    unpacker = zstandard.ZstdDecompressor(max_window_size=1 << 31)
    frame = None
    try:
        while packed := file.read(1 << 15):
            while packed:
                frame = frame or unpacker.decompressobj()
                yield frame.decompress(packed)
                packed = frame.unused_data if frame.eof else b""
                frame = None if frame.eof else frame
    except zstandard.ZstdError as error:
        raise EOFError(str(error)) from error
    if frame is not None:
        raise EOFError("the last frame breaks off")


_UNPACK: dict[str | None, Callable[[BinaryIO], Iterator[bytes]]] = {None: _plain, "gz": _gz, "zst": _zst}


def decoded(content: bytes, source: Source, offset: int, on_bad: OnBad = stop, line: int | None = None) -> str:
    """The text of `content`, which begins at `offset` of the source (in `line`, where that is known).

    Each line that is not UTF-8 or has a NUL byte goes to `on_bad`; where that returns, signs stand for the bad bytes.
    """
    if offset == 0 and content.startswith((b"\xff\xfe", b"\xfe\xff")):
        advice = f"Convert it: iconv -f utf-16 -t utf-8 '{source}' > new.txt"
        raise NotUTF8Error(problem(str(source), "UTF-16", "UTF-8", advice))
    try:
        text = content.decode()
        if "\0" not in text:
            return text
    except UnicodeDecodeError:
        pass
    line = line or source.line_at(offset)
    for number, part in enumerate(content.split(b"\n"), line):
        if (at := part.find(b"\0")) >= 0:
            found, expected, advice = (
                f"binary content (a NUL byte at byte {offset + at:,})",
                "text in UTF-8",
                "Give text.",
            )
            on_bad(NotUTF8Error(problem(f"{source}, line {number}", found, expected, advice)))
        else:
            try:
                part.decode()
            except UnicodeDecodeError as error:
                found = f"the byte {part[error.start]:#04x} at byte {offset + error.start:,}, which is not UTF-8"
                advice = f"If it is Latin-1, convert it: iconv -f latin1 -t utf-8 '{source}' > new.txt"
                on_bad(NotUTF8Error(problem(f"{source}, line {number}", found, "text in UTF-8", advice)))
        offset += len(part) + 1
    return content.decode(errors="replace").replace("\0", "\ufffd")


def with_newlines(text: str) -> str:
    """`text` with \\n as its only line end."""
    if "\r" not in text:
        return text
    if text.count("\r") == text.count("\r\n"):  # as is usual; several times as fast as replacing pairs
        return text.replace("\r", "")
    return text.replace("\r\n", "\n").replace("\r", "\n")
