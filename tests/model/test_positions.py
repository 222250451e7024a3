"""Where tokens stand: the sine table, rotation by distance alone, and Llama 3's stretching."""

from __future__ import annotations

import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pellucid.config import ModelConfig, RopeScaling
from pellucid.model.gpt import GPT
from pellucid.model.positions import RotaryPositions, rotary_frequencies, rotate, sinusoidal_table, stretched
from tests.model.families import TINY


def rotary(d_head: int) -> RotaryPositions:
    return RotaryPositions(ModelConfig("llama", d_model=d_head, n_heads=1))


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 20), st.integers(1, 9))
def test_the_sine_table_is_the_papers(length: int, width: int) -> None:
    table = sinusoidal_table(length, width)
    for position in range(length):
        for i in range(width):
            angle = position / 10000 ** (i // 2 * 2 / width)
            expected = math.cos(angle) if i % 2 else math.sin(angle)
            assert abs(table[position, i].item() - expected) < 1e-6


def test_the_sine_table_is_in_the_folder_and_trained_no_further() -> None:
    model = GPT(TINY["gpt2 sinusoidal"])
    assert "position_embedding.weight" in model.state_dict()
    assert "position_embedding.weight" not in dict(model.named_parameters())


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 500), st.integers(0, 500), st.integers(0, 500), st.integers(0, 99))
def test_the_score_of_rotated_vectors_depends_on_their_distance_alone(a: int, b: int, more: int, seed: int) -> None:
    torch.manual_seed(seed)
    positions, (q, k) = rotary(8), torch.randn(2, 1, 1, 1, 8)

    def score(at: int, back: int) -> float:
        turned = rotate(q, positions(torch.tensor([at]))), rotate(k, positions(torch.tensor([back])))
        return float((turned[0] * turned[1]).sum())

    assert abs(score(a, b) - score(a + more, b + more)) < 1e-3


def test_rotation_keeps_lengths_and_leaves_the_first_token_alone() -> None:
    x = torch.randn(2, 3, 5, 8)
    turned = rotate(x, rotary(8)(torch.arange(5)))
    torch.testing.assert_close(turned.norm(dim=-1), x.norm(dim=-1))
    assert torch.equal(turned[:, :, 0], x[:, :, 0])


def test_the_frequencies_stay_exact_when_the_weights_are_rounded() -> None:
    model = GPT(TINY["llama"]).to(torch.bfloat16)
    assert model.position_embedding.frequencies.dtype == torch.float32


def test_stretching_slows_long_turns_keeps_short_ones_and_goes_over_between() -> None:
    scaling = RopeScaling(factor=8.0, original_context_length=8192)
    plain = rotary_frequencies(128, 500000.0)
    ratio = plain / stretched(plain, scaling)
    turns = 8192 * plain / (2 * math.pi)
    torch.testing.assert_close(ratio[turns > 4], torch.ones_like(ratio[turns > 4]))
    torch.testing.assert_close(ratio[turns < 1], torch.full_like(ratio[turns < 1], 8.0))
    assert bool((ratio.diff() >= -1e-4).all())
