"""Evaluation: each token is judged once, by the right probability, and the spread is around the mean."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pellucid.config import ModelConfig
from pellucid.model.gpt import GPT
from pellucid.pretrain import loss
from pellucid.pretrain.evaluate import Measured, Part, bytes_per_token, limited, measure, parts_of
from pellucid.pretrain.loss import token_loss
from pellucid.pretrain.questions import likelihoods
from pellucid.text.documents import Document
from pellucid.text.shard_writer import write_shards
from pellucid.text.shards import Shards
from pellucid.text.tokenizer import Tokenizer

lengths = st.lists(st.integers(1, 60), min_size=1, max_size=8)


@settings(max_examples=60, deadline=None)
@given(lengths, st.integers(1, 20))
def test_each_token_behind_the_first_is_judged_exactly_once(documents: list[int], context: int) -> None:
    offsets = np.cumsum([0, *documents])
    judged = []
    for part in parts_of(offsets, context):
        assert 0 < part.length <= context
        judged += range(part.start + part.fresh + 1, part.start + part.length + 1)
    assert sorted(judged) == list(range(1, offsets[-1] + 1))
    assert len(set(judged)) == len(judged)


@settings(max_examples=60, deadline=None)
@given(lengths, st.integers(2, 20))
def test_a_token_sees_its_document_or_half_a_context_at_least_and_never_the_document_before(
    documents: list[int], context: int
) -> None:
    offsets = np.cumsum([0, *documents])
    for part in parts_of(offsets, context):
        begin = offsets[np.searchsorted(offsets, part.start, side="right") - 1]
        assert part.start + part.length <= begin + documents[int(np.searchsorted(offsets, begin))]
        assert part.start == begin or part.fresh >= context - context // 2


@settings(max_examples=30, deadline=None)
@given(lengths, st.integers(1, 100), st.integers(0, 9))
def test_a_limit_draws_whole_parts_and_always_the_same_ones(documents: list[int], most: int, seed: int) -> None:
    parts = list(parts_of(np.cumsum([0, *documents]), 10))
    chosen = limited(parts, most, seed)
    assert chosen == limited(parts, most, seed) == sorted(chosen, key=lambda part: part.start)
    assert set(chosen) <= set(parts)
    fresh = sum(part.length - part.fresh for part in chosen)
    assert fresh >= min(most, sum(documents))
    assert fresh < most + 10


def test_nothing_is_judged_by_a_split_that_is_empty(
    call: Any, base_folder: Path, shape_file: Path, tmp_path: Path
) -> None:
    tokenizer = Tokenizer.load(base_folder)
    documents = [Document(f"The fox has {i} lamps. " * 9, f"{i}") for i in range(4)]
    write_shards({"train": documents, "val": [], "test": []}, tokenizer, tmp_path / "shards")
    train = ("pretrain", "--model", shape_file, "--steps", 2, "--out", tmp_path / "run")
    verbs = [train, ("evaluate", base_folder), ("quantize", base_folder, "--to", "int8", "--out", tmp_path / "small")]
    for verb, split in zip(verbs, ("val", "test", "test"), strict=True):
        done = call(*verb, "--data", tmp_path / "shards")
        assert done.returncode == 2, done.stdout
        assert f"found no text in the {split} split" in done.stderr and f"--{split} above 0" in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["shards"], "nothing is left behind"


def test_the_loss_of_each_part_is_that_of_the_model_run_on_it_alone(shards: Shards, shape: ModelConfig) -> None:
    torch.manual_seed(0)
    model = GPT(shape).eval()
    tokens = np.asarray(shards.tokens("val"))
    parts = list(parts_of(shards.offsets("val"), shape.context_length))
    sizes = bytes_per_token(shards.tokenizer(), shape.vocab_size)
    heard: list[int] = []
    measured = measure(model, tokens, parts, sizes, batch_size=3, told=heard.append)
    assert sum(heard) == sum(part.length for part in parts) and len(heard) == -(-len(parts) // 3)
    for number, part in enumerate(parts):
        window = torch.from_numpy(tokens[part.start : part.start + part.length + 1].astype(np.int64))
        log = model(window[None, :-1])[0].log_softmax(-1)
        nats = -log[range(part.length), window[1:]][part.fresh :].sum()
        assert math.isclose(measured.nats[number], nats.item(), rel_tol=1e-5)
    assert measured.tokens.sum() == len(tokens) - 1
    assert measured.bytes.sum() == shards.bytes("val")


def test_no_more_logits_than_wanted_exist_at_one_time_and_the_numbers_are_the_same(
    shards: Shards, shape: ModelConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    model = GPT(shape).eval()
    tokens, sizes = np.asarray(shards.tokens("val")), bytes_per_token(shards.tokenizer(), shape.vocab_size)
    parts = list(parts_of(shards.offsets("val"), shape.context_length))
    ids = torch.from_numpy(tokens[None, : shape.context_length + 1].astype(np.int64))
    pairs = [([1, 2, 3], [4, 5, 6, 7]), ([8], list(range(9, 20))), ([7, 7], [7])]

    def found() -> list[float]:
        said = [number for pair in likelihoods(model, pairs) for number in pair]
        with torch.no_grad():
            total = token_loss(model, ids[:, :-1], ids[:, 1:]).total
        return [*measure(model, tokens, parts, sizes).nats, *said, float(total)]

    whole, asked = found(), []
    monkeypatch.setattr(loss, "AT_ONCE", 5 * 4 * shape.vocab_size)  # the logits of five tokens
    monkeypatch.setattr(GPT, "logits", lambda self, hidden: asked.append(hidden) or hidden @ self.output_weight.mT)
    np.testing.assert_allclose(found(), whole, rtol=1e-6)
    assert max(hidden.shape[:-1].numel() for hidden in asked) == 5


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.floats(0.1, 200), st.integers(1, 50)), min_size=2, max_size=30))
def test_the_mean_lies_within_its_interval_and_perplexity_and_bits_follow_from_it(
    rows: list[tuple[float, int]],
) -> None:
    nats, tokens = np.array([n for n, _ in rows]), np.array([t for _, t in rows])
    summary = Measured(nats, tokens, 4 * tokens).summary()
    low, high = summary["loss_interval"]
    spread = 0.02 * (high - low) + 1e-9  # few parts: the mean may stand on the edge
    assert low - spread <= summary["loss"] <= high + spread
    assert math.isclose(summary["perplexity"], math.exp(min(summary["loss"], 700)))
    assert math.isclose(summary["bits_per_byte"], summary["loss"] / math.log(2) / 4)


def test_the_interval_is_as_wide_as_theory_says() -> None:
    nats = np.random.default_rng(0).normal(3, 1, 400)
    ones = np.ones(400, dtype=np.int64)
    low, high = Measured(nats, ones, ones).summary()["loss_interval"]
    assert abs((high - low) / (2 * 1.96 / math.sqrt(400)) - 1) < 0.15


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_parts_have_no_interval(count: int) -> None:
    ones = np.ones(count, dtype=np.int64)
    summary = Measured(ones.astype(float), ones, ones).summary()
    assert summary["tokens"] == summary["loss"] == count
    assert summary["loss_interval"] == summary["perplexity_interval"] == summary["bits_per_byte_interval"] == []


def test_who_evaluates_on_a_single_part_is_told_that_it_is_too_little(
    call: Any, base_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "a.txt").write_text("The fox.")
    done = call("evaluate", base_folder, "--data", tmp_path / "a.txt")
    assert "in one part: too little for an interval" in done.stdout and "95 %" not in done.stdout


def test_a_part_is_a_value() -> None:
    assert Part(0, 3, 1) == Part(0, 3, 1)


class Cramped(GPT):
    """There is memory for three texts at once."""

    passes: tuple[int, ...] = ()

    def hidden(self, ids: torch.Tensor, *more: Any, **named: Any) -> torch.Tensor:
        self.passes = (*self.passes, len(ids))
        if len(ids) > 3:
            raise MemoryError("out of memory")
        return super().hidden(ids, *more, **named)


def test_where_memory_runs_out_fewer_texts_are_read_at_once_and_the_scores_are_the_same() -> None:
    torch.manual_seed(0)
    shape = ModelConfig(vocab_size=40, context_length=8, d_model=16, n_layers=1, n_heads=2)
    model, tokens = Cramped(shape), np.random.default_rng(0).integers(0, 40, 100)
    parts = [Part(start, 8, 0) for start in range(0, 80, 8)]
    scores = [measure(model, tokens, parts, np.ones(40, dtype=np.int64), size) for size in (8, 3)]
    assert model.passes[:5] == (8, 4, 2, 2, 2)
    np.testing.assert_allclose(scores[0].nats, scores[1].nats, rtol=1e-6)
    assert list(scores[0].bytes) == [8] * 10
