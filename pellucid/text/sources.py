"""Which files text comes from: they are found, looked at, described, and divided into units of work.

The format is found by looking: first the magic bytes, then the name, then the first line.
"""

from __future__ import annotations

import atexit
import glob
import os
import re
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from pellucid.runtime import DataError, inform, problem, sha256
from pellucid.text.content import Format, NotUTF8Error, OnBad, Slice, Source, whole
from pellucid.text.readers import open_parquet, read_records

Strip = bool | Literal["auto"]
SUFFIXES: dict[str, Format] = {
    ".txt": "text",
    ".md": "text",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".json": "json",
}
PACKED = (".gz", ".zst")
UNREAD_SUFFIXES = (".zip", ".xz", ".bz2", ".tar", ".tgz", ".7z")
TEXT_FIELDS = ("text", "content", "body", "document", "message", "story", "sentence", "article", "review", "sms", "v2")
UNIT_BYTES = 32 << 20

GUTENBERG_START = re.compile(
    rb"(?:\A|[\r\n])\*\*\* ?START OF TH(?:E|IS) PROJECT GUTENBERG EBOOK.*?\*\*\*[^\r\n]*[\r\n]+", re.S
)
GUTENBERG_END = re.compile(rb"(\r\n|[\r\n])[\r\n]*\*\*\* ?END OF TH(?:E|IS) PROJECT GUTENBERG EBOOK")
GUTENBERG_HEADER_LIMIT = 20_000  # bytes from the beginning within which the start line of a book is looked for
GUTENBERG_FOOTER_LIMIT = 1 << 16  # bytes before the end within which its end line is looked for


def find_sources(
    paths: Sequence[Path | str],
    strip_gutenberg: Strip = "auto",
    text_field: str | None = None,
    spool: Path | None = None,
) -> list[Source]:
    """The files, folders (recursively, sorted), patterns and `-` (standard input, kept in `spool`), each file once.

    Gutenberg's header and footer are left out where they are found; True wants them to be there, False leaves them.
    Raises DataError for what is missing or has no text field; an empty file among others is a message.
    """
    sources = [look(file, strip_gutenberg, text_field, name) for file, name in find_files(paths, spool)]
    full = [source for source in sources if source.size]
    tell_empty([str(source) for source in sources if not source.size], all_of_them=not full)
    for source in full:
        require_text_field(source, text_field)
    return full


def require_text_field(source: Source, wanted: str | None = None) -> None:
    """DataError that lists the fields of a source where none of them is known to hold the text."""
    if source.format == "text" or source.text_field or not (names := fields(source)):
        return
    fields(source, stop_unless_utf8)  # a name of other bytes could not be given
    expected = repr(wanted) if wanted else f"one of a known name ({', '.join(TEXT_FIELDS[:6])}, ...)"
    place = source.where("line 1") if source.format in ("csv", "tsv") else str(source)
    found = f"the fields {', '.join(names)[:300]}"
    advice = "Call the one that holds the text so; `encode` and `tokenizer train` take another name: --text-field NAME."
    raise DataError(problem(place, found, expected, advice))


def stop_unless_utf8(error: DataError) -> None:
    """What is no text ends the reading; other faults don't."""
    if isinstance(error, NotUTF8Error):
        raise error


def tell_empty(names: Sequence[str], all_of_them: bool) -> None:
    """Say which files are empty; DataError where all of them are."""
    if all_of_them:
        where = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        raise DataError(problem(where, "no text (all is empty)", "some text", "Check that the right files were given."))
    for name in names[:5]:
        inform(f"{name}: empty, skipped.")
    if len(names) > 5:
        inform(f"... and {len(names) - 5:,} more empty files, skipped.")


def describe(sources: Sequence[Source]) -> str:
    """What was found, in a line or two."""
    kinds = Counter(kind(source) for source in sources)
    size = sum(source.size for source in sources)
    amount = f"{size / 1e6:,.1f} MB" if size >= 1e5 else f"{size:,} bytes"
    files = f"{len(sources):,} file" + ("s" if len(sources) > 1 else "")
    said = f"{files}: {', '.join(f'{count:,} {name}' for name, count in kinds.most_common())}, {amount}"
    names = sorted({repr(source.text_field) for source in sources if source.text_field})
    if names:
        said += f"; text is in the {'column' if len(names) == 1 else 'columns'} {', '.join(names)}"
    if guessed := next((source.columns for source in sources if source.columns), None):
        said += f"; the first line names no columns: taken for {', '.join(guessed)}"
    if books := sum(source.start > 3 for source in sources):
        said += f"\n{books:,} without the header and footer of Project Gutenberg"
    return said


