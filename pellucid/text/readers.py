"""How each format is read: from any place on where it allows that, and never more of it in memory than a few parts.

A text file becomes texts, cut where no token can span the cut; each other format becomes records, one function a
format in the table READERS.
"""

from __future__ import annotations

import csv
import itertools
import json
import re
from collections.abc import Callable, Iterator
from typing import Any

from pellucid.runtime import DataError, problem
from pellucid.text.content import Format, OnBad, Slice, Source, decoded, extra, stop, with_newlines
from pellucid.text.tokenizer import END_OF_TEXT

PART_CHARACTERS = 1 << 22  # a longer text comes in parts of about this size
JSON_LIMIT = 1 << 26  # bytes of a json file: it can only be read whole
FIELD_LIMIT = 1 << 28  # characters of a csv field
LABEL_FIELDS = ("label", "class", "category", "target", "tag", "sentiment", "v1")

# Where a text may be cut: before a space behind a visible character, as in BPETokenizer.safe_parts; at the end of a
# line behind an ASCII letter or digit, and before a Chinese or Japanese stop, since a piece ends with its last letter.
# Never behind a ">", so that no line of <|endoftext|> falls in two.
SAFE_CUT = (
    rb"[!-=?-~](?= )|[0-9A-Za-z](?=[\r\n])|(?:[\xe5-\xe8][\x80-\xbf]|\xe3\x81)[\x81-\xbf](?=\xe3\x80\x82|\xef\xbc\x8c)"
)
LONGEST_CUT = 6  # bytes that a safe cut looks at
# In a word of megabytes, behind a visible character: a piece may span it, a separator cannot.
WIDE_SPACES = (
    rb"\xe3\x80\x80",
    rb"\xc2[\x85\xa0]",
    rb"\xe1\x9a\x80",
    rb"\xe2\x80[\x80-\x8a\xa8\xa9\xaf]",
    rb"\xe2\x81\x9f",
)
NOT_BEHIND_SPACE = b"".join(b"(?<!" + space + b")" for space in WIDE_SPACES)
FORCED_CUT = rb"[^\s\x1c-\x1f<|endoftx>]" + NOT_BEHIND_SPACE + rb"(?=[^\s<\x80-\xbf])"
_SAFE_CUT, _ANY_CUT = re.compile(SAFE_CUT), re.compile(SAFE_CUT + b"|" + FORCED_CUT)
_SEPARATOR = re.compile(rf"^{re.escape(END_OF_TEXT)}[ \t]*$\n?", re.M)


# ---------------------------------------------------------------- text


def read_text_parts(part: Slice, on_bad: OnBad = stop) -> Iterator[tuple[str, bool]]:
    """The texts of a slice of a text file, and whether each goes on from the one before it, or before the slice."""
    start, end = _cut(part.source, part.start), _cut(part.source, part.end)
    within = start > part.source.start
    for offset, content, more in _parts(part.source, start, end):
        text = with_newlines(decoded(content, part.source, offset, on_bad))
        texts = _SEPARATOR.split(text) if END_OF_TEXT in text else [text]
        last = len(texts) - 1 if more else -1  # the one that may go on
        for number, piece in enumerate(texts):
            if piece and (within or number == last or not piece.isspace()):
                yield piece, within
            within = False
        within = bool(texts[-1])


def _cut(source: Source, position: int) -> int:
    """The place where the source is cut for `position`: never before it, and never further on for an earlier one.

    It is the first safe cut that begins within PART_CHARACTERS, or else the first cut of any kind behind these.
    """
    if position <= source.start or position >= source.end:
        return max(source.start, min(position, source.end))
    buffer = b""
    for block in source.content(position, source.end):
        buffer += block
        found = _SAFE_CUT.search(buffer, 0, PART_CHARACTERS + LONGEST_CUT)
        if found and found.start() < PART_CHARACTERS:
            return position + found.end()
        if len(buffer) >= 2 * PART_CHARACTERS + LONGEST_CUT and (found := _ANY_CUT.search(buffer, PART_CHARACTERS)):
            return position + found.end()
    found = _ANY_CUT.search(buffer, PART_CHARACTERS)
    return position + found.end() if found else source.end


def _parts(source: Source, start: int, end: int) -> Iterator[tuple[int, bytes, bool]]:
    """The bytes from start to end in parts of about PART_CHARACTERS: place, bytes, whether the source goes on."""
    buffer = b""
    for block in source.content(start, end):
        buffer += block
        while len(buffer) > PART_CHARACTERS and (cut := _last_cut(buffer)):
            yield start, buffer[:cut], True
            start += cut
            buffer = buffer[cut:]
    if buffer:
        yield start, buffer, end < source.end


