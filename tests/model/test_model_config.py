"""The model's settings: what is left out follows, what a family does not know is refused by name, TOML says it all."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pellucid.config import PRESETS, ModelConfig, RopeScaling, as_dict, from_dict, model_config
from pellucid.options import Pretrain
from pellucid.runtime import ConfigError


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"d_model": 10, "n_heads": 3}, "multiple of n_heads"),
        ({"n_layers": 0}, "n_layers 0"),
        ({"dropout": 1.0}, "dropout 1.0"),
        ({"vocab_size": True}, "vocab_size True"),
        ({"d_model": 12.0}, "d_model 12.0"),
        ({"window": 4}, "window 4; expected 0 in the gpt2 family"),
        ({"tied": False}, "tied False; expected True in the gpt2 family"),
        ({"n_kv_heads": 3}, "n_kv_heads 3; expected 12 in the gpt2 family"),
        ({"d_head": 32}, "d_head 32; expected 64"),
        ({"rope_theta": 1e4}, "rope_theta 10000.0"),
        ({"rope_scaling": RopeScaling()}, "rope_scaling"),
        ({"query_key_norm": True}, "query_key_norm True"),
        ({"positions": "rotary"}, "positions 'rotary'; expected 'learned' or 'sinusoidal' in the gpt2 family"),
        ({"family": "llama", "positions": "learned"}, "positions 'learned'; expected 'rotary' in the llama family"),
        ({"family": "llama", "n_kv_heads": 5}, "n_heads 12 and n_kv_heads 5"),
        ({"family": "llama", "d_head": 7}, "d_head 7; expected an even number"),
        ({"family": "llama", "window": -1}, "window -1"),
        ({"family": "llama", "rope_theta": float("nan")}, "rope_theta nan"),
    ],
)
def test_impossible_settings_are_refused_by_name(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ModelConfig(**wrong)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"factor": 0}, "factor: found 0"), ({"high_frequency_factor": 1.0}, "high_frequency_factor 1.0")],
)
def test_impossible_rope_scaling_is_refused_by_name(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        RopeScaling(**wrong)


def test_what_is_left_out_follows_from_the_rest() -> None:
    gpt2 = ModelConfig(d_model=96, n_heads=3)
    assert (gpt2.n_kv_heads, gpt2.d_head, gpt2.d_ff, gpt2.positions, gpt2.rope_theta) == (3, 32, 384, "learned", 0)
    llama = ModelConfig("llama", d_model=100, n_heads=5)
    assert (llama.n_kv_heads, llama.d_head, llama.d_ff, llama.positions) == (5, 20, 320, "rotary")  # 8/3 of 100: 266.7
    assert llama.rope_theta == 10000
    assert ModelConfig("llama", d_model=100, n_heads=3, d_head=16).d_head == 16


def test_a_llama_is_said_in_toml_and_comes_back_from_its_dictionary(tmp_path: Path) -> None:
    file = tmp_path / "model.toml"
    file.write_text(
        'family = "llama"\nd_model = 64\nn_heads = 4\nn_kv_heads = 2\ntied = false\nquery_key_norm = true\n'
        "window = 9\nrope_theta = 500000\n[rope_scaling]\nfactor = 32\n"
    )
    config = model_config(str(file), vocab_size=300)
    expected = ModelConfig(
        "llama", vocab_size=300, d_model=64, n_heads=4, n_kv_heads=2, tied=False, query_key_norm=True, window=9,
        rope_theta=500000.0, rope_scaling=RopeScaling(factor=32.0),
    )  # fmt: skip
    assert config == expected
    assert from_dict(ModelConfig, as_dict(config), "dictionary") == config


def test_an_unknown_setting_in_a_table_names_the_file_the_table_and_the_nearest_one(tmp_path: Path) -> None:
    file = tmp_path / "model.toml"
    file.write_text('family = "llama"\n[rope_scaling]\nfactr = 32\n')
    with pytest.raises(ConfigError, match=r"model\.toml, rope_scaling: .*'factr'.*Did you mean factor"):
        model_config(str(file), vocab_size=300)


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_takes_another_vocabulary_and_context(name: str) -> None:
    config = model_config(name, vocab_size=999, context_length=32)
    assert config == replace(PRESETS[name], vocab_size=999, context_length=32)


def test_a_setting_that_is_a_number_or_a_word_is_either_in_a_file() -> None:
    known = {"data": Path("shards"), "out": Path("run")}
    for stride in (0, 64, "random"):
        assert from_dict(Pretrain, {"stride": stride}, "settings.toml", **known).stride == stride
    for wrong in ("often", 1.5, True):
        with pytest.raises(ConfigError, match=r"settings\.toml, stride: found"):
            from_dict(Pretrain, {"stride": wrong}, "settings.toml", **known)
