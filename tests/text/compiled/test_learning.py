"""Compiled counting and learning against the readable way, and their limits."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest
import regex

from pellucid.text.bpe_training import LONG_TEXT, learn, learn_merges
from pellucid.text.compiled import learning
from pellucid.text.compiled.counting import PieceCounts, count_pieces_fast
from pellucid.text.compiled.learning import learn_merges_fast
from pellucid.text.pieces import PATTERNS, cut
from tests.text.strings import strings

patterns = pytest.mark.parametrize("pattern", PATTERNS.values(), ids=PATTERNS)


def as_dict(counted: PieceCounts) -> dict[bytes, int]:
    arena, lengths, counts = counted.pieces()
    ends = np.cumsum(lengths)
    return {arena[e - n : e].tobytes(): int(c) for e, n, c in zip(ends, lengths, counts, strict=True)}


def counted(pieces: dict[bytes, int]) -> PieceCounts:
    """As if these pieces had been counted."""
    counts = PieceCounts(PATTERNS["gpt2"])
    counts._arena = np.frombuffer(b"".join(pieces), dtype=np.uint8)
    counts._lengths = np.array([len(piece) for piece in pieces], dtype=np.int32)
    counts._counts = np.array(list(pieces.values()), dtype=np.int64)
    counts._used[:] = len(pieces), len(counts._arena)
    return counts


@patterns
def test_counts_are_those_of_the_regular_expression(pattern: str) -> None:
    texts = list(strings(2_000, seed=7))
    expected = Counter(piece.encode() for text in texts for piece in cut(regex.compile(pattern), text))
    assert as_dict(count_pieces_fast(texts, pattern)) == expected


def test_texts_are_counted_one_by_one_whatever_their_length() -> None:
    texts = ["x" * 1_000_000, "y" * 17, "", "z " * 100_000]
    expected = Counter(piece.encode() for text in texts for piece in cut(regex.compile(PATTERNS["gpt2"]), text))
    assert as_dict(count_pieces_fast(texts, PATTERNS["gpt2"])) == expected


@pytest.mark.parametrize("seed", range(60))
def test_merges_and_their_counts_are_those_of_the_readable_way(seed: int) -> None:
    chance = random.Random(seed)
    alphabet = "ab" if seed % 2 else "abcdefg é"
    pieces = {
        "".join(chance.choices(alphabet, k=chance.randint(1, 30))).encode(): chance.randint(1, 9) for _ in range(200)
    }
    assert learn_merges_fast(counted(pieces), 500) == learn_merges(pieces, 500)


def test_counts_of_terabytes_are_exact() -> None:
    pieces = {b" the": 3 * 2**40, b" fox": 2**40 + 1, b" hen": 2**40}
    merges, met = learn_merges_fast(counted(pieces), 9)
    assert (merges, met) == learn_merges(pieces, 9)
    assert met[ord(" ")] == 5 * 2**40 + 1 and max(met[256:]) == 4 * 2**40  # "he"


@patterns
def test_merges_of_all_kinds_of_text_are_those_of_the_readable_way(pattern: str) -> None:
    pieces = count_pieces_fast(strings(5_000, seed=8), pattern)
    assert learn_merges_fast(pieces, 4_000) == learn_merges(as_dict(pieces), 4_000)


def test_arrays_grow_as_they_must(monkeypatch: pytest.MonkeyPatch) -> None:
    chance = random.Random(0)
    pieces = {chance.randbytes(20): chance.randint(1, 9) for _ in range(12_000)}  # more pairs than there is room for
    assert learn_merges_fast(counted(pieces), 3_000) == learn_merges(pieces, 3_000)
    assert len(pieces) * 19 > 1 << 17


def test_a_long_text_takes_the_compiled_way_with_the_same_result(story: str) -> None:
    text = story * (LONG_TEXT // len(story) + 1)
    pieces = Counter(piece.encode() for piece in cut(regex.compile(PATTERNS["gpt2"]), text))
    assert learn([text], 500, PATTERNS["gpt2"]) == learn_merges(pieces, 500)


def test_tables_grow_with_the_distinct_pieces() -> None:
    numbers = [" ".join(f"{letter}{number:x}" for number in range(20_000)) for letter in "pqrstuvwxyz"]
    text = " ".join(numbers).translate(str.maketrans("0123456789", "ghijklmnop"))  # each a word of its own
    expected = Counter(text.split())
    found = as_dict(count_pieces_fast([text], PATTERNS["gpt2"]))
    assert {piece.decode().strip(): count for piece, count in found.items()} == expected
    assert len(found) > 1 << 17


def test_rare_pieces_are_left_out_when_the_distinct_ones_outgrow_the_limit(capsys: pytest.CaptureFixture[str]) -> None:
    chance = random.Random(0)
    common = " ".join(chance.choices(["ferry", "harbour", "lamp"], k=5_000))
    rare = (" ".join("".join(chance.choices("abcdefgh", k=8)) for _ in range(2_000)) for _ in range(30))
    pieces = count_pieces_fast([common, *rare, common], PATTERNS["gpt2"], largest=1 << 18)
    assert as_dict(pieces)[b" ferry"] > 3_000
    assert pieces._used[1] <= 1 << 18
    assert "rare pieces were left out" in capsys.readouterr().err
    assert learn_merges_fast(pieces, 5)[0]


def test_learning_can_be_stopped() -> None:
    state = np.array([0, 1, learning.NONE, 0, 0, 0])
    merges, _ = learning._learn_all(count_pieces_fast(["some text, some more"], PATTERNS["gpt2"]), 10, state)
    assert len(merges) == 0
