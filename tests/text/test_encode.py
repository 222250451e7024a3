"""Encoding text of any size: the same shards whoever makes them and however often they are stopped, and no leaks."""

from __future__ import annotations

import gzip
import json
import os
import random
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pellucid.runtime import DataError
from pellucid.text import encode, held_out, readers, shard_writer
from pellucid.text.bpe import BPETokenizer
from pellucid.text.documents import read_documents
from pellucid.text.encode import encode_sources
from pellucid.text.held_out import Shares
from pellucid.text.leaks import HEAD_CHARACTERS
from pellucid.text.shards import Shards
from pellucid.text.sources import find_sources
from pellucid.text.splits import position
from tests.text.shard_files import encoded, files, read_back, some_text, some_texts, write_folder, write_lines


@pytest.fixture
def texts() -> list[str]:
    return some_texts()


@pytest.fixture
def folder(tmp_path: Path, texts: list[str]) -> Path:
    return write_folder(tmp_path / "texts", texts)


# ---------------------------------------------------------------- the same shards


def test_shards_are_the_same_for_any_number_of_workers_and_any_order(
    tmp_path: Path, folder: Path, bpe: BPETokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = encoded([folder], bpe, tmp_path / "1", workers=1, unit_bytes=5000)
    assert len(one.description["splits"]["train"]["shards"]) > 5
    for workers in (2, 4):
        encoded([folder], bpe, tmp_path / str(workers), workers=workers, unit_bytes=5000)
        assert files(tmp_path / str(workers)) == files(tmp_path / "1")
    in_order = encode.encode_unit

    def late(unfinished: Path, work: encode.Work, number: int) -> Any:
        time.sleep(0.05 * (number % 3))
        return in_order(unfinished, work, number)

    monkeypatch.setattr(encode, "encode_unit", late)
    encoded([folder], bpe, tmp_path / "late", workers=4, unit_bytes=5000)
    assert files(tmp_path / "late") == files(tmp_path / "1")
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_the_compiled_tokenizer_is_shared_by_threads(tmp_path: Path, bpe: BPETokenizer) -> None:
    chance = random.Random(1)
    path = tmp_path / "a.txt"
    path.write_text("\n<|endoftext|>\n".join(some_text(chance, 2000) for _ in range(60)))
    for workers in (1, 4):
        fresh = BPETokenizer.train([some_text(random.Random(2), 500)], 300)
        encoded([path], fresh, tmp_path / str(workers), workers=workers, unit_bytes=100_000)
    assert files(tmp_path / "1") == files(tmp_path / "4")


def test_the_documents_come_back_each_in_its_split(
    tmp_path: Path, folder: Path, texts: list[str], bpe: BPETokenizer
) -> None:
    found = read_back(encoded([folder], bpe, tmp_path / "s", unit_bytes=3000, shares=Shares(0.2, 0.1)))
    expected: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    for document in read_documents([folder]):
        place = position(document.text, 0)
        expected["test" if place < 0.1 else "val" if place < 0.1 + 0.2 else "train"].append(document.text)
    assert found == expected
    assert sum(map(len, found.values())) == len(texts)


ALPHABET = st.sampled_from([*"abc XY19.,\n\r\t", "é", "日", "。", "🙂", "  ", "\r\n", "<|endoftext|>", "\ufeff"])
PIECES = st.lists(ALPHABET, max_size=60).map("".join)


@settings(deadline=None, max_examples=20)
@given(
    plain=st.lists(PIECES, max_size=6),
    records=st.lists(st.tuples(PIECES, st.sampled_from([None, None, "train", "val", "test"])), min_size=3, max_size=8),
    sizes=st.tuples(st.integers(20, 400), st.integers(1, 90), st.integers(1, 90), st.integers(1, 50)),
)
def test_how_the_text_is_divided_changes_nothing(
    tmp_path_factory: pytest.TempPathFactory,
    plain: list[str],
    records: list[tuple[str, str | None]],
    sizes: tuple[int, int, int, int],
) -> None:
    folder = tmp_path_factory.mktemp("any")
    tokenizer = BPETokenizer.train(["some text 19 and 日本 ab ab"], 262)
    (folder / "a.txt").write_bytes("\n<|endoftext|>\n".join(plain).encode())
    (folder / "b.txt").write_bytes("<|endoftext|>\n".join(plain).encode())
    texts = [{"text": f"{number} {text}", "split": split} for number, (text, split) in enumerate(records)]
    write_lines(folder / "c.jsonl", texts)
    paths = [folder / name for name in ("a.txt", "b.txt", "c.jsonl")]
    found: list[Any] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)  # which takes most of the time
        patch.setattr(held_out, "HEAD_CHARACTERS", 70)
        for number, (unit, group, part, peek) in enumerate([(1 << 20, 1 << 20, 1 << 20, 1 << 16), sizes]):
            patch.setattr(held_out, "GROUP_CHARACTERS", group)
            patch.setattr(shard_writer, "GROUP_CHARACTERS", group)
            patch.setattr(readers, "PART_CHARACTERS", part)
            patch.setattr(held_out, "PEEK_BYTES", peek)
            try:
                shards = encoded(paths, tokenizer, folder / str(number), unit_bytes=unit, shares=Shares(0.2, 0.3))
            except DataError as error:
                assert "no document that is left to train on" in str(error)
                found.append(None)
                continue
            found.append({name: shards.tokens(name)[:].tolist() for name in shards.splits})
    assert found[0] == found[1]


