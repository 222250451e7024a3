"""Many vectors times a matrix of bytes where AVX2 is all there is: a weight, once read, serves up to 32 of them.

`int8_rows` of products.py takes one vector at a time, with a register for some sums of each row, and puts them together
after every span. Here, for 16 vectors and more, a register holds a sum of each of eight, so there is nothing to put
together: the vectors lie side by side, two numbers of each and then the next two, and two weights, repeated, meet
them. Fewer are taken two at a time. How that compares with other ways is in docs/performance.md.

The whole numbers of a span are added up exactly before they become a float, by every way, so a vector among many gets
the bits that it gets alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from pellucid.compiled.vectors import ALLOCATES, BYTES, COMPILED, LANES, WITHIN, fetch, load_bytes, put
from pellucid.compiled.vectors import first as first_lane
from pellucid.generation.compiled.dots import WAY, by_avx2, dot, has
from pellucid.generation.compiled.eights import (
    add_pairs,
    add_span,
    add_totals,
    begin_with,
    folded,
    load_wide,
    no_floats,
    put_eight,
    put_side_by_side,
    put_times,
)

# N vectors, in E eights; R rows of the matrix at a time

EIGHTS_FIT = WAY is by_avx2 and not has("avx512f")
AHEAD = 4096  # bytes before those that are read, at least, that others are asked for
FEWEST = 12  # vectors that are worth being filled up to 16
BLOCK = 64  # rows that a span of the vectors is kept near for
ROWS, MOST_EIGHTS = 4, 4  # at a time, and of the eight sums: with what is multiplied they fill the registers


@njit(**COMPILED)
def side_by_side(
    numbers: Any, x_scales: Any, x_sums: Any, span: Any, begun: Any, n: Any, width: Any, offset: Any, sides: Any,
    scales: Any, begins: Any,
) -> None:  # fmt: skip
    """Bytes of n vectors as pairs of 16 bits, (E, width / 2, 8); scales, and where sums begin, (E, spans, 8).

    The offset of the matrix falls out of such sums. What is missing of the last eight is the last vector again.
    """
    spans = width // span
    for v in range(0, len(scales) // spans, 4):
        to, last = v // 8 * 4 * width + v % 8, (begun + n - 1) * width
        a = min((begun + v) * width, last)
        b, c, d = min(a + width, last), min(a + 2 * width, last), min(a + 3 * width, last)
        for k in range(0, width, LANES):
            put_side_by_side(sides, to + 4 * k, numbers, a + k, b + k, c + k, d + k)
    for v in range(len(scales) // spans):
        first, to = (begun + min(v, n - 1)) * spans, v // 8 * 8 * spans + v % 8
        for s in range(spans):
            scales[to + 8 * s], begins[to + 8 * s] = x_scales[first + s], -offset * x_sums[first + s]


@njit(**WITHIN)
def _rows_times_eights(
    room: Any, w: Any, begin: Any, end: Any, width: Any, first_row: Any, span: Any, eight: Any, rows: Any, eights: Any
) -> None:
    """Rows `begin` to `end` times so many eights, from the one numbered `eight` on."""
    sides, scales, begins, wide, sums = room
    spans = width // span
    sums[: (end - begin) * eights * 8] = 0
    for s in range(spans):
        at, group = 4 * (eight * width + s * span), 8 * (eight * spans + s)
        for row in range(begin, end, rows):
            for r in range(rows):
                place = (first_row + row + r) * width + s * span
                for k in range(0, span, LANES):
                    put(wide, r * span + k, load_wide(w, place + k))
            if eight == 0:  # the next rows are asked for in the order in which they lie, as much as is read here
                ahead = (first_row + end) * width + (s * (end - begin) + row - begin) * span
                for k in range(0, rows * span, BYTES):
                    fetch(w, ahead + k)
            to = (row - begin) * eights * 8
            add_span(
                sums, to, wide, 0, span, span, sides, at, 4 * width, scales, begins, group, 8 * spans, rows, eights
            )


@njit(**COMPILED)
def _times_all(
    out: Any, o: Any, o_step: Any, room: Any, n: Any, count: Any, w: Any, w_scales: Any, width: Any, span: Any,
    first_row: Any, start: Any, end: Any,
) -> None:  # fmt: skip
    """Rows `start` to `end` times so many eights, which have the first n vectors."""
    for begin in range(start, end, BLOCK):
        stop, eight = min(begin + BLOCK, end), 0
        while eight < count:
            if eight + 4 <= count:
                eights = 4
                _rows_times_eights(room, w, begin, stop, width, first_row, span, eight, 2, 4)
            else:
                eights = 2
                _rows_times_eights(room, w, begin, stop, width, first_row, span, eight, 4, 2)
            for v in range(0, 8 * eights, 8):
                to, most = o + (8 * eight + v) * o_step, min(n - 8 * eight - v, 8) - 1
                for row in range(begin, stop, ROWS):
                    at = (row - begin) * eights * 8 + v
                    put_eight(out, to + row, o_step, most, room[4], at, eights * 8, w_scales, first_row + row)
            eight += eights


@njit(**ALLOCATES)
def many_rows(
    out: Any, o_step: Any, numbers: Any, x_scales: Any, x_sums: Any, span: Any, begun: Any, n: Any, w: Any,
    w_scales: Any, width: Any, first_row: Any, start: Any, end: Any, offset: Any,
) -> Any:  # fmt: skip
    """As `int8_rows`, for the first of the n vectors from `begun` on, as many as it is worth it for; how many."""
    count = n // 16 * 2 + (2 if n % 16 >= FEWEST else 0)
    if count == 0:
        return 0
    done, spans = min(n, 8 * count), width // span
    sides, scales = np.empty(4 * count * width, np.int32), np.empty(8 * count * spans, np.float32)
    begins, wide = np.empty(8 * count * spans, np.int32), np.empty(ROWS * span, np.int16)
    sums = np.empty(BLOCK * MOST_EIGHTS * 8, np.float32)
    side_by_side(numbers, x_scales, x_sums, span, begun, done, width, offset, sides, scales, begins)
    room = (sides, scales, begins, wide, sums)
    _times_all(out, begun * o_step, o_step, room, done, count, w, w_scales, width, span, first_row, start, end)
    return done


@njit(**COMPILED)
def _four_begins(sums: Any, s: Any, offset: Any) -> Any:
    begin = begin_with(np.int32(-offset * sums[s]))
    return begin, begin, begin, begin


@njit(**COMPILED)
def _four_products(sums: Any, x: Any, a: Any, b: Any, c: Any, d: Any) -> Any:
    return add_pairs(sums[0], a, x), add_pairs(sums[1], b, x), add_pairs(sums[2], c, x), add_pairs(sums[3], d, x)


@njit(**COMPILED)
def few_rows(
    out: Any, o_step: Any, numbers: Any, x_scales: Any, x_sums: Any, span: Any, v: Any, n: Any, w: Any, w_scales: Any,
    width: Any, first_row: Any, start: Any, end: Any, offset: Any,
) -> None:  # fmt: skip
    """As `int8_rows`, for vectors v to n: two of them at a time, and what is left alone."""
    spans, far, first = width // span, max(ROWS * width, AHEAD), v
    for row in range(start, end, ROWS):
        a = (first_row + row) * width
        b, c, d = a + width, a + 2 * width, a + 3 * width
        v = first
        while v + 2 <= n:
            x, y = v * width, (v + 1) * width
            f, g = no_floats(), no_floats()
            for s in range(spans):
                one, two = v * spans + s, (v + 1) * spans + s
                p, q = _four_begins(x_sums, one, offset), _four_begins(x_sums, two, offset)
                for k in range(s * span, (s + 1) * span, 16):
                    if v == first:
                        fetch(w, a + ROWS * k + far)
                    wa, wb, wc, wd = load_wide(w, a + k), load_wide(w, b + k), load_wide(w, c + k), load_wide(w, d + k)
                    p = _four_products(p, load_wide(numbers, x + k), wa, wb, wc, wd)
                    q = _four_products(q, load_wide(numbers, y + k), wa, wb, wc, wd)
                f = add_totals(f, x_scales[one], p[0], p[1], p[2], p[3])
                g = add_totals(g, x_scales[two], q[0], q[1], q[2], q[3])
            put_times(out, v * o_step + row, f, w_scales, first_row + row)
            put_times(out, (v + 1) * o_step + row, g, w_scales, first_row + row)
            v += 2
        if v < n:
            x, f = v * width, no_floats()
            for s in range(spans):
                one = v * spans + s
                begin = first_lane(np.int32(-offset * x_sums[one]))
                p = begin, begin, begin, begin
                for k in range(s * span, (s + 1) * span, BYTES):
                    if v == first:
                        for r in range(ROWS):
                            fetch(w, a + ROWS * k + r * BYTES + far)
                    y = load_bytes(numbers, x + k)
                    wa, wb = load_bytes(w, a + k), load_bytes(w, b + k)
                    wc, wd = load_bytes(w, c + k), load_bytes(w, d + k)
                    p = dot(p[0], wa, y), dot(p[1], wb, y), dot(p[2], wc, y), dot(p[3], wd, y)
                f = add_totals(f, x_scales[one], folded(p[0]), folded(p[1]), folded(p[2]), folded(p[3]))
            put_times(out, v * o_step + row, f, w_scales, first_row + row)
