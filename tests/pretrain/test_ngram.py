"""The n-gram baseline against a plain implementation with dictionaries, and as a distribution."""

from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pellucid.pretrain.ngram import NGram, unigram_nats


def plain_kneser_ney(train: list[int], vocab_size: int, order: int, history: list[int], token: int) -> float:
    """Interpolated Kneser-Ney, word by word as in Chen and Goodman's section 3.2, with counts in dictionaries."""
    counts: dict[int, Counter[tuple[int, ...]]] = {}
    counts[order] = Counter(tuple(train[i : i + order]) for i in range(len(train) - order + 1))
    for n in range(order - 1, 0, -1):  # shorter orders: in how many contexts was it seen
        before: dict[tuple[int, ...], set[int]] = defaultdict(set)
        for gram in counts[n + 1]:
            before[gram[1:]].add(gram[0])
        counts[n] = Counter({gram: len(firsts) for gram, firsts in before.items()})

    def probability(n: int, context: tuple[int, ...]) -> float:
        if n == 0:
            return 1 / vocab_size
        shorter = probability(n - 1, context[1:])
        same = {gram: count for gram, count in counts[n].items() if gram[:-1] == context}
        if not same:
            return shorter
        once, twice = (sum(count == k for count in counts[n].values()) for k in (1, 2))
        discount = once / (once + 2 * twice) if once and twice else 0.5
        total = sum(same.values())
        return max(same.get((*context, token), 0) - discount, 0) / total + discount * len(same) / total * shorter

    n = min(order, len(history) + 1)
    return probability(n, tuple(history[len(history) - n + 1 :]))


texts = st.lists(st.integers(0, 4), min_size=8, max_size=60)


@settings(max_examples=30, deadline=None)
@given(texts, st.lists(st.integers(0, 5), min_size=2, max_size=12), st.integers(1, 4))
def test_it_equals_the_plain_implementation(train: list[int], text: list[int], order: int) -> None:
    nats = NGram(np.array(train, dtype=np.uint8), vocab_size=6, order=order).nats(np.array(text, dtype=np.uint8))
    expected = [plain_kneser_ney(train, 6, order, text[:i], text[i]) for i in range(1, len(text))]
    np.testing.assert_allclose(np.exp(-nats), expected, rtol=1e-9)


@settings(max_examples=30, deadline=None)
@given(texts, st.lists(st.integers(0, 5), min_size=1, max_size=6), st.integers(1, 5))
def test_probabilities_of_all_next_tokens_sum_to_one(train: list[int], history: list[int], order: int) -> None:
    model = NGram(np.array(train, dtype=np.uint16), vocab_size=6, order=order)
    total = sum(np.exp(-model.nats(np.array([*history, token]))[-1]) for token in range(6))
    assert abs(total - 1) < 1e-9


def test_it_is_surer_of_what_it_has_seen_than_counting_single_tokens_is() -> None:
    train = np.array([1, 2, 3, 4] * 50, dtype=np.uint16)
    assert NGram(train, 5).nats(train).mean() < 0.2 < unigram_nats(train, train, 5).mean()


@pytest.mark.parametrize("vocab_size", [2, 4097, 50257, 70_000])
def test_large_vocabularies_shorten_the_order_until_a_key_fits_into_64_bits(vocab_size: int) -> None:
    model = NGram(np.arange(vocab_size - 1, -1, -1, dtype=np.uint32), vocab_size, order=9)
    assert vocab_size**model.order <= 2**64
    top = np.array([vocab_size - 1, vocab_size - 2] * 3)
    assert np.isfinite(model.nats(top)).all()


@pytest.mark.parametrize("length", [1, 2, 3])
def test_a_text_shorter_than_the_order_still_gives_probabilities(length: int) -> None:
    model = NGram(np.arange(length, dtype=np.uint16), 6, order=4)
    total = sum(np.exp(-model.nats(np.array([0, token]))[-1]) for token in range(6))
    assert abs(total - 1) < 1e-9


def test_unigrams_are_frequencies_with_one_added() -> None:
    nats = unigram_nats(np.array([0, 0, 1]), np.array([2, 0, 1, 2]), 3)
    np.testing.assert_allclose(np.exp(-nats), [3 / 6, 2 / 6, 1 / 6])
