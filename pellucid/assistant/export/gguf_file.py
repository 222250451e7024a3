"""Writes a model and its tokenizer as one GGUF file, the way llama.cpp reads its architectures.

What the file says about itself is first a plain dictionary, so that the reader can compare all of it afterwards.
Tensors go out one by one: beside the weights this takes no more memory than the largest of them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pellucid.assistant.export.gguf_names import ROPE_FREQS, architecture, interleave, joined, rope_divisors, table
from pellucid.config import ModelConfig
from pellucid.runtime import ConfigError, DataError, problem
from pellucid.text.bpe import BPETokenizer
from pellucid.text.gpt2_files import spelt
from pellucid.text.pieces import PATTERNS
from pellucid.text.tokenizer import Tokenizer

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
GGML_TYPES = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 30}  # ggml's numbers of these precisions
FILE_TYPES = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 32}  # and what it calls a file mostly of them
NORMAL, CONTROL, UNUSED = 1, 3, 5  # kinds of tokens
PRE_TOKENIZERS = {PATTERNS["gpt2"]: "gpt-2", PATTERNS["cl100k"]: "llama-bpe"}  # llama.cpp's names of the patterns
TOKENS, MERGES, KINDS, PRE = (f"tokenizer.ggml.{name}" for name in ("tokens", "merges", "token_type", "pre"))
ARCHITECTURE, TEMPLATE = "general.architecture", "tokenizer.chat_template"

Metadata = dict[str, Any]


# ---------------------------------------------------------------- what the file says about itself


def metadata(
    config: ModelConfig, tokenizer: BPETokenizer, settings: dict[str, Any], name: str, dtype: torch.dtype
) -> Metadata:
    """All keys of the file: the model's shape under its architecture's name, and the tokenizer."""
    arch = architecture(config)
    shape: Metadata = {
        "context_length": min(config.context_length, config.window or config.context_length),
        "embedding_length": config.d_model,
        "block_count": config.n_layers,
        "feed_forward_length": config.d_ff,
        "attention.head_count": config.n_heads,
        "attention.head_count_kv": config.n_kv_heads,
        "vocab_size": config.vocab_size,
    }
    if config.family == "gpt2":
        shape["attention.layer_norm_epsilon"] = float(config.norm_eps)
    else:
        shape |= {
            "attention.layer_norm_rms_epsilon": float(config.norm_eps),
            "attention.key_length": config.d_head,
            "attention.value_length": config.d_head,
            "rope.dimension_count": config.d_head,
            "rope.freq_base": float(config.rope_theta),
        }
    if config.window:
        shape["attention.sliding_window"] = config.window
    return {
        ARCHITECTURE: arch,
        "general.type": "model",
        "general.name": name,
        "general.file_type": FILE_TYPES[dtype],
        **{f"{arch}.{key}": value for key, value in shape.items()},
        **_tokenizer_metadata(tokenizer, config.vocab_size, settings),
    }


def _tokenizer_metadata(tokenizer: BPETokenizer, size: int, settings: dict[str, Any]) -> Metadata:
    """Tokens as GPT-2's files spell them; where the model has room for more, llama.cpp wants a name for each."""
    vocabulary, merges = spelt(tokenizer)
    tokens = sorted(vocabulary, key=lambda token: vocabulary[token])
    special = set(tokenizer.special_tokens.values())
    kinds = [CONTROL if number in special else NORMAL for number in range(len(tokens))]
    for number in range(len(tokens), size):
        name = f"[PAD{number}]"
        while name in vocabulary:
            name += "_"
        tokens.append(name)
        kinds.append(UNUSED)
    said: Metadata = {
        "tokenizer.ggml.model": "gpt2",
        PRE: PRE_TOKENIZERS[tokenizer.pattern],
        TOKENS: tokens,
        KINDS: kinds,
        MERGES: merges,
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.ggml.add_eos_token": False,
        **_ends(tokenizer, size, settings),
    }
    return said | ({TEMPLATE: tokenizer.chat_template} if tokenizer.chat_template else {})


def _ends(tokenizer: BPETokenizer, size: int, settings: dict[str, Any]) -> Metadata:
    """The ids that begin and end a text: config.json's where it says them, else the tokenizer's end of text."""
    ends = {}
    for key in ("eos_token_id", "bos_token_id"):
        value = settings.get(key)
        value = value[0] if isinstance(value, list) and value else value
        known = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < size
        ends[f"tokenizer.ggml.{key}"] = value if known else tokenizer.end_of_text
    return ends


