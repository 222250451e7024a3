"""Compiled decoding against joining token by token."""

from __future__ import annotations

import random

import numpy as np
import pytest

from pellucid.runtime import DataError
from pellucid.text.bpe import BPETokenizer
from pellucid.text.tokenizer import LONG
from pellucid.text.word import WordTokenizer


@pytest.mark.parametrize("seed", range(20))
def test_ids_in_any_order_give_the_same_bytes(bpe: BPETokenizer, seed: int) -> None:
    chance = random.Random(seed)
    ids = chance.choices(range(bpe.vocab_size), k=LONG + seed)
    hidden = set(bpe.special_tokens.values()) if seed % 2 else set()
    expected = bpe.join_readably(ids, hidden)
    assert bpe._join_fast(ids, hidden) == expected
    for kind in (np.int64, np.uint16, np.uint32):
        assert bpe._join_fast(np.array(ids, dtype=kind), hidden) == expected
    assert bpe.decode(iter(ids)) == bpe.join_readably(ids).decode("utf-8", errors="replace")


@pytest.mark.parametrize("bad", [-1, 10**6, 2**32, 2**70])
def test_an_id_out_of_range_is_named(bpe: BPETokenizer, bad: int) -> None:
    with pytest.raises(DataError, match=f"the token id {bad};"):
        bpe.decode([*range(200)] * 30 + [bad])


def test_a_token_added_later_is_known(bpe: BPETokenizer) -> None:
    ids = [97] * LONG
    bpe.decode(ids)
    bpe.add_special_tokens(["<|new|>"])
    assert bpe.decode([*ids, bpe.special_tokens["<|new|>"]]).endswith("a<|new|>")


def test_words_decode_as_bytes_do(story: str) -> None:
    words = WordTokenizer.train([story])
    text = story * (LONG // len(words.encode(story)) + 1)
    assert words.decode(words.encode(text)) == text