def _last_cut(buffer: bytes) -> int:
    found = (
        _SAFE_CUT.search(buffer, PART_CHARACTERS - PART_CHARACTERS // 64, PART_CHARACTERS)
        or _SAFE_CUT.search(buffer, PART_CHARACTERS // 2, PART_CHARACTERS)
        or _ANY_CUT.search(buffer, PART_CHARACTERS)
    )
    return found.end() if found else 0


# ---------------------------------------------------------------- records


def read_records(part: Slice, on_bad: OnBad = stop) -> Iterator[tuple[str, Any]]:
    """The records of a slice, each with its place: "line 3", "record 3", "row 3", or "byte 300" of a divided file."""
    return READERS[part.source.format](part, on_bad)


def _lines(part: Slice) -> Iterator[tuple[int, bytes]]:
    """The lines that begin in the slice, each with the place of its first byte."""
    within = part.start > part.source.start
    offset = part.start - within  # the byte before says whether a line begins here
    lines = _cut_at_newlines(part.source.content(offset, part.source.end))
    if within:
        offset += len(next(lines, b"")) + 1
    for line in lines:
        if offset >= part.end:
            return
        yield offset, line
        offset += len(line) + 1


def _cut_at_newlines(blocks: Iterator[bytes]) -> Iterator[bytes]:
    begun: list[bytes] = []
    for block in blocks:
        first, *others = block.split(b"\n")
        begun.append(first)
        if others:
            yield b"".join(begun)
            yield from others[:-1]
            begun = [others[-1]]
    yield b"".join(begun)


def _jsonl(part: Slice, on_bad: OnBad) -> Iterator[tuple[str, Any]]:
    source = part.source
    first = part.start == source.start
    for number, (offset, line) in enumerate(_lines(part), 1):
        if not line or line.isspace():
            continue
        place = f"line {number}" if first else f"byte {offset}"
        bad: list[DataError] = []
        text = decoded(line, source, offset, bad.append, number if first else None)
        try:
            record = None if bad else json.loads(text)
        except (ValueError, RecursionError) as error:
            found = problem(
                source.where(place), f"broken JSON ({error})", "one JSON object a line", "Mend or remove it."
            )
            bad.append(DataError(found))
        if bad:
            on_bad(bad[0])
        else:
            yield place, record


def _json(part: Slice, on_bad: OnBad) -> Iterator[tuple[str, Any]]:
    source = part.source
    content = b"".join(source.content(source.start, JSON_LIMIT + 1))
    if len(content) > JSON_LIMIT:
        found, expected = "a json file that is too large to be read at once", f"at most {JSON_LIMIT >> 20} MB"
        raise DataError(problem(str(source), found, expected, "Convert it to jsonl: one object a line."))
    try:
        records = json.loads(decoded(content, source, source.start, on_bad))
    except (ValueError, RecursionError) as error:
        where = f"{source}, line {getattr(error, 'lineno', 1)}"
        on_bad(DataError(problem(where, f"broken JSON ({error})", "a JSON list", "Mend it there.")))
        return
    if not isinstance(records, list):
        found, advice = f"a JSON {type(records).__name__}", "Put the records between [ and ], or one a line (jsonl)."
        on_bad(DataError(problem(str(source), found, "a JSON list of records", advice)))
        return
    for number, record in enumerate(records, 1):
        yield f"record {number}", {"text": record} if isinstance(record, str) else record


def _table(part: Slice, on_bad: OnBad) -> Iterator[tuple[str, Any]]:
    source = part.source
    lines = (
        decoded(line, source, offset, on_bad, number).rstrip("\r") + "\n"
        for number, (offset, line) in enumerate(_lines(part), 1)
    )
    first = next(lines, "")
    delimiter = "\t" if source.format == "tsv" else max(",;\t", key=first.count)
    tabs = delimiter == "\t"  # where a quotation mark is mere text
    csv.field_size_limit(FIELD_LIMIT)
    rows = csv.reader(
        itertools.chain([first], lines),
        delimiter=delimiter,
        quoting=csv.QUOTE_NONE if tabs else csv.QUOTE_MINIMAL,
        strict=True,
    )
    names = list(source.columns)
    while True:
        place = f"line {rows.line_num + 1}"
        try:
            row = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            advice = "Is a quotation mark left open there?"
            on_bad(DataError(problem(f"{source}, {place}", f"a broken row ({error})", "a row of the table", advice)))
            continue
        if not any(cell.strip() for cell in row):
            continue
        if not names:
            names = [cell.strip() for cell in row]
        elif len(row) == len(names):
            yield place, dict(zip(names, row, strict=True))
        else:
            advice = "Mend or remove the line; a field with a line end or a separator needs quotation marks."
            expected = f"{len(names)}, one for each column"
            on_bad(DataError(problem(f"{source}, {place}", f"{len(row)} fields", expected, advice)))


def _parquet(part: Slice, on_bad: OnBad) -> Iterator[tuple[str, Any]]:
    """Rows of the groups whose share of the file's bytes begins in the slice; only the columns that are needed."""
    source = part.source
    with open_parquet(source) as file:
        about = file.metadata
        groups = range(about.num_row_groups)
        mine = [group for group in groups if part.start <= group * source.size // len(groups) < part.end]
        row = sum(about.row_group(group).num_rows for group in range(mine[0])) if mine else 0
        names = file.schema_arrow.names
        wanted = {source.text_field, "split", "nats", *LABEL_FIELDS} if source.text_field else set(names)
        columns = [name for name in names if name in wanted]
        batches = file.iter_batches(batch_size=256, row_groups=mine, columns=columns)
        while (batch := _guarded(source, lambda: next(batches, None))) is not None:
            for record in batch.to_pylist():
                row += 1
                if source.text_field and record[source.text_field] is None:
                    record[source.text_field] = ""
                yield f"row {row}", record


def open_parquet(source: Source) -> Any:
    """The opened parquet file."""
    parquet = extra("pyarrow.parquet", "parquet files")
    return _guarded(source, lambda: parquet.ParquetFile(source.path, page_checksum_verification=True))


def _guarded(source: Source, step: Callable[[], Any]) -> Any:
    try:
        return step()
    except (ValueError, OSError) as error:  # pyarrow's own errors are of these two kinds
        found = f"a damaged parquet file ({str(error).splitlines()[0]})"
        raise DataError(problem(str(source), found, "a whole one", "Fetch or write it anew.")) from error


READERS: dict[Format, Callable[[Slice, OnBad], Iterator[tuple[str, Any]]]] = {
    "jsonl": _jsonl,
    "json": _json,
    "csv": _table,
    "tsv": _table,
    "parquet": _parquet,
}
