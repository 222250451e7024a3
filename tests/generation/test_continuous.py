"""Texts that come and go: each gets what it would get alone, in either family, whoever runs beside it."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pellucid.generation.compiled.model import CompiledModel
from pellucid.generation.continuous import Continuous, Event
from pellucid.generation.decoder import Decoder
from pellucid.generation.engine import generate, prompt_ids, stream_ids
from pellucid.generation.fast import FastReader, FastSlots
from pellucid.generation.graphed.model import GraphedModel
from pellucid.generation.reader import Reader
from pellucid.generation.sampling import Sampling
from pellucid.model.gpt import GPT
from pellucid.runtime import ConfigError, DataError
from pellucid.text.bpe import BPETokenizer
from tests.generation.lively import lively_model
from tests.model.families import TINY, lively

NAMES = ["gpt2", "llama", "mistral", "qwen3"]
COMPILED = [("gpt2", "float32"), ("mistral", "float32"), ("llama", "int8")]
GRAPHED = [(name, "graphed") for name in ("gpt2", "llama", "mistral")]
SETTINGS = [Sampling(), Sampling(1.0), Sampling(0.8, top_k=20, repetition_penalty=1.3)]
NEVER: tuple[int, ...] = ()


@pytest.fixture(scope="module")
def families(tokenizer: BPETokenizer) -> dict[str, GPT]:
    return {name: lively(replace(TINY[name], vocab_size=tokenizer.vocab_size, context_length=32)) for name in NAMES}


def run(machine: Continuous, rounds: int = 10_000) -> list[Event]:
    events: list[Event] = []
    while machine.active and rounds:
        events += machine.step()
        rounds -= 1
    return events


def tokens_of(events: list[Event], handle: int) -> list[int]:
    return [event.token for event in events if event.handle == handle]


requests = st.lists(
    st.tuples(
        st.lists(st.integers(0, 250), min_size=1, max_size=40)  # also longer than the window
        | st.lists(st.integers(0, 1), min_size=5, max_size=20),  # and such as say again what they said
        st.integers(1, 40),
        st.sampled_from(SETTINGS),
        st.integers(0, 3),  # the seed
        st.integers(0, 4),  # steps before the next one comes
    ),
    min_size=1,
    max_size=6,
)


@pytest.mark.parametrize(("name", "dtype"), [*((name, "") for name in NAMES), *COMPILED, *GRAPHED])
@settings(max_examples=12, deadline=None)
@given(requests=requests, rows=st.integers(1, 4), chunk=st.integers(1, 50))
def test_whoever_comes_when_and_beside_whom_a_text_is_what_it_is_alone(
    families: dict[str, GPT],
    tokenizer: BPETokenizer,
    name: str,
    dtype: Any,
    requests: list[tuple[list[int], int, Sampling, int, int]],
    rows: int,
    chunk: int,
) -> None:
    model: GPT | Decoder[Any] = families[name]
    if dtype:
        model = GraphedModel.of(model) if dtype == "graphed" else CompiledModel.of(model, dtype)
    machine = Continuous(model, tokenizer, rows, chunk)
    events, handles = [], []
    for prompt, tokens, sampling, seed, pause in requests:
        handles.append(machine.add(prompt, tokens, sampling, seed, stop_tokens=NEVER))
        for _ in range(pause):
            events += machine.step()
    events += run(machine)
    for handle, (prompt, tokens, sampling, seed, _) in zip(handles, requests, strict=True):
        reader = Reader(model) if isinstance(model, GPT) else FastReader(model)
        assert tokens_of(events, handle) == list(stream_ids(reader, prompt, tokens, sampling, seed))
        assert [event.ended for event in events if event.handle == handle] == [""] * (tokens - 1) + ["max tokens"]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8", "int4"])
def test_a_long_prompt_is_what_it_is_alone_also_where_another_cuts_it(tokenizer: BPETokenizer, dtype: Any) -> None:
    """Parts from 128 tokens on would go through the readable model, which part depends on who came before."""
    compiled = CompiledModel.of(lively_model(tokenizer.vocab_size, context_length=400), dtype)
    dice = random.Random(1)
    before, prompt = ([dice.randrange(tokenizer.vocab_size) for _ in range(count)] for count in (200, 300))
    alone, beside = Continuous(compiled, tokenizer), Continuous(compiled, tokenizer)
    only = alone.add(prompt, 40, stop_tokens=NEVER, alternatives=0)
    beside.add(before, 3, stop_tokens=NEVER)
    other = beside.add(prompt, 40, stop_tokens=NEVER, alternatives=0)
    pairs = zip(*([e for e in run(m) if e.handle == h] for m, h in ((alone, only), (beside, other))), strict=True)
    assert all(a.token == b.token and abs(a.logprob - b.logprob) < 0.02 for a, b in pairs)


def test_its_text_and_stops_are_those_of_generate(model: GPT, tokenizer: BPETokenizer) -> None:
    whole = generate(model, tokenizer, "the red", 40, temperature=1.2, seed=3)
    stop = whole[10:13]
    machine = Continuous(model, tokenizer)
    ids = prompt_ids(tokenizer, "the red")
    free = machine.add(ids, 40, Sampling(1.2), seed=3)
    stopped = machine.add(ids, 40, Sampling(1.2), seed=3, stop=[stop])
    events = run(machine)
    texts = {handle: "".join(e.text for e in events if e.handle == handle) for handle in (free, stopped)}
    assert texts[free] == whole
    assert texts[stopped] == generate(model, tokenizer, "the red", 40, temperature=1.2, seed=3, stop=[stop])
    assert [e.ended for e in events if e.handle == stopped][-1] == "stop string"


def test_a_stop_token_is_the_last_event(model: GPT, tokenizer: BPETokenizer) -> None:
    alone = list(stream_ids(model, [1, 2, 3], 20, Sampling()))
    machine = Continuous(model, tokenizer)
    handle = machine.add([1, 2, 3], 20, stop_tokens={alone[5]})
    events = run(machine)
    assert tokens_of(events, handle) == alone[: alone.index(alone[5]) + 1]
    assert events[-1].ended == "stop token"


def test_a_removed_text_says_nothing_more_and_the_others_are_as_they_were(model: GPT, tokenizer: BPETokenizer) -> None:
    prompts = [[row + 1, 7, 9] for row in range(5)]
    machine = Continuous(model, tokenizer, max_rows=3)
    handles = [machine.add(prompt, 20, stop_tokens=NEVER) for prompt in prompts]
    events = machine.step() + machine.step()
    for handle in (handles[0], handles[4], handles[4], 99):  # in decoding, waiting, removed before, unknown
        machine.remove(handle)
    later = run(machine)
    assert {event.handle for event in later} == set(handles[1:4])
    for row in (1, 2, 3):
        assert tokens_of(events + later, handles[row]) == list(stream_ids(model, prompts[row], 20, Sampling()))


def test_a_long_prompt_delays_the_others_by_a_chunk_and_no_more(tokenizer: BPETokenizer) -> None:
    model = lively(replace(TINY["gpt2"], vocab_size=tokenizer.vocab_size, context_length=512))
    machine = Continuous(model, tokenizer, chunk=16)
    short = machine.add([1, 2], 100, stop_tokens=NEVER)
    long = machine.add([number % 200 for number in range(400)], 5, stop_tokens=NEVER)
    for step in range(24):
        before = machine.read_tokens
        assert {event.handle for event in machine.step()} == {short}, step
        assert machine.read_tokens - before <= 16
    assert long in machine.active
    assert tokens_of(run(machine), long)


def test_a_beginning_that_another_text_has_read_is_not_read_again(model: GPT, tokenizer: BPETokenizer) -> None:
    machine = Continuous(model, tokenizer, max_rows=2)
    shared = list(range(20, 40))
    first = machine.add([*shared, 1], 4, stop_tokens=NEVER)
    reply = tokens_of(run(machine), first)
    assert machine.read_tokens == 21
    again = [*shared, 1, *reply, 5]  # the conversation goes on
    other = [*shared, 2]
    handles = [machine.add(again, 3, stop_tokens=NEVER), machine.add(other, 3, stop_tokens=NEVER)]
    events = run(machine)
    assert machine.read_tokens == 21 + 2 + 1  # the reply's last token was never read
    for handle, prompt in zip(handles, (again, other), strict=True):
        assert tokens_of(events, handle) == list(stream_ids(model, prompt, 3, Sampling()))


def test_a_talk_that_goes_on_leaves_other_texts_their_places(model: GPT, tokenizer: BPETokenizer) -> None:
    machine = Continuous(model, tokenizer, max_rows=3)

    def say(text: list[int]) -> tuple[list[int], int]:
        before = machine.read_tokens
        handle = machine.add(text, 2, stop_tokens=NEVER)
        return text + tokens_of(run(machine), handle), machine.read_tokens - before

    talk, _ = say([1, 2, 3])
    other, _ = say(list(range(20, 30)))
    for turn in range(4):
        talk, read = say([*talk, 40 + turn])
        assert read == 2  # what is new, and the last token of the reply before
    assert say([*other, 50])[1] == 2


def counting(compiled: CompiledModel, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many passes a model makes from here on."""
    read, passes = compiled.logits, [0]

    def counted(*arguments: Any) -> Any:
        passes[0] += 1
        return read(*arguments)

    monkeypatch.setattr(compiled, "logits", counted)
    return passes


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_slots_read_ahead_of_a_text_alone_and_give_the_bits_that_it_has(
    dtype: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = lively_model(50, context_length=128, seed=1)
    compiled, plain = CompiledModel.of(model, dtype), CompiledModel.of(model, dtype)
    passes, slots, text = counting(compiled, monkeypatch), FastSlots(compiled, 3), [3, 1, 4, 1, 5, 9, 2, 6] * 4
    slots.read(slice(1, 2), [text])
    for number in range(48):
        text.append(0 if number == 20 else text[-8])  # said again, but for one
        beside = number in (10, 30)  # another
        logits = slots.read(slice(0, 2), [[number], text[-1:]])[1:] if beside else slots.go_on(1, text)
        if number == 25:
            slots.read(slice(2, 3), [[7, 8]])  # another comes, and goes nowhere
        assert torch.equal(logits, FastReader(plain).read([text])), number
    slots.copy(1, 1, 40)  # another text that begins as this one did
    assert torch.equal(slots.go_on(1, [*text[:40], 5]), FastReader(plain).read([[*text[:40], 5]]))
    assert passes[0] < 30


def test_a_text_that_says_itself_again_takes_fewer_passes_where_it_is_alone(
    tokenizer: BPETokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = lively_model(tokenizer.vocab_size, context_length=256)
    torch.nn.init.zeros_(model.final_norm.weight)  # whatever was said, the same token comes next
    compiled = CompiledModel.of(model)
    passes, machine = counting(compiled, monkeypatch), Continuous(compiled, tokenizer)
    handle = machine.add([1, 2, 3], 100, stop_tokens=NEVER)
    assert len(set(tokens_of(run(machine), handle))) == 1
    assert passes[0] < 75


def test_memory_does_not_grow_with_the_texts_that_come(model: GPT, tokenizer: BPETokenizer) -> None:
    machine = Continuous(model, tokenizer, max_rows=2)
    sizes = []
    for turn in range(30):
        for row in range(3):
            machine.add([turn, row], 40, stop_tokens=NEVER)
        run(machine)
        sizes.append((machine._cache.keys.shape, sum(map(len, machine._held)), len(machine._queue)))
    assert {size[0] for size in sizes} == {(2, 2, 2, 32, 12)}
    assert max(size[1] for size in sizes) <= 2 * 32 and not any(size[2] for size in sizes)


def test_logprobs_are_the_models_own_whatever_the_temperature(model: GPT, tokenizer: BPETokenizer) -> None:
    machine = Continuous(model, tokenizer)
    machine.add([1, 2, 3], 5, Sampling(2.0, top_k=5), alternatives=3, stop_tokens=NEVER)
    plain = machine.add([1, 2, 3], 5, stop_tokens=NEVER)
    events = run(machine)
    ids = [1, 2, 3]
    for event in events:
        if event.handle == plain:
            assert event.logprob is None and event.alternatives == ()
            continue
        expected = model(torch.tensor([ids]))[0, -1].detach().log_softmax(dim=0)
        assert event.logprob == pytest.approx(float(expected[event.token]), abs=1e-4)
        assert [token for token, _ in event.alternatives] == expected.topk(3).indices.tolist()
        assert [value for _, value in event.alternatives] == pytest.approx(expected.topk(3).values.tolist(), abs=1e-4)
        ids.append(event.token)


def test_what_is_out_of_range_is_refused_before_anything_runs(model: GPT, tokenizer: BPETokenizer) -> None:
    with pytest.raises(ConfigError, match="max_rows: found 0"):
        Continuous(model, tokenizer, max_rows=0)
    machine = Continuous(model, tokenizer)
    for wrong in ({"max_tokens": 0}, {"alternatives": -1}, {"stop": [""]}):
        with pytest.raises(ConfigError):
            machine.add([1], **wrong)  # type: ignore[arg-type]
    for prompt in ([], [-1], [10**6]):
        with pytest.raises(DataError, match="prompt"):
            machine.add(prompt)
    assert machine.active == [] and machine.step() == []
