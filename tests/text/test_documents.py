"""Reading what people bring, and dividing it: what is accepted, what is refused in which words, what never leaks."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pellucid.runtime import ConfigError, DataError
from pellucid.text.documents import Document, read_documents, total_bytes
from pellucid.text.splits import split_documents

BOOK = (
    "\ufeffThe Project Gutenberg eBook of Foxes\n\nLicence and so on.\n"
    "*** START OF THE PROJECT GUTENBERG EBOOK FOXES ***\n\nThe fox ran.\n\nIt ran far.\n\n"
    "*** END OF THE PROJECT GUTENBERG EBOOK FOXES ***\n*** START: FULL LICENSE ***\nMore licence.\n"
)


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_a_text_file_is_one_document(tmp_path: Path) -> None:
    file = write(tmp_path / "a.txt", "One.\r\nTwo.\rThree 🙂\n")
    assert read_documents([file]) == [Document("One.\nTwo.\nThree 🙂\n", str(file))]


def test_lines_of_end_of_text_divide_a_file(tmp_path: Path) -> None:
    file = write(tmp_path / "a.txt", "One <|endoftext|> inside\n<|endoftext|>\nTwo\n<|endoftext|>\n")
    assert [d.text for d in read_documents([file])] == ["One <|endoftext|> inside\n", "Two\n"]


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path: Path) -> None:
    assert read_documents([write(tmp_path / "a.txt", b"\xef\xbb\xbfText")])[0].text == "Text"


def test_each_line_of_jsonl_is_a_document_with_its_split_and_nats(tmp_path: Path) -> None:
    rows = [{"text": "One\nline", "split": "test", "nats": 3}, {"text": "Two", "other": 1}, {"text": " "}]
    file = write(tmp_path / "a.jsonl", "\n\n".join(map(json.dumps, rows)) + "\n")
    first, second = read_documents([file])
    assert (first.text, first.split, first.nats) == ("One\nline", "test", 3.0)
    assert (second.text, second.split, second.nats) == ("Two", None, None)
    assert second.source.endswith("line 3")


def test_folders_are_read_recursively_in_order_and_each_file_once(tmp_path: Path) -> None:
    for name in ("b/c.txt", "a.md", "z.txt", ".git/x.txt", "picture.png"):
        write(tmp_path / name, name)
    expected = ["a.md", "b/c.txt", "z.txt"]
    assert [d.text for d in read_documents([tmp_path])] == expected
    assert [d.text for d in read_documents([tmp_path, tmp_path / "*.txt", tmp_path / "a.md"])] == expected
    assert [d.text for d in read_documents([tmp_path / "**" / "*.txt"])] == ["b/c.txt", "z.txt"]


def test_gutenberg_frames_are_cut_off_where_found(tmp_path: Path) -> None:
    book, plain = write(tmp_path / "book.txt", BOOK), write(tmp_path / "plain.txt", "No frame.\n")
    assert [d.text for d in read_documents([book, plain])] == ["The fox ran.\n\nIt ran far.\n", "No frame.\n"]
    assert "Licence" in read_documents([book], strip_gutenberg=False)[0].text
    with pytest.raises(DataError, match="no Gutenberg header"):
        read_documents([plain], strip_gutenberg=True)


def test_all_books_at_hand_are_stripped(data_folder: Path) -> None:
    for document in read_documents([data_folder / "gutenberg"]):
        assert "PROJECT GUTENBERG EBOOK" not in document.text
        assert len(document.text) > 100_000


BAD_INPUT: list[tuple[str, str, bytes, str]] = [
    ("empty", "a.txt", b"", "all is empty"),
    ("only spaces", "a.md", b" \n\n", "all is empty"),
    ("binary", "a.txt", b"ab\0cd", "NUL byte at byte 2"),
    ("latin-1", "a.txt", b"one\ntwo caf\xe9\n", r"line 2: found the byte 0xe9 at byte 11.*iconv -f latin1 -t utf-8"),
    ("utf-16", "a.txt", "text".encode("utf-16"), "UTF-16.*iconv"),
    ("broken line", "a.jsonl", b'{"text": "a"}\n{"text": \n', "line 2: found broken JSON"),
    ("no text field", "a.jsonl", b'{"text": "a"}\n\n{"content": "b", "id": 1}\n', "line 3: found the keys content, id"),
    ("text is a number", "a.jsonl", b'{"text": 7}', 'line 1: found a "text" that is 7.*quotation marks'),
    ("a list", "a.jsonl", b"[1]", "line 1: found a JSON list"),
    ("unknown split", "a.jsonl", b'{"text": "a", "split": "dev"}', "split 'dev'"),
    ("nats that are text", "a.jsonl", b'{"text": "a", "nats": "x"}', "nats 'x'"),
    ("half a character", "a.jsonl", b'{"text": "a\\ud800"}', "line 1: found a lone surrogate at character 1"),
    ("csv without a text", "a.csv", b"a,b\n1,2\n", "line 1: found the fields a, b"),
    ("csv without a text in latin-1", "a.csv", b"M\xfcll,b\n1,2\n", r"line 1: found the byte 0xfc at byte 1.*iconv"),
    ("gz cut short", "a.gz", b"\x1f\x8b", "a damaged gz file"),
]


@pytest.mark.parametrize(("name", "content", "message"), [c[1:] for c in BAD_INPUT], ids=[c[0] for c in BAD_INPUT])
def test_what_cannot_be_read_is_an_error_that_names_place_and_fault(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    file = write(tmp_path / name, content)
    with pytest.raises(DataError, match=message) as error:
        read_documents([file])
    assert str(file) in str(error.value)


def test_missing_files_and_folders_without_text_are_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        read_documents([tmp_path / "nothing.txt"])
    with pytest.raises(DataError, match="folder without text"):
        read_documents([tmp_path])
    with pytest.raises(DataError, match="no file of that pattern"):
        read_documents([tmp_path / "*.txt"])
    with pytest.raises(DataError, match="no file"):
        read_documents([])


def test_an_empty_file_among_others_is_skipped_with_a_message(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "a.txt", ""), write(tmp_path / "b.txt", "Text")
    assert len(read_documents([tmp_path])) == 1
    assert "a.txt: empty, skipped" in capsys.readouterr().err


# ---------------------------------------------------------------- splits


def numbered(count: int, **about: str) -> list[Document]:
    return [Document(f"Document number {i}.", f"d{i}", **about) for i in range(count)]


def all_texts(splits: dict[str, list[Document]]) -> Counter[str]:
    return Counter(document.text for part in splits.values() for document in part)


@settings(deadline=None)
@given(st.integers(3, 300), st.integers(0, 5))
def test_each_document_is_in_one_split_and_none_is_empty(count: int, seed: int) -> None:
    documents = numbered(count)
    splits = split_documents(documents, seed=seed)
    assert list(splits) == ["train", "val", "test"]
    assert all(splits.values())
    assert all_texts(splits) == Counter(document.text for document in documents)


def test_shares_are_about_what_was_asked() -> None:
    splits = split_documents(numbered(4000), val=0.1, test=0.2)
    assert 300 < len(splits["val"]) < 500
    assert 700 < len(splits["test"]) < 900


def test_documents_stay_in_their_split_when_others_are_added() -> None:
    place = {d.text: name for name, part in split_documents(numbered(500)).items() for d in part}
    later = {d.text: name for name, part in split_documents(numbered(900)).items() for d in part}
    assert all(later[text] == name for text, name in place.items())


def test_another_seed_gives_another_split() -> None:
    assert split_documents(numbered(500), seed=1)["test"] != split_documents(numbered(500), seed=2)["test"]


def test_given_splits_are_honoured() -> None:
    documents = (
        numbered(50, split="val") + [Document(f"T{i}", "t", "test") for i in range(50)] + [Document("x", "x", "train")]
    )
    splits = split_documents(documents)
    assert [len(part) for part in splits.values()] == [1, 50, 50]


def test_no_text_is_in_two_splits_and_what_is_dropped_is_counted(capsys: pytest.CaptureFixture[str]) -> None:
    copies = [Document(f"Document number {i}.", "copy", "test") for i in range(5)]
    splits = split_documents([*numbered(30, split="train"), *copies], val=0)
    assert [len(part) for part in splits.values()] == [25, 0, 5]
    assert "5 documents were in two splits" in capsys.readouterr().err


def test_duplicates_within_a_split_stay() -> None:
    splits = split_documents(numbered(100) * 2)
    assert set(all_texts(splits).values()) == {2}


@settings(deadline=None, max_examples=30)
@given(st.integers(40, 4000), st.integers(1, 2))
def test_one_or_two_books_are_cut_at_paragraphs_with_val_and_test_at_the_end(paragraphs: int, books: int) -> None:
    documents = [
        Document("\n\n".join(f"Book {book}, paragraph {i} of this text." for i in range(paragraphs)), f"b{book}")
        for book in range(books)
    ]
    splits = split_documents(documents)
    for number, document in enumerate(documents):
        assert splits["train"][number].text + splits["val"][number].text + splits["test"][number].text == document.text
        assert splits["val"][number].text.startswith("Book")
    assert total_bytes(splits["train"]) > 0.6 * total_bytes(documents)


def test_too_little_text_to_divide_is_an_error() -> None:
    with pytest.raises(DataError, match="enough to divide"):
        split_documents([Document("One line.", "a")])
    assert split_documents([Document("One line.", "a")], val=0, test=0)["train"][0].text == "One line."


def test_shares_that_leave_nothing_to_train_on_are_refused() -> None:
    with pytest.raises(ConfigError, match="shares"):
        split_documents(numbered(10), val=0.5, test=0.5)
