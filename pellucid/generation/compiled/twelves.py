"""bfloat16 in twelve bits, and nothing lost: a quarter less to read for each token, in a quarter less memory.

Of a number's 16 bits, 8 say its exponent, and in a row of weights nearly all exponents are among the 15 largest. So a
row keeps what the largest is, and a number four bits: how far its own is above the lowest of the 15, or 0 for zero.
What is smaller yet (of a bell-shaped row one weight in some 7,600) stands in a list, and is added to the sums in the
end.

In memory (128 numbers of a row are 48 words of 32 bits, those of four rows lie behind each other): 16 words with sign
and fraction of the first 64 numbers, 16 with those of the rest, 16 with all exponents. A word's two halves have the
same of 16 numbers each, at the places where bfloat16 has it; of the next 32 numbers, with the two bytes exchanged. So
two numbers in a word become whole by two masks and a shift, and both are floats with another mask and shift. Their
exponents are then too small, by as much for all numbers of a row: that is put right in the sum, exactly.
Paper: Zhang et al. 2025, "70% Size, 100% Accuracy: Lossless LLM Compression for Efficient GPU Inference via
Dynamic-Length Float (DFloat11)", which codes exponents by Huffman's way; here all codes are as long.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit
from numba.extending import intrinsic
from numpy.typing import NDArray

from pellucid.compiled.vectors import (
    COMPILED,
    FLOATS,
    HALF,
    INTS,
    LANES,
    call,
    fetch,
    fetch_early,
    floats,
    ints,
    load,
    load_four,
    load_words,
    multiply_add,
    put,
    put_four,
    spread,
    times,
    totals,
)
from pellucid.generation.compiled.floats import ROWS, add_four, nothing

# N vectors, O outputs, I inputs

BLOCK = 128  # numbers of a row that lie together; I is padded to a multiple
WORDS = 48  # that they take
PART = 1024  # numbers of a row that are summed up on their own: four such parts fit into the nearest cache
FEW = 2  # vectors up to which each makes of the words what it needs
CODES = 15  # exponents that a row may have
EARLY, NEAR = 1024, 384  # words before those that are read that the second and the first cache are asked for others
UP = 64  # a vector is multiplied by 2 ** UP: with exponents from 0 on products would be too small for float32
LIFT, ONE = np.float32(2.0**UP), np.float32(1)
SHORTS = ir.VectorType(HALF, 2 * LANES)

# ---------------------------------------------------------------- keeping


@njit(**COMPILED)
def place_of_row(row: Any, width: Any) -> Any:
    """Where the words of a row begin."""
    return row // ROWS * ROWS * (width // BLOCK * WORDS) + row % ROWS * WORDS


@njit(**COMPILED)
def keep_rows(source: Any, line: Any, first: Any, words: Any, scales: Any, lost: Any) -> None:
    """Rows of bfloat16 (as uint16), the first of which is row `first` here. `lost` gets how many a row can't keep.

    `line` has room for one row with its padding, and zeros there. What all numbers of a row have to be multiplied by
    goes into `scales`, less 2 ** UP.
    """
    width = line.shape[0]
    for r in range(source.shape[0]):
        row, highest = source[r], np.int32(0)
        for i in range(row.shape[0]):
            line[i] = row[i]
            highest = max(highest, np.int32((np.int32(row[i]) >> np.int32(7)) & np.int32(255)))
        low = np.int32(max(highest - np.int32(CODES), np.int32(0)))
        scales[first + r] = np.ldexp(np.float32(1), low - np.int32(UP))
        missing, at = np.int32(0), place_of_row(first + r, width)
        for block in range(0, width, BLOCK):
            exponents = words[at + 2 * LANES : at + 3 * LANES]
            exponents[:] = 0
            for pair in range(4):
                places = words[at + pair // 2 * LANES : at + (pair // 2 + 1) * LANES]
                begin, turned = block + pair * 2 * LANES, pair % 2 == 1
                ones, others = line[begin : begin + LANES], line[begin + LANES : begin + 2 * LANES]
                for i in range(LANES):
                    a, b = np.int32(ones[i]), np.int32(others[i])
                    code_a = max(np.int32((a >> np.int32(7)) & np.int32(255)) - low, np.int32(0))
                    code_b = max(np.int32((b >> np.int32(7)) & np.int32(255)) - low, np.int32(0))
                    missing += np.int32(code_a == 0) & np.int32(a & np.int32(0x7FFF) != 0)
                    missing += np.int32(code_b == 0) & np.int32(b & np.int32(0x7FFF) != 0)
                    a &= np.int32(0x807F) if code_a > 0 else np.int32(0x8000)
                    b &= np.int32(0x807F) if code_b > 0 else np.int32(0x8000)
                    both = np.uint32(a | (b << np.int32(16)))
                    if turned:
                        swapped = (both & np.uint32(0x00FF00FF)) << np.uint32(8)
                        both = places[i] | swapped | ((both >> np.uint32(8)) & np.uint32(0x00FF00FF))
                    places[i] = both
                    codes = np.uint32(code_a | (code_b << np.int32(16)))
                    exponents[i] |= codes << np.uint32(4 * pair)
            at += ROWS * WORDS
        lost[r] = missing


@njit(**COMPILED)
def list_lost(source: Any, scales: Any, first: Any, lost: Any, rows: Any, columns: Any, values: Any) -> None:
    """Where the numbers are that rows can't keep, of which there are so many as `lost` says, and what they are."""
    at = 0
    for r in range(source.shape[0]):
        if lost[r]:
            low = np.int32(np.float32(scales[first + r]).view(np.int32) >> np.int32(23)) - np.int32(127 - UP)
            for i in range(source.shape[1]):
                bits = np.int32(source[r, i])
                if ((bits >> np.int32(7)) & np.int32(255)) <= low and bits & np.int32(0x7FFF):
                    rows[at], columns[at] = first + r, i
                    values[at] = np.uint32(np.uint32(bits) << np.uint32(16)).view(np.float32)
                    at += 1


