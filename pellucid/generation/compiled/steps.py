"""The small steps of a pass, compiled: what part a thread has, norms, bends, softmax, and what bytes need.

Loops run over slices, from 0: of an index that might be negative Numba counts from the end, and such loops stay one
number at a time, ten times as slow (docs/performance.md).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, types
from numba.extending import overload

from pellucid.compiled.team import meet, share
from pellucid.compiled.vectors import COMPILED, fetch
from pellucid.generation.compiled.nibbles import SIDE
from pellucid.generation.compiled.products import INT8_OFFSET, span_of, to_bytes
from pellucid.generation.compiled.twelves import place_of_row, put_row

LOOSE = {**COMPILED, "fastmath": {"reassoc", "contract", "nsz"}}  # sums in vectors, in an order of their own

MANY = 64  # vectors for each thread, from which on it reads all of the matrix
MOST_AHEAD = 64  # places of the next text that are asked for ahead: the nearest cache keeps no more

# ---------------------------------------------------------------- threads


@njit(**COMPILED)
def padded(rows: Any) -> Any:
    """How many rows a matrix of so many has here."""
    return (rows + SIDE - 1) // SIDE * SIDE


@njit(**COMPILED)
def part(n: Any, rows: Any, thread: Any, threads: Any) -> Any:
    """A thread's part of a product of n vectors: its first vector and how many, its first row and where rows end.

    Few vectors wait for the matrix, of which each thread reads some rows, in sixteens. Of many each thread takes some:
    then what it makes is what it goes on with, and stays in its core's cache.
    """
    if n >= MANY * threads:
        first, last = share(n, thread, threads)
        return first, last - first, 0, padded(rows)
    begin, end = share(padded(rows) // SIDE, thread, threads)
    return 0, n, begin * SIDE, end * SIDE


@njit(**COMPILED)
def ask_for(array: Any, start: Any, count: Any) -> None:
    """So many numbers, which are read soon."""
    for line in range(0, count, 64 // array.itemsize):
        fetch(array, start + line)


@njit(**COMPILED)
def first_seen(place: Any, sizes: Any) -> Any:
    """The first place that a token looks at: its own and those before it, as many as the window has."""
    return max(0, place + 1 - sizes.window) if sizes.window else 0


# ---------------------------------------------------------------- small steps


@njit(**LOOSE)
def exp(x: Any) -> Any:
    """e to the x in float32, to the last bit or two, without a call, so that loops over it become vectors (Cephes)."""
    f = np.float32
    x = min(max(x, f(-87)), f(88))
    n = np.floor(x * f(1.44269504088896341) + f(0.5))
    r = x - n * f(0.693359375) + n * f(2.12194440e-4)
    y = f(1.9875691500e-4)
    y = y * r + f(1.3981999507e-3)
    y = y * r + f(8.3334519073e-3)
    y = y * r + f(4.1665795894e-2)
    y = y * r + f(1.6666665459e-1)
    y = y * r + f(5.0000001201e-1)
    power = np.int32((np.int32(n) + np.int32(127)) << np.int32(23)).view(np.float32)
    return (y * r * r + r + f(1)) * power


@njit(**LOOSE)
def copy(x: Any, at: Any, out: Any, to: Any, width: Any) -> None:
    """So many numbers. A slice that is assigned to another one would first be copied elsewhere: they might overlap."""
    source, target = x[at : at + width], out[to : to + width]
    for i in range(width):
        target[i] = source[i]


@njit(**LOOSE)
def norm(x: Any, at: Any, weight: Any, bias: Any, out: Any, to: Any, eps: Any, centred: Any) -> None:
    """LayerNorm, or RMSNorm, of as many numbers as `weight` has."""
    width = weight.shape[0]
    row, normed = x[at : at + width], out[to : to + width]
    mean, square = np.float32(0), np.float32(0)
    if centred:
        for i in range(width):
            mean += row[i]
        mean /= np.float32(width)
    for i in range(width):
        square += (row[i] - mean) * (row[i] - mean)
    scale = np.float32(1) / np.sqrt(square / np.float32(width) + np.float32(eps))
    for i in range(width):
        normed[i] = (row[i] - mean) * scale * weight[i] + bias[i]


@njit(**LOOSE)
def gelu(x: Any, start: Any, end: Any) -> None:
    """GELU of x[start:end], as GPT-2 has it, with tanh. Paper: Hendrycks & Gimpel 2016."""
    part = x[start:end]
    for i in range(part.shape[0]):
        a = part[i]
        inner = np.float32(0.7978845608028654) * (a + np.float32(0.044715) * a * a * a)
        part[i] = a - a / (exp(inner + inner) + np.float32(1))  # a × (1 + tanh(inner)) / 2


@njit(**LOOSE)
def gate(x: Any, gate: Any, start: Any, end: Any) -> None:
    """x[start:end] times SiLU of the gate: SwiGLU. Paper: Shazeer 2020."""
    part, opening = x[start:end], gate[start:end]
    for i in range(part.shape[0]):
        part[i] *= opening[i] / (np.float32(1) + exp(-opening[i]))


@njit(**COMPILED)
def in_order(bits: Any) -> Any:
    """The bits of a float as a whole number that is larger where the float is; and those of such a number, back."""
    return np.int32(bits ^ ((bits >> np.int32(31)) & np.int32(0x7FFFFFFF)))


@njit(**COMPILED)
def largest(x: Any) -> Any:
    """The largest of some floats, found among whole numbers: of floats LLVM compares one at a time."""
    most = np.int32(-0x80000000)
    for i in range(x.shape[0]):
        most = max(most, in_order(np.float32(x[i]).view(np.int32)))
    return np.int32(in_order(most)).view(np.float32)


@njit(**LOOSE)
def softmax(scores: Any, begin: Any, end: Any, low: Any, high: Any) -> None:
    """Of scores[begin:end]; the rest of scores[low:high] becomes 0."""
    part = scores[begin:end]
    most, total = largest(part), np.float32(0)
    for s in range(part.shape[0]):
        weight = exp(part[s] - most)
        part[s] = weight
        total += weight
    part *= np.float32(1) / total
    scores[low:begin] = 0
    scores[end:high] = 0


def keep(target: Any, at: Any, value: Any) -> None:
    """target[at] = value, rounded to bfloat16 where the target is of uint16."""
    raise NotImplementedError("compiled only")


@overload(keep, strict=False)
def _keep(target: Any, at: Any, value: Any) -> Any:
    def as_it_is(target, at, value):  # type: ignore[no-untyped-def]
        target[at] = value

    def rounded(target, at, value):  # type: ignore[no-untyped-def]
        bits = np.float32(value).view(np.uint32)
        target[at] = np.uint16((bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16))

    return as_it_is if target.dtype == types.float32 else rounded


def take(x: Any, at: Any, width: Any, matrix: Any, taken: Any, row: Any) -> None:
    """A vector as bytes, as row `row` of `taken`, where `matrix` is of bytes."""
    raise NotImplementedError("compiled only")


@overload(take, strict=False)
def _take(x: Any, at: Any, width: Any, matrix: Any, taken: Any, row: Any) -> Any:
    def bytewise(x, at, width, matrix, taken, row):  # type: ignore[no-untyped-def]
        span = span_of(matrix)
        to_bytes(x, at, width // span, span, *taken[:3], row * (width // span))

    def nothing(x, at, width, matrix, taken, row):  # type: ignore[no-untyped-def]
        pass

    return bytewise if matrix[0].dtype == types.uint8 else nothing


def look_up(matrix: Any, row: Any, out: Any, at: Any, width: Any) -> None:
    """One row of a matrix as floats: a token's vector. In twelve bits with its padding, and as bfloat16 if `out` is."""
    raise NotImplementedError("compiled only")


