"""The ladder of attention: each rung equals the next on the same weights, and every fast way equals the plain one."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pellucid.config import ModelConfig
from pellucid.model.attention import (
    BLOCK,
    CausalAttention,
    CausalSelfAttention,
    SelfAttention,
    SeveralHeads,
    attention_in_blocks,
    attention_weights,
    batched_attention,
    causal_mask,
    for_each_query,
    mix_by_similarity,
)
from pellucid.model.cache import KVCache
from pellucid.model.layers import together

shapes = st.tuples(
    st.integers(1, 3), st.integers(1, 9), st.integers(1, 4), st.integers(1, 8), st.integers(0, 2**31)
)  # batch, length, heads, width of a head, seed


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape)


def whole(d_model: int, n_heads: int, dropout: float = 0.0) -> CausalAttention:
    return CausalAttention(
        ModelConfig(vocab_size=7, context_length=16, d_model=d_model, n_layers=1, n_heads=n_heads, dropout=dropout)
    )


def assert_close(ours: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)


@settings(max_examples=25, deadline=None)
@given(shapes)
def test_learnt_queries_keys_and_values_that_change_nothing_give_mixing_by_similarity(shape: tuple[int, ...]) -> None:
    batch, length, _, width, seed = shape
    torch.manual_seed(seed)
    head, x = SelfAttention(width, width), noise(batch, length, width)
    with torch.no_grad():
        for part, scale in ((head.query, math.sqrt(width)), (head.key, 1.0), (head.value, 1.0)):
            part.weight.copy_(scale * torch.eye(width))
            part.bias.zero_()
    assert_close(head(x), mix_by_similarity(x))


@settings(max_examples=25, deadline=None)
@given(shapes)
def test_each_row_of_causal_attention_is_the_last_row_of_attention_over_its_prefix(shape: tuple[int, ...]) -> None:
    batch, length, _, width, seed = shape
    torch.manual_seed(seed)
    plain, causal, x = SelfAttention(width, width), CausalSelfAttention(width, width), noise(batch, length, width)
    causal.load_state_dict(plain.state_dict())
    rows = [plain(x[:, : t + 1])[:, -1] for t in range(length)]
    assert_close(causal(x), torch.stack(rows, dim=1))


@settings(max_examples=25, deadline=None)
@given(shapes)
def test_several_heads_are_causal_heads_side_by_side_and_projected(shape: tuple[int, ...]) -> None:
    batch, length, heads, width, seed = shape
    torch.manual_seed(seed)
    several, x = SeveralHeads(heads * width, heads), noise(batch, length, heads * width)
    alone = [CausalSelfAttention(heads * width, width) for _ in range(heads)]
    for head, copy in zip(several.heads, alone, strict=True):
        copy.load_state_dict(head.state_dict())
    expected = torch.cat([head(x) for head in alone], dim=-1) @ several.output.weight.mT + several.output.bias
    assert_close(several(x), expected)


def all_heads_of(several: SeveralHeads, d_model: int, n_heads: int) -> CausalAttention:
    made = whole(d_model, n_heads)
    with torch.no_grad():
        for name in ("query", "key", "value"):
            for kind in ("weight", "bias"):
                parts = [getattr(getattr(head, name), kind) for head in several.heads]
                getattr(getattr(made, name), kind).copy_(torch.cat(parts))
        made.output.load_state_dict(several.output.state_dict())
    return made


@settings(max_examples=40, deadline=None)
@given(shapes)
def test_the_models_attention_equals_several_heads_whether_fused_batched_or_explicit(shape: tuple[int, ...]) -> None:
    batch, length, heads, width, seed = shape
    torch.manual_seed(seed)
    several, x = SeveralHeads(heads * width, heads), noise(batch, length, heads * width)
    made = all_heads_of(several, heads * width, heads)
    expected = several(x)
    assert_close(made(x), expected)  # with gradients on a CPU: the batched way
    with torch.no_grad():
        assert_close(made(x), expected)  # without: the fused kernel
    made.fused = False
    assert_close(made(x), expected)


@settings(max_examples=40, deadline=None)
@given(shapes, st.integers(1, 3), st.integers(0, 10))
def test_the_batched_way_has_the_gradients_of_the_explicit_one(
    shape: tuple[int, ...], sharing: int, window: int
) -> None:
    batch, length, heads, width, seed = shape
    torch.manual_seed(seed)
    q = noise(batch, heads * sharing, length, width).requires_grad_()
    k, v = (noise(batch, heads, length, width).requires_grad_() for _ in range(2))
    towards = noise(*q.shape)
    seen = causal_mask(length, window=window)
    fast = torch.autograd.grad((batched_attention(q, k, v, seen) * towards).sum(), (q, k, v))
    weights = attention_weights(q, for_each_query(k, q), seen)
    slow = torch.autograd.grad((weights @ for_each_query(v, q) * towards).sum(), (q, k, v))
    for ours, expected in zip(fast, slow, strict=True):
        assert_close(ours, expected)


@pytest.mark.parametrize("before", [0, 37])
@pytest.mark.parametrize("window", [0, 50])
def test_attention_in_blocks_is_the_explicit_one_also_behind_others_and_with_empty_columns(
    before: int, window: int
) -> None:
    torch.manual_seed(before + window)
    length = 2 * BLOCK + 9
    q, k, v = noise(2, 6, length, 8), noise(2, 3, before + length, 8), noise(2, 3, before + length, 8)
    cache = KVCache(ModelConfig(vocab_size=7), 2, before + length, padding=torch.tensor([0, 5]))
    cache.used = before
    seen = cache.mask(length, window)
    assert seen is not None
    expected = attention_weights(q, for_each_query(k, q), seen) @ for_each_query(v, q)
    assert_close(attention_in_blocks(q, k, v, seen), expected)
    halves = [part.bfloat16() for part in (q, k, v)]
    attention = CausalAttention(ModelConfig("llama", vocab_size=7, n_heads=6, n_kv_heads=3, d_head=8, window=window))
    chosen = attention.eval().attend(*halves, seen, causal=False)
    assert torch.equal(chosen, attention_in_blocks(*halves, seen))
    torch.testing.assert_close(chosen.float(), expected, rtol=0.03, atol=0.03)
    attention.dropout = 0.9  # as in a frozen block while the others train
    dropped = attention.train().attend(*halves, seen, causal=False)
    assert (dropped == 0).sum() > (chosen == 0).sum()


@settings(max_examples=20, deadline=None)
@given(shapes, st.integers(1, 3))
def test_shared_keys_and_values_are_those_of_a_model_that_has_them_once_for_each_query(
    shape: tuple[int, ...], sharing: int
) -> None:
    batch, length, groups, width, seed = shape
    torch.manual_seed(seed)
    sizes = {"vocab_size": 7, "d_model": 8, "n_heads": groups * sharing, "d_head": 2 * width}
    shared = CausalAttention(ModelConfig("llama", n_kv_heads=groups, **sizes), biases=False)
    alone = CausalAttention(ModelConfig("llama", **sizes), biases=False)
    weights = shared.state_dict()
    for name in ("key.weight", "value.weight"):
        heads = weights[name].view(groups, 2 * width, 8)
        weights[name] = heads.repeat_interleave(sharing, dim=0).flatten(0, 1)
    alone.load_state_dict(weights)
    x = noise(batch, length, 8)
    assert_close(shared(x), alone(x))


def test_through_a_window_a_token_sees_itself_and_those_just_before_it() -> None:
    assert causal_mask(4, window=2).tolist() == [
        [True, False, False, False],
        [True, True, False, False],
        [False, True, True, False],
        [False, False, True, True],
    ]


def test_attention_weights_are_a_distribution_over_the_past_only() -> None:
    torch.manual_seed(0)
    weights = attention_weights(noise(2, 3, 6, 4), noise(2, 3, 6, 4), causal_mask(6))
    assert_close(weights.sum(dim=-1), torch.ones(2, 3, 6))
    assert torch.equal(weights.triu(1), torch.zeros_like(weights))


def test_changing_a_later_token_never_changes_an_earlier_context_vector() -> None:
    torch.manual_seed(0)
    attention, x = whole(12, 3), noise(1, 7, 12)
    changed = x.clone()
    changed[:, 5:] += 1
    assert torch.equal(attention(x)[:, :5], attention(changed)[:, :5])
    assert not torch.equal(attention(x)[:, 5:], attention(changed)[:, 5:])


@pytest.mark.parametrize("fused", [True, False])
def test_dropout_drops_while_training_and_never_afterwards(fused: bool) -> None:
    torch.manual_seed(0)
    attention, x = whole(12, 3, dropout=0.5), noise(1, 7, 12)
    attention.fused = fused
    assert not torch.equal(attention(x), attention(x))
    attention.eval()
    assert torch.equal(attention(x), attention(x))


def test_with_the_same_seed_the_batched_and_the_explicit_way_drop_the_same_weights() -> None:
    torch.manual_seed(0)
    attention, x = whole(12, 3, dropout=0.5), noise(2, 7, 12)
    torch.manual_seed(1)
    batched = attention(x)
    attention.fused = False
    torch.manual_seed(1)
    assert_close(batched, attention(x))


def test_one_wide_product_while_training_gives_what_the_layers_give_one_by_one() -> None:
    torch.manual_seed(0)
    layers = [torch.nn.Linear(8, width, bias=width != 4) for width in (8, 4, 4)]
    x = torch.randn(2, 5, 8)
    with torch.no_grad():
        plain = together(x, *layers)
    for biased in (layers[:1], layers[1:]):
        for wide, one in zip(together(x, *biased), [layer(x) for layer in biased], strict=True):
            torch.testing.assert_close(wide, one)
    assert [part.shape[-1] for part in plain] == [8, 4, 4]
