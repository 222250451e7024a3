"""Reads what people bring: text, Markdown and JSON Lines files, folders and globs of them, Project Gutenberg's books.

What cannot be read is an error that names the file, the line, and the way out; nothing is guessed or lost in silence.
"""

from __future__ import annotations

import glob
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import regex

from pellucid.runtime import DataError, inform, problem
from pellucid.text.tokenizer import END_OF_TEXT

SPLITS = ("train", "val", "test")
SUFFIXES = (".txt", ".md", ".jsonl")
UNREAD_SUFFIXES = (".csv", ".tsv", ".json", ".parquet", ".gz", ".zst", ".zip", ".xz", ".bz2")
GUTENBERG_START = regex.compile(
    r"^\*\*\* ?START OF TH(?:E|IS) PROJECT GUTENBERG EBOOK.*?\*\*\*[^\n]*\n", regex.M | regex.S
)
GUTENBERG_END = regex.compile(r"^\*\*\* ?END OF TH(?:E|IS) PROJECT GUTENBERG EBOOK", regex.M)
GUTENBERG_HEADER_LIMIT = 20_000  # characters within which the start line of a book is looked for


@dataclass(frozen=True)
class Document:
    """One text that belongs together, where it came from, and what its maker says about it."""

    text: str
    source: str
    split: str | None = None  # train, val or test, where the file says so
    nats: float | None = None  # the text's own information, where its generator knows it


def read_documents(paths: Sequence[Path | str], strip_gutenberg: bool | Literal["auto"] = "auto") -> list[Document]:
    """All documents of the given files, folders (recursively, sorted) and globs.

    A txt or md file is one document (several where lines hold nothing but <|endoftext|>); each line of a jsonl file is
    one, with `text` and perhaps `split` and `nats`. Gutenberg's header and footer are cut off where they are found;
    True wants them to be there, False leaves them. Raises DataError (P7); an empty file among others is a message.
    """
    files = list(_files(paths))
    documents: list[Document] = []
    empty: list[Path] = []
    for file in files:
        found = list(_read_file(file, strip_gutenberg))
        documents.extend(found)
        if not found:
            empty.append(file)
    if not documents:
        where = ", ".join(map(str, files[:3])) + (f" and {len(files) - 3} more" if len(files) > 3 else "")
        raise DataError(problem(where, "no text (all is empty)", "some text", "Check that the right files were given."))
    for file in empty[:5]:
        inform(f"{file}: empty, skipped.")
    if len(empty) > 5:
        inform(f"... and {len(empty) - 5:,} more empty files, skipped.")
    return documents


def _files(paths: Sequence[Path | str]) -> Iterator[Path]:
    """Each file once, in the order given, folders and globs sorted."""
    if not paths:
        raise DataError(
            problem("text", "no file", "at least one", "Name files, folders or patterns such as 'books/*.txt'.")
        )
    seen: set[Path] = set()
    for path in map(Path, paths):
        for file in _expand(path):
            if file.resolve() not in seen:
                seen.add(file.resolve())
                yield file


def _expand(path: Path) -> list[Path]:
    if path.is_dir():
        inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
        inside = [p for p in inside if not any(part.startswith(".") for part in p.relative_to(path).parts)]
        if not inside:
            expected = "files that end in " + ", ".join(SUFFIXES)
            raise DataError(problem(path, "a folder without text", expected, "Name the files themselves."))
        return inside
    if path.exists():
        if path.suffix.lower() in UNREAD_SUFFIXES:
            advice = "Unpack or convert it: one JSON object with a text a line."
            raise DataError(problem(path, f"a {path.suffix} file", "txt, md or jsonl", advice))
        return [path]
    if any(sign in str(path) for sign in "*?["):
        matches = sorted(Path(name) for name in _glob(str(path)) if Path(name).is_file())
        if matches:
            return matches
        raise DataError(problem(path, "no file of that pattern", "at least one", "Check the pattern and the folder."))
    raise DataError(problem(path, "no such file", "a file or folder", "Check the path."))