@overload(look_up, strict=False)
def _look_up(matrix: Any, row: Any, out: Any, at: Any, width: Any) -> Any:
    def floats(matrix, row, out, at, width):  # type: ignore[no-untyped-def]
        copy(matrix[0], row * matrix[2], out, at, width)

    def halves(matrix, row, out, at, width):  # type: ignore[no-untyped-def]
        kept, vector = matrix[0][row * matrix[2] : row * matrix[2] + width], out[at : at + width]
        for i in range(width):
            vector[i] = np.uint32(np.uint32(kept[i]) << np.uint32(16)).view(np.float32)

    def bytewise(matrix, row, out, at, width):  # type: ignore[no-untyped-def]
        kept, vector = matrix[0][row * matrix[2] : row * matrix[2] + width], out[at : at + width]
        for i in range(width):
            vector[i] = (np.float32(kept[i]) - np.float32(INT8_OFFSET)) * matrix[1][row]

    def twelves(matrix, row, out, at, width):  # type: ignore[no-untyped-def]
        words, scales, pitch, begins, columns, values = matrix
        put_row(words, place_of_row(row, pitch), pitch, scales[row], out, at)
        for i in range(begins[row], begins[row + 1]):
            keep(out, at + columns[i], values[i])

    kinds = {types.float32: floats, types.uint16: halves, types.uint32: twelves, types.uint8: bytewise}
    return kinds[matrix[0].dtype]


@njit(**LOOSE)
def add_to(x: Any, x_step: Any, more: Any, step: Any, bias: Any, first: Any, n: Any, start: Any, end: Any) -> None:
    """Columns `start` to `end` of n rows, from `first` on: x += more + bias."""
    offset = bias[start:end]
    for row in range(first, first + n):
        to, found = x[row * x_step + start :], more[row * step + start :]
        for i in range(offset.shape[0]):
            to[i] += found[i] + offset[i]


@njit(**LOOSE)
def add_bias(x: Any, step: Any, bias: Any, first: Any, n: Any, start: Any, end: Any) -> None:
    """Columns `start` to `end` of n rows, from `first` on: x += bias."""
    offset = bias[start:end]
    for row in range(first, first + n):
        to = x[row * step + start :]
        for i in range(offset.shape[0]):
            to[i] += offset[i]


def take_all(x: Any, n: Any, width: Any, matrix: Any, taken: Any, arrived: Any, thread: Any, threads: Any) -> None:
    """n vectors as bytes, shared among the threads by spans, where the matrix is of bytes."""
    raise NotImplementedError("compiled only")


@overload(take_all, strict=False)
def _take_them_all(x: Any, n: Any, width: Any, matrix: Any, taken: Any, arrived: Any, thread: Any, threads: Any) -> Any:
    def bytewise(x, n, width, matrix, taken, arrived, thread, threads):  # type: ignore[no-untyped-def]
        span = span_of(matrix)
        start, end = share(n * (width // span), thread, threads)
        to_bytes(x, start * span, end - start, span, *taken[:3], start)
        meet(arrived, threads)

    def nothing(x, n, width, matrix, taken, arrived, thread, threads):  # type: ignore[no-untyped-def]
        pass

    return bytewise if matrix[0].dtype == types.uint8 else nothing


@njit(**LOOSE)
def turn(x: Any, at: Any, cosines: Any, sines: Any) -> None:
    """Rotate a head's numbers, the first half with the second, by its place's angles (RoPE, as Llama has it)."""
    half = cosines.shape[0]
    ones, others = x[at : at + half], x[at + half : at + 2 * half]
    for i in range(half):
        one, other = ones[i], others[i]
        ones[i] = one * cosines[i] - other * sines[i]
        others[i] = other * cosines[i] + one * sines[i]
