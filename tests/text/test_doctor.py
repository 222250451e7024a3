"""`pellucid doctor`: it counts what is bad and reads on, knows labels and instructions, and finds leaks."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pellucid.options import Doctor
from pellucid.runtime import ConfigError, DataError
from pellucid.text.bpe import BPETokenizer
from pellucid.text.doctor import doctor

Examine = Callable[..., tuple[dict[str, Any], str]]
FOX = "the quick brown fox jumps over the lazy dog and then it runs far away into the dark green wood again"


@pytest.fixture
def examine(tmp_path: Path) -> Examine:
    """Write a file and have it examined: (the object, the text)."""

    def run(name: str, content: str | bytes, **settings: Any) -> tuple[dict[str, Any], str]:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        result, text = doctor(Doctor(files=(path,), **settings))
        json.dumps(result, allow_nan=False)
        return result["files"][0], text

    return run


def lines(*records: Any) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


def test_a_good_file_is_described_and_has_nothing_to_mend(examine: Examine) -> None:
    found, text = examine("a.jsonl", lines(*({"text": "x" * number} for number in range(1, 101))))
    assert found["characters"] == {"min": 1, "median": 50, "p95": 95, "max": 100, "total": 5050}
    assert (found["documents"], found["mend"], found["encoding"]) == (100, [], "ASCII")
    assert "1 jsonl" in text
    assert text.splitlines()[-1] == "nothing to mend"


def test_bad_lines_are_all_counted_the_first_ten_shown_and_the_rest_is_read(examine: Examine) -> None:
    content = lines({"text": "good"}) + "{\n" * 12 + lines({"text": 7}, {"content": "x"}, {"text": "também"})
    found, text = examine("a.jsonl", content)
    assert (found["bad"]["count"], found["documents"]) == (14, 2)
    assert len(found["bad"]["first"]) == 10
    assert "line 2: found broken JSON" in text
    assert "... and 4 more" in text
    assert text.splitlines()[-1] == "to mend: mend or remove what is bad (14)"


@pytest.mark.parametrize(
    ("name", "content", "bad", "documents"),
    [
        ("a.txt", b"one\ncaf\xe9\nthree\n\xe9\xe9\n\0", ["line 2: found the byte 0xe9", "line 4", "line 5"], 1),
        ("a.csv", b'text,n\na,1\nb\n"c"d,2\ne,3\n', ["line 3: found 1 fields", "line 4: found a broken row"], 2),
        ("a.json", b'[{"text": "a"}, 3]', ["record 2: found a JSON int"], 1),
        ("a.txt", "text".encode("utf-16"), ["found UTF-16"], 0),
        ("a.gz", b"\x1f\x8b", ["damaged gz"], 0),
        ("a.csv", b"a,b,c\n1,2,3\n", ["found the fields a, b, c"], 0),
    ],
)
def test_each_format_reports_its_bad_places(
    examine: Examine, name: str, content: bytes, bad: list[str], documents: int
) -> None:
    found, _ = examine(name, content)
    assert found["bad"]["count"] == len(bad)
    assert all(said in message for said, message in zip(bad, found["bad"]["first"], strict=True))
    assert found["documents"] == documents


@pytest.mark.parametrize(
    ("content", "encoding"),
    [
        (b"plain", "ASCII"),
        ("café".encode(), "UTF-8"),
        (b"one\ncaf\xe9\nthree", "not UTF-8"),
        ("text".encode("utf-16"), "not UTF-8"),
        (b"\x7fELF\0", "not UTF-8"),
    ],
)
def test_the_encoding_is_that_of_the_bytes(examine: Examine, content: bytes, encoding: str) -> None:
    found, text = examine("a.txt", content)
    assert found["encoding"] == encoding
    assert f"encoding     {encoding}\n" in text


def test_empty_and_repeated_texts_are_named_by_line(examine: Examine) -> None:
    found, text = examine("a.jsonl", lines({"text": "a"}, {"text": " "}, {"text": "b"}, {"text": "a"}))
    assert found["empty"]["count"] == 1
    assert found["duplicates"]["count"] == 1
    assert "line 4 = line 1" in text
    assert found["mend"] == ["remove what is empty (1)", "remove the duplicates (1)"]


def test_an_empty_file_is_said(examine: Examine) -> None:
    assert examine("a.txt", "")[0]["mend"] == ["remove what is empty (1)"]


@pytest.mark.parametrize("header", ["label\ttext\n", ""])
def test_labels_are_counted_with_and_without_a_header(examine: Examine, header: str) -> None:
    rows = "".join(f"{'spam' if number % 3 == 0 else 'ham'}\tmessage {number}\n" for number in range(30))
    found, text = examine("a.tsv", header + rows)
    assert found["labels"] == {"ham": 20, "spam": 10}
    assert found["documents"] == 30
    assert ("names no columns" in text) == (not header)


def test_missing_labels_and_a_single_class_are_to_be_mended(examine: Examine) -> None:
    assert "fill in the missing labels (1)" in examine("a.csv", "text,label\na,x\nb,\n")[0]["mend"]
    assert "add a second class" in examine("a.csv", "text,label\na,x\nb,x\n")[0]["mend"]
    rows = "".join(f"a {n},x\nb {n},y\n" for n in range(3))
    assert examine("a.csv", f"text,label\n{rows}")[0]["mend"] == []
    (mend,) = examine("a.csv", f"text,label\n{rows}c,z\nd,z\n")[0]["mend"]
    assert mend.startswith("add examples of labels with fewer than 3 (1)")


@pytest.mark.parametrize(
    "records",
    [
        [{"instruction": "Add", "input": "1 2", "output": "3"}, {"instruction": "Say", "output": ""}],
        [{"prompt": "Add", "completion": "3"}, {"prompt": "Say", "completion": None}],
        [
            {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]},
            {"messages": [{"role": "user", "content": "Hi"}]},
        ],
        [{"conversations": [{"from": "gpt", "value": "Hello"}]}, {"conversations": [{"from": "human", "value": "Hi"}]}],
    ],
)
def test_instructions_without_an_answer_are_named(examine: Examine, records: list[Any]) -> None:
    for name, content in (("a.json", json.dumps(records)), ("a.jsonl", lines(*records))):
        found, _ = examine(name, content)
        assert found["instructions"]["records"] == 2
        assert found["instructions"]["without_answer"]["count"] == 1
        assert found["mend"] == ["fill in the missing answers (1)"]


def test_what_a_context_would_truncate_is_counted(examine: Examine, tmp_path: Path) -> None:
    BPETokenizer.train([FOX], 256).save(tmp_path / "tokenizer")
    rows = "text,label\n" + "".join(f"short {n},a\nbrief {n},b\n" for n in range(3)) + "long " * 10 + ",b\n"
    found, text = examine("a.csv", rows, tokenizer=str(tmp_path / "tokenizer"), context_length=20)
    assert (found["tokens"]["max"], found["longer_than_context"]) == (50, 1)
    assert "1 of more than 20 tokens" in text
    assert found["mend"] == ["shorten or divide what is longer than the context (1)"]
    with pytest.raises(ConfigError, match="--context-length: found no tokenizer"):
        examine("a.csv", rows, context_length=20)


def test_leaks_between_two_files_are_found_exactly_and_nearly(examine: Examine, tmp_path: Path) -> None:
    other = tmp_path / "test.jsonl"
    other.write_text(lines({"text": FOX}, {"text": "something else entirely that nobody has written in here"}))
    texts = [FOX, FOX.upper(), FOX + " today", FOX.replace("lazy", "sleeping"), "unlike all the others in that file"]
    found, text = examine("train.jsonl", lines(*({"text": each} for each in texts)), against=other)
    assert found["leaks"]["exact"]["count"] == 1
    assert found["leaks"]["near"]["count"] == 2
    assert f"line 3 ≈ {other}, line 1 (9" in text
    assert found["mend"] == [f"remove what is in {other}, too (3)"]


def test_a_folder_is_examined_as_one(tmp_path: Path) -> None:
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text("the same text")
    found = doctor(Doctor(files=(tmp_path,)))[0]["files"][0]
    assert (found["documents"], found["duplicates"]["count"]) == (2, 1)


def test_a_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        doctor(Doctor(files=(tmp_path / "a.txt",)))


def test_without_a_file_the_machine_and_the_install_are_described(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PELLUCID_DATA", "/nowhere")
    found, text = doctor(Doctor())
    assert found["cores"] >= 1
    assert found["torch"]
    assert "PELLUCID_DATA names /nowhere, which is no folder" in text.splitlines()[-1]
    json.dumps(found, allow_nan=False)


def test_all_data_at_hand_is_well(data_folder: Path) -> None:
    found, _ = doctor(Doctor(files=(data_folder / "classify" / "SMSSpamCollection.tsv", data_folder / "text")))
    messages, texts = found["files"]
    assert messages["labels"] == {"ham": 4827, "spam": 747}
    assert messages["bad"]["count"] == texts["bad"]["count"] == 0