class Keeper:
    """Puts the rows of one matrix into their words, in any order, and knows which numbers were lost by that."""

    def __init__(self, rows: int) -> None:
        self._rows = rows
        self._found: list[tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float32]]] = []

    def put(
        self, source: NDArray[np.uint16], first: int, words: NDArray[np.uint32], scales: NDArray[np.float32]
    ) -> None:
        """Some rows of bfloat16, of which the first is row `first` there."""
        width = len(words) // len(scales) * BLOCK // WORDS
        counts = np.zeros(len(source), np.int32)
        keep_rows(source, np.zeros(width, np.uint16), first, words, scales, counts)
        total = int(counts.sum())
        if total:
            found = np.zeros(total, np.int32), np.zeros(total, np.int32), np.zeros(total, np.float32)
            list_lost(source, scales, first, counts, *found)
            self._found.append(found)

    def lost(self) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float32]]:
        """How many numbers were lost before each row and in all (O + 1,), their columns, and they, row by row."""
        none = np.zeros(0, np.int32), np.zeros(0, np.int32), np.zeros(0, np.float32)
        rows, columns, values = (np.concatenate(parts) for parts in zip(none, *self._found, strict=True))
        order = np.argsort(rows, kind="stable")
        begins = np.zeros(self._rows + 1, np.int32)
        np.cumsum(np.bincount(rows, minlength=self._rows), out=begins[1:])
        return begins, columns[order], values[order]


# ---------------------------------------------------------------- making whole


@intrinsic(prefer_literal=True)
def pairs(_: Any, parts: Any, exponents: Any, which: Any) -> Any:
    """32 numbers as bfloat16, two in a word: the first or second of those in `parts`, of the four in `exponents`."""
    shift = 4 * which.literal_value - 7

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        part, exponent = (builder.bitcast(one, SHORTS) for one in arguments[:2])
        if which.literal_value % 2:
            part = call(builder, "llvm.fshl.v32i16", SHORTS, [part, part, same(8)])
        exponent = builder.lshr(exponent, same(shift)) if shift > 0 else builder.shl(exponent, same(-shift))
        both = builder.or_(builder.and_(part, same(0x807F)), builder.and_(exponent, same(0x0780)))
        return builder.bitcast(both, INTS)

    def same(number: int) -> Any:
        return ir.Constant(SHORTS, [number] * 2 * LANES)

    return ints(ints, ints, which), generate


@intrinsic
def lower(_: Any, pair: Any) -> Any:
    """The first 16 of 32 numbers, as floats."""
    return floats(ints), lambda context, builder, signature, arguments: builder.bitcast(
        builder.shl(arguments[0], ir.Constant(INTS, [16] * LANES)), FLOATS
    )


