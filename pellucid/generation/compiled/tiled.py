"""One head's attention by AMX's tiles, where keys and values are kept in bfloat16: what `attend_by_rows` does, faster.

A tile is 16 lines of 64 bytes: 16 keys as they lie in the cache, 32 numbers of each, meet 16 queries side by side.
Queries and weights, which are float32, go as two numbers of bfloat16 each, so that 16 of their 24 bits count. Each sum
is made by itself, in the order of the places: a token has the same bits whatever stands beside it. To arrange all that
is worth it for many tokens alone, so these have other bits than one by one.
Page: Intel's guide for tdpbf16ps.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, types
from numba.extending import intrinsic

from pellucid.compiled.vectors import COMPILED, place_of
from pellucid.generation.compiled.eights import EIGHT_FLOATS, columns_of_four
from pellucid.generation.compiled.sixteens import put_side_by_side
from pellucid.generation.compiled.steps import copy, first_seen, softmax
from pellucid.generation.compiled.tiles import add_products, begin_tiles, clear_tile, end_tiles, load_tile, put_tile

# N tokens, H heads of queries, G of keys and values, K width of a head, S places in the cache

SIDE, DEEP = 16, 32  # lines of a tile, and numbers of bfloat16 in each
AT_ONCE = 16  # tokens of one text


@njit(**COMPILED)
def in_two_halves(numbers: Any, at: Any, count: Any, out: Any, high: Any, low: Any) -> None:
    """Floats as the sum of two numbers of bfloat16: the nearest one, and what it leaves."""
    f, u, h = np.float32, np.uint32, np.uint16
    source, coarse, fine = numbers[at : at + count], out[high : high + count], out[low : low + count]
    for i in range(count):
        bits = f(source[i]).view(u)
        kept = u((bits + u(0x7FFF) + ((bits >> u(16)) & u(1))) & u(0xFFFF0000))
        left = f(source[i] - kept.view(f)).view(u)
        coarse[i] = h(kept >> u(16))
        fine[i] = h((left + u(0x7FFF) + ((left >> u(16)) & u(1))) >> u(16))


@njit(**COMPILED)
def pair_values(values: Any, first: Any, begin: Any, end: Any, width: Any, out: Any, to: Any) -> None:
    """Values of the places from `begin`, which is a multiple of 32, up to `end`, as tiles take them.

    (places / 32, width / 16, 16, 16): in each lane the numbers of two places. Of those from `end` on, 0.
    """
    i = np.int32
    for place in range(begin, end, 2):
        target = to + place // DEEP * DEEP * width // 2 + place % DEEP // 2 * SIDE
        ones, others = values[first + place * width :], values[first + (place + 1) * width :]
        mask = i(-1) if place + 1 < end else i(0)  # what stands behind may be anything
        for k in range(0, width, SIDE):
            lanes = out[target + k * SIDE : target + (k + 1) * SIDE]
            one, other = ones[k:], others[k:]
            for lane in range(SIDE):
                lanes[lane] = i(one[lane]) | ((i(other[lane]) << i(16)) & mask)
    for place in range((end + 1) // 2 * 2, (end + DEEP - 1) // DEEP * DEEP, 2):
        target = to + place // DEEP * DEEP * width // 2 + place % DEEP // 2 * SIDE
        for k in range(0, width, SIDE):
            out[target + k * SIDE : target + k * SIDE + SIDE] = 0


@njit(**COMPILED)
def sixteen_queries(
    queries: Any, at: Any, step: Any, most: Any, width: Any, halves: Any, h: Any, out: Any, to: Any
) -> None:
    """Queries from queries[at] on, `step` apart, as tiles take them: (2, width / 2, 16), two numbers in each lane.

    Those behind the one numbered `most` are the same as it. `halves` is used meanwhile, from `h` on.
    """
    for t in range(most + 1):
        in_two_halves(queries, at + t * step, width, halves, h + t * width, h + (SIDE + t) * width)
    for half in range(2):
        for t in range(0, SIDE, 4):
            a = h + half * SIDE * width
            b, c, d = a + min(t + 1, most) * width, a + min(t + 2, most) * width, a + min(t + 3, most) * width
            a += min(t, most) * width
            for k in range(0, width, 16):
                put_side_by_side(
                    out, to + half * SIDE * width // 2 + k // 2 * SIDE + t, halves, a + k, b + k, c + k, d + k
                )


@intrinsic
def put_turned(_: Any, out: Any, to: Any, step: Any, most: Any, lines: Any, at: Any) -> Any:
    """Four lines of eight numbers, 16 apart, as eight of four, `step` apart; of those behind `most` that one again."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        out, to, step, most, lines, at = arguments
        found = []
        for r in range(4):
            place = place_of(context, builder, signature.args[4], lines, builder.add(at, at.type(SIDE * r)))
            found.append(builder.load(builder.bitcast(place, EIGHT_FLOATS.as_pointer()), align=4))
        targets = []
        for v in range(8):
            last = builder.icmp_signed("<", most, most.type(v))
            target = builder.add(to, builder.mul(step, builder.select(last, most, most.type(v))))
            targets.append(place_of(context, builder, signature.args[0], out, target))
        columns_of_four(builder, found, targets)
        return context.get_dummy_value()

    whole = types.intp
    return types.void(out, whole, whole, whole, lines, whole), generate


