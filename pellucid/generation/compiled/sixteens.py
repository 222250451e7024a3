"""Many vectors times a matrix of bytes where AVX-512 multiplies bytes itself (VNNI): 16 vectors in a register.

As many.py does with eights, without making anything wider: a whole number is four bytes. Those of 16 vectors lie side
by side, and four bytes of a row, repeated, meet them, so that a register holds a sum of each of 16 vectors and there is
nothing to put together. With `int8_rows` four registers are put together after every 256 products of each. Where the
processor has tiles (tiles.py), 16 rows at a time meet the same sixteens.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, types
from numba.extending import intrinsic

from pellucid.compiled.vectors import ALLOCATES, BYTES, COMPILED, OCTETS, WITHIN, fetch, place_of
from pellucid.generation.compiled import dots
from pellucid.generation.compiled.eights import EIGHT, columns_of_four, put_eight, span_adder
from pellucid.generation.compiled.tiles import TILES_FIT, add_tiles, begin_tiles, end_tiles

# N vectors, in S sixteens; R rows of the matrix at a time

SIXTEENS_FIT = dots.WAY is dots.by_vnni
FEWEST = 12 if TILES_FIT else 20  # vectors that are worth being filled up, to a tile or to 32
ROWS, MOST = (16 if TILES_FIT else 4), 4  # at a time, and of sixteens: their sums take half of the registers (tiles)
BLOCK = 64  # rows that a span of the vectors is kept near for


def add_products_of_bytes(builder: Any, sums: Any, weights: Any, vectors: Any) -> Any:
    """sums + weights × vectors, four bytes in each lane. The two ways that keep each four in its own lane."""
    way = dots.by_vnni if SIXTEENS_FIT else dots.without
    return way(builder, sums, *(builder.bitcast(one, OCTETS) for one in (weights, vectors)))


add_span = span_adder(16, 4, add_products_of_bytes)


@intrinsic
def put_side_by_side(_: Any, sides: Any, to: Any, numbers: Any, a: Any, b: Any, c: Any, d: Any) -> Any:
    """32 bytes of each of four vectors, four in one number: 8 × 4 of them, every 16th four of `sides`."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        sides, to, numbers, *starts = arguments
        places = [place_of(context, builder, signature.args[2], numbers, start) for start in starts]
        lines = [builder.load(builder.bitcast(place, EIGHT.as_pointer()), align=1) for place in places]
        targets = [builder.add(to, to.type(16 * k)) for k in range(8)]
        columns_of_four(builder, lines, [place_of(context, builder, signature.args[0], sides, at) for at in targets])
        return context.get_dummy_value()

    return types.void(sides, types.intp, numbers, *[types.intp] * 4), generate


