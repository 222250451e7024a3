"""Matrix products give the same bits wherever their matrices lie in memory: what a resumed run rests on."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor


def placed(matrix: Tensor, offset: int) -> Tensor:
    """A copy of `matrix` that begins `offset` floats behind a multiple of 64 bytes."""
    room = torch.empty(matrix.numel() + offset + 16)
    first = (-room.data_ptr() // 4) % 16 + offset
    return room[first : first + matrix.numel()].view(matrix.shape).copy_(matrix)


@pytest.mark.parametrize("shape", [(128, 16, 64), (16, 128, 16), (512, 16, 284), (1024, 96, 384), (64, 1024, 96)])
def test_a_product_does_not_depend_on_where_its_matrices_lie(shape: tuple[int, int, int]) -> None:
    rows, inner, columns = shape
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(rows, inner, generator=generator), torch.randn(inner, columns, generator=generator)
    expected = placed(a, 0) @ placed(b, 0)
    for offset in (1, 2, 3, 8, 16, 64, 1000):
        assert torch.equal(placed(a, offset) @ placed(b, 0), expected)
        assert torch.equal(placed(a, 0) @ placed(b, offset), expected)
