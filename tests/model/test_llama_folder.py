"""Folders of Llama, Mistral and Qwen3: old and new spellings mean the same, and another model is refused by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForSequenceClassification

from pellucid.config import ModelConfig, RopeScaling
from pellucid.finetune.classify import Classifier
from pellucid.model.formats.llama import config_to_ours, config_to_theirs
from pellucid.model.gpt import GPT
from pellucid.runtime import DataError
from pellucid.text.bpe import BPETokenizer
from tests.model.families import LLAMA, TINY, difference, lively, some_ids

LLAMAS = [name for name, config in TINY.items() if config.family == "llama"]
OLD_SCALING = {
    "rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}  # fmt: skip
RELEASED = {  # the settings as their makers released them, less those that say nothing about the model
    "Llama 3.2 1B": {
        "model_type": "llama", "vocab_size": 128256, "max_position_embeddings": 131072, "hidden_size": 2048,
        "num_hidden_layers": 16, "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 64,
        "intermediate_size": 8192, "hidden_act": "silu", "rms_norm_eps": 1e-05, "rope_theta": 500000.0,
        "rope_scaling": OLD_SCALING, "tie_word_embeddings": True, "attention_bias": False, "mlp_bias": False,
    },
    "Qwen3 0.6B": {
        "model_type": "qwen3", "vocab_size": 151936, "max_position_embeddings": 40960, "hidden_size": 1024,
        "num_hidden_layers": 28, "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128,
        "intermediate_size": 3072, "hidden_act": "silu", "rms_norm_eps": 1e-06, "rope_theta": 1000000,
        "rope_scaling": None, "tie_word_embeddings": True, "attention_bias": False, "sliding_window": None,
        "use_sliding_window": False, "max_window_layers": 28,
    },
    "SmolLM2 135M": {
        "model_type": "llama", "vocab_size": 49152, "max_position_embeddings": 8192, "hidden_size": 576,
        "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3, "intermediate_size": 1536,
        "hidden_act": "silu", "rms_norm_eps": 1e-05, "rope_theta": 100000, "rope_interleaved": False,
        "rope_scaling": None, "tie_word_embeddings": True, "is_llama_config": True,
    },
    "TinyLlama 1.1B": {
        "model_type": "llama", "vocab_size": 32000, "max_position_embeddings": 2048, "hidden_size": 2048,
        "num_hidden_layers": 22, "num_attention_heads": 32, "num_key_value_heads": 4, "intermediate_size": 5632,
        "hidden_act": "silu", "rms_norm_eps": 1e-05, "rope_scaling": None, "tie_word_embeddings": False,
    },
    "Mistral 7B": {
        "model_type": "mistral", "vocab_size": 32000, "max_position_embeddings": 32768, "hidden_size": 4096,
        "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "intermediate_size": 14336,
        "hidden_act": "silu", "rms_norm_eps": 1e-05, "rope_theta": 10000.0, "sliding_window": 4096,
        "tie_word_embeddings": False,
    },
}  # fmt: skip


@pytest.mark.parametrize("name", RELEASED)
def test_released_settings_mean_what_transformers_takes_them_for(name: str) -> None:
    settings: dict[str, Any] = RELEASED[name]
    ours = config_to_ours(settings, name)
    theirs = AutoConfig.for_model(**settings)
    rope = theirs.rope_parameters
    assert ours.rope_theta == rope["rope_theta"]
    assert (ours.rope_scaling is None) == (rope["rope_type"] == "default")
    assert ours.n_kv_heads == theirs.num_key_value_heads
    assert ours.d_head == (theirs.head_dim or theirs.hidden_size // theirs.num_attention_heads)
    assert ours.norm_eps == theirs.rms_norm_eps and ours.tied == theirs.tie_word_embeddings
    assert ours.window == (getattr(theirs, "sliding_window", None) or 0)
    again = config_to_ours(AutoConfig.for_model(**config_to_theirs(ours)).to_dict(), name)
    assert again == ours == config_to_ours(theirs.to_dict(), name)


def test_what_a_config_leaves_out_is_what_transformers_takes() -> None:
    for kind, sizes in (("llama", {}), ("mistral", {"sliding_window": 4096}), ("qwen3", {"head_dim": 128})):
        needed = {"vocab_size": 9, "hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 32}
        settings = {"model_type": kind, **needed, "intermediate_size": 8}
        theirs = AutoConfig.for_model(**settings)
        assert all(getattr(theirs, name) == value for name, value in sizes.items())
        assert config_to_ours(settings, kind) == config_to_ours(theirs.to_dict(), kind)


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("llama", {"hidden_act": "gelu"}, "hidden_act 'gelu'"),
        ("llama", {"attention_bias": True}, "attention_bias True"),
        ("llama", {"mlp_bias": True}, "mlp_bias True"),
        ("llama", {"quantization_config": {"bits": 4}}, "quantization_config"),
        ("llama", {"rope_interleaved": True}, "rope_interleaved True"),
        ("llama", {"rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_type 'linear'"),
        ("llama", {"rope_scaling": {"rope_type": "yarn", "factor": 2.0}}, "rope_type 'yarn'"),
        ("llama", {"rope_scaling": {"rope_type": "llama3", "factor": 2.0}}, "low_freq_factor"),
        ("llama", {"rope_scaling": {**OLD_SCALING, "factor": "much"}}, "rope_scaling factor: found 'much'"),
        ("llama", {"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
        ("llama", {"rope_parameters": "none"}, "broken setting"),
        ("llama", {"rope_parameters": {"rope_theta": "far"}}, "rope_theta 'far'"),
        ("llama", {"num_key_value_heads": 3}, "n_heads 4 and n_kv_heads 3"),
        ("llama", {"num_attention_heads": 0}, "n_heads 0"),
        ("llama", {"head_dim": 7}, "d_head 7"),
        ("llama", {"tie_word_embeddings": "yes"}, "tied 'yes'"),
        ("llama", {"hidden_size": None}, "d_model None"),
        ("qwen3", {"use_sliding_window": True, "layer_types": None, "sliding_window": 4, "max_window_layers": 1},
         r"layer_types that differ \(full_attention and sliding_attention\)"),
        ("mistral", {"sliding_window": "wide"}, "broken setting"),
    ],
)  # fmt: skip
def test_settings_that_mean_another_model_are_refused_by_name(name: str, change: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=said) as error:
        config_to_ours(config_to_theirs(TINY[name]) | change, "model/config.json")
    assert "model/config.json" in str(error.value)


@pytest.mark.parametrize("name", LLAMAS)
def test_both_spellings_of_the_rotary_settings_say_the_same(name: str) -> None:
    theirs = config_to_theirs(TINY[name])
    old = {key: value for key, value in theirs.items() if key != "rope_parameters"}
    new = {key: value for key, value in theirs.items() if key not in ("rope_theta", "rope_scaling")}
    assert config_to_ours(old, "old") == config_to_ours(new, "new") == TINY[name]


def test_scaling_without_its_original_context_takes_the_models() -> None:
    scaling = {key: value for key, value in OLD_SCALING.items() if key != "original_max_position_embeddings"}
    config = config_to_ours(config_to_theirs(LLAMA) | {"rope_scaling": scaling}, "config.json")
    assert config.rope_scaling == RopeScaling(factor=32.0, original_context_length=LLAMA.context_length)


def rewrite(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def test_a_tied_output_layer_that_is_stored_twice_is_read_when_it_is_the_same(tmp_path: Path) -> None:
    model = lively(LLAMA)
    model.save(tmp_path)
    rewrite(tmp_path, lambda tensors: tensors.update({"lm_head.weight": model.output_weight.detach().clone()}))
    assert GPT.load(tmp_path).config == LLAMA
    rewrite(tmp_path, lambda tensors: tensors["lm_head.weight"].add_(1))
    with pytest.raises(DataError, match=r"lm_head\.weight that differs from model\.embed_tokens\.weight"):
        GPT.load(tmp_path)


def test_an_untied_folder_without_its_output_layer_names_it(tmp_path: Path) -> None:
    lively(TINY["llama untied"]).save(tmp_path)
    rewrite(tmp_path, lambda tensors: tensors.pop("lm_head.weight"))
    with pytest.raises(DataError, match=r"no tensor lm_head\.weight"):
        GPT.load(tmp_path)


def test_names_without_a_prefix_and_the_frequencies_of_old_files_are_read(tmp_path: Path) -> None:
    model = lively(LLAMA)
    model.save(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    bare = {name.removeprefix("model."): tensor for name, tensor in tensors.items()}
    save_file({**bare, "layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}, tmp_path / "model.safetensors")
    again = GPT.load(tmp_path)
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("name", TINY)
@torch.no_grad()
def test_a_classifier_of_either_maker_gives_the_others_logits(name: str, tmp_path: Path) -> None:
    tokenizer = BPETokenizer.train(["the fox"], vocab_size=256)
    settings = {**vars(TINY[name]), "vocab_size": tokenizer.vocab_size}
    classifier = Classifier(lively(ModelConfig(**settings)), ["a", "b", "c"]).eval()
    classifier.save(tmp_path / "ours", tokenizer)
    theirs, report = AutoModelForSequenceClassification.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    theirs.save_pretrained(tmp_path / "theirs")
    ids, lengths = some_ids(TINY[name], 2, 7), torch.tensor([7, 7])
    expected = theirs(ids).logits
    assert difference(classifier(ids, lengths), expected) < 1e-5
    for folder in ("ours", "theirs"):
        assert difference(Classifier.load(tmp_path / folder)(ids, lengths), expected) < 1e-5