@njit(**COMPILED)
def scores_of_keys(
    keys: Any, first: Any, begin: Any, end: Any, width: Any, queries: Any, at: Any, most: Any, lines: Any, line: Any,
    out: Any, to: Any, pitch: Any,
) -> None:  # fmt: skip
    """Keys of the places `begin` to `end`, multiples of 32, times what `sixteen_queries` made of queries.

    Those of token t go to out[to + t × pitch + place]. `lines` is used meanwhile, from `line` on.
    """
    low = at + SIDE * width // 2
    for place in range(begin, end, 2 * SIDE):
        clear_tile(0)
        clear_tile(1)
        for k in range(0, width, DEEP):
            load_tile(2, keys, first + place * width + k, width)
            load_tile(3, keys, first + (place + SIDE) * width + k, width)
            load_tile(4, queries, at + k // 2 * SIDE, SIDE)
            load_tile(5, queries, low + k // 2 * SIDE, SIDE)
            add_products(0, 2, 4)
            add_products(1, 3, 4)
            add_products(0, 2, 5)
            add_products(1, 3, 5)
        put_tile(0, lines, line, SIDE)
        put_tile(1, lines, line + SIDE * SIDE, SIDE)
        for t in range(0, most + 1, 8):
            for s in range(0, 2 * SIDE, 4):
                put_turned(out, to + t * pitch + place + s, pitch, min(most - t, 7), lines, line + s * SIDE + t)


@njit(**COMPILED)
def mix_values(
    weights: Any, high: Any, low: Any, pitch: Any, begin: Any, end: Any, values: Any, at: Any, width: Any, out: Any,
    to: Any,
) -> None:  # fmt: skip
    """16 weighted sums, `width` numbers each, of what `pair_values` made of the places `begin` to `end`."""
    for k in range(0, width, 2 * SIDE):
        clear_tile(0)
        clear_tile(1)
        for place in range(begin, end, DEEP):
            load_tile(2, weights, high + place, pitch)
            load_tile(3, weights, low + place, pitch)
            found = at + place * width // 2 + k * SIDE
            load_tile(4, values, found, SIDE)
            load_tile(5, values, found + SIDE * SIDE, SIDE)
            add_products(0, 2, 4)
            add_products(1, 2, 5)
            add_products(0, 3, 4)
            add_products(1, 3, 5)
        put_tile(0, out, to + k, width)
        put_tile(1, out, to + k + SIDE, width)


@njit(**COMPILED)
def tiles_wanted(length: Any, width: Any) -> Any:
    """How many numbers of `halves`, and of `paired`, a thread takes, for S places and heads of K numbers."""
    return 2 * SIDE * (max(length, width) + DEEP), (SIDE + length // 2) * width


@njit(**COMPILED)
def end_of_text(slots: Any, row: Any, end: Any) -> Any:
    """The first row behind `row` that belongs to another text, or `end`."""
    stop = row + 1
    while stop < end and slots[stop] == slots[row]:
        stop += 1
    return stop


@njit(**COMPILED)
def attend_by_tiles(
    head: Any, layer: Any, begin: Any, end: Any, slots: Any, places: Any, sizes: Any, cache: Any, room: Any, step: Any,
    thread: Any,
) -> None:  # fmt: skip
    """One head's context vectors of the tokens `begin` to `end`, for up to 16 of the same text at a time."""
    _, texts, groups, length, padded = cache.keys.shape
    keys, values, group = cache.keys.reshape(-1), cache.values.reshape(-1), head // (sizes.heads // sizes.kv_heads)
    scores, mixed, pitch = thread * AT_ONCE * length, thread * AT_ONCE * padded, length + DEEP
    a, b = tiles_wanted(length, padded)
    high, queries = thread * a, thread * b
    low, paired = high + SIDE * pitch, queries + SIDE * padded
    row, stop = begin, begin
    begin_tiles()
    while row < end:
        first = ((layer * texts + slots[row]) * groups + group) * length * padded
        start = first_seen(places[row], sizes) // DEEP * DEEP
        if row == stop:
            stop = end_of_text(slots, row, end)
            pair_values(values, first, start, places[stop - 1] + 1, padded, room.paired, paired)
        together = min(AT_ONCE, stop - row)
        last = (places[row + together - 1] + DEEP) // DEEP * DEEP
        sixteen_queries(
            room.queries, (row * sizes.heads + head) * padded, sizes.heads * padded, together - 1, padded, room.halves,
            high, room.paired, queries,
        )  # fmt: skip
        scores_of_keys(
            keys, first, start, last, padded, room.paired, queries, together - 1, room.mixed, mixed, room.scores,
            scores, length,
        )  # fmt: skip
        for t in range(together):
            place, at, to = places[row + t], scores + t * length, t * pitch + start
            softmax(room.scores, at + first_seen(place, sizes), at + place + 1, at + start, at + last)
            in_two_halves(room.scores, at + start, last - start, room.halves, high + to, low + to)
        mix_values(room.halves, high, low, pitch, start, last, room.paired, paired, padded, room.mixed, mixed)
        for t in range(together):
            to = (row + t) * step + head * sizes.d_head
            copy(room.mixed, mixed + t * padded, room.context, to, sizes.d_head)
        row += together
    end_tiles()