def test_a_long_document_goes_on_through_many_units(tmp_path: Path, bpe: BPETokenizer) -> None:
    chance = random.Random(3)
    long = [some_text(chance, 3000) for _ in range(5)]
    path = tmp_path / "a.txt"
    path.write_text("\n<|endoftext|>\n".join(long))
    shards = encoded([path], bpe, tmp_path / "s", unit_bytes=5000)
    found = read_back(shards)
    assert sorted(text for split in found.values() for text in split) == sorted(
        [text + "\n" for text in long[:-1]] + long[-1:]
    )
    assert len(shards.hashes()) > 10
    assert all(len(found[split]) >= 1 for split in ("train", "val", "test"))


# ---------------------------------------------------------------- splits


def test_documents_keep_their_split_when_files_are_added(tmp_path: Path, texts: list[str], bpe: BPETokenizer) -> None:
    path = write_lines(tmp_path / "b.jsonl", [{"text": text} for text in texts[:200]])
    more = write_lines(tmp_path / "a.jsonl", [{"text": text} for text in texts[200:]])
    before = read_back(encoded([path], bpe, tmp_path / "1"))
    after = read_back(encoded([more, path], bpe, tmp_path / "2", unit_bytes=3000))
    assert all(set(before[split]) <= set(after[split]) for split in before)
    assert sum(map(len, after.values())) == 300


def test_another_seed_holds_out_other_documents(tmp_path: Path, folder: Path, bpe: BPETokenizer) -> None:
    one = read_back(encoded([folder], bpe, tmp_path / "1"))
    other = read_back(encoded([folder], bpe, tmp_path / "2", shares=Shares(seed=1)))
    assert set(one["test"]) != set(other["test"])


def test_splits_that_documents_bring_along_are_honoured(tmp_path: Path, texts: list[str], bpe: BPETokenizer) -> None:
    wanted = {text: ("train", "val", "test")[number % 3] for number, text in enumerate(texts)}
    path = write_lines(tmp_path / "a.jsonl", [{"text": text, "split": split} for text, split in wanted.items()])
    found = read_back(encoded([path], bpe, tmp_path / "s", unit_bytes=1000))
    assert {text: split for split, members in found.items() for text in members} == wanted


@pytest.mark.parametrize("count", [3, 4, 5, 9])
@pytest.mark.parametrize("share", [0.01, 0.05, 0.45])
def test_no_split_is_empty_where_there_are_three_documents(
    tmp_path: Path, bpe: BPETokenizer, count: int, share: float
) -> None:
    for seed in range(6):
        chance = random.Random(seed)
        records = [{"text": some_text(chance, 20)} for _ in range(count)]
        path = write_lines(tmp_path / "a.jsonl", records)
        found = read_back(encoded([path], bpe, tmp_path / "s", shares=Shares(share, share, seed)))
        assert min(map(len, found.values())) >= 1
        assert sum(map(len, found.values())) == count


