"""Vectors times a matrix, its numbers kept in 32, 16, 12, 8 or 4 bits: where decoding spends its time.

Floats are in `floats.py`, bfloat16 in twelve bits in `twelves.py`; here are bytes, which are read in the same way. With
them, the vectors become bytes, too: spans of 64 to 256 numbers from -127 to 127 with a scale each, so that
products are exact in whole numbers within a span. Kept matrices are offset to be unsigned, as the processor's
instruction wants one side; the sum of a span times the offset is taken off where the sum begins.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, types
from numba.extending import overload

from pellucid.compiled.vectors import (
    BYTES,
    COMPILED,
    as_floats,
    fetch,
    first,
    load_bytes,
    load_four,
    multiply_add,
    put_four,
    spread,
    times,
    whole_totals,
    zeros,
)
from pellucid.generation.compiled.dots import FOUR_FIT, dot
from pellucid.generation.compiled.floats import ROWS, ask_by_turns, ask_in_order, float_rows, how_far, nothing
from pellucid.generation.compiled.many import EIGHTS_FIT, few_rows, many_rows
from pellucid.generation.compiled.nibbles import int4_rows
from pellucid.generation.compiled.sixteens import SIXTEENS_FIT, rows_in_sixteens
from pellucid.generation.compiled.twelves import BLOCK, PART, twelve_rows
from pellucid.model.formats.quantised import GROUP

# N vectors, O outputs, I inputs (padded with zeros), G groups of inputs

INT8_OFFSET = 128
# What I is padded to a multiple of.
STEP = {"float32": 32, "bfloat16": 32, "twelve": BLOCK, "int8": GROUP, "int4": 2 * GROUP}

NONE = np.int64(0)  # not the literal, for which Numba would compile a function once more

# ---------------------------------------------------------------- bytes


@njit(**COMPILED)
def to_bytes(x: Any, i: Any, spans: Any, span: Any, numbers: Any, scales: Any, sums: Any, first_span: Any) -> None:
    """Spans of floats from x[i] on, as bytes with a scale and their sum each; the first is `first_span` there."""
    for s in range(spans):
        source = x[i + s * span : i + (s + 1) * span]
        target = numbers[(first_span + s) * span : (first_span + s + 1) * span]
        bits = np.uint32(0)  # floats above 0 are in order as whole numbers, and of those LLVM finds the largest at once
        for k in range(span):
            bits = max(bits, np.uint32(np.float32(source[k]).view(np.uint32) & np.uint32(0x7FFFFFFF)))
        largest = np.uint32(bits).view(np.float32)
        back = np.float32(0) if largest == 0 else np.float32(127) / largest
        summed = np.int32(0)
        for k in range(span):
            number = np.int32(np.rint(source[k] * back))
            target[k] = np.int8(number)
            summed += number
        scales[first_span + s], sums[first_span + s] = largest / np.float32(127), summed


def span_of(matrix: Any) -> Any:
    """How many numbers of a vector share a scale, for a product with `matrix`: as many as its own do at the most."""
    raise NotImplementedError("compiled only")


@overload(span_of, strict=False)
def _span_of(matrix: Any) -> Any:
    def wide(matrix):  # type: ignore[no-untyped-def]
        return 4 * GROUP if matrix[2] % (4 * GROUP) == 0 else 2 * GROUP if matrix[2] % (2 * GROUP) == 0 else GROUP

    return wide if matrix[1].ndim == 1 else lambda matrix: GROUP


@njit(**COMPILED)
def _dots(x: Any, a: Any, b: Any, c: Any, d: Any, sums: Any) -> Any:
    """64 bytes of one vector times those of four rows, added to its four sums, in whole numbers."""
    return dot(sums[0], a, x), dot(sums[1], b, x), dot(sums[2], c, x), dot(sums[3], d, x)


@njit(**COMPILED)
def _scaled(scale: Any, dots: Any, so_far: Any) -> Any:
    """A span's four totals, scaled and added to what the first four have so far."""
    return multiply_add(spread(scale), as_floats(whole_totals(dots[0], dots[1], dots[2], dots[3])), so_far)


