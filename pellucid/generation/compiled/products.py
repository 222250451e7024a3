"""Vectors times a matrix, its numbers kept in 32, 16, 8 or 4 bits: where decoding spends its time.

A matrix (O outputs × I inputs) lies in memory row by row, as the model has it, and is read once for all N vectors, four
rows at a time. The next four are asked for meanwhile, in the order in which they lie: that brings a core to the rate of
the memory. Each sum is added up in the same order however many vectors there are, so one alone gets the same bits as
one among many.

With bytes, the vectors become bytes, too: spans of 64 to 256 numbers from -127 to 127 with a scale each, so that
products are exact in whole numbers within a span. Kept matrices are offset to be unsigned, as the processor's
instruction wants one side; the sum of a span times the offset is taken off where the sum begins.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, types
from numba.extending import overload

from pellucid.generation.compiled.dots import FOUR_FIT, dot
from pellucid.generation.compiled.many import EIGHTS_FIT, few_rows, many_rows
from pellucid.generation.compiled.nibbles import int4_rows
from pellucid.generation.compiled.sixteens import SIXTEENS_FIT, rows_in_sixteens
from pellucid.generation.compiled.vectors import (
    BYTES,
    COMPILED,
    as_floats,
    fetch,
    first,
    load,
    load_bytes,
    load_four,
    multiply_add,
    put_four,
    spread,
    times,
    totals,
    whole_totals,
    zeros,
)
from pellucid.model.formats.quantised import GROUP

# N vectors, O outputs, I inputs (padded with zeros), G groups of inputs

ROWS = 4  # of the matrix, taken at a time
AHEAD = 4096  # bytes before those that are read, at least, that others are asked for
INT8_OFFSET = 128
STEP = {"float32": 32, "bfloat16": 32, "int8": GROUP, "int4": 2 * GROUP}  # what I is padded to a multiple of

NONE = np.int64(0)  # not the literal, for which Numba would compile a function once more


@njit(**COMPILED)
def _ahead(w: Any, pitch: Any) -> Any:
    """How many numbers ahead others are asked for: four rows or more. Found once: a division takes long."""
    return max(ROWS * pitch, AHEAD // w.itemsize)


@njit(**COMPILED)
def _ask_in_order(w: Any, a: Any, k: Any, step: Any, far: Any) -> None:
    """Ask for as much as `step` numbers of each of four rows, `far` ahead, while those from the k-th on are read.

    Rows are read side by side, but memory gives what is asked for in its own order twice as fast (docs/performance.md).
    """
    for r in range(ROWS):
        fetch(w, a + ROWS * k + r * step + far)


@njit(**COMPILED)
def _ask_by_turns(w: Any, a: Any, k: Any, step: Any, pitch: Any, far: Any, v: Any, n: Any) -> None:
    """Beside one vector of n: a row of the next four with each of the first four vectors, or with the first all."""
    if n < ROWS:
        if v == 0:
            _ask_in_order(w, a, k, step, far)
    elif v < ROWS:
        fetch(w, a + (ROWS + v) * pitch + k)


@njit(**COMPILED)
def _add(x: Any, a: Any, b: Any, c: Any, d: Any, sums: Any) -> Any:
    """One vector's 16 numbers times those of four rows, added to its four sums."""
    return (
        multiply_add(x, a, sums[0]),
        multiply_add(x, b, sums[1]),
        multiply_add(x, c, sums[2]),
        multiply_add(x, d, sums[3]),
    )


@njit(**COMPILED)
def _nothing() -> Any:
    return zeros(), zeros(), zeros(), zeros()


@njit(**COMPILED)
def _put(out: Any, at: Any, sums: Any) -> None:
    put_four(out, at, totals(sums[0], sums[1], sums[2], sums[3]))