def check_tokenizer(tokenizer: Tokenizer, config: ModelConfig, where: Path) -> BPETokenizer:
    """The same tokenizer, found to be one whose ids llama.cpp gives, too. DataError says what stands in the way."""
    advice = "Export it with --to onnx, or train the model with a tokenizer of --kind bpe."
    if not isinstance(tokenizer, BPETokenizer):
        raise DataError(problem(where, f"a {tokenizer.kind} tokenizer", "byte-level BPE, which GGUF can say", advice))
    if tokenizer.vocab_size > config.vocab_size:
        found = f"a tokenizer of {tokenizer.vocab_size:,} tokens"
        advice = "They don't belong together; take the tokenizer that the model was trained with."
        raise DataError(problem(where, found, f"at most {config.vocab_size:,}, which the model knows", advice))
    if tokenizer.pattern not in PRE_TOKENIZERS:
        found, expected = f"text split by {tokenizer.pattern[:60]!r}", "gpt2's or cl100k's pattern, as llama.cpp knows"
        raise DataError(problem(where, found, expected, "Export it with --to onnx."))
    if not tokenizer.merges():
        raise DataError(problem(where, "a tokenizer without merges", "some, as llama.cpp needs", advice))
    if PRE_TOKENIZERS[tokenizer.pattern] == "llama-bpe":
        for number, token in tokenizer.ordinary_tokens().items():
            if tokenizer.merge_piece(token) != [number]:
                found = f"the token {token!r}, which its own merges don't make"
                expected = "none such: with this pattern llama.cpp takes it whole"
                raise DataError(problem(where, found, expected, "Export it with --to onnx."))
    return tokenizer


# ---------------------------------------------------------------- tensors


def kept_in(name: str, tensor: Tensor, dtype: torch.dtype) -> torch.dtype:
    """Vectors, norms and positions stay in float32, where llama.cpp computes with them."""
    exact = tensor.dim() == 1 or name in (ROPE_FREQS, "position_embd.weight")
    return torch.float32 if exact else dtype


def tensors(config: ModelConfig, weights: dict[str, Tensor], dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
    """Name and content of each tensor in the order of the file. DataError for a value that `dtype` cannot hold."""
    for row in table(config):
        tensor = joined(row, weights)
        if row.heads:
            tensor = interleave(tensor, row.heads)
        narrow = tensor.to(kept_in(row.theirs, tensor, dtype)).contiguous()
        if not torch.isfinite(narrow).all():
            found = f"{float(tensor.abs().max()):g} in {row.theirs}"
            expected = f"at most {torch.finfo(dtype).max:g}, the largest number of {str(dtype).split('.')[1]}"
            raise ConfigError(problem("--dtype", found, expected, "Take bfloat16 or float32."))
        yield row.theirs, narrow
    if config.rope_scaling is not None:
        yield ROPE_FREQS, rope_divisors(config, config.rope_scaling)


def write_gguf(
    path: Path,
    config: ModelConfig,
    weights: dict[str, Tensor],
    said: Metadata,
    dtype: torch.dtype,
    advance: Callable[[int], None],
) -> None:
    """Write the file; `advance` hears of each tensor's bytes."""
    from gguf import GGMLQuantizationType, GGUFWriter

    if sys.byteorder != "little":
        raise DataError(problem("this machine", "big-endian numbers", "little-endian ones", "Export it on another."))
    writer = GGUFWriter(path, said[ARCHITECTURE])  # and that key is written
    for key, value in said.items():
        if key != ARCHITECTURE:
            _add(writer, key, value)
    for name, shape, kind in _sizes(config, weights, dtype):
        size = kind.itemsize * shape.numel()
        number = GGMLQuantizationType(GGML_TYPES[kind])  # this decides, NumPy knows no bfloat16
        writer.add_tensor_info(name, shape, np.dtype(np.float32), size, raw_dtype=number)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    with path.open("ab") as file:  # not the writer's own way: it hides why a disk took less than it was given
        for _, tensor in tensors(config, weights, dtype):
            file.write(bytes(-file.tell() % writer.data_alignment))
            file.write(memoryview(tensor.view(torch.uint8).numpy().data))
            advance(tensor.nbytes)
        file.write(bytes(-file.tell() % writer.data_alignment))


def _sizes(
    config: ModelConfig, weights: dict[str, Tensor], dtype: torch.dtype
) -> Iterator[tuple[str, torch.Size, torch.dtype]]:
    """Name, shape and precision of each tensor of the file, without computing it."""
    shapes = {name: torch.empty(tensor.shape, device="meta") for name, tensor in weights.items()}
    for row in table(config):
        tensor = joined(row, shapes)
        yield row.theirs, tensor.shape, kept_in(row.theirs, tensor, dtype)
    if config.rope_scaling is not None:
        yield ROPE_FREQS, torch.Size([config.d_head // 2]), torch.float32


def _add(writer: Any, key: str, value: Any) -> None:
    """One key with the type that llama.cpp expects of such values."""
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    else:
        writer.add_array(key, value)
