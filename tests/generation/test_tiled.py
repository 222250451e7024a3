"""Attention by tiles: what arranges numbers for them on any processor, and the tiles where there are some."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit
from numpy.typing import NDArray

from pellucid.compiled.vectors import COMPILED
from pellucid.generation.compiled.passes import Cache
from pellucid.generation.compiled.tiled import (
    AT_ONCE,
    DEEP,
    SIDE,
    attend_by_tiles,
    in_two_halves,
    pair_values,
    sixteen_queries,
    tiles_wanted,
)
from pellucid.generation.compiled.tiles import TILES_FIT

needs_tiles = pytest.mark.skipif(not TILES_FIT, reason="this processor has no AMX, or the system does not permit it")


class Sizes(NamedTuple):
    """What attention asks of a model."""

    heads: int
    kv_heads: int
    d_head: int
    window: int


class Room(NamedTuple):
    """And of the room of a pass."""

    queries: Any
    context: Any
    scores: Any
    mixed: Any
    halves: Any
    paired: Any


def bfloat16(numbers: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Cut off, not rounded: any number of bfloat16 will do."""
    return (numbers.view(np.uint32) >> 16).astype(np.uint16)


def widened(halves: NDArray[np.uint16]) -> NDArray[np.float32]:
    return (halves.astype(np.uint32) << 16).view(np.float32)


@settings(deadline=None)  # the first one compiles
@given(
    st.lists(
        st.floats(-(2.0**99), 2.0**99, width=32).filter(lambda x: x == 0 or abs(x) > 1e-30), min_size=1, max_size=40
    )
)
def test_two_halves_hold_sixteen_bits_of_a_number(values: list[float]) -> None:
    numbers, n = np.array(values, np.float32), len(values)
    out = np.zeros(2 * n, np.uint16)
    in_two_halves(numbers, 0, n, out, 0, n)
    high, low = widened(out[:n]), widened(out[n:])
    assert np.all(np.abs(high - numbers) <= np.abs(numbers) * 2.0**-8)
    assert np.all(np.abs(high.astype(float) + low - numbers) <= np.abs(numbers) * 2.0**-16)


