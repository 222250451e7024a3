"""What the tests of seeing share: a tiny untrained GPT, a tokenizer trained on two sentences, and a folder of both."""

from __future__ import annotations

import pytest
import torch

from pellucid.config import ModelConfig
from pellucid.model.gpt import GPT
from pellucid.text.bpe import BPETokenizer

STORY = "The red fox has a lamp. Anna gives the red lamp to Ben. Ben has the lamp now. Where is the fox?\n"
ATTACK = "<script>alert(1)</script> & </script><!-- <b onclick='x'>bold</b> \"quoted\" $x^2$ --!>"


@pytest.fixture(scope="session")
def tokenizer() -> BPETokenizer:
    return BPETokenizer.train([STORY * 3], vocab_size=300)


@pytest.fixture(scope="session")
def model(tokenizer: BPETokenizer) -> GPT:
    torch.manual_seed(0)
    config = ModelConfig(
        vocab_size=tokenizer.vocab_size, context_length=64, d_model=24, n_layers=3, n_heads=3, dropout=0.1
    )
    made = GPT(config)
    for parameter in made.parameters():  # larger than the usual start, so that attention is not the same everywhere
        torch.nn.init.normal_(parameter, std=0.3)
    return made.eval()