@intrinsic
def upper(_: Any, pair: Any) -> Any:
    """The other 16."""
    return floats(ints), lambda context, builder, signature, arguments: builder.bitcast(
        builder.and_(arguments[0], ir.Constant(INTS, [0xFFFF0000] * LANES)), FLOATS
    )


@njit(**COMPILED)
def _put_pair(out: Any, at: Any, pair: Any, scale: Any) -> None:
    lift, scale = spread(LIFT), spread(scale)  # one after the other: together they may be too large
    put(out, at, times(times(lower(pair), lift), scale))
    put(out, at + LANES, times(times(upper(pair), lift), scale))


@njit(**COMPILED)
def put_row(words: Any, at: Any, width: Any, scale: Any, out: Any, to: Any) -> None:
    """A row that begins at words[at], but for those that are lost, as floats or bfloat16."""
    for k in range(to, to + width, BLOCK):
        for line in range(0, WORDS, LANES):
            fetch(words, at + line + EARLY)
        one, other, exponents = load_words(words, at), load_words(words, at + LANES), load_words(words, at + 2 * LANES)
        _put_pair(out, k, pairs(one, exponents, 0), scale)
        _put_pair(out, k + 32, pairs(one, exponents, 1), scale)
        _put_pair(out, k + 64, pairs(other, exponents, 2), scale)
        _put_pair(out, k + 96, pairs(other, exponents, 3), scale)
        at += ROWS * WORDS


# ---------------------------------------------------------------- products


@njit(**COMPILED)
def _put_scaled(out: Any, at: Any, sums: Any, scales: Any, row: Any, begun: Any) -> None:
    """Four rows' sums, scaled, of one part of a vector: the first one, or added to what others `begun`."""
    four, scale = totals(sums[0], sums[1], sums[2], sums[3]), load_four(scales, row)
    put_four(out, at, multiply_add(four, scale, load_four(out, at)) if begun else times(four, scale))


@njit(**COMPILED)
def _ask(words: Any, at: Any, wanted: Any) -> None:
    """Ask for a quarter of what four rows have behind these 128 numbers, where it is `wanted`."""
    if wanted:
        for line in range(0, 3 * LANES, LANES):
            fetch_early(words, at + line + EARLY)
            fetch(words, at + line + NEAR)


@njit(**COMPILED)
def _add_pairs(x: Any, i: Any, a: Any, b: Any, c: Any, d: Any, sums: Any) -> Any:
    """32 numbers of a vector times those of four rows, added to its four sums."""
    sums = add_four(times(load(x, i), spread(LIFT)), lower(a), lower(b), lower(c), lower(d), sums)
    return add_four(times(load(x, i + LANES), spread(LIFT)), upper(a), upper(b), upper(c), upper(d), sums)


@njit(**COMPILED)
def _one_vector(x: Any, i: Any, words: Any, at: Any, width: Any, asks: Any) -> Any:
    """Its four sums with the four rows that begin at words[at]. It may ask for what comes next."""
    sums = nothing()
    for k in range(i, i + width, BLOCK):
        b, c, d = at + WORDS, at + 2 * WORDS, at + 3 * WORDS
        ea, eb = load_words(words, at + 2 * LANES), load_words(words, b + 2 * LANES)
        ec, ed = load_words(words, c + 2 * LANES), load_words(words, d + 2 * LANES)
        pa, pb, pc, pd = load_words(words, at), load_words(words, b), load_words(words, c), load_words(words, d)
        _ask(words, at, asks)
        sums = _add_pairs(x, k, pairs(pa, ea, 0), pairs(pb, eb, 0), pairs(pc, ec, 0), pairs(pd, ed, 0), sums)
        _ask(words, b, asks)
        sums = _add_pairs(x, k + 32, pairs(pa, ea, 1), pairs(pb, eb, 1), pairs(pc, ec, 1), pairs(pd, ed, 1), sums)
        pa, pb = load_words(words, at + LANES), load_words(words, b + LANES)
        pc, pd = load_words(words, c + LANES), load_words(words, d + LANES)
        _ask(words, c, asks)
        sums = _add_pairs(x, k + 64, pairs(pa, ea, 2), pairs(pb, eb, 2), pairs(pc, ec, 2), pairs(pd, ed, 2), sums)
        _ask(words, d, asks)
        sums = _add_pairs(x, k + 96, pairs(pa, ea, 3), pairs(pb, eb, 3), pairs(pc, ec, 3), pairs(pd, ed, 3), sums)
        at += ROWS * WORDS
    return sums


