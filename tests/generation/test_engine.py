"""Generation: the same ids as transformers, alone or in a batch, and past the end of the context."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

from pellucid.config import ModelConfig
from pellucid.generation.engine import generate, generate_batch, stream_ids
from pellucid.generation.sampling import Sampling
from pellucid.model.gpt import GPT
from pellucid.text.bpe import BPETokenizer

CONTEXT = 32
NEVER = 10**6  # an id that never comes


@pytest.fixture(scope="module")
def tokenizer() -> BPETokenizer:
    return BPETokenizer.train(["the red fox has a lamp and the blue fox has none of it. " * 5], vocab_size=280)


@pytest.fixture(scope="module")
def model(tokenizer: BPETokenizer) -> GPT:
    torch.manual_seed(3)
    config = ModelConfig(
        vocab_size=tokenizer.vocab_size, context_length=CONTEXT, d_model=24, n_layers=2, n_heads=2, dropout=0.1
    )
    made = GPT(config)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    return made.eval()


def alone(model: GPT, prompt: list[int], tokens: int) -> list[int]:
    """The oracle: the whole text is read again for every token, no cache; past the context only the newer half."""
    row, made = list(prompt), []
    window = row
    with torch.no_grad():
        for _ in range(tokens):
            if len(window) > CONTEXT:
                window = window[-(CONTEXT // 2) :]
            token = int(model(torch.tensor([window]))[0, -1].argmax())
            made.append(token)
            window = [*window, token]
    return made


def test_the_likeliest_continuation_has_the_ids_of_transformers_generate(model: GPT, tmp_path: Path) -> None:
    model.save(tmp_path)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path)
    prompt = [5, 90, 7, 33]
    expected = theirs.generate(
        torch.tensor([prompt]), max_new_tokens=20, do_sample=False, pad_token_id=0, eos_token_id=None
    )
    assert list(stream_ids(model, prompt, 20, Sampling())) == expected[0, 4:].tolist()


def test_the_cache_changes_no_id(model: GPT) -> None:
    assert list(stream_ids(model, [1, 2, 3], 25, Sampling())) == alone(model, [1, 2, 3], 25)


def test_past_the_context_it_goes_on_with_the_newer_half_and_says_so_once(
    model: GPT, capsys: pytest.CaptureFixture[str]
) -> None:
    assert list(stream_ids(model, [1, 2, 3], 100, Sampling())) == alone(model, [1, 2, 3], 100)
    assert capsys.readouterr().err.count(f"the context of {CONTEXT} tokens is full") == 1


@pytest.mark.parametrize("length", [CONTEXT - 1, CONTEXT, CONTEXT + 1, 3 * CONTEXT])
def test_a_prompt_as_long_as_the_context_or_longer_is_cut_and_that_is_said(
    model: GPT, length: int, capsys: pytest.CaptureFixture[str]
) -> None:
    prompt = [number % 50 for number in range(length)]
    assert list(stream_ids(model, prompt, 5, Sampling())) == alone(model, prompt, 5)
    assert ("only its end is read" in capsys.readouterr().err) == (length > CONTEXT)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.lists(st.integers(0, 200), min_size=1, max_size=20), min_size=1, max_size=5), st.integers(1, 40))
def test_prompts_of_any_lengths_in_one_batch_get_the_answers_they_get_alone(
    model: GPT, prompts: list[list[int]], tokens: int
) -> None:
    answers = generate_batch(model, prompts, tokens, stop=NEVER, batch_size=3)
    assert answers == [(alone(model, prompt, tokens), False) for prompt in prompts]


def test_an_answer_ends_before_the_stop_token_and_says_that_it_ended(model: GPT) -> None:
    whole = alone(model, [1, 2, 3], 20)
    stop = whole[6]
    until = whole[: whole.index(stop)]
    assert list(stream_ids(model, [1, 2, 3], 20, Sampling(), stop=stop)) == until
    others = alone(model, [9], 20)
    answers = generate_batch(model, [[1, 2, 3], [9]], 20, stop=stop)
    assert answers[0] == (until, True)
    assert answers[1] == ((others[: others.index(stop)], True) if stop in others else (others, False))


def test_the_same_seed_gives_the_same_text_and_another_seed_another(model: GPT, tokenizer: BPETokenizer) -> None:
    texts = [generate(model, tokenizer, "the red", 20, temperature=1.5, seed=seed) for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


def test_the_seed_of_generation_does_not_touch_the_seed_of_training(model: GPT) -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    list(stream_ids(model, [1], 5, Sampling(1.0), seed=7))
    assert torch.equal(torch.rand(3), expected)


def test_no_prompt_is_answered_with_nothing(model: GPT) -> None:
    assert generate_batch(model, [], 5, stop=0) == []
