"""Finding and dividing text: every format is recognised by looking, and no division changes what is read."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import re
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
import regex
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pellucid.runtime import DataError, PellucidError
from pellucid.text import content, readers
from pellucid.text.documents import Document, from_hugging_face, read_documents, read_unit, stream_documents
from pellucid.text.pieces import PATTERNS, cut
from pellucid.text.sources import describe, find_sources, plan_units

TEXTS = ["One fox.\n", 'Two "quoted", lines\nof text', "Drei Füchse 🦊", "4; four\tgrapes"]


def as_csv(delimiter: str = ",", **about: str) -> bytes:
    file = io.StringIO()
    writer = csv.writer(file, delimiter=delimiter)
    writer.writerow(["id", "Message", *about])
    writer.writerows([number, text, *about.values()] for number, text in enumerate(TEXTS))
    return file.getvalue().encode()


def as_jsonl(name: str = "text") -> bytes:
    return "".join(json.dumps({"id": 1, name: text}) + "\n" for text in TEXTS).encode()


def as_parquet(name: str = "text", group: int = 2) -> bytes:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    file = io.BytesIO()
    table = pa.table({"id": range(len(TEXTS)), name: TEXTS})
    pq.write_table(table, file, row_group_size=group, write_page_checksum=True)
    return file.getvalue()


def as_zst(packed: bytes, size: int = 1 << 20) -> bytes:
    zstandard = pytest.importorskip("zstandard")
    return b"".join(zstandard.compress(packed[i : i + size]) for i in range(0, len(packed), size))


FORMATS: dict[str, Any] = {
    "a.jsonl": as_jsonl,
    "a.ndjson": lambda: b"\xef\xbb\xbf" + as_jsonl("story"),
    "found by its first line": lambda: b"\n" + as_jsonl("content"),
    "a.json": lambda: json.dumps([{"body": text} for text in TEXTS], indent=1).encode(),
    "strings.json": lambda: json.dumps(TEXTS).encode(),
    "a.csv": as_csv,
    "semicolons.csv": lambda: b"\xef\xbb\xbf" + as_csv(";"),
    "a.parquet": lambda: as_parquet("document"),
    "found by its magic": as_parquet,
    "a.jsonl.gz": lambda: gzip.compress(as_jsonl()),
    "a.csv.zst": lambda: as_zst(as_csv(), 20),
    "named.wrongly": lambda: gzip.compress(as_jsonl()),
}


@pytest.mark.parametrize("name", FORMATS)
def test_each_format_is_found_by_looking_and_gives_the_same_texts(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(FORMATS[name]())
    assert [document.text for document in read_documents([tmp_path / name])] == TEXTS
    assert [document.text for document in stream_documents([tmp_path / name], unit_bytes=30)] == TEXTS


def test_a_folder_is_described_in_a_line(tmp_path: Path) -> None:
    for name in ("a.txt", "b.md", "c.txt.gz"):
        (tmp_path / name).write_bytes(gzip.compress(b"x") if name.endswith("gz") else b"x")
    (tmp_path / "d.csv").write_bytes(as_csv())
    (tmp_path / "settings.json").write_text("{}")
    said = describe(find_sources([tmp_path]))
    assert said.startswith("4 files: 2 text, 1 text (gz), 1 csv, ")
    assert said.endswith("; text is in the column 'Message'")


def test_tables_with_tabs_take_quotation_marks_as_text(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_bytes(b'label\ttext\r\nham\t"Well\r\nspam\tbuy "it"\r\n')
    assert [d.text for d in read_documents([tmp_path / "a.tsv"])] == ['"Well', 'buy "it"']


def test_the_text_field_can_be_named(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"title,lyrics\nA,la la\n")
    assert [d.text for d in stream_documents([tmp_path / "a.csv"], text_field="lyrics")] == ["la la"]
    with pytest.raises(DataError, match="line 1: found the fields title, lyrics; expected 'words'"):
        find_sources([tmp_path / "a.csv"], text_field="words")


def test_standard_input_is_read_whatever_its_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(gzip.compress(as_jsonl()))))
    sources = find_sources(["-"], spool=tmp_path)
    assert sources[0].path.parent == tmp_path
    found = [document for unit in plan_units(sources) for document in read_unit(unit)]
    assert [document.text for document in found] == TEXTS
    assert found[0].source == "standard input, line 1"


def test_a_packed_book_loses_its_frame_like_a_plain_one(tmp_path: Path) -> None:
    frame = "*** {} OF THE PROJECT GUTENBERG EBOOK FOXES ***\r\n"
    book = "Licence\r\n" + frame.format("START") + "\r\n\r\nThe fox.\r\n\r\n\r\n" + frame.format("END") + "More\r\n"
    (tmp_path / "a.txt").write_bytes(book.encode())
    (tmp_path / "b.txt.gz").write_bytes(gzip.compress(book.encode()))
    assert [d.text for d in read_documents([tmp_path])] == ["The fox.\n"] * 2


# ---------------------------------------------------------------- bad input

BAD: dict[str, tuple[str, Any, str]] = {
    "gz cut short": ("a.txt.gz", lambda: gzip.compress(os.urandom(999))[:-30], "damaged gz file.*breaks off"),
    "gz changed": ("a.txt.gz", lambda: gzip.compress(b"fox " * 99)[:-6] + b"abcdef", "damaged gz"),
    "zst cut short": ("a.txt.zst", lambda: as_zst(os.urandom(9999))[:-9], "damaged zst file.*breaks off"),
    "parquet cut short": ("a.parquet", lambda: as_parquet()[:-30], "damaged parquet"),
    "parquet changed": (
        "a.parquet",
        lambda: as_parquet(group=9).replace(TEXTS[0].encode(), TEXTS[0].upper().encode()),
        "damaged parquet",
    ),
    "no parquet": ("a.parquet", lambda: b"some text", "damaged parquet"),
    "parquet without text": ("a.parquet", lambda: as_parquet("lyrics"), "the fields id, lyrics; expected one of"),
    "parquet with numbers": ("a.parquet", lambda: as_parquet("id2"), "the fields id, id2"),
    "csv without text": ("a.csv", lambda: b"a,b\n1,2\n", "line 1: found the fields a, b; expected one of a known name"),
    "csv with too few": ("a.csv", lambda: b'a,text\n1,"x\ny"\n3\n', "line 4: found 1 fields; expected 2"),
    "csv left open": ("a.csv", lambda: b'a,text\n1,x\n2,"y\n3,z\n', "line 3: found a broken row.*quotation mark"),
    "csv in latin-1": ("a.csv", lambda: b"a,text\n1,caf\xe9\n", "line 2: found the byte 0xe9 at byte 12"),
    "broken json": ("a.json", lambda: b'[\n{"text": "a"},\n{]', "line 3: found broken JSON"),
    "json object": ("a.json", lambda: b'{"text": "a"}', "found a JSON dict; expected a JSON list"),
    "json of numbers": ("a.json", lambda: b"[1]", "record 1: found a JSON int"),
    "binary jsonl": ("a.jsonl", lambda: b'{"text": "a"}\n\0\n', "line 2: found binary content .a NUL byte at byte 14"),
    "huge number": ("a.jsonl", lambda: b'{"text": "a"}\n' + b"9" * 5000, "line 2: found broken JSON"),
    "zip": ("a.zip", lambda: b"PK", "a .zip file"),
    "packed parquet": ("a.parquet.gz", lambda: gzip.compress(as_parquet()), "a parquet file in gz"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_damaged_is_an_error_that_names_place_and_fault(tmp_path: Path, case: str) -> None:
    name, make, message = BAD[case]
    (tmp_path / name).write_bytes(make())
    with pytest.raises(DataError, match=message) as error:
        read_documents([tmp_path / name])
    assert str(tmp_path / name) in str(error.value)


def test_a_fault_in_a_later_unit_has_its_line_number(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "a"}\n' * 50 + b"{}\n")
    with pytest.raises(DataError, match="line 51: found the keys none"):
        list(stream_documents([tmp_path / "a.jsonl"], unit_bytes=40))
    (tmp_path / "a.txt").write_bytes(b"some words\n" * 50 + b"caf\xe9\n")
    with pytest.raises(DataError, match="line 51: found the byte 0xe9 at byte 553"):
        list(stream_documents([tmp_path / "a.txt"], unit_bytes=40))


def test_an_empty_file_among_many_is_a_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a.txt", "b.csv", "c.jsonl", "d.parquet"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(DataError, match="all is empty"):
        find_sources([tmp_path])
    (tmp_path / "e.txt").write_text("text")
    assert [source.path.name for source in find_sources([tmp_path])] == ["e.txt"]
    assert capsys.readouterr().err.count("empty, skipped") == 4


@pytest.mark.parametrize("missing", ["pyarrow.parquet", "zstandard", "datasets"])
def test_a_package_that_is_missing_is_named_with_the_way_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    (tmp_path / "a.zst").write_bytes(b"\x28\xb5\x2f\xfd")
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(PellucidError, match="pip install 'pellucid"):
        if missing == "datasets":
            list(from_hugging_face("name"))
        read_documents([tmp_path / ("a.zst" if missing == "zstandard" else "a.parquet")])


def test_a_hugging_face_data_set_is_streamed(tmp_path: Path) -> None:
    pytest.importorskip("datasets", reason="needs the extra 'data'")
    (tmp_path / "train.jsonl").write_bytes(as_jsonl("story"))
    found = list(from_hugging_face(str(tmp_path)))
    assert [document.text for document in found] == TEXTS
    with pytest.raises(DataError, match="no data set"):
        list(from_hugging_face(str(tmp_path / "none")))


# ---------------------------------------------------------------- dividing


def joined(documents: list[Document]) -> list[str]:
    texts: list[str] = []
    for document in documents:
        if document.continues:
            texts[-1] += document.text
        else:
            texts.append(document.text)
    return texts


WORDS = [
    "fox",
    "grapes.",
    " ",
    "  ",
    "\n",
    "\r\n",
    "\n\n",
    "<|endoftext|>",
    "\n<|endoftext|>\n",
    "\n<|endoftext|> \r\n",
]
TEXT = st.lists(
    st.sampled_from([*WORDS, "ä", "狐狸。", "日本語です。", "🦊", "<", "x" * 30, "!" * 30, "\t", "\u3000", "7"])
)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(TEXT, min_size=1, max_size=3), st.integers(1, 60), st.integers(4, 40), st.integers(1, 9))
@example([["\n<|endoftext|>\n", "\u3000", "\u3000"]], 1, 4, 1)
@example([["\n<|endoftext|>\n", "\u3000", "\u3000", "\u3000", "\u3000"]], 60, 4, 9)
def test_no_division_changes_the_documents_of_text_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[list[str]], unit: int, part: int, block: int
) -> None:
    files = [tmp_path / f"{number}.txt" for number in range(len(words))]
    for file, some in zip(files, words, strict=True):
        file.write_bytes(b"The first word " + "".join(some).encode())
    with monkeypatch.context() as patch:
        patch.setattr(readers, "PART_CHARACTERS", part)
        patch.setattr(content, "BLOCK_BYTES", block)
        divided = joined(list(stream_documents(files, unit_bytes=unit)))
    assert divided == joined(list(stream_documents(files)))


@settings(deadline=None, max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.text(st.characters(codec="utf-8")), min_size=1), st.integers(1, 300), st.integers(1, 50))
def test_no_division_changes_the_documents_of_jsonl_and_parquet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, texts: list[str], unit: int, block: int
) -> None:
    texts = ["first", *texts]
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    lines = "\n\n".join(json.dumps({"text": text}, ensure_ascii=False) for text in texts)
    (tmp_path / "a.jsonl").write_bytes(lines.encode())
    pq.write_table(pa.table({"text": texts}), tmp_path / "a.parquet", row_group_size=2)
    monkeypatch.setattr(content, "BLOCK_BYTES", block)
    expected = [text.replace("\r\n", "\n").replace("\r", "\n") for text in texts if text and not text.isspace()]
    for name in ("a.jsonl", "a.parquet"):
        assert [document.text for document in stream_documents([tmp_path / name], unit_bytes=unit)] == expected


@settings(deadline=None)
@given(TEXT, st.sampled_from(["gpt2", "cl100k"]))
def test_no_token_can_span_a_place_where_texts_are_cut(words: list[str], pattern: str) -> None:
    text = "".join(words).encode()
    pieces = regex.compile(PATTERNS[pattern])
    for place in [match.end() for match in re.finditer(readers.SAFE_CUT, text)]:
        apart = [cut(pieces, part.decode()) for part in (text[:place], text[place:])]
        assert apart[0] + apart[1] == cut(pieces, text.decode())


def test_units_are_of_about_the_size_asked_and_small_files_share_one(tmp_path: Path) -> None:
    for number in range(20):
        (tmp_path / f"{number:02}.txt").write_bytes(b"word " * 20)
    (tmp_path / "large.txt").write_bytes(b"word " * 1000)
    (tmp_path / "packed.txt.gz").write_bytes(gzip.compress(os.urandom(3000).hex().encode()))
    units = plan_units(find_sources([tmp_path]), 1000)
    assert [len(unit.slices) for unit in units] == [10, 10, 1, 1, 1, 1, 1, 1]
    assert units == plan_units(find_sources([tmp_path]), 1000)


def test_reading_takes_memory_for_a_few_parts_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers, "PART_CHARACTERS", 1 << 15)
    monkeypatch.setattr(content, "BLOCK_BYTES", 1 << 14)
    (tmp_path / "a.txt").write_bytes(b"The fox ran. \n" * 100_000)
    (tmp_path / "b.txt").write_bytes("狐狸跑了。".encode() * 100_000)
    (tmp_path / "c.txt.gz").write_bytes(gzip.compress(b"!" * 1_000_000))
    (tmp_path / "d.csv").write_bytes(b"text\n" + b'"The fox\nran."\n' * 20_000)
    tracemalloc.start()
    characters = sum(len(document.text) for document in stream_documents([tmp_path]))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert characters == 14 * 100_000 + 5 * 100_000 + 1_000_000 + 12 * 20_000
    assert peak < 1_000_000
