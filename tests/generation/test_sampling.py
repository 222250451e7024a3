"""The columns of one choice, beside transformers' own."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from pellucid.generation.sampling import Sampling, choose, next_token
from pellucid.runtime import ConfigError


def some_logits(seed: int, rows: int = 2, vocab: int = 40) -> Tensor:
    return 3 * torch.randn(rows, vocab, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**31),
    st.floats(0.2, 3),
    st.one_of(st.just(0), st.integers(1, 45)),
    st.one_of(st.just(1.0), st.floats(0.05, 0.99)),
)
def test_probabilities_are_those_of_transformers_warpers(seed: int, temperature: float, k: int, p: float) -> None:
    logits = some_logits(seed)
    expected = TemperatureLogitsWarper(temperature)(None, logits.clone())
    if k:
        expected = TopKLogitsWarper(k)(None, expected)
    if p < 1:
        expected = TopPLogitsWarper(p)(None, expected)
    columns = next_token(logits, Sampling(temperature, k, p))
    torch.testing.assert_close(columns.probability, expected.softmax(dim=1), atol=1e-5, rtol=1e-4)
    assert torch.equal(columns.kept, expected > -math.inf)


def test_each_column_follows_from_the_one_before() -> None:
    logits = some_logits(0)
    columns = next_token(logits, Sampling(0.7, 5, 0.9))
    assert torch.equal(columns.logit, logits)
    torch.testing.assert_close(columns.scaled, logits / 0.7)
    assert ((columns.probability > 0) == columns.kept).all()
    torch.testing.assert_close(columns.probability.sum(dim=1), torch.ones(2))


def test_temperature_0_always_takes_the_likeliest_token() -> None:
    logits = some_logits(1, rows=5)
    for seed in range(5):
        chosen = choose(next_token(logits, Sampling(0.0)), torch.Generator().manual_seed(seed))
        assert torch.equal(chosen, logits.argmax(dim=1))


def test_top_k_1_and_a_tiny_top_p_take_the_likeliest_token_too() -> None:
    logits = some_logits(2, rows=5)
    for sampling in (Sampling(2.0, top_k=1), Sampling(2.0, top_p=1e-6)):
        assert torch.equal(choose(next_token(logits, sampling)), logits.argmax(dim=1))


def test_tokens_are_drawn_as_often_as_their_probability_says() -> None:
    logits = torch.tensor([[0.0, 1.0, 2.0, -1.0]]).repeat(20_000, 1)
    columns = next_token(logits, Sampling(1.0))
    drawn = choose(columns, torch.Generator().manual_seed(0)).bincount(minlength=4) / 20_000
    torch.testing.assert_close(drawn, columns.probability[0], atol=0.015, rtol=0)


@pytest.mark.parametrize(
    "values", [{"temperature": -1.0}, {"temperature": math.nan}, {"top_k": -1}, {"top_p": 0.0}, {"top_p": 1.5}]
)
def test_impossible_settings_are_refused_by_name(values: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(values))):
        Sampling(**values)  # type: ignore[arg-type]
