"""Documents out of what people bring: text, Markdown, JSON, tables and parquet, packed or not, as a stream.

What cannot be read is an error that names the file, the line, and the way out; nothing is guessed or lost in silence.
`sources.py` finds the files and divides them into units, `readers.py` reads each format; here they become documents.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pellucid.runtime import DataError, problem, shown
from pellucid.text.content import OnBad, Slice, Source, decoded, extra, stop, with_newlines
from pellucid.text.readers import read_records, read_text_parts
from pellucid.text.sources import TEXT_FIELDS, UNIT_BYTES, Strip, Unit, find_sources, plan_units, tell_empty

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Document:
    """One text that belongs together, where it came from, and what its maker says about it."""

    text: str
    source: str
    split: str | None = None  # train, val or test, where the file says so
    nats: float | None = None  # the text's own information, where its generator knows it
    continues: bool = False  # goes on from the document before it: a long text comes in parts


def read_documents(paths: Sequence[Path | str], strip_gutenberg: Strip = "auto") -> list[Document]:
    """All documents of the given files, folders (recursively, sorted) and patterns, in memory and each in one piece.

    A txt or md file is one document (several where lines hold nothing but <|endoftext|>); each record of another
    format is one, with its text and perhaps `split` and `nats`. Gutenberg's header and footer are cut off where they
    are found; True wants them to be there, False leaves them. Raises DataError (P7); an empty file among others is a
    message.
    """
    documents: list[list[Document]] = []
    for document in stream_documents(paths, strip_gutenberg):
        if document.continues:
            documents[-1].append(document)
        else:
            documents.append([document])
    return [
        parts[0] if len(parts) == 1 else replace(parts[0], text="".join(part.text for part in parts))
        for parts in documents
    ]


def stream_documents(
    paths: Sequence[Path | str],
    strip_gutenberg: Strip = "auto",
    text_field: str | None = None,
    unit_bytes: int = UNIT_BYTES,
) -> Iterator[Document]:
    """The same documents one after the other, in memory that does not grow with the text; long texts come in parts."""
    sources = find_sources(paths, strip_gutenberg, text_field=text_field)
    empty = {str(source): None for source in sources}
    for unit in plan_units(sources, unit_bytes):
        for part in unit.slices:
            for document in read_slice(part):
                empty.pop(str(part.source), None)
                yield document
    tell_empty(list(empty), all_of_them=len(empty) == len(sources))


def read_unit(unit: Unit) -> Iterator[Document]:
    """The documents of a unit, in order. The first one may continue the last one of the unit before."""
    for part in unit.slices:
        yield from read_slice(part)


def read_slice(part: Slice, on_bad: OnBad = stop) -> Iterator[Document]:
    """The documents of one slice; what is bad goes to `on_bad`, which raises it unless told otherwise."""
    if part.source.format == "text":
        for text, continues in read_text_parts(part, on_bad):
            yield Document(text, str(part.source), continues=continues)
        return
    for place, record in read_records(part, on_bad):
        try:
            document = to_document(record, part.source, place)
        except DataError as error:
            on_bad(error)
            continue
        if document.text and not document.text.isspace():
            yield document


def to_document(record: Any, source: Source, place: str) -> Document:
    """A record as a document. DataError where it has no text, half a character, or an unknown split."""
    field = source.text_field or "text"
    text = record.get(field) if isinstance(record, dict) else None
    if not isinstance(text, str):
        expected, advice = f'an object with "{field}": "..."', "Rename the field that holds the text."
        found = f"the keys {', '.join(record) or 'none'}" if isinstance(record, dict) else f"a JSON {_kind(record)}"
        if isinstance(record, dict) and field in record:
            found, advice = f'a "{field}" that is {shown(text)}', "Put it in quotation marks, or remove the record."
        raise _bad(source, place, found, expected, advice)
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            advice = "Half of a character is missing; write the file anew as UTF-8."
            raise _bad(source, place, f"a lone surrogate at character {error.start}", "Unicode text", advice) from error
    split, nats = record.get("split") or None, record.get("nats")
    if split is not None and split not in SPLITS:
        raise _bad(source, place, f"the split {split!r}", " or ".join(SPLITS), "Rename it, or leave it out.")
    if source.format in ("csv", "tsv"):
        nats = None  # a table says no numbers, only texts
    is_number = isinstance(nats, int | float) and not isinstance(nats, bool) and math.isfinite(nats) and nats >= 0
    if nats is not None and not is_number:
        raise _bad(source, place, f"nats {nats!r}", "a number, 0 or more", "Correct it, or leave it out.")
    return Document(with_newlines(text), f"{source}, {place}", split, None if nats is None else float(nats))


def _bad(source: Source, place: str, found: str, expected: str, advice: str) -> DataError:
    return DataError(problem(source.where(place), found, expected, advice))


def _kind(value: Any) -> str:
    return type(value).__name__


def from_hugging_face(name: str, split: str = "train", text_field: str | None = None) -> Iterator[Document]:
    """The texts of a data set that `datasets` knows, a folder or a name on the hub, streamed. No code of it is run."""
    datasets = extra("datasets", "Hugging Face data sets")
    try:
        rows = datasets.load_dataset(name, split=split, streaming=True)
    except (OSError, ValueError) as error:
        found = f"no data set that can be opened ({error})"
        raise DataError(problem(name, found, f"one with the split {split!r}", "Check its name and split.")) from error
    source = Source(Path(name), "jsonl", 0, text_field=text_field)
    for number, row in enumerate(rows, 1):
        if source.text_field is None:
            known = [field for field in TEXT_FIELDS if field in row]
            if not known:
                found, expected = f"the columns {', '.join(row)}", "one with a text of a known name"
                raise _bad(source, f"row {number}", found, expected, "Give text_field.")
            source = replace(source, text_field=known[0])
        document = to_document({source.text_field: row.get(source.text_field)}, source, f"row {number}")
        if document.text.strip():
            yield document


def read_text(path: Path) -> str:
    """A file's text: UTF-8, with or without a byte order mark, line ends as \\n. DataError says what else it is."""
    source = Source(path, "text", 0)
    return with_newlines(decoded(b"".join(source.content()), source, 0)).removeprefix("\ufeff")


def total_bytes(documents: Iterable[Document]) -> int:
    """UTF-8 bytes of all texts together."""
    return sum(len(document.text.encode("utf-8")) for document in documents)
