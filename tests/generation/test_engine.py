"""Generation: the same ids as transformers, alone or in a batch, and past the end of the context."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

from pellucid.generation.engine import (
    continue_plainly,
    decode,
    generate,
    generate_batch,
    generate_samples,
    make_dice,
    stream_ids,
    stream_text,
)
from pellucid.generation.reader import Reader
from pellucid.generation.sampling import GREEDY, Sampling
from pellucid.model.gpt import GPT
from pellucid.runtime import ConfigError
from pellucid.text.bpe import BPETokenizer
from tests.generation.lively import lively_model

CONTEXT = 32
NEVER = 10**6  # an id that never comes


@pytest.mark.parametrize("use_cache", [True, False])
def test_200_likeliest_tokens_are_those_of_transformers_alone_and_in_a_ragged_batch(
    tmp_path: Path, use_cache: bool
) -> None:
    ours = lively_model(vocab_size=300, context_length=224, seed=4 + use_cache)
    ours.save(tmp_path)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path)
    prompts = [[(7 * row + 31 * place) % 300 for place in range(1 + 3 * row)] for row in range(8)]
    longest = max(map(len, prompts))
    ids = torch.tensor([[0] * (longest - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])

    def expected(ids: torch.Tensor, mask: torch.Tensor) -> list[list[int]]:
        made = theirs.generate(
            ids, attention_mask=mask, max_new_tokens=200, do_sample=False, use_cache=use_cache, pad_token_id=0,
            eos_token_id=None,
        )  # fmt: skip
        return made[:, ids.shape[1] :].tolist()

    batch = expected(ids, mask)
    assert min(len(set(row)) for row in batch) > 10  # they don't just say one thing
    assert torch.stack(list(decode(Reader(ours), prompts, 200)), dim=1).tolist() == batch
    alone = expected(ids[7:], mask[7:])[0]
    assert list(stream_ids(ours, prompts[7], 200, GREEDY)) == alone == continue_plainly(ours, prompts[7], 200)


def test_the_repetition_penalty_is_that_of_transformers_generate(model: GPT, tmp_path: Path) -> None:
    model.save(tmp_path)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path)
    prompt = [5, 90, 7, 33]
    expected = theirs.generate(
        torch.tensor([prompt]), max_new_tokens=25, do_sample=False, repetition_penalty=1.4, pad_token_id=0,
        eos_token_id=None,
    )  # fmt: skip
    found = list(stream_ids(model, prompt, 25, Sampling(repetition_penalty=1.4)))
    assert found == expected[0, 4:].tolist() != list(stream_ids(model, prompt, 25, GREEDY))


def test_past_the_context_it_goes_on_with_the_newer_half_and_says_so_once(
    model: GPT, capsys: pytest.CaptureFixture[str]
) -> None:
    assert list(stream_ids(model, [1, 2, 3], 100, GREEDY)) == continue_plainly(model, [1, 2, 3], 100)
    assert capsys.readouterr().err.count(f"the context of {CONTEXT} tokens is full") == 1


@pytest.mark.parametrize("length", [CONTEXT - 1, CONTEXT, CONTEXT + 1, 3 * CONTEXT])
def test_a_prompt_as_long_as_the_context_or_longer_is_cut_and_that_is_said(
    model: GPT, length: int, capsys: pytest.CaptureFixture[str]
) -> None:
    prompt = [number % 50 for number in range(length)]
    assert list(stream_ids(model, prompt, 5, GREEDY)) == continue_plainly(model, prompt, 5)
    assert ("only its end is read" in capsys.readouterr().err) == (length > CONTEXT)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.lists(st.integers(0, 200), min_size=1, max_size=20), min_size=1, max_size=5), st.integers(1, 40))
def test_prompts_of_any_lengths_in_one_batch_get_the_answers_they_get_alone(
    model: GPT, prompts: list[list[int]], tokens: int
) -> None:
    answers = generate_batch(model, prompts, tokens, stop=NEVER, batch_size=3)
    assert answers == [(continue_plainly(model, prompt, tokens), False) for prompt in prompts]


def test_drawn_answers_do_not_depend_on_the_size_of_the_batch(model: GPT) -> None:
    prompts = [[1, 2, 3], [4], [5, 6], [1, 2, 3]]
    one, two, four = (generate_batch(model, prompts, 20, NEVER, Sampling(1.0), 5, size) for size in (1, 2, 4))
    assert one == two == four
    assert one[0] != one[3]  # each prompt has dice of its own


def test_an_answer_ends_before_the_stop_token_and_says_that_it_ended(model: GPT) -> None:
    whole = continue_plainly(model, [1, 2, 3], 20)
    stop = whole[6]
    until = whole[: whole.index(stop)]
    assert list(stream_ids(model, [1, 2, 3], 20, GREEDY, stop=stop)) == until
    assert list(stream_ids(model, [1, 2, 3], 20, GREEDY, stop={NEVER, stop})) == until
    others = continue_plainly(model, [9], 20)
    answers = generate_batch(model, [[1, 2, 3], [9]], 20, stop=stop)
    assert answers[0] == (until, True)
    assert answers[1] == ((others[: others.index(stop)], True) if stop in others else (others, False))


def test_the_same_seed_gives_the_same_text_and_another_seed_another(model: GPT, tokenizer: BPETokenizer) -> None:
    texts = [generate(model, tokenizer, "the red", 20, temperature=1.5, seed=seed) for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


def test_a_sample_is_the_same_however_many_there_are(model: GPT, tokenizer: BPETokenizer) -> None:
    one, three, five = (
        generate_samples(model, tokenizer, "the red", samples, 40, Sampling(1.2), seed=4) for samples in (1, 3, 5)
    )
    assert one == three[:1]
    assert three == five[:3]
    assert len(set(five)) == 5
    assert one == [generate(model, tokenizer, "the red", 40, temperature=1.2, seed=4)]


def test_no_two_rows_and_seeds_share_their_dice() -> None:
    numbers = {die.random() for seed in range(20) for die in make_dice(seed, range(20))}
    assert len(numbers) == 400


def test_the_seed_of_generation_does_not_touch_the_seed_of_training(model: GPT) -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    list(stream_ids(model, [1], 5, Sampling(1.0), seed=7))
    assert torch.equal(torch.rand(3), expected)


def test_a_stop_string_ends_the_text_and_is_never_part_of_it(model: GPT, tokenizer: BPETokenizer) -> None:
    whole = generate(model, tokenizer, "the", 40, temperature=1.5, seed=3)
    readable = [at for at in range(5, len(whole) - 3) if "\ufffd" not in whole[at : at + 3]]
    stop = whole[readable[0] : readable[0] + 3]
    expected = whole[: whole.index(stop)]
    assert generate(model, tokenizer, "the", 40, temperature=1.5, seed=3, stop=[stop]) == expected
    assert "".join(stream_text(model, tokenizer, "the", 40, Sampling(1.5), 3, [stop])) == expected


def test_streamed_pieces_are_the_text_and_come_as_it_is_made(model: GPT, tokenizer: BPETokenizer) -> None:
    pieces = list(stream_text(model, tokenizer, "the red", 30, Sampling(0.9), seed=2))
    assert len(pieces) > 5
    assert "".join(pieces) == generate(model, tokenizer, "the red", 30, temperature=0.9, seed=2)


def test_ids_that_the_tokenizer_has_not_are_never_chosen(tokenizer: BPETokenizer) -> None:
    roomier = lively_model(tokenizer.vocab_size + 900, CONTEXT)
    assert max(stream_ids(roomier, [tokenizer.end_of_text], 30, GREEDY)) >= tokenizer.vocab_size
    assert generate(roomier, tokenizer, "the", 30)
    assert generate(roomier, tokenizer, "the", 30, temperature=2.0, repetition_penalty=1.5)


def test_no_prompt_is_answered_with_nothing(model: GPT) -> None:
    assert generate_batch(model, [], 5, stop=0) == []


def test_fewer_than_one_token_is_refused(model: GPT, tokenizer: BPETokenizer) -> None:
    with pytest.raises(ConfigError, match="max_tokens: found 0; expected 1 or more"):
        generate(model, tokenizer, "the", max_tokens=0)
