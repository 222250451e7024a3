"""Muon against PyTorch's own and against the decomposition that it approximates."""

import pytest
import torch

from pellucid.pretrain.muon import Muon, orthogonalized

SHAPES = ((16, 48), (48, 16), (16, 16), (16, 48))


def trained(optimizer, **settings):
    """Matrices after five steps with the same random gradients."""
    generator = torch.Generator().manual_seed(1)
    matrices = [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in SHAPES]
    made = optimizer(matrices, lr=0.03, weight_decay=0.1, momentum=0.95, **settings)
    for _ in range(5):
        for matrix in matrices:
            matrix.grad = torch.randn(matrix.shape, generator=generator)
        made.step()
    return matrices


def test_in_bfloat16_it_moves_as_pytorchs_own_does():
    for ours, theirs in zip(trained(Muon, dtype=torch.bfloat16), trained(torch.optim.Muon), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)


def test_in_float32_it_stays_within_bfloat16s_rounding_of_it():
    for ours, theirs in zip(trained(Muon), trained(torch.optim.Muon), strict=True):
        torch.testing.assert_close(ours, theirs, atol=5e-3, rtol=0)


@pytest.mark.parametrize("shape", [(3, 16, 48), (2, 48, 16), (1, 16, 16)])
def test_singular_values_become_about_one_and_singular_vectors_stay(shape):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(2))
    u, _, v = torch.linalg.svd(x, full_matrices=False)
    core = u.mT @ orthogonalized(x) @ v.mT  # diagonal when the vectors stayed
    values = core.diagonal(dim1=1, dim2=2)
    assert values.min() > 0.3
    assert values.max() < 1.3
    torch.testing.assert_close(core, torch.diag_embed(values), atol=1e-4, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_step_of_a_gradient_of_rank_one_is_no_longer_than_any_other(dtype):
    dice = torch.Generator().manual_seed(3)
    for _ in range(50):  # its one singular value is all of its norm, and after rounding a little more
        gradient = torch.randn(1, 96, 1, generator=dice) @ torch.randn(1, 1, 384, generator=dice)
        assert torch.linalg.matrix_norm(orthogonalized(gradient, dtype), 2) < 1.3


def test_a_matrix_without_a_gradient_stays_and_a_zero_gradient_gives_no_nan():
    still, zero = torch.nn.Parameter(torch.ones(4, 4)), torch.nn.Parameter(torch.ones(4, 4))
    zero.grad = torch.zeros(4, 4)
    Muon([still, zero], lr=0.1, weight_decay=0.0).step()
    assert torch.equal(still, torch.ones(4, 4))
    assert torch.equal(zero, torch.ones(4, 4))
