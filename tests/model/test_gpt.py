"""The whole model: the cache changes nothing, neither do the neighbours in a batch; the vocabulary can grow."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pellucid.config import PRESETS, ModelConfig, RopeScaling
from pellucid.model.cache import KVCache
from pellucid.model.gpt import GPT
from pellucid.model.outline import Outline
from pellucid.pretrain.loss import token_loss
from tests.model.families import LLAMA_1B, QWEN3_600M, TINY, difference, lively

CONFIG = ModelConfig(vocab_size=31, context_length=16, d_model=24, n_layers=3, n_heads=3)
llama_settings = st.fixed_dictionaries(
    {
        "family": st.just("llama"),
        "n_heads": st.just(4),
        "n_kv_heads": st.sampled_from([1, 2, 4]),
        "d_head": st.sampled_from([0, 2, 8]),
        "query_key_norm": st.booleans(),
        "tied": st.booleans(),
        "window": st.integers(0, 6),
        "rope_scaling": st.sampled_from([None, RopeScaling(factor=4.0, original_context_length=32)]),
    }
)
configs = st.one_of(st.just({}), st.just({"positions": "sinusoidal"}), llama_settings).map(
    lambda more: replace(CONFIG, **({"n_kv_heads": 0, "d_head": 0, "d_ff": 0, "positions": ""} | more))
)


def some_ids(*shape: int) -> Tensor:
    return torch.randint(0, CONFIG.vocab_size, shape)


def assert_close(ours: Tensor, expected: Tensor) -> None:
    assert difference(ours, expected) < 1e-5


@torch.no_grad()
@settings(max_examples=40, deadline=None)
@given(configs, st.lists(st.integers(1, 5), min_size=1, max_size=3), st.integers(1, 3))
def test_tokens_read_in_pieces_through_the_cache_give_the_logits_of_one_reading(
    config: ModelConfig, pieces: list[int], batch: int
) -> None:
    model, ids = lively(config), some_ids(batch, sum(pieces))
    cache = KVCache(config, batch, ids.shape[1])
    parts = [model(part, cache) for part in ids.split(pieces, dim=1)]
    assert_close(torch.cat(parts, dim=1), model(ids))


@torch.no_grad()
@settings(max_examples=40, deadline=None)
@given(configs, st.lists(st.integers(1, 9), min_size=2, max_size=4), st.integers(1, 4))
def test_rows_of_different_lengths_in_one_batch_give_the_logits_they_give_alone(
    config: ModelConfig, lengths: list[int], more: int
) -> None:
    model, longest = lively(config), max(lengths)
    rows = [some_ids(length + more) for length in lengths]
    padded = torch.stack([torch.cat([torch.zeros(longest - n).long(), row[:n]]) for n, row in zip(lengths, rows)])  # noqa: B905
    cache = KVCache(config, len(rows), longest + more, padding=longest - torch.tensor(lengths))
    steps = [model(padded, cache)[:, -1]]
    for extra in range(more):
        steps.append(
            model(torch.stack([row[n + extra] for n, row in zip(lengths, rows, strict=True)])[:, None], cache)[:, -1]
        )
    for number, (n, row) in enumerate(zip(lengths, rows, strict=True)):
        assert_close(torch.stack([step[number] for step in steps]), model(row[None])[0, n - 1 :])


@settings(max_examples=40, deadline=None)
@given(configs, st.integers(1, 16))
def test_the_explicit_attention_gives_the_logits_of_the_fused_and_the_batched(config: ModelConfig, length: int) -> None:
    model, ids = lively(config), some_ids(2, length)
    batched = model(ids)  # with gradients on a CPU
    with torch.no_grad():
        fused = model(ids)
        for block in model.blocks:
            block.attention.fused = False
        assert_close(fused, model(ids))
        assert_close(batched, model(ids))


def test_more_tokens_than_the_context_holds_are_refused() -> None:
    with pytest.raises(ValueError, match="17 tokens do not fit into a context of 16"):
        lively(CONFIG)(some_ids(1, 17))


@pytest.mark.parametrize("name", ["gpt2", "llama untied"])
@torch.no_grad()
def test_a_larger_vocabulary_keeps_every_old_logit_and_starts_the_new_ones_at_their_mean(name: str) -> None:
    model, size = lively(TINY[name]), TINY[name].vocab_size
    ids = some_ids(2, 5)
    before = model(ids)
    model.resize_vocab(size + 4)
    after = model(ids)
    assert model.config.vocab_size == size + 4
    assert_close(after[..., :size], before)  # not bit-equal: a wider product may round differently
    new = before.mean(-1, keepdim=True).expand(-1, -1, 4)
    torch.testing.assert_close(after[..., size:], new, rtol=0, atol=1e-5 * float(before.abs().max()))


@pytest.mark.parametrize("name", TINY)
def test_the_parts_of_the_model_add_up_to_its_parameters(name: str) -> None:
    model = GPT(TINY[name])
    assert sum(count for _, count in model.parts()) == model.parameter_count()


def test_positions_start_as_waves_in_narrow_models_and_at_random_in_those_of_gpt2s_width() -> None:
    narrow = GPT(replace(PRESETS["laptop"], vocab_size=300)).position_embedding.weight.detach()
    back = [float(torch.cosine_similarity(narrow[t], narrow[t - 3], dim=0)) for t in (3, 40, 200)]
    assert max(back) - min(back) < 1e-4  # a distance looks alike at every place
    assert back[0] < float(torch.cosine_similarity(narrow[3], narrow[2], dim=0)) < 0.999
    wide = GPT(replace(CONFIG, d_model=768, n_heads=12, n_kv_heads=0, d_head=0, d_ff=0, context_length=256))
    assert abs(float(wide.position_embedding.weight.std()) - 0.02) < 1e-3


@pytest.mark.parametrize("name", TINY)
def test_every_matrix_starts_at_random_and_every_norm_at_one(name: str) -> None:
    for key, parameter in GPT(TINY[name]).named_parameters():
        if key.endswith("norm.weight"):
            assert torch.equal(parameter, torch.ones_like(parameter))
        elif parameter.dim() == 2:
            assert parameter.std().item() > 0.001, key


@pytest.mark.parametrize("name", ["laptop", "laptop-llama"])
def test_training_in_bfloat16_has_about_the_loss_of_float32(name: str) -> None:
    torch.manual_seed(0)
    model, ids = GPT(replace(PRESETS[name], vocab_size=31, dropout=0.1)), some_ids(2, 17)
    model.eval()
    exact = token_loss(model, ids[:, :-1], ids[:, 1:]).total.item()
    with torch.autocast("cpu", torch.bfloat16):
        assert token_loss(model, ids[:, :-1], ids[:, 1:]).total.item() == pytest.approx(exact, rel=1e-2)


@pytest.mark.parametrize(
    ("config", "millions"),
    [
        (PRESETS["gpt2"], 124.4),
        (PRESETS["gpt2-medium"], 354.8),
        (PRESETS["gpt2-large"], 774.0),
        (PRESETS["gpt2-xl"], 1557.6),
        (LLAMA_1B, 1235.8),
        (QWEN3_600M, 596.0),
    ],
)
def test_the_released_shapes_have_as_many_parameters_as_their_makers_say(config: ModelConfig, millions: float) -> None:
    with Outline():
        assert round(GPT(config).parameter_count() / 1e6, 1) == millions


def test_a_fresh_model_of_gpt2s_width_finds_every_token_about_equally_likely() -> None:
    torch.manual_seed(0)
    model = GPT(ModelConfig(vocab_size=512, context_length=16, d_model=768, n_layers=1, n_heads=12)).eval()
    with torch.no_grad():
        loss = torch.nn.functional.cross_entropy(
            model(torch.randint(0, 512, (4, 16))).flatten(0, 1), torch.randint(0, 512, (64,))
        )
    assert abs(float(loss) - torch.log(torch.tensor(512.0)).item()) < 0.3
