"""Byte-pair encoding against oracles: a naive trainer, the plain encoder, tiktoken, and the rules themselves."""

from __future__ import annotations

import random
import time
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import regex
import tiktoken
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pellucid.runtime import DataError
from pellucid.text import bpe_training
from pellucid.text.bpe import LONG_PIECE, LONG_TEXT, PATTERNS, BPETokenizer
from pellucid.text.pieces import cut
from pellucid.text.tokenizer import Tokenizer

any_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
texts = st.lists(any_text | st.text("ab c\n'1é🙂", max_size=60), max_size=8).map("".join)  # of all scripts


def long_text(seed: int) -> str:
    """Up to 400 characters with many repeated pairs; hypothesis' own texts are mostly too short to bring that about."""
    chance = random.Random(seed)
    syllables = ["".join(chance.choices("abcd'é", k=chance.randint(1, 4))) for _ in range(8)]
    return "".join(chance.choices([*syllables, " ", "\n"], k=chance.randint(1, 100)))


long_texts = st.integers(0, 10**9).map(long_text)
patterns = st.sampled_from(sorted(PATTERNS))
relaxed = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def naive_merges(text: str, count: int, pattern: str) -> list[tuple[bytes, bytes]]:
    """The definition: recount all pairs of all pieces for each merge; the greatest (count, left, right) wins."""
    pieces = [[bytes([b]) for b in piece.encode()] for piece in cut(regex.compile(PATTERNS[pattern]), text)]
    merges = []
    for _ in range(count):
        counts = Counter(pair for piece in pieces for pair in pairwise(piece))
        if not counts:
            break
        best = max(counts, key=lambda pair: (counts[pair], pair))
        merges.append(best)
        for piece in pieces:
            i = 0
            while i < len(piece) - 1:
                if (piece[i], piece[i + 1]) == best:
                    piece[i : i + 2] = [best[0] + best[1]]
                i += 1
    return merges


def spelt(tokenizer: BPETokenizer) -> list[tuple[bytes, bytes]]:
    return [(tokenizer.token_bytes(left), tokenizer.token_bytes(right)) for left, right in tokenizer.merges()]


@settings(deadline=None)
@given(long_texts | any_text.filter(bool), patterns)
def test_incremental_training_learns_what_the_naive_definition_learns(text: str, pattern: str) -> None:
    tokenizer = BPETokenizer.train([text], 256 + 60, pattern)
    assert spelt(tokenizer) == naive_merges(text, 60, pattern)


def test_training_on_a_story_equals_the_naive_definition(story: str) -> None:
    assert spelt(BPETokenizer.train([story], 456)) == naive_merges(story, 200, "gpt2")


def test_ties_go_to_the_pair_whose_bytes_are_greater() -> None:
    assert spelt(BPETokenizer.train(["ab cd xy ab cd xy"], 257))[0] == (b"x", b"y")
    # (b"a", b"b") and (b"ab", b"c") tie once ab is made; a token is greater than its own beginning
    assert spelt(BPETokenizer.train(["az abz", "az abz"], 260)) == naive_merges("az abzaz abz", 4, "gpt2")


def test_merges_do_not_depend_on_the_order_of_the_texts(story: str) -> None:
    lines = story.splitlines(keepends=True)
    forwards, backwards = BPETokenizer.train(lines, 350), BPETokenizer.train(lines[::-1], 350)
    assert forwards.fingerprint() == backwards.fingerprint()


def test_a_merge_touches_only_the_pieces_that_hold_its_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    touched: list[list[int]] = []
    merge_in = bpe_training._merge_in

    def watched(piece: list[int], *rest: Any) -> list[int]:
        touched.append(piece)
        return merge_in(piece, *rest)

    monkeypatch.setattr(bpe_training, "_merge_in", watched)
    letters = "abcdefghijklmnopqrstuvwxyz"
    bpe_training.learn_merges({f" {a}{b}".encode(): 1 for a in letters for b in letters}, 26 + 74)
    assert len(touched) == 26 * 26 + 74, "each letter behind a space stands in 26 pieces, each pair of letters in one"


def test_vocab_size_counts_bytes_and_merges_and_special_tokens_come_on_top(bpe: BPETokenizer) -> None:
    assert len(bpe.merges()) == 300 - 256
    assert bpe.vocab_size == 304
    assert bpe.special_tokens == {"<|endoftext|>": 300, "<|system|>": 301, "<|user|>": 302, "<|assistant|>": 303}
    assert bpe.end_of_text == 300


def test_a_small_text_gives_fewer_merges_and_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    tokenizer = BPETokenizer.train(["abab"], 1000)
    assert spelt(tokenizer) == [(b"a", b"b"), (b"ab", b"ab")]
    assert "258 tokens" in capsys.readouterr().err


def test_training_without_text_or_with_too_small_a_vocabulary_is_an_error() -> None:
    with pytest.raises(DataError, match="no text"):
        BPETokenizer.train(["", ""], 300)
    with pytest.raises(DataError, match="256 or more"):
        BPETokenizer.train(["text"], 255)
    with pytest.raises(DataError, match="lone surrogate"):
        BPETokenizer.train(["a\ud800b"], 300)