@njit(**COMPILED)
def side_by_side(
    numbers: Any, x_scales: Any, x_sums: Any, span: Any, begun: Any, n: Any, width: Any, offset: Any, sides: Any,
    scales: Any, begins: Any,
) -> None:  # fmt: skip
    """Bytes of n vectors, (S, width / 4, 16) of four each; scales, and where sums begin, (S, spans, 16).

    The offset of the matrix falls out of such sums. What is missing of the last 16 is the last vector again.
    """
    spans = width // span
    for v in range(0, len(scales) // spans, 4):
        to, last = v // 16 * 4 * width + v % 16, (begun + n - 1) * width
        a = min((begun + v) * width, last)
        b, c, d = min(a + width, last), min(a + 2 * width, last), min(a + 3 * width, last)
        for k in range(0, width, 32):
            put_side_by_side(sides, to + 4 * k, numbers, a + k, b + k, c + k, d + k)
    for v in range(len(scales) // spans):
        first, to = (begun + min(v, n - 1)) * spans, v // 16 * 16 * spans + v % 16
        for s in range(spans):
            scales[to + 16 * s], begins[to + 16 * s] = x_scales[first + s], -offset * x_sums[first + s]


@njit(**COMPILED)
def sixteens_of(n: Any) -> Any:
    """How many sixteens are made of n vectors. What is left goes another way, which reads all rows again."""
    if TILES_FIT:
        return (n + 15) // 16 if n >= FEWEST else 0
    return n // 32 * 2 + (2 if n % 32 >= FEWEST else 0)


@njit(**WITHIN)
def _rows_times_sixteens(
    room: Any, w: Any, begin: Any, end: Any, last: Any, width: Any, first_row: Any, span: Any, sixteen: Any, count: Any
) -> None:
    """Rows `begin` to `end` times so many sixteens, from the one numbered `sixteen` on.

    Rows are taken a few at a time, and none of these few behind the one numbered `last`.
    """
    sides, scales, begins, sums = room
    spans = width // span
    sums[: BLOCK * count * 16] = 0
    for s in range(spans):
        at, group = 4 * (sixteen * width + s * span), 16 * (sixteen * spans + s)
        for row in range(begin, end, ROWS):
            to, place = (row - begin) * count * 16, (first_row + min(row, last)) * width + s * span
            # The next rows are asked for in the order in which they lie, as much as is read here.
            ahead = (first_row + end) * width + (s * (end - begin) + row - begin) * span if sixteen == 0 else place
            if TILES_FIT:
                add_tiles(
                    sums, to, w, place, width, span, sides, at, 4 * width, scales, begins, group, 16 * spans, ahead,
                    count,
                )  # fmt: skip
            else:
                for k in range(0, ROWS * span if sixteen == 0 else 0, BYTES):
                    fetch(w, ahead + k)
                add_span(
                    sums, to, w, place, width, span, sides, at, 4 * width, scales, begins, group, 16 * spans, ROWS,
                    count,
                )  # fmt: skip


@njit(**WITHIN)
def _put_sixteens(
    out: Any, o: Any, o_step: Any, begin: Any, end: Any, last: Any, sums: Any, w_scales: Any, first_row: Any,
    vector: Any, n: Any, count: Any,
) -> None:  # fmt: skip
    """Their sums times the rows' scales; the first is that of the vector numbered `vector`, and there are n."""
    for v in range(0, 16 * count, 8):
        to, most = o + (vector + v) * o_step, min(n - vector - v, 8) - 1
        if most < 0:  # filled up
            break
        for row in range(begin, end, ROWS):
            at = (row - begin) * count * 16 + v
            for r in range(0, ROWS, 4):
                there = min(row, last) + r
                put_eight(
                    out, to + there, o_step, most, sums, at + r * count * 16, count * 16, w_scales, first_row + there
                )


@njit(**COMPILED)
def _times_all(
    out: Any, o: Any, o_step: Any, room: Any, n: Any, count: Any, w: Any, w_scales: Any, width: Any, span: Any,
    first_row: Any, start: Any, end: Any,
) -> None:  # fmt: skip
    """Rows `start` to `end` times so many sixteens, which have the first n vectors."""
    last = end - ROWS
    for begin in range(start, end, BLOCK):
        stop, sixteen = min(begin + BLOCK, end), 0
        while sixteen < count:
            if sixteen + 4 <= count:
                together = 4
                _rows_times_sixteens(room, w, begin, stop, last, width, first_row, span, sixteen, 4)
            elif sixteen + 2 <= count:
                together = 2
                _rows_times_sixteens(room, w, begin, stop, last, width, first_row, span, sixteen, 2)
            else:
                together = 1
                _rows_times_sixteens(room, w, begin, stop, last, width, first_row, span, sixteen, 1)
            _put_sixteens(out, o, o_step, begin, stop, last, room[3], w_scales, first_row, 16 * sixteen, n, together)
            sixteen += together


@njit(**ALLOCATES)
def aligned(array: Any) -> Any:
    """Without its first numbers of four bytes, up to where a line of the cache begins: else each load takes two."""
    return array[-array.ctypes.data % 64 // 4 :]


@njit(**ALLOCATES)
def rows_in_sixteens(
    out: Any, o_step: Any, numbers: Any, x_scales: Any, x_sums: Any, span: Any, begun: Any, n: Any, w: Any,
    w_scales: Any, width: Any, first_row: Any, start: Any, end: Any, offset: Any,
) -> Any:  # fmt: skip
    """As `int8_rows`, for the first of the n vectors from `begun` on, as many as it is worth it for; how many."""
    count = sixteens_of(n)
    if count == 0 or end - start < ROWS:
        return 0
    done, spans = min(n, 16 * count), width // span
    sides, scales = aligned(np.empty(4 * count * width + 16, np.int32)), np.empty(16 * count * spans, np.float32)
    begins, sums = np.empty(16 * count * spans, np.int32), aligned(np.empty(BLOCK * MOST * 16 + 16, np.float32))
    side_by_side(numbers, x_scales, x_sums, span, begun, done, width, offset, sides, scales, begins)
    room = (sides, scales, begins, sums)
    if TILES_FIT:
        begin_tiles()
    _times_all(out, begun * o_step, o_step, room, done, count, w, w_scales, width, span, first_row, start, end)
    if TILES_FIT:
        end_tiles()
    return done
