"""GPT-2's names and shapes, as transformers writes them: a table, read in both directions.

GPT-2 keeps its projections transposed (Conv1D: inputs × outputs) and query, key and value in one matrix side by side.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pellucid.config import ModelConfig
from pellucid.runtime import ConfigError, DataError, problem


@dataclass(frozen=True)
class Entry:
    """One tensor of theirs, and ours: several of ours stand side by side in it, in this order."""

    theirs: str
    ours: tuple[str, ...]
    transposed: bool = False


_TOP = (
    Entry("wte.weight", ("token_embedding.weight",)),
    Entry("wpe.weight", ("position_embedding.weight",)),
    Entry("ln_f.weight", ("final_norm.weight",)),
    Entry("ln_f.bias", ("final_norm.bias",)),
)
_BLOCK = (
    Entry("ln_1.weight", ("attention_norm.weight",)),
    Entry("ln_1.bias", ("attention_norm.bias",)),
    Entry(
        "attn.c_attn.weight",
        ("attention.query.weight", "attention.key.weight", "attention.value.weight"),
        transposed=True,
    ),
    Entry("attn.c_attn.bias", ("attention.query.bias", "attention.key.bias", "attention.value.bias")),
    Entry("attn.c_proj.weight", ("attention.output.weight",), transposed=True),
    Entry("attn.c_proj.bias", ("attention.output.bias",)),
    Entry("ln_2.weight", ("feed_forward_norm.weight",)),
    Entry("ln_2.bias", ("feed_forward_norm.bias",)),
    Entry("mlp.c_fc.weight", ("feed_forward.expand.weight",), transposed=True),
    Entry("mlp.c_fc.bias", ("feed_forward.expand.bias",)),
    Entry("mlp.c_proj.weight", ("feed_forward.contract.weight",), transposed=True),
    Entry("mlp.c_proj.bias", ("feed_forward.contract.bias",)),
)
PREFIX = "transformer."
_MEANT = {  # settings that would make another model of the same tensors
    "activation_function": "gelu_new",
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "tie_word_embeddings": True,
}


def table(config: ModelConfig) -> list[Entry]:
    """All entries of a model of this shape, without the prefix."""
    entries = list(_TOP)
    for i in range(config.n_layers):
        entries += [
            Entry(f"h.{i}.{entry.theirs}", tuple(f"blocks.{i}.{name}" for name in entry.ours), entry.transposed)
            for entry in _BLOCK
        ]
    return entries


def shape_of(entry: Entry, config: ModelConfig) -> tuple[int, ...]:
    """The shape that their tensor must have."""
    d, ff = config.d_model, config.d_ff
    name = entry.theirs.split(".", 2)[-1] if entry.theirs.startswith("h.") else entry.theirs
    shapes: dict[str, tuple[int, ...]] = {
        "wte.weight": (config.vocab_size, d),
        "wpe.weight": (config.context_length, d),
        "attn.c_attn.weight": (d, 3 * d),
        "attn.c_attn.bias": (3 * d,),
        "attn.c_proj.weight": (d, d),
        "mlp.c_fc.weight": (d, ff),
        "mlp.c_fc.bias": (ff,),
        "mlp.c_proj.weight": (ff, d),
    }
    return shapes.get(name, (d,))


def to_theirs(weights: dict[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
    """Our state dict under their names."""
    result = {}
    for entry in table(config):
        tensor = torch.cat([weights[name] for name in entry.ours]) if len(entry.ours) > 1 else weights[entry.ours[0]]
        result[PREFIX + entry.theirs] = (tensor.mT if entry.transposed else tensor).contiguous()
    return result


def config_to_theirs(config: ModelConfig) -> dict[str, Any]:
    """config.json as transformers reads it."""
    return {
        "model_type": "gpt2",
        "vocab_size": config.vocab_size,
        "n_positions": config.context_length,
        "n_embd": config.d_model,
        "n_layer": config.n_layers,
        "n_head": config.n_heads,
        "n_inner": config.d_ff,
        "activation_function": "gelu_new",
        "layer_norm_epsilon": config.norm_eps,
        "resid_pdrop": config.dropout,
        "embd_pdrop": config.dropout,
        "attn_pdrop": config.dropout,
        "initializer_range": 0.02,
        "tie_word_embeddings": True,
        "dtype": "float32",
        # A word of ours, which transformers passes over: the same table, but trained no further.
        **({} if config.positions == "learned" else {"positions": config.positions}),
    }


def config_to_ours(theirs: dict[str, Any], where: str) -> ModelConfig:
    """Our config from config.json; a setting that GPT-2 knows and we do not is a DataError."""
    advice = "Use a folder of the GPT-2 architecture."
    for key, known in _MEANT.items():
        if theirs.get(key, known) != known:
            raise DataError(problem(where, f"{key} {theirs[key]!r}", repr(known), advice))
    try:
        d_model = theirs.get("n_embd", 768)
        return ModelConfig(
            vocab_size=theirs["vocab_size"],
            context_length=theirs.get("n_positions", 1024),
            d_model=d_model,
            n_layers=theirs.get("n_layer", 12),
            n_heads=theirs.get("n_head", 12),
            d_ff=theirs.get("n_inner") or 4 * d_model,
            dropout=theirs.get("resid_pdrop", 0.0),
            norm_eps=theirs.get("layer_norm_epsilon", 1e-5),
            positions=theirs.get("positions", "learned"),
        )
    except ConfigError as error:
        raise DataError(f"{where}: {error}") from error
    except (KeyError, TypeError) as error:
        raise DataError(problem(where, f"a broken setting ({error})", "GPT-2's settings", advice)) from error
