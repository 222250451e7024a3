"""Products of a matrix of 4 bits a number. 16 of its rows lie side by side, so that a register has the sums of 16 rows.

Four bytes of each row stand in a line of 64, as packing.py arranges them: four numbers of a vector, repeated, meet all
of them, twice, as each byte holds a number of one group and one of the next. There is nothing to put together at the
end, and what is unpacked once serves up to four vectors.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from pellucid.compiled.vectors import (
    BYTES,
    COMPILED,
    add,
    as_floats,
    fetch,
    high_nibbles,
    load,
    load_bytes,
    low_nibbles,
    multiply_add,
    put,
    repeat_four,
    spread,
    times,
    zeros,
)
from pellucid.generation.compiled.dots import FOUR_FIT, dot_nibbles
from pellucid.model.formats.quantised import GROUP

# N vectors, O outputs, G groups of inputs

SIDE = 16  # rows that lie side by side; O is padded to a multiple, of all matrices
AHEAD = 4096  # bytes before those that are read that others are asked for
INT4_OFFSET = 8


@njit(**COMPILED)
def _begin_groups(sums: Any, g: Any) -> Any:
    """Where the sums of two groups of a vector begin, so that the offset falls out."""
    return spread(np.int32(-INT4_OFFSET * sums[g])), spread(np.int32(-INT4_OFFSET * sums[g + 1]))


@njit(**COMPILED)
def _add_groups(sums: Any, low: Any, high: Any, numbers: Any, x: Any) -> Any:
    """Four numbers of 16 rows, from each of two groups, times those of a vector, added to the groups' sums."""
    return (
        dot_nibbles(sums[0], low, repeat_four(numbers, x)),
        dot_nibbles(sums[1], high, repeat_four(numbers, x + GROUP)),
    )


@njit(**COMPILED)
def _scale_groups(so_far: Any, sums: Any, w_scales: Any, s: Any, x_scales: Any, g: Any) -> Any:
    """Two groups' sums times the scales of the 16 rows and of the vector, added to what there is so far."""
    so_far = multiply_add(times(load(w_scales, s), spread(x_scales[g])), as_floats(sums[0]), so_far)
    return multiply_add(times(load(w_scales, s + SIDE), spread(x_scales[g + 1])), as_floats(sums[1]), so_far)


@njit(**COMPILED)
def int4_rows(
    out: Any, o_step: Any, numbers: Any, x_scales: Any, x_sums: Any, groups: Any, begun: Any, n: Any, w: Any,
    w_scales: Any, first_row: Any, start: Any, end: Any,
) -> None:  # fmt: skip
    """As `int8_rows`, two numbers to a byte: the lower halves of 64 bytes of a row are a group, the upper the next.

    Each row has a scale for each group. 16 rows lie side by side, four bytes of each in 64, as packing.py arranges
    them: what four numbers of a vector meet, and a register then has the sums of 16 rows.
    """
    width, row = groups * GROUP // 2, start
    while row < end:
        place, scale, v = (first_row + row) * width, (first_row + row) * groups, begun
        while FOUR_FIT and v + 4 <= n:
            f0, f1, f2, f3 = zeros(), zeros(), zeros(), zeros()
            for g in range(0, groups, 2):
                g0, at = v * groups + g, place + g // 2 * SIDE * BYTES
                g1, g2, g3 = g0 + groups, g0 + 2 * groups, g0 + 3 * groups
                s0, s1 = _begin_groups(x_sums, g0), _begin_groups(x_sums, g1)
                s2, s3 = _begin_groups(x_sums, g2), _begin_groups(x_sums, g3)
                for k in range(0, GROUP, 4):
                    if v == begun:
                        fetch(w, at + k * SIDE + AHEAD)
                    both = load_bytes(w, at + k * SIDE)
                    low, high = low_nibbles(both), high_nibbles(both)
                    s0 = _add_groups(s0, low, high, numbers, g0 * GROUP + k)
                    s1 = _add_groups(s1, low, high, numbers, g1 * GROUP + k)
                    s2 = _add_groups(s2, low, high, numbers, g2 * GROUP + k)
                    s3 = _add_groups(s3, low, high, numbers, g3 * GROUP + k)
                s = scale + g * SIDE
                f0 = _scale_groups(f0, s0, w_scales, s, x_scales, g0)
                f1 = _scale_groups(f1, s1, w_scales, s, x_scales, g1)
                f2 = _scale_groups(f2, s2, w_scales, s, x_scales, g2)
                f3 = _scale_groups(f3, s3, w_scales, s, x_scales, g3)
            put(out, v * o_step + row, f0)
            put(out, (v + 1) * o_step + row, f1)
            put(out, (v + 2) * o_step + row, f2)
            put(out, (v + 3) * o_step + row, f3)
            v += 4
        while v < n:
            f0 = zeros()
            for g in range(0, groups, 2):
                g0, at = v * groups + g, place + g // 2 * SIDE * BYTES
                s0, s1 = _begin_groups(x_sums, g0), (spread(np.int32(0)), spread(np.int32(0)))
                for k in range(0, GROUP, 8):  # two sums of each group: each addition waits for the one before
                    if v == begun:
                        fetch(w, at + k * SIDE + AHEAD)
                        fetch(w, at + k * SIDE + BYTES + AHEAD)
                    one, other = load_bytes(w, at + k * SIDE), load_bytes(w, at + k * SIDE + BYTES)
                    s0 = _add_groups(s0, low_nibbles(one), high_nibbles(one), numbers, g0 * GROUP + k)
                    s1 = _add_groups(s1, low_nibbles(other), high_nibbles(other), numbers, g0 * GROUP + k + 4)
                s0 = add(s0[0], s1[0]), add(s0[1], s1[1])
                f0 = _scale_groups(f0, s0, w_scales, scale + g * SIDE, x_scales, g0)
            put(out, v * o_step + row, f0)
            v += 1
        row += SIDE
