"""The columns of one choice, beside transformers' own."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, ClassVar

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from pellucid.generation import sampling as module
from pellucid.generation.engine import seen_tokens
from pellucid.generation.sampling import Sampling, choose, draw, likeliest, next_token
from pellucid.runtime import ConfigError, DataError

VOCAB = 40


def some_logits(seed: int, rows: int = 2, vocab: int = VOCAB) -> Tensor:
    return 3 * torch.randn(rows, vocab, generator=torch.Generator().manual_seed(seed))


def theirs(ids: Tensor, logits: Tensor, sampling: Sampling) -> Tensor:
    """The scores that transformers draws from: -inf for what is not kept."""
    steps = LogitsProcessorList([RepetitionPenaltyLogitsProcessor(float(sampling.repetition_penalty))])
    steps.append(TemperatureLogitsWarper(float(sampling.temperature)))
    if sampling.top_k:
        steps.append(TopKLogitsWarper(sampling.top_k))
    if sampling.top_p < 1:
        steps.append(TopPLogitsWarper(sampling.top_p))
    if sampling.min_p:
        steps.append(MinPLogitsWarper(sampling.min_p))
    return steps(ids, logits.clone())


SAMPLINGS = st.builds(
    Sampling,
    temperature=st.floats(0.2, 3),
    top_k=st.one_of(st.just(0), st.integers(1, VOCAB + 5)),
    top_p=st.one_of(st.just(1.0), st.floats(0.05, 0.99)),
    min_p=st.one_of(st.just(0.0), st.floats(0.001, 1)),
    repetition_penalty=st.one_of(st.just(1.0), st.floats(0.3, 3)),
)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**31), SAMPLINGS, st.lists(st.integers(0, VOCAB - 1), min_size=4, max_size=4))
def test_what_is_kept_and_its_probabilities_are_those_of_transformers(
    seed: int, sampling: Sampling, ids: list[int]
) -> None:
    logits, prompts = some_logits(seed), [ids[:2], ids[2:]]
    expected = theirs(torch.tensor(prompts), logits, sampling)
    columns = next_token(logits, sampling, seen_tokens(prompts, logits))
    assert torch.equal(columns.kept, expected > -math.inf)
    torch.testing.assert_close(columns.scaled[columns.kept], expected[columns.kept], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(columns.probability, expected.softmax(dim=1), atol=1e-5, rtol=1e-4)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**31), st.floats(0.01, 0.99), st.integers(1, 12), st.booleans())
def test_top_p_keeps_the_likeliest_the_first_of_equals_however_few_are_sorted(
    seed: int, p: float, few: int, many_equal: bool
) -> None:
    logits = some_logits(seed)
    logits = logits.round() if many_equal else logits
    probability = logits.softmax(dim=1)
    order = probability.argsort(dim=1, descending=True, stable=True)
    ranked = probability.gather(1, order)
    expected = torch.zeros_like(logits, dtype=torch.bool).scatter(1, order, ranked.cumsum(dim=1) - ranked < p)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(module, "FEW", few)
        assert torch.equal(next_token(logits, Sampling(1.0, top_p=p)).kept, expected)


@settings(deadline=None)
@given(st.integers(0, 2**31), SAMPLINGS, st.lists(st.floats(0, 1, exclude_max=True), min_size=2, max_size=2))
def test_what_is_drawn_without_the_table_is_what_the_table_gives(
    seed: int, sampling: Sampling, numbers: list[float]
) -> None:
    logits = some_logits(seed)
    free = replace(sampling, repetition_penalty=1.0)
    for each in (Sampling(), Sampling(sampling.temperature), free, replace(free, temperature=0.0)):
        assert torch.equal(draw(logits, each, None, numbers), choose(next_token(logits, each), numbers))
    assert torch.equal(likeliest(logits.round()), logits.round().argmax(dim=1))


def test_the_order_of_the_steps_is_that_of_transformers_generate() -> None:
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=VOCAB, n_positions=16, n_embd=16, n_layer=1, n_head=2)).eval()
    torch.nn.init.normal_(model.transformer.wte.weight, std=1.0)
    prompt = torch.tensor([[3, 9, 9, 27, 4]])
    chosen: dict[str, Any] = {"temperature": 0.6, "top_k": 12, "top_p": 0.9, "min_p": 0.02, "repetition_penalty": 1.8}
    with torch.inference_mode():
        done = model.generate(
            prompt, max_new_tokens=1, do_sample=True, pad_token_id=0, eos_token_id=None, output_scores=True,
            output_logits=True, return_dict_in_generate=True, **chosen,
        )  # fmt: skip
    columns = next_token(done.logits[0], Sampling(**chosen), seen_tokens(prompt.tolist(), done.logits[0]))
    torch.testing.assert_close(columns.scaled.masked_fill(~columns.kept, -math.inf), done.scores[0])
    assert 1 < int(columns.kept.sum()) < 12


def test_each_column_follows_from_the_one_before() -> None:
    logits = some_logits(0)
    seen = seen_tokens([[1, 2], [3, 3]], logits)
    columns = next_token(logits, Sampling(0.7, 5, 0.9, repetition_penalty=2.0), seen)
    assert torch.equal(columns.logit, logits)
    assert torch.equal(columns.penalised[~seen], logits[~seen])
    assert (columns.penalised[seen] < logits[seen]).all()
    torch.testing.assert_close(columns.scaled, columns.penalised / 0.7)
    assert ((columns.probability > 0) == columns.kept).all()
    torch.testing.assert_close(columns.probability.sum(dim=1), torch.ones(2))


def test_the_cumulative_column_runs_from_the_likeliest_down() -> None:
    columns = next_token(some_logits(3), Sampling(1.0, top_k=6))
    for row in range(2):
        order = columns.order[row].tolist()
        running = 0.0
        assert columns.kept[row, order[:6]].all()
        for token in order:
            running += float(columns.probability[row, token])
            assert float(columns.cumulative[row, token]) == pytest.approx(running, abs=1e-6)


def test_tokens_as_likely_as_the_last_of_top_k_stay_too() -> None:
    columns = next_token(torch.tensor([[1.0, 3.0, 1.0, 0.0]]), Sampling(1.0, top_k=2))
    assert columns.kept.tolist() == [[True, True, True, False]]


def test_temperature_0_always_takes_the_likeliest_token_after_the_penalty() -> None:
    logits = some_logits(1, rows=5)
    for number in (0.0, 0.5, 0.999):
        assert torch.equal(choose(next_token(logits, Sampling(0.0)), [number] * 5), logits.argmax(dim=1))
    likeliest = logits.argmax(dim=1, keepdim=True)
    seen = torch.zeros_like(logits, dtype=torch.bool).scatter(1, likeliest, True)
    others = choose(next_token(logits, Sampling(0.0, repetition_penalty=100.0), seen), [0.5] * 5)
    assert (others != likeliest[:, 0]).all()


def test_top_k_1_and_a_tiny_top_p_and_a_min_p_of_1_take_the_likeliest_token_too() -> None:
    logits = some_logits(2, rows=5)
    for sampling in (Sampling(2.0, top_k=1), Sampling(2.0, top_p=1e-6), Sampling(2.0, min_p=1.0)):
        assert torch.equal(choose(next_token(logits, sampling), [0.7] * 5), logits.argmax(dim=1))


def test_tokens_are_drawn_as_often_as_their_probability_says() -> None:
    columns = next_token(torch.tensor([[0.0, 1.0, 2.0, -1.0]]).repeat(20_000, 1), Sampling(1.0))
    numbers = torch.rand(20_000, generator=torch.Generator().manual_seed(0)).tolist()
    drawn = choose(columns, numbers).bincount(minlength=4) / 20_000
    torch.testing.assert_close(drawn, columns.probability[0], atol=0.015, rtol=0)


def test_each_row_draws_with_its_own_number() -> None:
    columns = next_token(torch.zeros(4, 4), Sampling(1.0))
    assert choose(columns, [0.8, 0.1, 0.3, 0.6]).tolist() == [3, 0, 1, 2]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), SAMPLINGS, st.sampled_from([0.0, 1e-300, 0.5, 1 - 2**-53]))
def test_what_is_not_kept_is_never_drawn(seed: int, sampling: Sampling, number: float) -> None:
    columns = next_token(some_logits(seed), sampling)
    chosen = choose(columns, [number, number])
    assert columns.kept.gather(1, chosen[:, None]).all()


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_logits_that_are_no_numbers_are_an_error_and_no_token(temperature: float) -> None:
    logits = some_logits(0)
    logits[1, 7] = math.nan
    with pytest.raises(DataError, match="logits: found values that are no numbers"):
        choose(next_token(logits, Sampling(temperature)), [0.5, 0.5])
    with pytest.raises(DataError, match="logits: found values that are no numbers"):
        draw(logits, Sampling(temperature), None, [0.5, 0.5])


@pytest.mark.parametrize("sampling", [Sampling(0.0), Sampling(0.0, repetition_penalty=9.0), Sampling(0.8, top_k=5)])
def test_without_the_table_the_same_tokens_are_drawn(sampling: Sampling) -> None:
    logits = some_logits(3).round()  # many are equally likely
    likeliest = logits == logits.amax(dim=1, keepdim=True)
    seen = likeliest if sampling.repetition_penalty != 1 else None
    for number in (0.0, 0.3, 0.999):
        expected = choose(next_token(logits, sampling, seen), [number] * len(logits))
        assert torch.equal(draw(logits, sampling, seen, [number] * len(logits)), expected)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("temperature", [-1.0, math.nan, math.inf, 1e-40]),
        ("top_k", [-1]),
        ("top_p", [0.0, 1.5, math.nan]),
        ("min_p", [-0.1, 1.1, math.nan]),
        ("repetition_penalty", [0.0, -1.0, math.inf, math.nan]),
    ],
)
def test_impossible_settings_are_refused_by_name(name: str, values: list[float]) -> None:
    for value in values:
        with pytest.raises(ConfigError, match=f"^{name}: found {value}"):
            Sampling(**{name: value})  # type: ignore[arg-type]


class Watched(Tensor):
    """Notes how many threads torch has whenever something is computed of it."""

    threads: ClassVar[set[int]] = set()

    @classmethod
    def __torch_function__(cls, function: Any, kinds: Any, arguments: Any = (), named: Any = None) -> Any:
        if function is Tensor.softmax:
            cls.threads.add(torch.get_num_threads())
        return super().__torch_function__(function, kinds, arguments, named or {})


def test_one_thread_chooses_and_torch_has_its_threads_again() -> None:
    usual = torch.get_num_threads()
    torch.set_num_threads(3)
    Watched.threads.clear()
    try:
        assert draw(torch.eye(2, 99).as_subclass(Watched), Sampling(0.01), None, [0.5, 0.5]).tolist() == [0, 1]
        assert Watched.threads == {1}
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(usual)
