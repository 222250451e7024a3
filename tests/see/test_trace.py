"""The trace shows what the model really computed, and leaves the model as it was."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pellucid.config import ModelConfig
from pellucid.model.attention import causal_mask, for_each_query
from pellucid.model.gpt import GPT
from pellucid.runtime import DataError
from pellucid.see.trace import BLOCK_POINTS, MODEL_POINTS, Trace, observed, trace
from pellucid.text.bpe import BPETokenizer

TEXT = "Anna gives the red lamp to Ben."


@cache
def plain_tokenizer() -> BPETokenizer:
    return BPETokenizer.train(["the red lamp, the red fox " * 4], vocab_size=262)


def ids_of(picture: Trace) -> torch.Tensor:
    return torch.tensor([[piece.id for piece in picture.tokens]])


def hooks_of(model: GPT) -> int:
    return sum(len(part._forward_hooks) + len(part._forward_pre_hooks) for part in model.modules())


def test_traced_logits_are_the_models_own(model: GPT, tokenizer: BPETokenizer) -> None:
    picture = trace(model, tokenizer, TEXT)
    with torch.no_grad():
        torch.testing.assert_close(picture["logits"], model(ids_of(picture))[0], atol=1e-6, rtol=0)


@pytest.mark.parametrize(("family", "without"), [("gpt2", {"feed_forward.gate"}), ("llama", {"position_embedding"})])
def test_every_point_of_the_family_is_there_for_every_layer(
    family: Any, without: set[str], tokenizer: BPETokenizer
) -> None:
    config = ModelConfig(family, tokenizer.vocab_size, context_length=64, d_model=24, n_layers=3, n_heads=3)
    names = {point.name for point in MODEL_POINTS} - without
    parts = {point.name for point in BLOCK_POINTS} - without | {"attention.scores", "attention.weights"}
    names |= {f"blocks.{layer}.{part}" for layer in range(3) for part in parts}
    picture = trace(GPT(config), tokenizer, TEXT)
    assert set(picture.values) == names
    assert picture.to_json()["input"].keys() == names & {"token_embedding", "position_embedding", "input"}


llama_settings = st.fixed_dictionaries(
    {
        "family": st.just("llama"),
        "n_kv_heads": st.sampled_from([0, 1]),
        "d_head": st.sampled_from([2, 4, 6]),
        "query_key_norm": st.booleans(),
        "tied": st.booleans(),
        "window": st.integers(0, 5),
    }
)


@settings(max_examples=30, deadline=None)
@given(
    layers=st.integers(1, 3),
    heads=st.integers(1, 3),
    width=st.integers(1, 5),
    text=st.text(max_size=20),
    seed=st.integers(0, 9),
    more=st.one_of(st.just({}), st.just({"positions": "sinusoidal"}), llama_settings),
)
def test_the_parts_of_any_small_model_add_up(
    layers: int, heads: int, width: int, text: str, seed: int, more: dict[str, Any]
) -> None:
    tokenizer = plain_tokenizer()
    torch.manual_seed(seed)
    config = ModelConfig(
        vocab_size=tokenizer.vocab_size,
        context_length=128,
        d_model=heads * width,
        n_layers=layers,
        n_heads=heads,
        **more,
    )
    model = GPT(config)
    picture = trace(model, tokenizer, text)
    values = picture.values
    with torch.no_grad():
        torch.testing.assert_close(picture["logits"], model(ids_of(picture))[0], atol=1e-5, rtol=0)
    length = len(picture.tokens)
    added = values["token_embedding"] + values.get("position_embedding", 0)
    torch.testing.assert_close(added, values["input"])
    stream = values["input"]
    for layer, block in enumerate(model.blocks):
        at = f"blocks.{layer}"
        weights = values[f"{at}.attention.weights"]
        assert weights.shape == (heads, length, length)
        assert torch.equal(weights, weights * causal_mask(length, window=config.window))
        torch.testing.assert_close(weights.sum(dim=-1), torch.ones(heads, length))
        context = weights @ for_each_query(values[f"{at}.attention.value"], weights)
        torch.testing.assert_close(context, values[f"{at}.attention.context"], atol=1e-5, rtol=0)
        with torch.no_grad():
            output = block.attention.output(block.attention.join_heads(context[None]))[0]
        torch.testing.assert_close(output, values[f"{at}.attention.output"], atol=1e-5, rtol=0)
        assert torch.equal(values[f"{at}.residual_in"], stream)
        torch.testing.assert_close(stream + values[f"{at}.attention.output"], values[f"{at}.residual_mid"])
        stream = values[f"{at}.residual_out"]
        torch.testing.assert_close(values[f"{at}.residual_mid"] + values[f"{at}.feed_forward.output"], stream)


def test_hooks_are_gone_and_the_training_mode_is_back(model: GPT, tokenizer: BPETokenizer) -> None:
    model.train()
    try:
        first, second = trace(model, tokenizer, TEXT), trace(model, tokenizer, TEXT)
        assert model.training
    finally:
        model.eval()
    assert hooks_of(model) == 0
    assert torch.equal(first["logits"], second["logits"]), "dropout was on"


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_looking_closer_at_a_trace_is_not_seen_by_the_hooks_of_another(family: Any, tokenizer: BPETokenizer) -> None:
    shape = ModelConfig(family, tokenizer.vocab_size, context_length=64, d_model=24, n_layers=2, n_heads=2)
    model, seen = GPT(shape).eval(), dict[str, torch.Tensor]()
    picture = trace(model, tokenizer, TEXT)
    with observed(model, seen):  # as while another thread traces
        for layer in range(2):
            q, k, v = picture.heads(layer)
            scores = q @ k.mT / shape.d_head**0.5
            torch.testing.assert_close(scores, picture[f"blocks.{layer}.attention.scores"])
            context = picture[f"blocks.{layer}.attention.weights"] @ v
            torch.testing.assert_close(context, picture[f"blocks.{layer}.attention.context"], atol=1e-5, rtol=0)
        picture.logit_lens()
    assert not seen


def test_hooks_are_gone_after_a_failure(tokenizer: BPETokenizer) -> None:
    small = GPT(ModelConfig(vocab_size=tokenizer.vocab_size, context_length=8, d_model=4, n_layers=1, n_heads=1))
    small.final_norm.weight = torch.nn.Parameter(torch.ones(5))
    with pytest.raises(RuntimeError):
        trace(small, tokenizer, "")
    assert hooks_of(small) == 0


def test_the_empty_text_is_end_of_text_alone(model: GPT, tokenizer: BPETokenizer) -> None:
    picture = trace(model, tokenizer, "")
    assert [piece.id for piece in picture.tokens] == [tokenizer.end_of_text]
    assert picture.note == ""
    assert picture["blocks.0.attention.weights"].flatten().tolist() == [1.0] * 3


def test_a_text_longer_than_the_context_is_cut_and_said_so(model: GPT, tokenizer: BPETokenizer) -> None:
    picture = trace(model, tokenizer, TEXT * 20)
    assert len(picture.tokens) == model.config.context_length
    assert "only the first 63 are shown" in picture.note


def test_a_tokenizer_of_another_model_is_an_error(tokenizer: BPETokenizer) -> None:
    small = GPT(ModelConfig(vocab_size=10, context_length=8, d_model=4, n_layers=1, n_heads=1))
    with pytest.raises(DataError, match="tokenizer of this model"):
        trace(small, tokenizer, "a")


def test_next_words_are_the_softmax_over_the_whole_vocabulary(model: GPT, tokenizer: BPETokenizer) -> None:
    picture = trace(model, tokenizer, TEXT)
    everything = picture.next_words(k=tokenizer.vocab_size)
    assert sum(word.probability for word in everything) == pytest.approx(1, abs=1e-5)
    assert [word.logit for word in everything] == sorted((word.logit for word in everything), reverse=True)
    assert everything[0].id == int(picture["logits"][-1].argmax())
    assert picture.next_words(3, position=0)[0].id == int(picture["logits"][0].argmax())


def test_the_last_row_of_the_logit_lens_is_the_models_answer(model: GPT, tokenizer: BPETokenizer) -> None:
    picture = trace(model, tokenizer, TEXT)
    lens = picture.logit_lens(2)
    assert list(lens) == ["input", *(f"blocks.{layer}.residual_out" for layer in range(3))]
    for position, words in enumerate(lens["blocks.2.residual_out"]):
        own = picture.next_words(2, position)
        assert [word.id for word in words] == [word.id for word in own]
        assert words[0].probability == pytest.approx(own[0].probability, abs=1e-6)


def test_the_page_gets_the_models_values_to_six_decimals(model: GPT, tokenizer: BPETokenizer) -> None:
    picture = trace(model, tokenizer, TEXT)
    data = json.loads(json.dumps(picture.to_json(), allow_nan=False))
    torch.testing.assert_close(torch.tensor(data["attention"]), picture.attention(), atol=1e-6, rtol=0)
    for name in ("token_embedding", "position_embedding", "input"):
        torch.testing.assert_close(torch.tensor(data["input"][name]), picture[name], atol=1e-6, rtol=0)
    torch.testing.assert_close(torch.tensor(data["norms"]["input"]), picture.norms()["input"], atol=1e-5, rtol=0)
    best = [words[0]["logit"] for words in data["next"]]
    torch.testing.assert_close(torch.tensor(best), picture["logits"].amax(dim=1), atol=1e-5, rtol=0)


def test_a_trace_and_its_parts_show_themselves_and_never_markup(model: GPT, tokenizer: BPETokenizer) -> None:
    picture = trace(model, tokenizer, "<i>a</i> lamp")
    parts: list[Any] = [picture, picture.tokens, picture.next_words(), picture.logit_lens(), picture.norms()]
    for part in [*parts, picture.head(1, 2)]:
        shown = part._repr_html_()
        assert "<i>" not in shown
        assert "<script" not in shown
        assert shown.strip().endswith("</div>")
    for part in (picture, picture.tokens, picture.logit_lens()):
        assert "&lt;" in part._repr_html_()
    assert torch.equal(picture.head(1, 2).weights, picture["blocks.1.attention.weights"][2])
    assert "<svg" in picture.head(1, 2)._repr_html_()
    assert f"{picture.norms()['input'][0]:.2f}" in picture.norms()._repr_html_()


def test_offsets_cut_the_text_into_its_tokens(model: GPT, tokenizer: BPETokenizer) -> None:
    picture = trace(model, tokenizer, TEXT)
    pieces = [TEXT.encode()[piece.start : piece.end].decode() for piece in picture.tokens]
    assert pieces == ["", *(piece.text for piece in picture.tokens[1:])]
