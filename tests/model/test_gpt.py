"""The whole model: the cache changes nothing, neither do the neighbours in a batch; the vocabulary can grow."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pellucid.config import PRESETS, ModelConfig
from pellucid.model.cache import KVCache
from pellucid.model.gpt import GPT
from pellucid.runtime import ConfigError

CONFIG = ModelConfig(vocab_size=31, context_length=16, d_model=24, n_layers=3, n_heads=3)


def lively(config: ModelConfig = CONFIG, seed: int = 0) -> GPT:
    """A model whose weights are large enough that every token matters."""
    torch.manual_seed(seed)
    model = GPT(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


def some_ids(*shape: int) -> Tensor:
    return torch.randint(0, CONFIG.vocab_size, shape)


def assert_close(ours: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.integers(1, 3))
def test_tokens_read_in_pieces_through_the_cache_give_the_logits_of_one_reading(pieces: list[int], batch: int) -> None:
    model = lively()
    pieces = pieces[: next((n for n in range(1, len(pieces) + 1) if sum(pieces[:n]) > 16), len(pieces) + 1) - 1]
    if not pieces:
        return
    ids = some_ids(batch, sum(pieces))
    cache = KVCache(CONFIG, batch, ids.shape[1])
    parts = [model(part, cache) for part in ids.split(pieces, dim=1)]
    assert_close(torch.cat(parts, dim=1), model(ids))


@torch.no_grad()
@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=2, max_size=4), st.integers(1, 4))
def test_rows_of_different_lengths_in_one_batch_give_the_logits_they_give_alone(lengths: list[int], more: int) -> None:
    model, longest = lively(), max(lengths)
    rows = [some_ids(length + more) for length in lengths]
    padded = torch.stack([torch.cat([torch.zeros(longest - n).long(), row[:n]]) for n, row in zip(lengths, rows)])  # noqa: B905
    cache = KVCache(CONFIG, len(rows), longest + more, padding=longest - torch.tensor(lengths))
    steps = [model(padded, cache)[:, -1]]
    for extra in range(more):
        steps.append(
            model(torch.stack([row[n + extra] for n, row in zip(lengths, rows, strict=True)])[:, None], cache)[:, -1]
        )
    for number, (n, row) in enumerate(zip(lengths, rows, strict=True)):
        assert_close(torch.stack([step[number] for step in steps]), model(row[None])[0, n - 1 :])


@torch.no_grad()
def test_the_explicit_attention_gives_the_models_logits_too() -> None:
    model, ids = lively(), some_ids(2, 12)
    fused = model(ids)
    for block in model.blocks:
        block.attention.fused = False
    assert_close(fused, model(ids))


def test_more_tokens_than_the_context_holds_are_refused() -> None:
    with pytest.raises(ValueError, match="17 tokens do not fit into a context of 16"):
        lively()(some_ids(1, 17))


@torch.no_grad()
def test_a_larger_vocabulary_keeps_every_old_logit_and_starts_the_new_ones_at_their_mean() -> None:
    model, ids = lively(), some_ids(2, 5)
    before = model(ids)
    model.resize_vocab(35)
    after = model(ids)
    assert model.config.vocab_size == 35
    assert_close(after[..., :31], before)  # not bit-equal: a wider product may round differently
    assert_close(after[..., 31:], before.mean(-1, keepdim=True).expand(-1, -1, 4))


def test_the_parts_of_the_model_add_up_to_its_parameters() -> None:
    model = lively()
    assert sum(count for _, count in model.parts()) == model.parameter_count()


@pytest.mark.parametrize(
    ("name", "millions"), [("gpt2", 124.4), ("gpt2-medium", 354.8), ("gpt2-large", 774.0), ("gpt2-xl", 1557.6)]
)
def test_the_presets_have_gpt2s_sizes(name: str, millions: float) -> None:
    with torch.device("meta"):
        assert round(GPT(PRESETS[name]).parameter_count() / 1e6, 1) == millions


def test_a_fresh_model_of_gpt2s_width_finds_every_token_about_equally_likely() -> None:
    torch.manual_seed(0)
    model = GPT(ModelConfig(vocab_size=512, context_length=16, d_model=768, n_layers=1, n_heads=12)).eval()
    with torch.no_grad():
        loss = torch.nn.functional.cross_entropy(
            model(torch.randint(0, 512, (4, 16))).flatten(0, 1), torch.randint(0, 512, (64,))
        )
    assert abs(float(loss) - torch.log(torch.tensor(512.0)).item()) < 0.3


@pytest.mark.parametrize(
    ("settings_", "message"),
    [
        ({"d_model": 10, "n_heads": 3}, "multiple of n_heads"),
        ({"n_layers": 0}, "n_layers"),
        ({"dropout": 1.0}, "dropout"),
        ({"vocab_size": True}, "vocab_size"),
        ({"d_model": 12.0}, "d_model"),
    ],
)
def test_impossible_sizes_are_refused_by_name(settings_: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ModelConfig(**settings_)  # type: ignore[arg-type]