@njit(**COMPILED)
def float_rows(
    out: Any, o: Any, o_step: Any, x: Any, i: Any, i_step: Any, n: Any, w: Any, at: Any, width: Any, pitch: Any,
    start: Any, end: Any,
) -> None:  # fmt: skip
    """Rows `start` to `end` of a matrix in float32 or bfloat16 times n vectors.

    Vector v begins at x[i + v × i_step], row r of the matrix at w[at + r × pitch]; out[o + v × o_step + r] is for both.
    """
    far = _ahead(w, pitch)
    for row in range(start, end, ROWS):
        a = at + row * pitch
        b, c, d = a + pitch, a + 2 * pitch, a + 3 * pitch
        v = 0
        while (FOUR_FIT or w.itemsize < 4) and v + 4 <= n:  # numbers that have to be widened are so once for four
            x0, x1, x2, x3 = i + v * i_step, i + (v + 1) * i_step, i + (v + 2) * i_step, i + (v + 3) * i_step
            s0, s1, s2, s3 = _nothing(), _nothing(), _nothing(), _nothing()
            for k in range(0, width, 16):
                if n < 8:
                    _ask_in_order(w, a, k, 16, far)
                elif n < 16:  # so many vectors do not wait for all: with each four they ask for some rows
                    if v < 8:
                        fetch(w, a + (v // 2) * pitch + k + ROWS * pitch)
                        fetch(w, a + (v // 2 + 1) * pitch + k + ROWS * pitch)
                elif v < 16:
                    fetch(w, a + (v // 4) * pitch + k + 2 * ROWS * pitch)
                wa, wb, wc, wd = load(w, a + k), load(w, b + k), load(w, c + k), load(w, d + k)
                s0 = _add(load(x, x0 + k), wa, wb, wc, wd, s0)
                s1 = _add(load(x, x1 + k), wa, wb, wc, wd, s1)
                s2 = _add(load(x, x2 + k), wa, wb, wc, wd, s2)
                s3 = _add(load(x, x3 + k), wa, wb, wc, wd, s3)
            _put(out, o + v * o_step + row, s0)
            _put(out, o + (v + 1) * o_step + row, s1)
            _put(out, o + (v + 2) * o_step + row, s2)
            _put(out, o + (v + 3) * o_step + row, s3)
            v += 4
        while v < n:
            x0 = i + v * i_step
            s0 = _nothing()
            for k in range(0, width, 16):
                _ask_by_turns(w, a, k, 16, pitch, far, v, n)
                s0 = _add(load(x, x0 + k), load(w, a + k), load(w, b + k), load(w, c + k), load(w, d + k), s0)
            _put(out, o + v * o_step + row, s0)
            v += 1


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
    spans, far, n = width // span, _ahead(w, width), n - begun
    for row in range(start, end, ROWS):
        a = (first_row + row) * width
        b, c, d = a + width, a + 2 * width, a + 3 * width
        v = 0
        while FOUR_FIT and v + 4 <= n:
            x0, to = (begun + v) * width, (begun + v) * o_step + row
            x1, x2, x3 = x0 + width, x0 + 2 * width, x0 + 3 * width
            f0, f1, f2, f3 = _nothing()
            for s in range(spans):
                g0 = (begun + v) * spans + s
                g1, g2, g3 = g0 + spans, g0 + 2 * spans, g0 + 3 * spans
                s0, s1 = _offset(x_sums, g0, INT8_OFFSET), _offset(x_sums, g1, INT8_OFFSET)
                s2, s3 = _offset(x_sums, g2, INT8_OFFSET), _offset(x_sums, g3, INT8_OFFSET)
                for k in range(s * span, (s + 1) * span, BYTES):
                    if n < 8:
                        _ask_in_order(w, a, k, BYTES, far)
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
                    _ask_by_turns(w, a, k, BYTES, width, far, v, n)
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
    scales, sums), where bytes are wanted.
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

    def of_bytes(out, o_step, x, i_step, taken, first, n, matrix, first_row, start, end):  # type: ignore[no-untyped-def]
        (w, scales, width), last = matrix, first + n
        int8_rows(out, o_step, *taken, span_of(matrix), first, last, w, scales, width, first_row, start, end)

    def in_sixteens(out, o_step, x, i_step, taken, first, n, matrix, first_row, start, end):  # type: ignore[no-untyped-def]
        (w, scales, width), span, last = matrix, span_of(matrix), first + n
        done = first + rows_in_sixteens(
            out, o_step, *taken, span, first, n, w, scales, width, first_row, start, end, INT8_OFFSET
        )
        if done < last:
            int8_rows(out, o_step, *taken, span, done, last, w, scales, width, first_row, start, end)

    def in_eights(out, o_step, x, i_step, taken, first, n, matrix, first_row, start, end):  # type: ignore[no-untyped-def]
        (w, scales, width), span, last = matrix, span_of(matrix), first + n
        done = first + many_rows(
            out, o_step, *taken, span, first, n, w, scales, width, first_row, start, end, INT8_OFFSET
        )
        if done < last:
            few_rows(out, o_step, *taken, span, done, last, w, scales, width, first_row, start, end, INT8_OFFSET)

    def of_nibbles(out, o_step, x, i_step, taken, first, n, matrix, first_row, start, end):  # type: ignore[no-untyped-def]
        w, scales, width = matrix
        int4_rows(out, o_step, *taken, width // GROUP, first, first + n, w, scales.reshape(-1), first_row, start, end)

    if numbers.dtype != types.uint8:
        return of_floats
    if scales.ndim > 1:
        return of_nibbles
    return in_eights if EIGHTS_FIT else in_sixteens if SIXTEENS_FIT else of_bytes
