"""Many vectors times a matrix of bytes where AVX-512 multiplies bytes itself (VNNI): 16 vectors in a register.

As many.py does with eights, without making anything wider: a whole number is four bytes. Those of 16 vectors lie side
by side, and four bytes of a row, repeated, meet them, so that a register holds a sum of each of 16 vectors and there is
nothing to put together. With `int8_rows` four registers are put together after every 256 products of each.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, types
from numba.extending import intrinsic

from pellucid.generation.compiled import dots
from pellucid.generation.compiled.eights import EIGHT, columns_of_four, put_eight, span_adder
from pellucid.generation.compiled.vectors import BYTES, COMPILED, OCTETS, WITHIN, fetch, place_of

# N vectors, in S sixteens; R rows of the matrix at a time

SIXTEENS_FIT = dots.WAY is dots.by_vnni
FEWEST = 20  # vectors that are worth being filled up to 32
BLOCK = 64  # rows that a span of the vectors is kept near for
ROWS, MOST = 4, 4  # at a time, and of sixteens: their sums take half of the registers


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
    numbers: Any, x_scales: Any, x_sums: Any, span: Any, n: Any, width: Any, offset: Any, sides: Any, scales: Any,
    begins: Any,
) -> None:  # fmt: skip
    """Bytes of n vectors, (S, width / 4, 16) of four each; scales, and where sums begin, (S, spans, 16).

    The offset of the matrix falls out of such sums. What is missing of the last 16 is the last vector again.
    """
    spans = width // span
    for v in range(0, len(scales) // spans, 4):
        to, last = v // 16 * 4 * width + v % 16, (n - 1) * width
        a = min(v * width, last)
        b, c, d = min(a + width, last), min(a + 2 * width, last), min(a + 3 * width, last)
        for k in range(0, width, 32):
            put_side_by_side(sides, to + 4 * k, numbers, a + k, b + k, c + k, d + k)
    for v in range(len(scales) // spans):
        first, to = min(v, n - 1) * spans, v // 16 * 16 * spans + v % 16
        for s in range(spans):
            scales[to + 16 * s], begins[to + 16 * s] = x_scales[first + s], -offset * x_sums[first + s]


@njit(**WITHIN)
def _rows_times_sixteens(
    room: Any, w: Any, begin: Any, end: Any, width: Any, first_row: Any, span: Any, sixteen: Any, count: Any
) -> None:
    """Rows `begin` to `end` times so many sixteens, from the one numbered `sixteen` on."""
    sides, scales, begins, sums = room
    spans = width // span
    sums[: (end - begin) * count * 16] = 0
    for s in range(spans):
        at, group = 4 * (sixteen * width + s * span), 16 * (sixteen * spans + s)
        for row in range(begin, end, ROWS):
            if sixteen == 0:  # the next rows are asked for in the order in which they lie, as much as is read here
                ahead = (first_row + end) * width + (s * (end - begin) + row - begin) * span
                for k in range(0, ROWS * span, BYTES):
                    fetch(w, ahead + k)
            to, place = (row - begin) * count * 16, (first_row + row) * width + s * span
            add_span(
                sums, to, w, place, width, span, sides, at, 4 * width, scales, begins, group, 16 * spans, ROWS, count
            )


@njit(**COMPILED)
def rows_in_sixteens(
    out: Any, o_step: Any, numbers: Any, x_scales: Any, x_sums: Any, span: Any, n: Any, w: Any, w_scales: Any,
    width: Any, first_row: Any, start: Any, end: Any, offset: Any,
) -> Any:  # fmt: skip
    """As `int8_rows`, for the first of n vectors, as many as 32 at a time are worth it for; how many these were."""
    count = n // 32 * 2 + (2 if n % 32 >= FEWEST else 0)
    if count == 0:
        return 0
    done, spans = min(n, 16 * count), width // span
    sides, scales = np.empty(4 * count * width, np.int32), np.empty(16 * count * spans, np.float32)
    begins, sums = np.empty(16 * count * spans, np.int32), np.empty(BLOCK * MOST * 16, np.float32)
    side_by_side(numbers, x_scales, x_sums, span, done, width, offset, sides, scales, begins)
    room = (sides, scales, begins, sums)
    for begin in range(start, end, BLOCK):
        stop, sixteen = min(begin + BLOCK, end), 0
        while sixteen < count:
            if sixteen + 4 <= count:
                together = 4
                _rows_times_sixteens(room, w, begin, stop, width, first_row, span, sixteen, 4)
            else:
                together = 2
                _rows_times_sixteens(room, w, begin, stop, width, first_row, span, sixteen, 2)
            for v in range(0, 16 * together, 8):
                to, most = (16 * sixteen + v) * o_step, min(done - 16 * sixteen - v, 8) - 1
                if most < 0:  # filled up
                    break
                for row in range(begin, stop, ROWS):
                    at = (row - begin) * together * 16 + v
                    put_eight(out, to + row, o_step, most, sums, at, together * 16, w_scales, first_row + row)
            sixteen += together
    return done
