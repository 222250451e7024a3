"""GGUF's names of the tensors, as a table that is read in both directions; and how llama.cpp wants the heads to lie.

llama.cpp knows three architectures that ours are: gpt2, llama (Mistral's is the same) and qwen3 (heads normed). It
turns a llama's heads in neighbouring pairs, where transformers and we pair number i with number i + K/2; so in a llama
file the rows of queries and keys are interleaved. A tied output layer is left out: llama.cpp then takes the token
embedding.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from pellucid.config import ModelConfig, RopeScaling
from pellucid.model.positions import rotary_frequencies
from pellucid.runtime import DataError, problem

ROPE_FREQS = "rope_freqs.weight"  # by what each rotary frequency is divided; not a weight of ours


class Row(NamedTuple):
    """One tensor of theirs, and ours: several of ours stand below each other in it, in this order."""

    theirs: str
    ours: tuple[str, ...]
    heads: int = 0
    """How many heads are interleaved in it; 0: none."""


_GPT2_BLOCK = (
    ("attn_norm", ("attention_norm",)),
    ("attn_qkv", ("attention.query", "attention.key", "attention.value")),
    ("attn_output", ("attention.output",)),
    ("ffn_norm", ("feed_forward_norm",)),
    ("ffn_up", ("feed_forward.expand",)),
    ("ffn_down", ("feed_forward.contract",)),
)
_LLAMA_BLOCK = (
    ("attn_norm", "attention_norm"),
    ("attn_q", "attention.query"),
    ("attn_k", "attention.key"),
    ("attn_v", "attention.value"),
    ("attn_output", "attention.output"),
    ("ffn_norm", "feed_forward_norm"),
    ("ffn_gate", "feed_forward.gate"),
    ("ffn_up", "feed_forward.expand"),
    ("ffn_down", "feed_forward.contract"),
)
_QUERY_KEY_NORM = (("attn_q_norm", "attention.query_norm"), ("attn_k_norm", "attention.key_norm"))


def architecture(config: ModelConfig) -> str:
    """What llama.cpp calls it. DataError for what none of its architectures can say."""
    if config.family == "gpt2":
        return "gpt2"
    if not config.query_key_norm:
        return "llama"
    if config.rope_scaling is not None:
        found, expected = "query-key norm with rope scaling", "one of the two: llama.cpp's qwen3 doesn't scale so"
        raise DataError(problem("the model", found, expected, "Export it with --to onnx."))
    return "qwen3"


def table(config: ModelConfig) -> list[Row]:
    """All tensors of a model of this shape but ROPE_FREQS."""
    return _gpt2(config) if config.family == "gpt2" else _llama(config)


def _gpt2(config: ModelConfig) -> list[Row]:
    rows = [
        Row("token_embd.weight", ("token_embedding.weight",)),
        Row("position_embd.weight", ("position_embedding.weight",)),
    ]
    for i in range(config.n_layers):
        for theirs, ours in _GPT2_BLOCK:
            for kind in ("weight", "bias"):
                rows.append(Row(f"blk.{i}.{theirs}.{kind}", tuple(f"blocks.{i}.{name}.{kind}" for name in ours)))
    return [*rows, *(Row(f"output_norm.{kind}", (f"final_norm.{kind}",)) for kind in ("weight", "bias"))]


def _llama(config: ModelConfig) -> list[Row]:
    interleaved = {} if config.query_key_norm else {"attn_q": config.n_heads, "attn_k": config.n_kv_heads}
    block = _LLAMA_BLOCK + (_QUERY_KEY_NORM if config.query_key_norm else ())
    return [
        Row("token_embd.weight", ("token_embedding.weight",)),
        *(
            Row(f"blk.{i}.{theirs}.weight", (f"blocks.{i}.{ours}.weight",), interleaved.get(theirs, 0))
            for i in range(config.n_layers)
            for theirs, ours in block
        ),
        Row("output_norm.weight", ("final_norm.weight",)),
        *([] if config.tied else [Row("output.weight", ("output_layer.weight",))]),
    ]


def joined(row: Row, weights: dict[str, Tensor]) -> Tensor:
    """Our tensors of a row as one, the heads as we keep them."""
    parts = [weights[name] for name in row.ours]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def interleave(tensor: Tensor, heads: int) -> Tensor:
    """(H × K, D) with each head's rows 0, 1, …, K-1 as 0, K/2, 1, K/2 + 1, …"""
    return tensor.view(heads, 2, -1, tensor.shape[-1]).transpose(1, 2).reshape(tensor.shape)


def part(tensor: Tensor, heads: int) -> Tensor:
    """What `interleave` did, undone."""
    return tensor.view(heads, -1, 2, tensor.shape[-1]).transpose(1, 2).reshape(tensor.shape)


def rope_divisors(config: ModelConfig, scaling: RopeScaling) -> Tensor:
    """(K/2,) what llama.cpp divides the plain frequencies by to get Llama 3's."""
    plain = rotary_frequencies(config.d_head, config.rope_theta)
    return plain / rotary_frequencies(config.d_head, config.rope_theta, scaling)
