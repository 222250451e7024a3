"""The compiled encoder against the readable one, tiktoken and tokenizers, on strings of all kinds."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import regex
import tiktoken
import tokenizers

from pellucid.text.bpe import BPETokenizer
from pellucid.text.compiled.encoding import SLOTS, FastBPE
from pellucid.text.compiled.pieces import character_classes, padded, pattern_mark, piece_end
from pellucid.text.pieces import PATTERNS, cut
from pellucid.text.tokenizer import Tokenizer
from tests.text.strings import strings

CL100K_OF_TIKTOKEN = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+"
    r"|\s++$|\s*[\r\n]|\s+(?!\S)|\s"
)
counts = pytest.mark.parametrize("count", [2_000, pytest.param(200_000, marks=pytest.mark.nightly)])
patterns = pytest.mark.parametrize("pattern", sorted(PATTERNS))


@pytest.fixture(scope="module", params=sorted(PATTERNS))
def trained(request: pytest.FixtureRequest) -> BPETokenizer:
    """A BPE trained on the strings themselves, so that many of its merges apply to them."""
    return BPETokenizer.train(strings(3_000, seed=1), 3_000, request.param)


def compiled(tokenizer: BPETokenizer) -> FastBPE:
    return FastBPE(tokenizer._byte_ids, tokenizer._merges, tokenizer._merged, tokenizer.pattern)


def compiled_pieces(text: str, pattern: str) -> list[str]:
    content = text.encode()
    data, number, start, pieces = padded(content), pattern_mark(pattern), 0, []
    while start < len(content):
        end = piece_end(data, start, len(content), character_classes(), number)
        pieces.append(content[start:end].decode())
        start = end
    return pieces


@patterns
@counts
def test_pieces_are_those_of_the_regular_expression(pattern: str, count: int) -> None:
    expression = regex.compile(PATTERNS[pattern])
    for text in strings(count, seed=2):
        assert compiled_pieces(text, PATTERNS[pattern]) == cut(expression, text)


@patterns
def test_characters_of_all_planes_fall_into_the_pieces_that_the_regular_expression_gives(pattern: str) -> None:
    everything = [chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000]
    text = "".join(f"a{c} {c}1{c}'" for c in everything[::7])
    assert compiled_pieces(text, PATTERNS[pattern]) == cut(regex.compile(PATTERNS[pattern]), text)


@counts
def test_ids_equal_the_readable_ones_and_decode_to_the_text(trained: BPETokenizer, count: int) -> None:
    texts = list(strings(count, seed=3))
    for text, ids in zip(texts, compiled(trained).encode_many([t.encode() for t in texts]), strict=True):
        assert ids.tolist() == trained.encode_readably(text)
        assert trained.decode(ids.tolist()) == text


@counts
def test_ids_equal_those_of_tokenizers_reading_our_file(trained: BPETokenizer, count: int, tmp_path: Path) -> None:
    trained.save(tmp_path)
    theirs = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    content = json.loads((tmp_path / "tokenizer.json").read_text())
    content["added_tokens"] = []  # they would be recognised in the text
    theirs = tokenizers.Tokenizer.from_str(json.dumps(content))
    texts = list(strings(count, seed=4))
    ours = compiled(trained).encode_many([text.encode() for text in texts])
    for text, ids, encoding in zip(texts, ours, theirs.encode_batch(texts), strict=True):
        assert ids.tolist() == encoding.ids, repr(text)


@counts
def test_ids_equal_those_of_tiktoken_with_its_own_pattern(trained: BPETokenizer, count: int) -> None:
    pattern = PATTERNS["gpt2"] if trained.pattern == PATTERNS["gpt2"] else CL100K_OF_TIKTOKEN
    ranks = {trained.token_bytes(token): token for token in trained.ordinary_tokens()}
    theirs = tiktoken.Encoding("ours", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})
    texts = list(strings(count, seed=5))
    ours = compiled(trained).encode_many([text.encode() for text in texts])
    for text, ids in zip(texts, ours, strict=True):
        assert ids.tolist() == theirs.encode_ordinary(text), repr(text)


@counts
def test_gpt2_ids_equal_those_of_tiktoken(gpt2: BPETokenizer, gpt2_of_tiktoken: tiktoken.Encoding, count: int) -> None:
    texts = list(strings(count, seed=6))
    for text, ids in zip(texts, compiled(gpt2).encode_many([text.encode() for text in texts]), strict=True):
        assert ids.tolist() == gpt2_of_tiktoken.encode_ordinary(text), repr(text)


def test_a_table_that_is_full_is_emptied_and_changes_nothing(trained: BPETokenizer) -> None:
    fast = compiled(trained)
    random = np.random.default_rng(0)
    for _ in range(3):
        text = " ".join(map(str, random.integers(0, 10**9, SLOTS // 2)))
        assert fast.encode(text.encode()).tolist()[:2_000] == trained.encode_readably(text[:8_000])[:2_000]


def test_threads_give_the_ids_of_one(trained: BPETokenizer) -> None:
    fast, texts = compiled(trained), ["".join(strings(500, seed)).encode() for seed in range(8)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(fast.encode, texts))
    for text, ids in zip(texts, together, strict=True):
        assert np.array_equal(ids, compiled(trained).encode(text))


@pytest.mark.parametrize("text", ["a" * 1_000_000, " " * 1_000_000, "ab" * 500_000, "好" * 334_000, "=" * 1_000_000])
def test_a_megabyte_without_a_place_to_cut_takes_no_quadratic_time(trained: BPETokenizer, text: str) -> None:
    ids = compiled(trained).encode(text.encode())
    assert trained.decode(ids.tolist()) == text


def test_texts_of_a_batch_do_not_see_each_other(trained: BPETokenizer) -> None:
    texts = ["don'", "t", " ", " x", "", "\n", "a"]
    alone = [trained.encode_readably(text) for text in texts]
    assert [ids.tolist() for ids in compiled(trained).encode_many([text.encode() for text in texts])] == alone


def test_loading_gpt2_and_encoding_a_long_text_takes_the_compiled_path(gpt2: Tokenizer) -> None:
    assert isinstance(gpt2, BPETokenizer)
    gpt2.encode("word " * 10_000)
    assert gpt2._compiled is not None
