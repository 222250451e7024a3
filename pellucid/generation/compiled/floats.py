"""Vectors times a matrix of floats, in 32 or 16 bits.

The matrix lies in memory row by row, as the model has it, and is read once for all N vectors, four rows at a time. The
next four are asked for meanwhile, in the order in which they lie: that brings a core to the rate of the memory. Each
sum is added up in the same order however many vectors there are, so one alone gets the same bits as one among many.
"""

from __future__ import annotations

from typing import Any

from numba import njit

from pellucid.compiled.vectors import COMPILED, fetch, load, multiply_add, put_four, totals, zeros
from pellucid.generation.compiled.dots import FOUR_FIT

ROWS = 4  # of the matrix, taken at a time
AHEAD = 4096  # bytes before those that are read, at least, that others are asked for


@njit(**COMPILED)
def how_far(w: Any, pitch: Any) -> Any:
    """How many numbers ahead others are asked for: four rows or more. Found once: a division takes long."""
    return max(ROWS * pitch, AHEAD // w.itemsize)


@njit(**COMPILED)
def ask_in_order(w: Any, a: Any, k: Any, step: Any, far: Any) -> None:
    """Ask for as much as `step` numbers of each of four rows, `far` ahead, while those from the k-th on are read.

    Rows are read side by side, but memory gives what is asked for in its own order twice as fast (docs/performance.md).
    """
    for r in range(ROWS):
        fetch(w, a + ROWS * k + r * step + far)


@njit(**COMPILED)
def ask_by_turns(w: Any, a: Any, k: Any, step: Any, pitch: Any, far: Any, v: Any, n: Any) -> None:
    """Beside one vector of n: a row of the next four with each of the first four vectors, or with the first all."""
    if n < ROWS:
        if v == 0:
            ask_in_order(w, a, k, step, far)
    elif v < ROWS:
        fetch(w, a + (ROWS + v) * pitch + k)


@njit(**COMPILED)
def add_four(x: Any, a: Any, b: Any, c: Any, d: Any, sums: Any) -> Any:
    """One vector's 16 numbers times those of four rows, added to its four sums."""
    return (
        multiply_add(x, a, sums[0]),
        multiply_add(x, b, sums[1]),
        multiply_add(x, c, sums[2]),
        multiply_add(x, d, sums[3]),
    )


@njit(**COMPILED)
def nothing() -> Any:
    return zeros(), zeros(), zeros(), zeros()


@njit(**COMPILED)
def put_sums(out: Any, at: Any, sums: Any) -> None:
    put_four(out, at, totals(sums[0], sums[1], sums[2], sums[3]))


@njit(**COMPILED)
def float_rows(
    out: Any, o: Any, o_step: Any, x: Any, i: Any, i_step: Any, n: Any, w: Any, at: Any, width: Any, pitch: Any,
    start: Any, end: Any,
) -> None:  # fmt: skip
    """Rows `start` to `end` of a matrix in float32 or bfloat16 times n vectors.

    Vector v begins at x[i + v × i_step], row r of the matrix at w[at + r × pitch]; out[o + v × o_step + r] is for both.
    """
    far = how_far(w, pitch)
    for row in range(start, end, ROWS):
        a = at + row * pitch
        b, c, d = a + pitch, a + 2 * pitch, a + 3 * pitch
        v = 0
        while (FOUR_FIT or w.itemsize < 4) and v + 4 <= n:  # numbers that have to be widened are so once for four
            x0, x1, x2, x3 = i + v * i_step, i + (v + 1) * i_step, i + (v + 2) * i_step, i + (v + 3) * i_step
            s0, s1, s2, s3 = nothing(), nothing(), nothing(), nothing()
            for k in range(0, width, 16):
                if n < 8:
                    ask_in_order(w, a, k, 16, far)
                elif n < 16:  # so many vectors do not wait for all: with each four they ask for some rows
                    if v < 8:
                        fetch(w, a + (v // 2) * pitch + k + ROWS * pitch)
                        fetch(w, a + (v // 2 + 1) * pitch + k + ROWS * pitch)
                elif v < 16:
                    fetch(w, a + (v // 4) * pitch + k + 2 * ROWS * pitch)
                wa, wb, wc, wd = load(w, a + k), load(w, b + k), load(w, c + k), load(w, d + k)
                s0 = add_four(load(x, x0 + k), wa, wb, wc, wd, s0)
                s1 = add_four(load(x, x1 + k), wa, wb, wc, wd, s1)
                s2 = add_four(load(x, x2 + k), wa, wb, wc, wd, s2)
                s3 = add_four(load(x, x3 + k), wa, wb, wc, wd, s3)
            put_sums(out, o + v * o_step + row, s0)
            put_sums(out, o + (v + 1) * o_step + row, s1)
            put_sums(out, o + (v + 2) * o_step + row, s2)
            put_sums(out, o + (v + 3) * o_step + row, s3)
            v += 4
        while v < n:
            x0 = i + v * i_step
            s0 = nothing()
            for k in range(0, width, 16):
                ask_by_turns(w, a, k, 16, pitch, far, v, n)
                s0 = add_four(load(x, x0 + k), load(w, a + k), load(w, b + k), load(w, c + k), load(w, d + k), s0)
            put_sums(out, o + v * o_step + row, s0)
            v += 1