def _glob(pattern: str) -> list[str]:
    return glob.glob(pattern, recursive=True)  # noqa: PTH207 - Path.glob takes no absolute pattern


# ---------------------------------------------------------------- one file


def _read_file(path: Path, strip_gutenberg: bool | Literal["auto"]) -> Iterator[Document]:
    text = read_text(path)
    if path.suffix.lower() == ".jsonl":
        yield from _read_jsonl(path, text)
        return
    if strip_gutenberg:
        stripped = without_gutenberg_frame(text)
        if strip_gutenberg is True and stripped == text:
            expected = "a line *** START OF THE PROJECT GUTENBERG EBOOK ... ***"
            raise DataError(problem(path, "no Gutenberg header", expected, "Leave strip_gutenberg on auto."))
        text = stripped
    parts = regex.split(rf"^{regex.escape(END_OF_TEXT)}[ \t]*$\n?", text, flags=regex.M)
    for part in parts:
        if part.strip():
            yield Document(part, str(path))


def read_text(path: Path) -> str:
    """A file's text: UTF-8, with or without a byte order mark, line ends as \\n. DataError says what else it is."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot read: {error.strerror}. Check the path and its permissions.") from error
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        advice = f"Convert it: iconv -f utf-16 -t utf-8 '{path}' > new.txt"
        raise DataError(problem(path, "UTF-16", "UTF-8", advice))
    if (at := content.find(b"\0")) >= 0:
        found = f"binary content (a NUL byte at byte {at:,})"
        raise DataError(problem(path, found, "text in UTF-8", "Give text files only."))
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        found = f"the byte {content[error.start]:#04x} at byte {error.start:,}, which is not UTF-8"
        advice = f"If it is Latin-1, convert it: iconv -f latin1 -t utf-8 '{path}' > new.txt"
        raise DataError(problem(f"{path}, line {line}", found, "text in UTF-8", advice)) from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def without_gutenberg_frame(text: str) -> str:
    """A book without what Project Gutenberg put before and after it; the text itself where there is no such frame."""
    start = GUTENBERG_START.search(text, 0, GUTENBERG_HEADER_LIMIT)
    if start is None:
        return text
    end = GUTENBERG_END.search(text, start.end())
    return text[start.end() : end.start() if end else len(text)].strip("\n") + "\n"


def _read_jsonl(path: Path, text: str) -> Iterator[Document]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        document = _parse_line(line, path, number)
        if document.text.strip():
            yield document


def _parse_line(line: str, path: Path, number: int) -> Document:
    where = f"{path}, line {number}"
    try:
        row = json.loads(line)
    except (json.JSONDecodeError, RecursionError) as error:
        advice = "Mend or remove the line."
        raise DataError(problem(where, f"broken JSON ({error})", "one JSON object a line", advice)) from error
    text = row.get("text") if isinstance(row, dict) else None
    if not isinstance(text, str):
        keys = f"the keys {', '.join(row) or 'none'}" if isinstance(row, dict) else f"a JSON {type(row).__name__}"
        if isinstance(row, dict) and "text" in row:
            keys = f'a "text" that is {text!r}'
        raise DataError(problem(where, keys, 'an object with "text": "..."', "Rename the field that holds the text."))
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        advice = "Half of a character is missing; write the file anew as UTF-8."
        raise DataError(
            problem(where, f"a lone surrogate at character {error.start}", "Unicode text", advice)
        ) from error
    split, nats = row.get("split"), row.get("nats")
    if split is not None and split not in SPLITS:
        raise DataError(problem(where, f"the split {split!r}", " or ".join(SPLITS), "Rename it, or leave it out."))
    is_number = isinstance(nats, int | float) and not isinstance(nats, bool) and math.isfinite(nats) and nats >= 0
    if nats is not None and not is_number:
        raise DataError(problem(where, f"nats {nats!r}", "a number, 0 or more", "Correct it, or leave it out."))
    return Document(text, where, split, None if nats is None else float(nats))


def total_bytes(documents: Iterable[Document]) -> int:
    """UTF-8 bytes of all texts together."""
    return sum(len(document.text.encode("utf-8")) for document in documents)
