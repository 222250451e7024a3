"""Counting pieces as they come: exact while there is room, bounded beyond it, and what was met stands in vocab.txt."""

from __future__ import annotations

import random
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from pellucid.text import counting
from pellucid.text.bpe import BPETokenizer
from pellucid.text.counting import count_pieces
from pellucid.text.tokenizer import Tokenizer
from pellucid.text.tokenizer_format import KINDS
from pellucid.text.word import WordTokenizer
from tests.conftest import Cli


def test_all_pieces_are_counted_where_there_is_room(capsys: pytest.CaptureFixture[str]) -> None:
    assert count_pieces(["a b a", "", "b c"], str.split) == Counter(a=2, b=2, c=1)
    assert capsys.readouterr().err == ""


def test_a_text_is_forgotten_once_it_is_counted() -> None:
    tracemalloc.start()
    try:
        counts = count_pieces(("the fox " * 5_000 for _ in range(100)), str.split)  # 4 MB in parts of 40 kB
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert counts == Counter(the=500_000, fox=500_000)
    assert peak < 2_000_000


@pytest.mark.parametrize("quiet", [0.0, 99.0])
def test_on_a_terminal_long_work_shows_how_far_it_is(
    quiet: float, call: Cli, base_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setattr(counting, "QUIET_SECONDS", quiet)
    monkeypatch.setattr(counting, "REFRESH_SECONDS", 0.0)
    (tmp_path / "a.jsonl").write_text('{"text": "the fox"}\n' * 3)
    assert ("3 texts" in call("doctor", tmp_path / "a.jsonl").stderr) is (quiet == 0.0)
    assert "encoding with each" in call("tokenizer", "report", base_folder, "--text", tmp_path / "a.jsonl").stderr


@pytest.mark.parametrize("limit", ["MOST_PIECES", "MOST_CHARACTERS"])
def test_rare_words_are_forgotten_when_there_are_too_many_and_that_is_said(
    limit: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    most = 1_000 if limit == "MOST_PIECES" else 8_000
    monkeypatch.setattr(counting, limit, most)
    monkeypatch.setattr(counting, "PART", 1_000)

    def texts() -> Iterator[str]:
        chance = random.Random(0)
        for _ in range(300):
            yield "the fox " * 10 + " ".join(f"{chance.randrange(10**7):07}" for _ in range(100))

    found = count_pieces(texts(), str.split)
    assert found["the"] == found["fox"] == 3_000
    assert len(found) <= 1_000 + 200
    assert "rare pieces were left out" in capsys.readouterr().err
    trained = WordTokenizer.train(texts(), vocab_size=3)
    assert {"the", "fox", " "} <= trained.vocab().keys()


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_the_readable_vocabulary_says_how_often_each_token_was_met(kind: str, tmp_path: Path) -> None:
    text = "ab ab ab\n" * 400
    tokenizer = KINDS[kind].train([text], vocab_size=257 if kind == "bpe" else 3)
    tokenizer.save(tmp_path)
    rows = [line.split() for line in (tmp_path / "vocab.txt").read_text(encoding="utf-8").splitlines()]
    met = {row[1]: row[2] for row in rows if len(row) > 2}
    expected = {
        "char": {"'a'": "1,200", "'b'": "1,200"},
        "word": {"'ab'": "1,200", "'\\n'": "400"},
        "bpe": {"'a'": "1,200", "'\\n'": "400", "'z'": "0", "'ab'": "1,200"},
    }
    assert met.items() >= expected[kind].items()


def test_bytes_of_a_long_text_are_counted_by_the_compiled_way_as_by_the_readable_one() -> None:
    text = "a fox, naïve 🦊\n" * 100_000
    counts = BPETokenizer.train([text], 260).counts
    assert [counts[value] for value in range(256)] == [text.encode().count(bytes([value])) for value in range(256)]


def test_a_tokenizer_is_trained_on_standard_input_and_on_a_data_set_as_on_a_file(call: Cli, tmp_path: Path) -> None:
    pytest.importorskip("datasets", reason="needs the extra 'data'")
    lines = '{"story": "the fox and the grapes"}\n' * 20
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "train.jsonl").write_text(lines)
    train = ["tokenizer", "train", "--vocab-size", 270, "--text-field", "story", "--out"]
    assert call(*train, tmp_path / "file", tmp_path / "set" / "train.jsonl").returncode == 0
    assert call(*train, tmp_path / "input", "-", stdin=lines).returncode == 0
    assert call(*train, tmp_path / "streamed", "--dataset", tmp_path / "set").returncode == 0
    found = {Tokenizer.load(tmp_path / name).fingerprint() for name in ("file", "input", "streamed")}
    assert len(found) == 1
    nothing = call(*train, tmp_path / "none")
    assert nothing.returncode == 2 and "found no file; expected at least one" in nothing.stderr
