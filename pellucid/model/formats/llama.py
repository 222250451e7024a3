"""Llama's, Mistral's and Qwen3's names and shapes, as transformers writes them: a table, read in both directions.

The three share their tensors: Qwen3 norms each head's queries and keys, Mistral's window slides. transformers 5 keeps
the rotary settings under rope_parameters, older files under rope_theta and rope_scaling; both are read, both written.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from pellucid.config import ModelConfig, RopeScaling
from pellucid.model.formats import is_classifier
from pellucid.model.formats.gpt2 import Entry
from pellucid.runtime import ConfigError, DataError, problem

PREFIX = "model."
_FIRST = Entry("model.embed_tokens.weight", ("token_embedding.weight",))
_BLOCK = (
    Entry("input_layernorm.weight", ("attention_norm.weight",)),
    Entry("self_attn.q_proj.weight", ("attention.query.weight",)),
    Entry("self_attn.k_proj.weight", ("attention.key.weight",)),
    Entry("self_attn.v_proj.weight", ("attention.value.weight",)),
    Entry("self_attn.o_proj.weight", ("attention.output.weight",)),
    Entry("post_attention_layernorm.weight", ("feed_forward_norm.weight",)),
    Entry("mlp.gate_proj.weight", ("feed_forward.gate.weight",)),
    Entry("mlp.up_proj.weight", ("feed_forward.expand.weight",)),
    Entry("mlp.down_proj.weight", ("feed_forward.contract.weight",)),
)
_QUERY_KEY_NORM = (
    Entry("self_attn.q_norm.weight", ("attention.query_norm.weight",)),
    Entry("self_attn.k_norm.weight", ("attention.key_norm.weight",)),
)
_FINAL_NORM = Entry("model.norm.weight", ("final_norm.weight",))
_OUTPUT = Entry("lm_head.weight", ("output_layer.weight",))
_MEANT: dict[str, Any] = {  # settings that would make another model of the same tensors
    "hidden_act": "silu",
    "attention_bias": False,
    "mlp_bias": False,
    "rope_interleaved": False,
    "quantization_config": None,
}
_ROPE_SCALING = {  # their names of Llama 3's four numbers, and ours
    "factor": "factor",
    "low_freq_factor": "low_frequency_factor",
    "high_freq_factor": "high_frequency_factor",
    "original_max_position_embeddings": "original_context_length",
}
_LEFT_OUT: dict[str, dict[str, Any]] = {  # what transformers takes where a config.json is silent
    "llama": {"max_position_embeddings": 2048},
    "mistral": {"max_position_embeddings": 131072, "num_key_value_heads": 8, "sliding_window": 4096},
    "qwen3": {"max_position_embeddings": 32768, "num_key_value_heads": 32, "head_dim": 128, "max_window_layers": 28},
}
_ADVICE = "Use a folder of the Llama, Mistral or Qwen3 architecture."


def table(config: ModelConfig) -> list[Entry]:
    """All entries of a model of this shape, under their full names."""
    block = _BLOCK + (_QUERY_KEY_NORM if config.query_key_norm else ())
    layers = [
        Entry(f"model.layers.{i}.{entry.theirs}", tuple(f"blocks.{i}.{name}" for name in entry.ours))
        for i in range(config.n_layers)
        for entry in block
    ]
    return [_FIRST, *layers, _FINAL_NORM, *([] if config.tied else [_OUTPUT])]


def shape_of(entry: Entry, config: ModelConfig) -> tuple[int, ...]:
    """The shape that their tensor must have."""
    d, ff = config.d_model, config.d_ff
    queries, keys = config.n_heads * config.d_head, config.n_kv_heads * config.d_head
    shapes: dict[str, tuple[int, ...]] = {
        "embed_tokens": (config.vocab_size, d),
        "lm_head": (config.vocab_size, d),
        "q_proj": (queries, d),
        "k_proj": (keys, d),
        "v_proj": (keys, d),
        "o_proj": (d, queries),
        "q_norm": (config.d_head,),
        "k_norm": (config.d_head,),
        "gate_proj": (ff, d),
        "up_proj": (ff, d),
        "down_proj": (d, ff),
    }
    return shapes.get(entry.theirs.split(".")[-2], (d,))


def to_theirs(weights: dict[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
    """Our state dict under their names."""
    return {entry.theirs: weights[entry.ours[0]].contiguous() for entry in table(config)}


def config_to_theirs(config: ModelConfig) -> dict[str, Any]:
    """config.json as transformers reads it: of the three, the plainest architecture that can say it."""
    rope: dict[str, Any] = {"rope_theta": config.rope_theta, "rope_type": "default"}
    scaling = config.rope_scaling
    if scaling is not None:
        rope |= {"rope_type": "llama3", **{theirs: getattr(scaling, ours) for theirs, ours in _ROPE_SCALING.items()}}
    settings = {
        "model_type": "llama",
        "vocab_size": config.vocab_size,
        "max_position_embeddings": config.context_length,
        "hidden_size": config.d_model,
        "num_hidden_layers": config.n_layers,
        "num_attention_heads": config.n_heads,
        "num_key_value_heads": config.n_kv_heads,
        "head_dim": config.d_head,
        "intermediate_size": config.d_ff,
        "hidden_act": "silu",
        "rms_norm_eps": config.norm_eps,
        "attention_dropout": config.dropout,
        "attention_bias": False,
        "mlp_bias": False,
        "initializer_range": 0.02,
        "tie_word_embeddings": config.tied,
        "rope_parameters": rope,
        "rope_theta": config.rope_theta,
        "rope_scaling": None if scaling is None else rope,
        "dtype": "float32",
    }
    if config.query_key_norm:
        kind = "sliding_attention" if config.window else "full_attention"
        layers = {"layer_types": [kind] * config.n_layers, "max_window_layers": 0 if config.window else config.n_layers}
        settings |= {"model_type": "qwen3", "use_sliding_window": bool(config.window), **layers}
    elif config.window or config.d_model % config.n_heads:  # transformers' Llama wants heads that divide d_model
        settings["model_type"] = "mistral"
    return settings if settings["model_type"] == "llama" else {**settings, "sliding_window": config.window or None}


def config_to_ours(theirs: dict[str, Any], where: str) -> ModelConfig:
    """Our config from config.json; a setting that these architectures know and we do not is a DataError."""
    for key, known in _MEANT.items():
        if theirs.get(key, known) != known:
            raise DataError(problem(where, f"{key} {theirs[key]!r}", repr(known), _ADVICE))
    kind = theirs["model_type"]
    given = {**_LEFT_OUT[kind], **theirs}
    # The output layer is no part of a classifier; without it, it is as if it were tied.
    classifier = is_classifier(given)
    try:
        return ModelConfig(
            family="llama",
            vocab_size=given["vocab_size"],
            context_length=given["max_position_embeddings"],
            d_model=given["hidden_size"],
            n_layers=given["num_hidden_layers"],
            n_heads=given["num_attention_heads"],
            n_kv_heads=given.get("num_key_value_heads") or given["num_attention_heads"],
            d_head=given.get("head_dim") or given["hidden_size"] // given["num_attention_heads"],
            d_ff=given["intermediate_size"],
            dropout=given.get("attention_dropout") or 0.0,
            norm_eps=given.get("rms_norm_eps", 1e-6),
            tied=classifier or given.get("tie_word_embeddings", False),
            query_key_norm=kind == "qwen3",
            window=_window(given, where),
            **_rope(given, where),
        )
    except ConfigError as error:
        raise DataError(f"{where}: {error}") from error
    except (KeyError, TypeError, ValueError, AttributeError, ZeroDivisionError) as error:
        raise DataError(problem(where, f"a broken setting ({error!r})", f"{kind}'s settings", _ADVICE)) from error


def _window(theirs: dict[str, Any], where: str) -> int:
    """How far each layer sees (0: all). Qwen3 may say it of each layer on its own; we only know one for all."""
    kind = theirs["model_type"]
    if kind == "llama" or (kind == "qwen3" and not theirs.get("use_sliding_window")):
        return 0
    window = theirs.get("sliding_window") or 0
    if kind == "mistral":
        return int(window)
    first = theirs["max_window_layers"]
    layers: list[str] = theirs.get("layer_types") or [
        "sliding_attention" if window and layer >= first else "full_attention"
        for layer in range(theirs["num_hidden_layers"])
    ]
    if len(set(layers)) > 1:
        found = f"layer_types that differ ({' and '.join(sorted(set(map(str, layers))))})"
        raise DataError(problem(where, found, "the same window in each layer", _ADVICE))
    return int(window) if layers[0] == "sliding_attention" else 0


def _rope(theirs: dict[str, Any], where: str) -> dict[str, Any]:
    """`rope_theta` and `rope_scaling` of our config, as transformers would understand the old and the new spelling."""
    rope = theirs.get("rope_scaling") or theirs.get("rope_parameters") or {}
    kind = rope.get("rope_type", rope.get("type", "default"))
    theta = rope.get("rope_theta") or theirs.get("rope_theta") or 10000.0
    whole = {theirs.get("partial_rotary_factor", 1.0), rope.get("partial_rotary_factor", 1.0)}
    if whole - {1.0, None}:
        raise DataError(problem(where, f"partial_rotary_factor {whole}", "1.0", _ADVICE))
    if kind == "default":
        return {"rope_theta": theta}
    if kind != "llama3":
        raise DataError(problem(where, f"rope_type {kind!r}", "'default' or 'llama3'", _ADVICE))
    known = {"original_max_position_embeddings": theirs["max_position_embeddings"], **rope}
    if "original_max_position_embeddings" in theirs:
        known |= {"original_max_position_embeddings": theirs["original_max_position_embeddings"]}
    return {
        "rope_theta": theta,
        "rope_scaling": RopeScaling(**{our: known[name] for name, our in _ROPE_SCALING.items()}),
    }
