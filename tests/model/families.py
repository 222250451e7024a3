"""What the model's tests share: one tiny config for each thing a family can be, and their twins in transformers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

from pellucid.config import PRESETS, ModelConfig, RopeScaling
from pellucid.model.formats import of_family
from pellucid.model.gpt import GPT

GPT2 = ModelConfig(vocab_size=53, context_length=48, d_model=32, n_layers=3, n_heads=4)
LLAMA = replace(GPT2, family="llama", n_kv_heads=2, d_ff=48, positions="", norm_eps=1e-6)
SCALING = RopeScaling(factor=4.0, low_frequency_factor=1.0, high_frequency_factor=4.0, original_context_length=16)
TINY = {
    "gpt2": GPT2,
    "gpt2 sinusoidal": replace(GPT2, positions="sinusoidal"),
    "llama": LLAMA,
    "llama untied": replace(LLAMA, tied=False, n_kv_heads=4),
    "llama scaled": replace(LLAMA, n_kv_heads=1, rope_theta=500000.0, rope_scaling=SCALING),
    "mistral": replace(LLAMA, tied=False, window=7, d_head=6),
    "mistral of odd heads": replace(LLAMA, n_heads=6, d_head=4),
    "qwen3": replace(LLAMA, query_key_norm=True, d_head=16),
    "qwen3 window": replace(LLAMA, query_key_norm=True, window=5, rope_scaling=SCALING),
}
LLAMA_1B = ModelConfig(  # Llama 3.2 1B
    "llama", vocab_size=128256, context_length=131072, d_model=2048, n_layers=16, n_heads=32, n_kv_heads=8, d_ff=8192,
    rope_theta=500000.0, rope_scaling=RopeScaling(factor=32.0),
)  # fmt: skip
QWEN3_600M = ModelConfig(  # Qwen3 0.6B
    "llama", vocab_size=151936, context_length=40960, d_model=1024, n_layers=28, n_heads=16, n_kv_heads=8, d_head=128,
    d_ff=3072, rope_theta=1000000.0, query_key_norm=True, norm_eps=1e-6,
)  # fmt: skip
REAL = {
    "GPT-2 124M": PRESETS["gpt2"],
    "GPT-2 355M": PRESETS["gpt2-medium"],
    "GPT-2 774M": PRESETS["gpt2-large"],
    "GPT-2 1558M": PRESETS["gpt2-xl"],
    "Llama 3.2 1B, 2 layers": replace(LLAMA_1B, n_layers=2, vocab_size=16000),
    "Qwen3 0.6B, 2 layers": replace(QWEN3_600M, n_layers=2, vocab_size=16000),
}
SHAPES = TINY | {name: replace(config, dropout=0.0) for name, config in REAL.items()}


def lively(config: ModelConfig, std: float = 0.2, seed: int = 0) -> GPT:
    """A model whose weights are large enough that every token matters; norms about 1."""
    torch.manual_seed(seed)
    model = GPT(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(mean=1.0 if "norm.weight" in name else 0.0, std=std)
    return model.eval()


def theirs_like(model: GPT) -> Any:
    """transformers' model of the same config with the same weights, without a file between."""
    form = of_family(model.config.family)
    settings = form.config_to_theirs(model.config)
    theirs = AutoModelForCausalLM.from_config(AutoConfig.for_model(**settings))
    missing, unexpected = theirs.load_state_dict(form.to_theirs(model.state_dict(), model.config), strict=False)
    assert not unexpected and missing in ([], ["lm_head.weight"])  # tied: the same tensor as the embedding
    return theirs.eval()


def some_ids(config: ModelConfig, *shape: int, seed: int = 1) -> Tensor:
    """Token ids, the same for the same seed."""
    return torch.randint(0, config.vocab_size, shape, generator=torch.Generator().manual_seed(seed))


def difference(ours: Tensor, expected: Tensor) -> float:
    """The largest difference, relative to the largest number."""
    ours, expected = ours.detach(), expected.detach()
    return float((ours - expected).abs().max() / expected.abs().max().clamp_min(1e-30))
