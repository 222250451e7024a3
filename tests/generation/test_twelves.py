"""bfloat16 in twelve bits: every number comes back, and sums are those of sixteen bits, alone and among others."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numba import njit
from numpy.typing import NDArray
from torch import Tensor

from pellucid.config import PRESETS
from pellucid.generation.compiled import packing
from pellucid.generation.compiled.floats import ROWS
from pellucid.generation.compiled.model import CompiledModel
from pellucid.generation.compiled.packing import Kind, fill, pack, room_for_matrix, with_lost
from pellucid.generation.compiled.passes import Matrix
from pellucid.generation.compiled.products import NONE, STEP, product
from pellucid.generation.compiled.stretches import LONG, whole_rows
from pellucid.generation.compiled.twelves import BLOCK, PART
from pellucid.generation.engine import stream_ids
from pellucid.generation.fast import FastReader
from pellucid.generation.sampling import GREEDY
from pellucid.model.formats import tensor_files
from pellucid.model.formats.folder import as_it_is, read_as_kept
from pellucid.model.formats.tensor_files import Piece
from tests.model.families import TINY, difference, lively, some_ids

HIGHEST = 2.0**78  # what a row with larger numbers would be scaled by is beyond float32


def packed(weight: Tensor, kind: Kind) -> Matrix:
    """A matrix on its own."""
    matrix, places = room_for_matrix(weight.shape[1], [{"it": len(weight)}], kind, BLOCK)
    fill(places["it"], 0, weight)
    return with_lost(matrix)


def whole(matrix: Matrix, rows: int, dtype: type[Any]) -> NDArray[Any]:
    out = np.full(rows * matrix[2], 7, dtype)
    whole_rows(matrix, np.arange(rows), out)
    return out.reshape(rows, -1)


@njit
def product_of_all(matrix: Any, x: Any, n: Any, out: Any, rows: Any, room: Any) -> None:
    taken = (np.zeros(0, np.int8), room, np.zeros(0, np.int32), NONE)
    product(out, rows, x, matrix[2], taken, NONE, n, matrix, NONE, NONE, rows)


def times(matrix: Matrix, x: NDArray[np.float32], rows: int) -> NDArray[np.float32]:
    """(N, O): vectors (N, I) with their padding times all rows."""
    out = np.full(len(x) * rows, 7, np.float32)
    product_of_all(matrix, x.reshape(-1), np.int64(len(x)), out, np.int64(rows), np.zeros(ROWS * PART, np.float32))
    return out.reshape(len(x), rows)


numbers = st.one_of(
    st.just(0.0), st.just(-0.0), st.floats(-HIGHEST, HIGHEST, width=32), st.floats(-1, 1, width=32),
    st.floats(0, 2.0**-125, width=32),
)  # fmt: skip


@settings(deadline=None)  # the first call may compile
@given(st.lists(st.lists(numbers, min_size=3, max_size=3), min_size=1, max_size=20), st.integers(1, 2 * BLOCK + 1))
@example([[0.0, 0.0, 0.0]], 1)
@example([[HIGHEST, 1.0, 1e-38], [-1e-45, 2.0**-126, -0.0]], 130)
def test_every_number_comes_back_to_the_last_bit(rows: list[list[float]], repeated: int) -> None:
    weight = torch.tensor(rows).repeat(1, repeated)
    expected = weight.bfloat16()
    matrix = packed(weight, "twelve")
    width = weight.shape[1]
    as_floats, as_halves = whole(matrix, len(rows), np.float32), whole(matrix, len(rows), np.uint16)
    np.testing.assert_array_equal(as_floats[:, :width], expected.float().numpy())
    np.testing.assert_array_equal(torch.from_numpy(as_halves).view(torch.bfloat16).float().numpy(), as_floats)
    assert not as_floats[:, width:].any()  # the padding


def some_weights(rows: int, width: int, spread: float) -> Tensor:
    """Bell-shaped; with `spread` some of other sizes, as rows that training has pulled at may be."""
    dice = torch.Generator().manual_seed(rows + width)
    sizes = torch.exp(spread * torch.randn(rows, width, generator=dice).clamp(-3, 3))
    weight = 0.02 * torch.randn(rows, width, generator=dice) * sizes
    weight[1], weight[2, ::3] = 0, 0
    return weight


@pytest.mark.parametrize("width", [768, PART, 3072])
@pytest.mark.parametrize("spread", [0.0, 3.0])
def test_sums_are_those_of_sixteen_bits_and_a_vector_gets_the_same_alone_and_among_others(
    width: int, spread: float
) -> None:
    rows = 32
    weight = some_weights(rows, width, spread)
    twelve, sixteen = packed(weight, "twelve"), packed(weight, "bfloat16")
    lost = np.diff(twelve[3])[:rows] > 0
    assert lost.any() and not lost.all()
    for count in (1, 2, 3, 4, 7, 9, 40):  # few make of the words what they need, more take rows made whole
        x = np.random.default_rng(count).normal(size=(count, width)).astype(np.float32)
        found, expected = times(twelve, x, rows), times(sixteen, x, rows)
        exact = x.astype(np.float64) @ weight.bfloat16().double().numpy().T
        assert np.abs(found - exact).max() < 2e-6 * np.abs(exact).max()
        if width <= PART:  # wider rows are summed up in parts
            np.testing.assert_array_equal(found[:, ~lost], expected[:, ~lost])
        np.testing.assert_array_equal(found, np.concatenate([times(twelve, one[None], rows) for one in x]))


@pytest.fixture
def all_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """However small a model is, it is kept in twelve bits."""
    monkeypatch.setattr(packing, "LARGE", 0)


def in_both(name: str, monkeypatch: pytest.MonkeyPatch, threads: int = 1) -> tuple[CompiledModel, CompiledModel]:
    """A model in twelve bits, and in sixteen."""
    model, kept = lively(replace(TINY[name], context_length=2 * LONG)), []
    for large in (0, 1 << 40):
        monkeypatch.setattr(packing, "LARGE", large)
        kept.append(CompiledModel.of(model, "bfloat16", threads))
    assert [one.packed.matrices.expand[0].dtype for one in kept] == [np.uint32, np.uint16]
    return kept[0], kept[1]


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("count", [40, LONG + 30])
def test_logits_are_those_of_sixteen_bits(name: str, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    twelve, sixteen = in_both(name, monkeypatch)
    ids = some_ids(twelve.config, 1, count)[0].tolist()
    found, expected = (torch.from_numpy(one.logits(one.slots(1), ids, [0] * count, range(count)))
                       for one in (twelve, sixteen))  # fmt: skip
    assert difference(found, expected) < 1e-5
    assert torch.equal(found.argmax(), expected.argmax())


@pytest.mark.parametrize("name", ["gpt2", "mistral"])
def test_a_token_gets_the_same_bits_alone_and_among_others_on_any_number_of_threads(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids: list[int] = []
    found = []
    for threads in (1, 2, 3):
        twelve, _ = in_both(name, monkeypatch, threads)
        ids = ids or some_ids(twelve.config, 1, 40)[0].tolist()
        found.append(twelve.logits(twelve.slots(2), ids, [1] * 40, range(40), range(40)))
        slots = twelve.slots(3)
        found.append(np.concatenate([twelve.logits(slots, [token], [2], [i]).copy() for i, token in enumerate(ids)]))
    for other in found[1:]:
        np.testing.assert_array_equal(found[0], other)


@pytest.mark.usefixtures("all_large")
@pytest.mark.parametrize("chunk", [500, 1 << 20])
def test_a_folder_read_piece_by_piece_is_packed_as_the_whole_model_is(
    chunk: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = lively(TINY["llama"])
    with torch.no_grad():
        for weight in model.parameters():
            weight.view(-1)[::7] *= 1e-6  # these are lost
    model.save(tmp_path)
    config, weights, _ = read_as_kept(tmp_path, as_it_is)
    monkeypatch.setattr(tensor_files, "CHUNK", chunk)  # bytes: a few rows, or all
    backwards = [Piece(name, 0, weight) for name, weight in reversed(weights.items())]
    expected, found = pack(config, backwards, "bfloat16"), CompiledModel.load(tmp_path, "bfloat16", threads=1).packed
    assert len(found.matrices.attention[4]) > 0
    for one, other in zip(found.matrices, expected.matrices, strict=True):
        for part, same in zip(one, other, strict=True):
            np.testing.assert_array_equal(part, same)


def test_a_large_model_takes_a_quarter_less_and_a_small_one_stays_as_it_is() -> None:
    config = replace(PRESETS["gpt2"], vocab_size=5000, n_layers=6)
    numbers = packing.numbers_of(config)
    assert numbers > packing.LARGE
    large, _ = packing.room_for(config, "bfloat16")
    assert 1.5 * numbers < large.nbytes < 1.55 * numbers
    small, _ = packing.room_for(TINY["gpt2"], "bfloat16")
    assert small.matrices.embedding[0].dtype == np.uint16


def test_texts_go_on_past_the_context_as_in_sixteen_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    both = in_both("gpt2", monkeypatch)
    texts = [list(stream_ids(FastReader(one), [1, 2, 3], 2 * LONG + 20, GREEDY)) for one in both]
    assert texts[0] == texts[1]


def test_blocks_are_whole_lines_of_the_cache() -> None:
    assert STEP["twelve"] == BLOCK and BLOCK * 12 // 8 % packing.LINE == 0 and PART % BLOCK == 0
