"""The loss: equal to its formula, whatever the batch is cut into, and 0 where nothing is to be learnt."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pellucid.config import ModelConfig
from pellucid.model.gpt import GPT
from pellucid.pretrain import loss as loss_module
from pellucid.pretrain.loss import Loss, explicit_token_loss, token_loss


def small_model() -> GPT:
    torch.manual_seed(0)
    return GPT(ModelConfig(vocab_size=29, context_length=12, d_model=16, n_layers=2, n_heads=2))


def gradients(model: GPT, loss: Loss) -> list[torch.Tensor]:
    return list(torch.autograd.grad(loss.total / loss.count, list(model.parameters()), retain_graph=True))


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 4), st.integers(1, 12), st.one_of(st.none(), st.floats(0.1, 0.9)), st.integers(0, 2**31))
def test_the_loss_and_its_gradients_equal_the_formula(batch: int, length: int, share: float | None, seed: int) -> None:
    model, draw = small_model(), torch.Generator().manual_seed(seed)
    inputs, targets = torch.randint(0, 29, (2, batch, length), generator=draw)
    trained = None if share is None else torch.rand(batch, length, generator=draw) < share
    fast, plain = token_loss(model, inputs, targets, trained), explicit_token_loss(model, inputs, targets, trained)
    assert fast.count == plain.count
    torch.testing.assert_close(fast.total, plain.total, rtol=1e-5, atol=1e-5)
    if fast.count:
        for ours, expected in zip(gradients(model, fast), gradients(model, plain), strict=True):
            torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-6)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 8), st.integers(0, 2**31))
def test_micro_batches_add_up_to_the_whole_batch_though_their_trained_tokens_differ(size: int, seed: int) -> None:
    model, draw = small_model(), torch.Generator().manual_seed(seed)
    inputs, targets = torch.randint(0, 29, (2, 8, 12), generator=draw)
    trained = torch.rand(8, 12, generator=draw) < torch.rand(8, 1, generator=draw)
    trained[0, 0] = True
    whole = token_loss(model, inputs, targets, trained)
    parts = [
        token_loss(model, *(tensor[first : first + size] for tensor in (inputs, targets, trained)))
        for first in range(0, 8, size)
    ]
    added = Loss(torch.stack([part.total for part in parts]).sum(), sum(part.count for part in parts))
    torch.testing.assert_close(added.total / added.count, whole.total / whole.count, rtol=1e-6, atol=1e-6)
    for ours, expected in zip(gradients(model, added), gradients(model, whole), strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("rows", [1, 5, 24, 512])
def test_rows_taken_a_few_at_a_time_give_the_same_loss_and_gradients(rows: int, monkeypatch) -> None:
    monkeypatch.setattr(loss_module, "ROWS", rows)
    model = small_model()
    inputs, targets = torch.randint(0, 29, (2, 2, 12), generator=torch.Generator().manual_seed(3))
    fast, plain = token_loss(model, inputs, targets), explicit_token_loss(model, inputs, targets)
    torch.testing.assert_close(fast.total, plain.total, rtol=1e-5, atol=1e-5)
    for ours, expected in zip(gradients(model, fast), gradients(model, plain), strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-6)


def test_a_batch_without_a_trained_token_has_the_loss_0_and_no_nan() -> None:
    model = small_model()
    ids = torch.zeros(2, 5, dtype=torch.long)
    loss = token_loss(model, ids, ids, torch.zeros(2, 5, dtype=torch.bool))
    assert (loss.total.item(), loss.count) == (0.0, 0)


def test_a_target_that_is_not_trained_changes_nothing() -> None:
    model = small_model()
    inputs, targets = torch.randint(0, 29, (2, 3, 6))
    trained = torch.rand(3, 6) < 0.5
    changed = torch.where(trained, targets, (targets + 1) % 29)
    assert torch.equal(
        token_loss(model, inputs, targets, trained).total, token_loss(model, inputs, changed, trained).total
    )


@pytest.mark.parametrize("rows", [5, 512])
def test_in_bfloat16_the_loss_and_its_gradients_are_those_of_the_formula_in_it(rows: int, monkeypatch) -> None:
    monkeypatch.setattr(loss_module, "ROWS", rows)
    model = small_model()
    inputs, targets = torch.randint(0, 29, (2, 2, 12), generator=torch.Generator().manual_seed(3))
    exact = gradients(model, explicit_token_loss(model, inputs, targets))
    with torch.autocast("cpu", torch.bfloat16):
        fast, plain = token_loss(model, inputs, targets), explicit_token_loss(model, inputs, targets)
    torch.testing.assert_close(fast.total, plain.total, rtol=1e-4, atol=0)
    ours, theirs = (torch.cat([g.flatten() for g in gradients(model, loss)]) for loss in (fast, plain))
    true = torch.cat([g.flatten() for g in exact])
    assert (ours - true).norm() < 1.1 * (theirs - true).norm() < 0.02 * true.norm()


def test_a_frozen_projection_is_given_no_gradient() -> None:
    model = small_model()
    model.token_embedding.weight.requires_grad_(False)
    ids = torch.randint(0, 29, (2, 12), generator=torch.Generator().manual_seed(3))
    token_loss(model, ids, ids).total.backward()
    assert model.token_embedding.weight.grad is None
    assert model.blocks[0].attention.query.weight.grad is not None
