"""The parts of a block against their formulas."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pellucid.config import ModelConfig
from pellucid.model.block import Block
from pellucid.model.layers import FeedForward, GatedFeedForward, LayerNorm, RMSNorm


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 4), st.integers(2, 33), st.floats(-50, 50), st.floats(0.01, 100), st.integers(0, 2**31))
@example(3, 3, 33.0, 0.01, 29167)
def test_layer_norm_equals_its_formula(rows: int, width: int, shift: float, scale: float, seed: int) -> None:
    torch.manual_seed(seed)
    norm = LayerNorm(width, 1e-5)
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    x = scale * torch.randn(rows, 3, width) + shift
    found, exact = norm(x).double(), norm.double().explicit(x.double())
    # Numbers far from 0 and close together lose what float32 cannot tell apart, stretched by as much as they are.
    stretch = float(norm.weight.detach().abs().max() / (x.double().var(dim=-1, unbiased=False) + norm.eps).sqrt().min())
    rounding = 4 * torch.finfo(torch.float32).eps * float(x.abs().max()) * stretch
    torch.testing.assert_close(found, exact, rtol=1e-5, atol=1e-5 + rounding)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 4), st.integers(1, 33), st.floats(0.01, 100), st.integers(0, 2**31))
def test_rms_norm_equals_its_formula(rows: int, width: int, scale: float, seed: int) -> None:
    torch.manual_seed(seed)
    norm = RMSNorm(width, 1e-5)
    torch.nn.init.normal_(norm.weight)
    x = scale * torch.randn(rows, 3, width)
    torch.testing.assert_close(norm(x).double(), norm.double().explicit(x.double()), rtol=1e-5, atol=1e-5)


def test_layer_norm_gives_mean_0_and_variance_1_before_anything_is_learnt() -> None:
    torch.manual_seed(0)
    y = LayerNorm(64, 1e-5)(5 * torch.randn(3, 64) + 7)
    torch.testing.assert_close(y.mean(-1), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(y.var(-1, unbiased=False), torch.ones(3), atol=1e-4, rtol=0)


def test_feed_forward_is_two_matrices_with_gpt2s_gelu_between() -> None:
    torch.manual_seed(0)
    part = FeedForward(ModelConfig(vocab_size=5, d_model=6, n_heads=2, d_ff=10))
    x = torch.randn(2, 3, 6)
    wide = x @ part.expand.weight.mT + part.expand.bias
    bent = 0.5 * wide * (1 + torch.tanh(math.sqrt(2 / math.pi) * (wide + 0.044715 * wide**3)))
    torch.testing.assert_close(part(x), bent @ part.contract.weight.mT + part.contract.bias, rtol=1e-5, atol=1e-6)


def test_the_gated_feed_forward_is_two_matrices_one_a_gate_for_the_other_and_a_third() -> None:
    torch.manual_seed(0)
    part = GatedFeedForward(ModelConfig("llama", vocab_size=5, d_model=6, n_heads=1, d_ff=10))
    x = torch.randn(2, 3, 6)
    gate = x @ part.gate.weight.mT
    bent = gate / (1 + torch.exp(-gate)) * (x @ part.expand.weight.mT)
    torch.testing.assert_close(part(x), bent @ part.contract.weight.mT, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_block_whose_parts_give_nothing_passes_its_input_on(family: Any) -> None:
    block = Block(ModelConfig(family, vocab_size=5, d_model=8, n_heads=2))
    with torch.no_grad():
        for part in (block.attention.output, block.feed_forward.contract):
            for parameter in part.parameters():
                parameter.zero_()
    x = torch.randn(2, 3, 8)
    assert torch.equal(block(x), x)
