"""A model without its numbers: the same shapes, nothing drawn, and torch's compiler left alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pellucid.config import ModelConfig
from pellucid.model.gpt import GPT
from pellucid.model.outline import Outline

SHAPES = {
    "gpt2": ModelConfig(vocab_size=40, context_length=8, d_model=12, n_layers=2, n_heads=2),
    "sinusoidal": ModelConfig(
        vocab_size=40, context_length=8, d_model=12, n_layers=1, n_heads=2, positions="sinusoidal"
    ),
    "llama, untied": ModelConfig(
        family="llama", vocab_size=40, context_length=8, d_model=12, n_layers=1, n_heads=2, tied=False
    ),
}


@pytest.mark.parametrize("name", SHAPES)
def test_an_outline_has_the_names_and_shapes_of_the_model_and_no_numbers(name: str) -> None:
    with Outline():
        outline = GPT(SHAPES[name])
    whole = GPT(SHAPES[name])
    assert {k: v.shape for k, v in outline.state_dict().items()} == {k: v.shape for k, v in whole.state_dict().items()}
    assert all(parameter.is_meta for parameter in outline.parameters())
    assert not any(parameter.is_meta for parameter in whole.parameters())


def test_an_outline_draws_no_random_numbers() -> None:
    before = torch.get_rng_state()
    with Outline():
        GPT(SHAPES["gpt2"])
    assert torch.equal(torch.get_rng_state(), before)


def test_a_model_is_loaded_without_torchs_compiler(tmp_path: Path) -> None:
    GPT(SHAPES["gpt2"]).save(tmp_path / "run")
    code = "import sys; from pellucid import GPT; GPT.load(sys.argv[1]); print('torch._dynamo' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "run")], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"