def kind(source: Source) -> str:
    """Format and compression, as in "jsonl (gz)"."""
    return source.format + (f" ({source.compression})" if source.compression else "")


# ---------------------------------------------------------------- finding


def find_files(paths: Sequence[Path | str], spool: Path | None = None) -> Iterator[tuple[Path, str]]:
    """Each file once with the name to show, in the order given, folders and patterns sorted."""
    if not paths:
        advice = "Name files, folders or patterns such as 'books/*.txt'."
        raise DataError(problem("text", "no file", "at least one", advice))
    seen: set[Path] = set()
    for path in map(Path, paths):
        if str(path) == "-":
            yield _keep_standard_input(spool), "standard input"
            continue
        for file in _expand(path):
            if file.resolve() not in seen:
                seen.add(file.resolve())
                yield file, str(file)


def _keep_standard_input(spool: Path | None) -> Path:
    """Standard input as a file, since it is read more than once; without `spool` it goes when the program ends."""
    folder = Path(tempfile.gettempdir()) if spool is None else spool
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix="pellucid-", delete=False) as file:
            path = Path(file.name)
            atexit.register(path.unlink, missing_ok=True)
            if hasattr(sys.stdin, "buffer"):
                shutil.copyfileobj(sys.stdin.buffer, file)
            else:
                file.write(sys.stdin.read().encode())
        return path if spool is None else named_by_content(path)
    except OSError as error:
        where = "let TMPDIR name" if spool is None else "give --out"
        advice = f"Free some space there, or {where} another disk."
        raise DataError(f"{folder}: cannot keep standard input there: {error.strerror or error}. {advice}") from error


def named_by_content(path: Path) -> Path:
    """The file under a name that its content gives, and without a time: the same input again is the same file."""
    new = path.with_name(sha256(path)[:16] + path.suffix)
    path.replace(new)
    os.utime(new, (0, 0))
    return new


def _expand(path: Path) -> list[Path]:
    if path.is_dir():
        inside = sorted(file for file in path.rglob("*") if _is_text(file))
        inside = [file for file in inside if not any(part.startswith(".") for part in file.relative_to(path).parts)]
        if not inside:
            expected = "files that end in " + ", ".join(list(SUFFIXES)[:-1]) + " (or these with .gz, .zst)"
            raise DataError(problem(path, "a folder without text", expected, "Name the files themselves."))
        return inside
    if path.exists():
        return [path]
    if any(sign in str(path) for sign in "*?["):
        matches = sorted(Path(name) for name in glob.glob(str(path), recursive=True))  # noqa: PTH207 - absolute too
        if matches := [match for match in matches if match.is_file()]:
            return matches
        raise DataError(problem(path, "no file of that pattern", "at least one", "Check the pattern and the folder."))
    raise DataError(problem(path, "no such file", "a file or folder", "Check the path."))


def _is_text(file: Path) -> bool:
    """Whether a file in a folder is meant: json is not, since so many are settings; it can be named itself."""
    return SUFFIXES.get(_suffix(file), "json") != "json" and file.is_file()