@pytest.mark.parametrize(("begin", "end"), [(0, 1), (0, 32), (0, 63), (32, 70), (64, 65)])
def test_values_lie_in_pairs_and_what_stands_behind_them_counts_as_nothing(begin: int, end: int) -> None:
    places, width = 96, 64
    values = np.random.default_rng(end).integers(0, 1 << 16, (places, width)).astype(np.uint16)
    out = np.full(places // 2 * width, -1, np.int32)
    pair_values(values.reshape(-1), 0, begin, end, width, out, 0)
    stop = -(-end // DEEP) * DEEP
    known = np.where(np.arange(places)[:, None] < end, values, 0)[begin:stop]
    tiles = known.reshape(-1, SIDE, 2, width // SIDE, SIDE).transpose(
        0, 3, 1, 4, 2
    )  # blocks, strips, pairs, lanes, two
    found = out[begin // 2 * width : stop // 2 * width].view(np.uint16)
    assert np.array_equal(found, tiles.reshape(-1))


@pytest.mark.parametrize("count", [1, 3, 16])
def test_queries_lie_side_by_side_and_the_last_fills_up(count: int) -> None:
    width, step = 64, 80
    queries = np.random.default_rng(count).standard_normal((SIDE, step)).astype(np.float32)
    halves, out = np.zeros(2 * SIDE * width, np.uint16), np.zeros(SIDE * width, np.int32)
    sixteen_queries(queries.reshape(-1), 0, step, count - 1, width, halves, 0, out, 0)
    pairs = widened(out.view(np.uint16).reshape(2, width // 2, SIDE, 2))
    found = (pairs[0] + pairs[1]).transpose(1, 0, 2).reshape(SIDE, width)
    filled = queries[np.minimum(np.arange(SIDE), count - 1), :width]
    assert np.allclose(found, filled, rtol=2.0**-15, atol=0)


@njit(**COMPILED)
def attend_all(parts: Any, slots: Any, places: Any, sizes: Any, cache: Any, room: Any, step: Any) -> None:
    """All heads of layer 1, the tokens of each part in a call of its own."""
    for head in range(sizes.heads):
        for i in range(len(parts) - 1):
            attend_by_tiles(head, 1, parts[i], parts[i + 1], slots, places, sizes, cache, room, step, 0)


class Case:
    """Three texts in a cache, of which two go on."""

    def __init__(self, d_head: int, window: int) -> None:
        self.sizes = Sizes(heads=4, kv_heads=2, d_head=d_head, window=window)
        dice = np.random.default_rng(d_head)
        length, self.padded = 160, -(-d_head // DEEP) * DEEP
        shape = (2, 3, 2, length, self.padded)
        keys, values = (bfloat16(dice.standard_normal(shape, np.float32)) for _ in range(2))
        keys[..., d_head:] = values[..., d_head:] = 0
        nothing = np.zeros((length, 0), np.float32)
        self.cache = Cache(keys, values, nothing, nothing)
        self.slots = np.array([2] * 101 + [0] * 37, np.int64)
        self.places = np.array([*range(40, 141), *range(37)], np.int64)
        self.queries = np.zeros((len(self.slots), 4, self.padded), np.float32)
        self.queries[..., :d_head] = dice.standard_normal((len(self.slots), 4, d_head), np.float32) / np.sqrt(d_head)

    def by_tiles(self, parts: list[int]) -> NDArray[np.float32]:
        """The context vectors (N, H × K)."""
        length, step = self.cache.keys.shape[3], 4 * self.sizes.d_head
        halves, paired = tiles_wanted(length, self.padded)
        context, some = np.zeros(len(self.slots) * step, np.float32), AT_ONCE * max(length, self.padded)
        room = Room(
            self.queries.reshape(-1), context, np.full(some, np.nan, np.float32), np.full(some, np.nan, np.float32),
            np.full(halves, 0x7FC0, np.uint16), np.full(paired, 0x7FC0, np.int32),
        )  # fmt: skip
        attend_all(np.array(parts, np.int64), self.slots, self.places, self.sizes, self.cache, room, step)
        return context.reshape(len(self.slots), step)

    def plainly(self) -> NDArray[np.float64]:
        """The same, one token and head after the other, in float64."""
        sizes, out = self.sizes, []
        keys, values = (widened(kept)[1].astype(float) for kept in (self.cache.keys, self.cache.values))
        for query, slot, place in zip(self.queries.astype(float), self.slots, self.places, strict=True):
            seen = slice(max(0, place + 1 - sizes.window) if sizes.window else 0, place + 1)
            for head in range(sizes.heads):
                scores = keys[slot, head // 2, seen] @ query[head]
                weights = np.exp(scores - scores.max())
                out.append((weights / weights.sum()) @ values[slot, head // 2, seen, : sizes.d_head])
        return np.array(out).reshape(len(self.slots), -1)


@needs_tiles
@pytest.mark.parametrize("window", [0, 50])
@pytest.mark.parametrize("d_head", [64, 40, 24, 128])
def test_attention_by_tiles_is_the_plain_one_and_the_same_bits_in_any_parts(d_head: int, window: int) -> None:
    case = Case(d_head, window)
    whole = case.by_tiles([0, 138])
    plain = case.plainly()
    assert np.abs(whole - plain).max() < 2.0**-15 * np.abs(plain).max()
    for parts in ([0, 101, 138], [0, 7, 8, 40, 120, 138], list(range(139))):
        assert np.array_equal(case.by_tiles(parts), whole)


@needs_tiles
def test_what_stood_behind_a_text_is_not_looked_at() -> None:
    case = Case(64, 0)
    before = case.by_tiles([0, 138])
    case.cache.values[:, 2, :, 141:] = case.cache.values[:, 0, :, 37:] = 0x7FC0  # NaN
    assert np.array_equal(case.by_tiles([0, 138]), before)