def test_copies_of_one_document_are_all_for_training_and_that_is_said(
    tmp_path: Path, bpe: BPETokenizer, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_lines(tmp_path / "a.jsonl", [{"text": "again and again"}] * 4)
    found = read_back(encoded([path], bpe, tmp_path / "s"))
    assert found == {"train": ["again and again"] * 4, "val": [], "test": []}
    said = capsys.readouterr().err
    assert "val is empty" in said
    assert "test is empty" in said


def test_where_nothing_is_left_to_train_on_there_is_an_error(tmp_path: Path, bpe: BPETokenizer) -> None:
    path = write_lines(tmp_path / "a.jsonl", [{"text": f"text {n}", "split": "test"} for n in range(5)])
    with pytest.raises(DataError, match="left to train on"):
        encoded([path], bpe, tmp_path / "s")
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("share", [0.1, 0.0001])
@pytest.mark.parametrize("end", ["\n\n", "\r\n\r\n", "\n", " ", ""])
def test_one_long_file_is_divided_at_the_ends_of_paragraphs(
    tmp_path: Path, bpe: BPETokenizer, monkeypatch: pytest.MonkeyPatch, end: str, share: float
) -> None:
    monkeypatch.setattr(encode, "SMALL", 10_000)
    chance = random.Random(4)
    text = "".join(f"{chance.getrandbits(2000)}é🙂日本" + end for _ in range(60))
    path = tmp_path / "a.txt"
    path.write_bytes(text.encode())
    shards = encoded([path], bpe, tmp_path / "s", unit_bytes=4000, shares=Shares(share, share))
    found = read_back(shards)
    assert "".join(found["train"] + found["val"] + found["test"]) == text.replace("\r\n", "\n")
    assert [len(found[split]) for split in ("train", "val", "test")] == [1, 1, 1]
    if end.strip(" "):
        assert found["train"][0].endswith("\n")
        assert found["val"][0].endswith("\n")
    if share == 0.1:
        assert 0.7 < shards.bytes("train") / len(text.encode()) < 0.9


def test_a_split_of_no_share_is_there_and_empty_whatever_the_size(
    tmp_path: Path, bpe: BPETokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(5)
    path = tmp_path / "a.txt"
    path.write_text("\n\n".join(some_text(chance, 30) for _ in range(100)))
    for size in (1 << 20, 1000):
        monkeypatch.setattr(encode, "SMALL", size)
        shards = encoded([path], bpe, tmp_path / "s", shares=Shares(val=0.1, test=0))
        assert shards.splits == ["train", "val", "test"]
        assert shards.documents("test") == 0
        assert len(shards.tokens("test")) == 1


def test_one_long_packed_file_has_to_be_unpacked(
    tmp_path: Path, bpe: BPETokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encode, "SMALL", 10_000)
    with gzip.open(tmp_path / "a.txt.gz", "wt") as file:
        file.write("the same words again\n\n" * 1000)
    with pytest.raises(DataError, match=r"one or two long documents in gz.*Unpack it"):
        encoded([tmp_path / "a.txt.gz"], bpe, tmp_path / "s")


def test_a_single_document_is_read_as_it_was_asked(tmp_path: Path, bpe: BPETokenizer) -> None:
    lines = "\n\n".join(f"Paragraph {number} of the book." for number in range(50))
    path = tmp_path / "a.jsonl"
    write_lines(path, [{"summary": lines, "text": "other"}])
    sources = find_sources([path], text_field="summary")
    found = read_back(encode_sources(sources, bpe, tmp_path / "s"))
    assert "".join(found["train"] + found["val"] + found["test"]) == lines


# ---------------------------------------------------------------- leaks


def test_copies_across_splits_are_left_out_and_counted(
    tmp_path: Path, bpe: BPETokenizer, capsys: pytest.CaptureFixture[str]
) -> None:
    chance = random.Random(6)
    one, two, three = (some_text(chance, 120) for _ in range(3))
    almost, capitals = one + " and more", one.replace("fox", "FOX")
    others = [{"text": some_text(chance, 30), "split": "train"} for _ in range(50)]
    records = [
        {"text": one, "split": "train"},
        {"text": almost, "split": "val"},
        {"text": capitals, "split": "test"},
        *others,
        {"text": two, "split": "val"},
        {"text": two.replace(" ", "\n"), "split": "train"},
        {"text": three, "split": "train"},
        {"text": three, "split": "train"},
    ]
    path = write_lines(tmp_path / "a.jsonl", records)
    for unit_bytes in (1000, 1 << 20):
        found = read_back(encoded([path], bpe, tmp_path / "s", unit_bytes=unit_bytes))
        assert found["test"] == [capitals]
        assert found["val"] == [two]
        assert found["train"] == [*(str(record["text"]) for record in others), three, three]
        said = capsys.readouterr().err
        assert "2 of train and 1 of val: near copies of documents in val or test; they were left out." in said


def test_a_long_document_that_is_left_out_is_left_out_as_a_whole(tmp_path: Path, bpe: BPETokenizer) -> None:
    chance = random.Random(7)
    long = some_text(chance, 4000)
    held = write_lines(tmp_path / "held.jsonl", [{"text": long + " the end", "split": "test"}])
    path = tmp_path / "a.txt"
    path.write_text("\n<|endoftext|>\n".join(["before", long, "behind", "and more"]))
    shares = Shares(val=0, test=0)
    found = read_back(encoded([path, held], bpe, tmp_path / "s", unit_bytes=5000, shares=shares))
    assert found == {"train": ["before\n", "behind\n", "and more"], "val": [], "test": [long + " the end"]}


def test_of_a_document_longer_than_a_head_the_beginning_decides(tmp_path: Path, bpe: BPETokenizer) -> None:
    text = "".join(f"{number} words " for number in range(HEAD_CHARACTERS // 8))
    assert len(text) > HEAD_CHARACTERS
    records = [{"text": text + "a", "split": "test"}, {"text": text + "b", "split": "train"}, {"text": "c"}]
    path = write_lines(tmp_path / "a.jsonl", records)
    found = read_back(encoded([path], bpe, tmp_path / "s", shares=Shares(0, 0)))
    assert found["train"] == ["c"]
    assert found["test"] == [text + "a"]


# ---------------------------------------------------------------- many machines, much text


@pytest.mark.ray
def test_ray_makes_the_same_shards_byte_for_byte(
    tmp_path: Path, folder: Path, bpe: BPETokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray = pytest.importorskip("ray", reason="needs pip install 'pellucid[ray]'")
    bpe.encode_arrays(["a text that the compiled twin encodes " * 1000])
    encoded([folder], bpe, tmp_path / "threads", unit_bytes=4000)
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.chdir(tmp_path)
    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        encoded([Path("texts")], bpe, Path("ray"), unit_bytes=4000, engine="ray")
        assert files(tmp_path / "ray") == files(tmp_path / "threads")
        (folder / "b.jsonl").write_text('{"text": 3}\n')
        with pytest.raises(DataError, match=r"b\.jsonl, line 1"):
            encoded([folder], bpe, tmp_path / "bad", unit_bytes=4000, engine="ray")
        assert ray.is_initialized()  # not ours to end
    finally:
        ray.shutdown()


def test_without_ray_it_is_said_how_to_get_it(
    tmp_path: Path, folder: Path, bpe: BPETokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(Exception, match=r"pip install 'pellucid\[ray\]'"):
        encoded([folder], bpe, tmp_path / "s", engine="ray")


MEASURED = (
    "import resource, subprocess, sys, time; begun = time.monotonic();"
    "code = subprocess.run(sys.argv[1:], stdout=2).returncode;"
    "print(code, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, time.monotonic() - begun)"
)


@pytest.mark.nightly
def test_memory_stays_bounded_for_a_gigabyte_of_text(tmp_path: Path, surroundings: dict[str, str]) -> None:
    chance = np.random.default_rng(0)
    names = np.array([f"w{number:x}" for number in range(60_000)])
    path = tmp_path / "a.txt"
    with path.open("w") as file:
        while file.tell() < 1_000_000_000:
            words = names[np.minimum(chance.zipf(1.3, 400_000), 60_000) - 1].tolist()
            cuts = [0, *np.sort(chance.integers(0, 400_000, 1000)).tolist(), 400_000]
            for begin, end in pairwise(cuts):
                file.write(f"{' '.join(words[begin:end])} {chance.integers(1 << 60)}\n<|endoftext|>\n")

    def measured(*arguments: object) -> int:
        pellucid = [sys.executable, "-c", MEASURED, sys.executable, "-m", "pellucid", *map(str, arguments)]
        done = subprocess.run(pellucid, capture_output=True, text=True, env=surroundings, check=True)
        code, peak, seconds = done.stdout.split()
        assert code == "0", done.stderr
        print(f"{arguments[0]}: peak {int(peak) / 1024:,.0f} MB, {float(seconds):.1f} s")
        return int(peak) // 1024

    assert measured("tokenizer", "train", path, "--vocab-size", 8192, "--out", tmp_path / "tokenizer") < 1000
    assert measured("encode", path, "--tokenizer", tmp_path / "tokenizer", "--out", tmp_path / "s") < 400
    assert sum(Shards.open(tmp_path / "s").bytes(split) for split in ("train", "val", "test")) > 900_000_000


def test_of_a_very_large_text_a_bounded_number_of_documents_is_held_out(
    tmp_path: Path, bpe: BPETokenizer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(held_out, "LARGEST_HELD_OUT", 40)
    lines = [
        json.dumps({"text": f"document number {i} of so many, told in its own words {i * i}"}) for i in range(3000)
    ]
    (tmp_path / "many.jsonl").write_text("\n".join(lines))
    shards = encode_sources(find_sources([tmp_path / "many.jsonl"]), bpe, tmp_path / "s", unit_bytes=20_000)
    assert 20 <= shards.documents("val") + shards.documents("test") <= 60
    assert "40 of them are held out, not 10%" in capsys.readouterr().err