def _suffix(path: Path) -> str:
    """The suffix in lower case; before .gz or .zst, where there is one of these."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    return next((suffix for suffix in reversed(suffixes) if suffix not in PACKED), "")


# ---------------------------------------------------------------- looking


def look(
    path: Path,
    strip_gutenberg: Strip = "auto",
    text_field: str | None = None,
    name: str = "",
) -> Source:
    """What a file is, from its first bytes, its name and its first line; the text field is None where none is known."""
    if path.suffix.lower() in UNREAD_SUFFIXES:
        expected = ", ".join([*SUFFIXES, *PACKED])
        raise DataError(problem(path, f"a {path.suffix} file", expected, "Unpack it first."))
    name = name or str(path)
    packed = Source(path, "text", 0, name=name)
    magic = next(packed.content(end=4), b"")
    size = path.stat().st_size
    compression: Literal["gz", "zst"] | None = None
    if magic.startswith(b"\x1f\x8b"):
        compression = "gz"
    elif magic == b"\x28\xb5\x2f\xfd":
        compression = "zst"
    source = replace(packed, size=size, compression=compression)
    head = next(source.content(), b"")
    found = _format(path, head)
    start = 3 if head.startswith(b"\xef\xbb\xbf") else 0
    end = source.end if compression else size
    source = replace(source, format=found, start=start, end=end)
    if found == "text":
        return _without_gutenberg_frame(source, head, strip_gutenberg) if strip_gutenberg else source
    if compression and found == "parquet":
        raise DataError(problem(name, f"a parquet file in {compression}", "parquet itself", "Unpack it first."))
    names = fields(source) if size else []
    lower = {known.lower(): known for known in reversed(names)}
    wanted = text_field if text_field in names or not names else None
    if text_field is None:
        wanted = next((lower[known] for known in TEXT_FIELDS if known in lower), None)
    return replace(source, text_field=wanted)


def _format(path: Path, head: bytes) -> Format:
    if head.startswith(b"PAR1"):
        return "parquet"
    if known := SUFFIXES.get(_suffix(path)):
        return known
    return "jsonl" if re.match(rb'\s*\{[ \t]*"[^\n]*\}\s*?(\n|$)', head.removeprefix(b"\xef\xbb\xbf")) else "text"


def fields(source: Source, on_bad: OnBad = lambda _: None) -> list[str]:
    """The names of the columns, or of the first record's fields; none where there is no whole record."""
    if source.format == "parquet":
        with open_parquet(source) as file:
            return list(file.schema_arrow.names)
    first = next((record for _, record in read_records(whole(source), on_bad)), None)
    return list(first) if isinstance(first, dict) else []


def _without_gutenberg_frame(source: Source, head: bytes, strip_gutenberg: Strip) -> Source:
    """The source without what Project Gutenberg put before and after a book; itself where there is no such frame."""
    begin = GUTENBERG_START.search(head, source.start, GUTENBERG_HEADER_LIMIT)
    if begin is None:
        if strip_gutenberg is True:
            expected = "a line *** START OF THE PROJECT GUTENBERG EBOOK ... ***"
            raise DataError(problem(str(source), "no Gutenberg header", expected, "Leave strip_gutenberg on auto."))
        return source
    tail, offset = b"", 0 if source.compression else max(0, source.size - GUTENBERG_FOOTER_LIMIT)
    for block in source.content(offset):
        offset += len(block) + len(tail)
        tail = (tail + block)[-GUTENBERG_FOOTER_LIMIT:]
        offset -= len(tail)
    ends = [offset + match.end(1) for match in GUTENBERG_END.finditer(tail)]
    end = ends[-1] if ends and ends[-1] > begin.end() else source.end
    return replace(source, start=begin.end(), end=end)


# ---------------------------------------------------------------- dividing


@dataclass(frozen=True)
class Unit:
    """Slices that are read, and encoded, as one piece of work."""

    slices: tuple[Slice, ...]


def plan_units(sources: Sequence[Source], unit_bytes: int = UNIT_BYTES) -> list[Unit]:
    """The input in units of about `unit_bytes` on disk, in order: small files together, large ones divided.

    What cannot be read from the middle (compressed files, csv, tsv, json) stays whole. The same sources and size
    give the same units.
    """
    units: list[Unit] = []
    current: list[Slice] = []
    filled = 0
    for part in (part for source in sources for part in _slices(source, unit_bytes)):
        size = min(part.end - part.start, part.source.size)
        if current and filled + size > unit_bytes:
            units.append(Unit(tuple(current)))
            current, filled = [], 0
        current.append(part)
        filled += size
    return [*units, Unit(tuple(current))] if current else units


def _slices(source: Source, unit_bytes: int) -> Iterator[Slice]:
    if not source.divisible:
        yield whole(source)
        return
    for start in range(source.start, source.end, unit_bytes):
        yield Slice(source, start, min(start + unit_bytes, source.end))
