"""Packed conversations: as many in a row as fit, none seeing another, and every number as if each stood alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pellucid.config import FitConfig
from pellucid.finetune.instruct import InstructionTuning, packed_batch, padded_batch, prepare_model
from pellucid.finetune.instructions import Example
from pellucid.model.gpt import GPT
from pellucid.model.segments import Segments, pack
from pellucid.pretrain.loss import Loss, token_loss
from pellucid.pretrain.task import pieces
from pellucid.text.tokenizer import Tokenizer
from tests.model.families import TINY

FAMILIES = ("gpt2", "llama", "mistral", "qwen3 window")


def model_of(family: str) -> GPT:
    torch.manual_seed(0)
    return GPT(TINY[family]).eval()


@given(st.lists(st.integers(1, 20), min_size=1, max_size=30))
def test_packing_loses_no_text_and_overfills_no_row(lengths: list[int]) -> None:
    rows = pack(lengths, 20)
    assert sorted(index for row in rows for index in row) == list(range(len(lengths)))
    assert all(sum(lengths[index] for index in row) <= 20 for row in rows)
    assert len(rows) <= 2 * sum(lengths) / 20 + 1, "no two rows are both less than half full"


@torch.no_grad()
@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_text_gets_the_logits_that_it_gets_alone(family: str, fused: bool) -> None:
    model, lengths = model_of(family), [[9, 1, 14], [20]]
    for block in model.blocks:
        block.attention.fused = fused
    ids = torch.randint(0, 53, (2, 27))  # some padding behind both
    together = model(ids, Segments(lengths, 27))
    for row, sizes in enumerate(lengths):
        start = 0
        for size in sizes:
            part = slice(start, start + size)
            torch.testing.assert_close(together[row, part], model(ids[row : row + 1, part])[0], atol=1e-5, rtol=1e-5)
            start += size


@pytest.mark.parametrize("family", FAMILIES)
def test_what_stands_in_another_text_changes_nothing(family: str) -> None:
    model, ids = model_of(family), torch.randint(0, 53, (1, 24))
    segments = Segments([[10, 8]], 24)
    other = ids.clone()
    other[:, :10] = (ids[:, :10] + 7) % 53
    other[:, 18:] = (ids[:, 18:] + 7) % 53
    with torch.no_grad():
        one, two = model(ids, segments), model(other, segments)
    assert torch.equal(one[:, 10:18], two[:, 10:18])
    assert not torch.equal(one[:, :10], two[:, :10])


def gradients(model: GPT, loss: Loss) -> list[torch.Tensor]:
    return list(torch.autograd.grad(loss.total / loss.count, list(model.parameters()), allow_unused=True))


@settings(max_examples=8, deadline=None)
@given(st.lists(st.integers(2, 40), min_size=1, max_size=9), st.sampled_from(FAMILIES), st.integers(0, 2**31))
def test_the_loss_of_a_packed_batch_and_its_gradients_are_those_of_the_padded_one(
    lengths: list[int], family: str, seed: int
) -> None:
    model, draw = model_of(family).train(), torch.Generator().manual_seed(seed)
    ids = [torch.randint(0, 53, (length,), generator=draw).tolist() for length in lengths]
    rows = [(row, [False, *[i % 3 > 0 for i in range(1, len(row))]]) for row in ids]
    padded, packed = padded_batch(rows, 0), packed_batch(rows, 48, 0)
    assert packed.segments is not None and padded.tokens == packed.tokens
    assert packed.inputs.numel() <= 48 * len(packed.segments)
    segments = Segments(packed.segments.tolist(), packed.inputs.shape[1])
    plain = token_loss(model, padded.inputs, padded.targets, padded.trained)
    other = token_loss(model, packed.inputs, packed.targets, packed.trained, segments)
    assert plain.count == other.count
    torch.testing.assert_close(other.total, plain.total, atol=1e-5, rtol=1e-5)
    if not plain.count:
        return
    for ours, theirs in zip(gradients(model, other), gradients(model, plain), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


def test_conversations_longer_than_a_row_clog_nothing(base_folder: Path) -> None:
    model, tokenizer = GPT.load(base_folder), Tokenizer.load(base_folder)
    prepare_model(model, tokenizer)
    long = [Example("fox " * 200, "", "yes"), *(Example(f"Say {i}.", "", "fox " * 200) for i in range(3))]
    examples = [*long, *(Example(f"Ask {i}.", "", "Yes.") for i in range(8))]
    splits, config = {"train": examples, "val": examples, "test": []}, FitConfig(steps=2, batch_size=11)
    task = InstructionTuning(splits, tokenizer, config, 64, packing=True)
    for step in range(3):
        (batch,) = task.batches(step)
        assert batch.inputs.shape[1] <= 64
        assert batch.segments is not None and int((batch.segments > 0).sum()) == 11, "all but what has no answer left"
        assert batch.trained.any(dim=1).all(), "no row without a trained token"
        loss = task.loss(model, batch)
        assert torch.isfinite(loss.total) and loss.count == int(batch.trained.sum())


def test_a_step_of_packed_training_has_the_same_examples_and_loss(base_folder: Path) -> None:
    model, tokenizer = GPT.load(base_folder), Tokenizer.load(base_folder)
    prepare_model(model, tokenizer)
    examples = [Example(f"Say {i}.", "", "fox " * (i % 9 + 1)) for i in range(40)]
    splits, config = {"train": examples, "val": examples[:5], "test": []}, FitConfig(steps=2, batch_size=16)
    plain, packed = (InstructionTuning(splits, tokenizer, config, 64, packing=packing) for packing in (False, True))
    for step in range(3):
        (one,), (two,) = plain.batches(step), packed.batches(step)
        assert len(two.inputs) < len(one.inputs)
        expected = plain.loss(model, one).total
        torch.testing.assert_close(packed.loss(model, two).total, expected, atol=1e-4, rtol=1e-5)
        cut = sum(packed.loss(model, piece).total for piece, _ in pieces([two], rows=1))
        torch.testing.assert_close(cut, expected, atol=1e-4, rtol=1e-5)
    assert packed.evaluate(model)["loss"] == pytest.approx(plain.evaluate(model)["loss"], abs=1e-5)