@njit(**COMPILED)
def _ask_for_next(words: Any, at: Any, k: Any) -> None:
    """Of the four rows that begin at words[at], what 16 numbers of each take."""
    begin = at + k // BLOCK * ROWS * WORDS + k % BLOCK // LANES * WORDS // 2
    fetch_early(words, begin)
    fetch_early(words, begin + LANES)


@njit(**COMPILED)
def _some_vectors(
    out: Any, o: Any, o_step: Any, x: Any, i: Any, i_step: Any, n: Any, whole: Any, w: Any, width: Any, words: Any,
    following: Any, scales: Any, row: Any, begun: Any,
) -> None:  # fmt: skip
    """n vectors times four rows that are whole, from whole[w] on. What comes next begins at words[following]."""
    b, c, d = w + width, w + 2 * width, w + 3 * width
    v = 0
    while v + 4 <= n:
        x0, x1, x2, x3 = i + v * i_step, i + (v + 1) * i_step, i + (v + 2) * i_step, i + (v + 3) * i_step
        s0, s1, s2, s3 = nothing(), nothing(), nothing(), nothing()
        for k in range(0, width, LANES):
            if v == 0:
                _ask_for_next(words, following, k)
            wa, wb, wc, wd = load(whole, w + k), load(whole, b + k), load(whole, c + k), load(whole, d + k)
            s0 = add_four(load(x, x0 + k), wa, wb, wc, wd, s0)
            s1 = add_four(load(x, x1 + k), wa, wb, wc, wd, s1)
            s2 = add_four(load(x, x2 + k), wa, wb, wc, wd, s2)
            s3 = add_four(load(x, x3 + k), wa, wb, wc, wd, s3)
        _put_scaled(out, o + v * o_step, s0, scales, row, begun)
        _put_scaled(out, o + (v + 1) * o_step, s1, scales, row, begun)
        _put_scaled(out, o + (v + 2) * o_step, s2, scales, row, begun)
        _put_scaled(out, o + (v + 3) * o_step, s3, scales, row, begun)
        v += 4
    while v < n:
        x0, s0 = i + v * i_step, nothing()
        for k in range(0, width, LANES):
            if v == 0:
                _ask_for_next(words, following, k)
            wa, wb, wc, wd = load(whole, w + k), load(whole, b + k), load(whole, c + k), load(whole, d + k)
            s0 = add_four(load(x, x0 + k), wa, wb, wc, wd, s0)
        _put_scaled(out, o + v * o_step, s0, scales, row, begun)
        v += 1


@njit(**COMPILED)
def _add_lost(
    out: Any, o: Any, o_step: Any, x: Any, i: Any, i_step: Any, n: Any, matrix: Any, first_row: Any, row: Any
) -> None:
    """To the sums of four rows what their lost numbers make."""
    begins, columns, values = matrix[3:]
    for r in range(row, row + ROWS):
        for at in range(begins[first_row + r], begins[first_row + r + 1]):
            for v in range(n):
                out[o + v * o_step + r] += values[at] * x[i + v * i_step + columns[at]]


@njit(**COMPILED)
def twelve_rows(
    out: Any, o: Any, o_step: Any, x: Any, i: Any, i_step: Any, n: Any, matrix: Any, first_row: Any, start: Any,
    end: Any, room: Any, room_at: Any,
) -> None:  # fmt: skip
    """As `float_rows`, for a matrix in twelve bits that begins at row `first_row` of `matrix`.

    For more than two vectors four rows at a time become whole in `room`, PART numbers of each.
    """
    words, scales, width, begins = matrix[:4]
    for row in range(start, end, ROWS):
        first, at = first_row + row, (first_row + row) * (width // BLOCK * WORDS)
        for k in range(0, width, PART):
            part = min(PART, width - k)
            following = at + ROWS * (part // BLOCK * WORDS)
            if n > FEW:
                for r in range(ROWS):
                    put_row(words, at + r * WORDS, part, ONE, room, room_at + r * part)
                _some_vectors(
                    out, o + row, o_step, x, i + k, i_step, n, room, room_at, part, words, following, scales, first,
                    k > 0,
                )  # fmt: skip
            else:
                for v in range(n):
                    sums = _one_vector(x, i + v * i_step + k, words, at, part, v == 0)
                    _put_scaled(out, o + v * o_step + row, sums, scales, first, k > 0)
            at = following
        if begins[first + ROWS] > begins[first]:
            _add_lost(out, o, o_step, x, i, i_step, n, matrix, first_row, row)