@njit(**COMPILED)
def _offset(sums: Any, s: Any, offset: Any) -> Any:
    """Where the four sums of a span begin, so that the offset falls out."""
    begin = first(np.int32(-offset * sums[s]))
    return begin, begin, begin, begin


@njit(**COMPILED)
def _put_scaled(out: Any, at: Any, four: Any, scales: Any, row: Any) -> None:
    # Not scaled once it lies there: to load what was just stored halves the speed of the whole product.
    put_four(out, at, times(four, load_four(scales, row)))


@njit(**COMPILED)
def int8_rows(
    out: Any, o_step: Any, numbers: Any, x_scales: Any, x_sums: Any, span: Any, begun: Any, n: Any, w: Any,
    w_scales: Any, width: Any, first_row: Any, start: Any, end: Any,
) -> None:  # fmt: skip
    """As `float_rows`, for a matrix of bytes with a scale for each row; the matrix begins at row `first_row` of w.

    Of the n vectors those from the one numbered `begun` on.
    """
    spans, far, n = width // span, how_far(w, width), n - begun
    for row in range(start, end, ROWS):
        a = (first_row + row) * width
        b, c, d = a + width, a + 2 * width, a + 3 * width
        v = 0
        while FOUR_FIT and v + 4 <= n:
            x0, to = (begun + v) * width, (begun + v) * o_step + row
            x1, x2, x3 = x0 + width, x0 + 2 * width, x0 + 3 * width
            f0, f1, f2, f3 = nothing()
            for s in range(spans):
                g0 = (begun + v) * spans + s
                g1, g2, g3 = g0 + spans, g0 + 2 * spans, g0 + 3 * spans
                s0, s1 = _offset(x_sums, g0, INT8_OFFSET), _offset(x_sums, g1, INT8_OFFSET)
                s2, s3 = _offset(x_sums, g2, INT8_OFFSET), _offset(x_sums, g3, INT8_OFFSET)
                for k in range(s * span, (s + 1) * span, BYTES):
                    if n < 8:
                        ask_in_order(w, a, k, BYTES, far)
                    elif v < 16:  # a row with each four vectors: all at once would be waited for
                        fetch(w, a + (v // 4) * width + k + 2 * ROWS * width)
                    wa, wb = load_bytes(w, a + k), load_bytes(w, b + k)
                    wc, wd = load_bytes(w, c + k), load_bytes(w, d + k)
                    s0 = _dots(load_bytes(numbers, x0 + k), wa, wb, wc, wd, s0)
                    s1 = _dots(load_bytes(numbers, x1 + k), wa, wb, wc, wd, s1)
                    s2 = _dots(load_bytes(numbers, x2 + k), wa, wb, wc, wd, s2)
                    s3 = _dots(load_bytes(numbers, x3 + k), wa, wb, wc, wd, s3)
                f0, f1 = _scaled(x_scales[g0], s0, f0), _scaled(x_scales[g1], s1, f1)
                f2, f3 = _scaled(x_scales[g2], s2, f2), _scaled(x_scales[g3], s3, f3)
            _put_scaled(out, to, f0, w_scales, first_row + row)
            _put_scaled(out, to + o_step, f1, w_scales, first_row + row)
            _put_scaled(out, to + 2 * o_step, f2, w_scales, first_row + row)
            _put_scaled(out, to + 3 * o_step, f3, w_scales, first_row + row)
            v += 4
        while v < n:
            x0, f0 = (begun + v) * width, zeros()
            for s in range(spans):
                g0 = (begun + v) * spans + s
                s0 = _offset(x_sums, g0, INT8_OFFSET)
                for k in range(s * span, (s + 1) * span, BYTES):
                    ask_by_turns(w, a, k, BYTES, width, far, v, n)
                    wa, wb = load_bytes(w, a + k), load_bytes(w, b + k)
                    wc, wd = load_bytes(w, c + k), load_bytes(w, d + k)
                    s0 = _dots(load_bytes(numbers, x0 + k), wa, wb, wc, wd, s0)
                f0 = _scaled(x_scales[g0], s0, f0)
            _put_scaled(out, (begun + v) * o_step + row, f0, w_scales, first_row + row)
            v += 1


# ---------------------------------------------------------------- one product, whatever the matrix is kept in


def product(
    out: Any, o_step: Any, x: Any, i_step: Any, taken: Any, first: Any, n: Any, matrix: Any, first_row: Any, start: Any,
    end: Any,
) -> None:  # fmt: skip
    """Rows `start` to `end` of a matrix that begins at row `first_row` of `matrix`, times n vectors.

    Vectors are numbered from `first` on. `matrix` is (numbers, scales, width); `taken` all vectors as bytes (numbers,
    scales, sums), where bytes are wanted, and the thread's number.
    """
    raise NotImplementedError("compiled only")


@overload(product, strict=False)
def _product(
    out: Any, o_step: Any, x: Any, i_step: Any, taken: Any, first: Any, n: Any, matrix: Any, first_row: Any, start: Any,
    end: Any,
) -> Any:  # fmt: skip
    numbers, scales = matrix[0], matrix[1]

    def of_floats(out, o_step, x, i_step, taken, first, n, matrix, first_row, start, end):  # type: ignore[no-untyped-def]
        w, _, width = matrix
        float_rows(
            out, first * o_step, o_step, x, first * i_step, i_step, n, w, first_row * width, width, width, start, end
        )

    def of_twelves(out, o_step, x, i_step, taken, first, n, matrix, first_row, start, end):  # type: ignore[no-untyped-def]
        room, at = taken[1], taken[3] * ROWS * PART
        twelve_rows(out, first * o_step, o_step, x, first * i_step, i_step, n, matrix, first_row, start, end, room, at)

    def of_bytes(out, o_step, x, i_step, taken, first, n, matrix, first_row, start, end):  # type: ignore[no-untyped-def]
        (w, scales, width), last = matrix, first + n
        int8_rows(out, o_step, *taken[:3], span_of(matrix), first, last, w, scales, width, first_row, start, end)

    def in_sixteens(out, o_step, x, i_step, taken, first, n, matrix, first_row, start, end):  # type: ignore[no-untyped-def]
        (w, scales, width), span, last = matrix, span_of(matrix), first + n
        done = first + rows_in_sixteens(
            out, o_step, *taken[:3], span, first, n, w, scales, width, first_row, start, end, INT8_OFFSET
        )
        if done < last:
            int8_rows(out, o_step, *taken[:3], span, done, last, w, scales, width, first_row, start, end)

    def in_eights(out, o_step, x, i_step, taken, first, n, matrix, first_row, start, end):  # type: ignore[no-untyped-def]
        (w, scales, width), span, last = matrix, span_of(matrix), first + n
        done = first + many_rows(
            out, o_step, *taken[:3], span, first, n, w, scales, width, first_row, start, end, INT8_OFFSET
        )
        if done < last:
            few_rows(out, o_step, *taken[:3], span, done, last, w, scales, width, first_row, start, end, INT8_OFFSET)

    def of_nibbles(out, o_step, x, i_step, taken, first, n, matrix, first_row, start, end):  # type: ignore[no-untyped-def]
        w, scales, width = matrix
        int4_rows(
            out, o_step, *taken[:3], width // GROUP, first, first + n, w, scales.reshape(-1), first_row, start, end
        )

    if numbers.dtype == types.uint32:
        return of_twelves
    if numbers.dtype != types.uint8:
        return of_floats
    if scales.ndim > 1:
        return of_nibbles
    return in_eights if EIGHTS_FIT else in_sixteens if SIXTEENS_FIT else of_bytes
