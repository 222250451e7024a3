"""Models with large random weights: they say many things, and their likeliest tokens are not close to each other."""

from __future__ import annotations

import torch

from pellucid.config import ModelConfig
from pellucid.model.gpt import GPT


def lively_model(vocab_size: int, context_length: int, seed: int = 3) -> GPT:
    config = ModelConfig(
        vocab_size=vocab_size, context_length=context_length, d_model=24, n_layers=2, n_heads=2, dropout=0.1
    )
    made = GPT(config)
    torch.manual_seed(seed)  # here, so that these weights do not depend on how a model begins
    for name, parameter in made.named_parameters():
        if not name.endswith("norm.weight"):
            torch.nn.init.normal_(parameter, std=0.3 if "embedding" in name else 0.5)
    return made.eval()