@relaxed
@given(texts)
def test_decoding_gives_the_text_back(bpe: BPETokenizer, text: str) -> None:
    assert bpe.decode(bpe.encode(text)) == text


@pytest.mark.parametrize("pattern", sorted(PATTERNS))
@settings(deadline=None, max_examples=200)
@given(text=texts)
def test_the_fast_path_gives_the_ids_of_the_plain_one(pattern: str, text: str) -> None:
    plain, fast = trained(pattern)
    assert fast.encode_arrays([text])[0].tolist() == plain.encode_readably(text)


cached: dict[str, tuple[BPETokenizer, BPETokenizer]] = {}


def trained(pattern: str) -> tuple[BPETokenizer, BPETokenizer]:
    """A tokenizer that only ever took the plain path, and its twin that a long text has put on the fast one."""
    if pattern not in cached:
        plain, fast = (
            BPETokenizer.train(["The fox's grapes: 'ab' ab c 12, ééé 🙂🙂!\n"] * 3, 330, pattern) for _ in "pf"
        )
        fast.encode("long " * LONG_TEXT)
        assert fast._compiled is not None
        cached[pattern] = (plain, fast)
    return cached[pattern]


@settings(deadline=None)
@given(st.integers(0, 10**9))
def test_the_heap_for_long_pieces_merges_as_the_plain_loop(seed: int) -> None:
    text = regex.sub(r"[^a-d]", "", long_text(seed)) + "ab"
    tokenizer = BPETokenizer.train([text], 256 + 60)
    piece = (text * LONG_PIECE)[: LONG_PIECE + seed % 100].encode()
    expected = ids = [tokenizer._byte_ids[value] for value in piece]
    while True:  # the plain loop, without its limit
        ranked = [(tokenizer._ranks[pair], i) for i, pair in enumerate(pairwise(expected)) if pair in tokenizer._ranks]
        if not ranked:
            break
        rank, at = min(ranked)
        expected = [*expected[:at], tokenizer._merged[rank], *expected[at + 2 :]]
    assert tokenizer.merge_piece(piece) == tokenizer._merge_long(ids) == expected


@pytest.mark.parametrize("text", ["a" * 200_000, "fox" * 70_000, " " * 1_000_000, "\n" * 200_000])
def test_a_very_long_word_takes_no_quadratic_time(bpe: BPETokenizer, text: str) -> None:
    began = time.monotonic()
    assert bpe.decode(bpe.encode(text)) == text
    assert time.monotonic() - began < 10


def test_a_vocabulary_that_training_cannot_make_gives_the_same_ids_on_both_paths() -> None:
    table = [bytes([value]) for value in range(256)] + [b"ab", b"abc", b"bc"]
    odd = BPETokenizer(table, [(98, 99), (97, 98), (257 - 1, 99), (98, 99)], {})  # ab + c, but bc comes first
    text = "abc " * LONG_TEXT
    assert odd.encode(text) == odd.encode_readably(text)
    assert odd._compiled is not None


def test_a_merge_without_its_token_is_an_error() -> None:
    with pytest.raises(DataError, match="no token for b'ab'"):
        BPETokenizer([bytes([value]) for value in range(256)], [(97, 98)], {})


def test_lone_surrogates_are_refused_on_both_paths(bpe: BPETokenizer) -> None:
    for text in ("a\ud800", "long " * LONG_TEXT + "\udfff"):
        with pytest.raises(DataError, match="lone surrogate"):
            bpe.encode(text)


# ---------------------------------------------------------------- GPT-2 exactly


@settings(deadline=None, max_examples=1000, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=texts)
def test_gpt2_ids_equal_tiktoken_on_the_plain_path(
    gpt2: BPETokenizer, gpt2_of_tiktoken: tiktoken.Encoding, text: str
) -> None:
    assert gpt2.encode_readably(text) == gpt2_of_tiktoken.encode_ordinary(text)


def test_gpt2_ids_equal_tiktoken_on_real_text(
    gpt2: Tokenizer, gpt2_of_tiktoken: tiktoken.Encoding, data_folder: Path
) -> None:
    text = (data_folder / "text" / "the-verdict.txt").read_text(encoding="utf-8")
    assert len(text) > LONG_TEXT
    assert gpt2.encode(text) == gpt2_of_tiktoken.encode_ordinary(text) == gpt2.encode_readably(text)  # type: ignore[attr-defined]


def test_gpt2_ids_equal_tiktoken_with_its_special_token(gpt2: Tokenizer, gpt2_of_tiktoken: tiktoken.Encoding) -> None:
    text = "one<|endoftext|>two"
    assert gpt2.encode(text, {"<|endoftext|>"}) == gpt2_of_tiktoken.encode(text, allowed_special={"<|endoftext|>"})
    assert gpt2.encode(text) == gpt2_of_tiktoken.encode_ordinary(text)
    assert gpt2.vocab_size == 50257
