"""One head's attention, compiled: keys and values go into the cache, queries look at them.

A text's places lie one behind the other, each with K numbers. So a key meets a query as a row of a matrix meets a
vector, what a token leaves is written in one piece, and values are added up place by place.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, types
from numba.extending import overload

from pellucid.compiled.vectors import COMPILED, LANES, WITHIN, load, multiply_add, put, spread, zeros
from pellucid.generation.compiled.floats import ROWS, float_rows
from pellucid.generation.compiled.steps import MOST_AHEAD, ask_for, copy, first_seen, keep, norm, padded, softmax, turn
from pellucid.generation.compiled.tiled import AT_ONCE, attend_by_tiles
from pellucid.generation.compiled.tiles import TILES_FIT

# N tokens, H heads of queries, G of keys and values, K width of a head, S places in the cache

PLACES = 32  # places that are looked at together: S, and K in the cache, are padded to multiples


@njit(**WITHIN)
def file_head(j: Any, layer: Any, slots: Any, places: Any, sizes: Any, vectors: Any, cache: Any, room: Any) -> None:
    """Head j of queries, keys and values side by side: normed and rotated, then to the queries or into the cache."""
    width, wide = sizes.d_head, cache.keys.shape[4]
    pitch = padded((sizes.heads + 2 * sizes.kv_heads) * width)
    scale = np.float32(1 / np.sqrt(width))
    key, value = j - sizes.heads, j - sizes.heads - sizes.kv_heads
    for row in range(slots.shape[0]):
        at, slot, place = row * pitch + j * width, slots[row], places[row]
        head = room.heads[at : at + width]
        if value < 0:
            if sizes.headed:
                weight = vectors.query_norms[layer] if key < 0 else vectors.key_norms[layer]
                norm(room.heads, at, weight, vectors.nothing, room.heads, at, sizes.eps, not sizes.gated)
            if sizes.turned:
                turn(room.heads, at, cache.cosines[place], cache.sines[place])
        if key < 0:
            query = room.queries[(row * sizes.heads + j) * wide :]
            for i in range(width):
                query[i] = head[i] * scale
        elif value < 0:
            target = cache.keys[layer, slot, key, place]
            for i in range(width):
                keep(target, i, head[i])
        else:
            target = cache.values[layer, slot, value, place]
            for i in range(width):
                keep(target, i, head[i])


@njit(**COMPILED)
def are_of_one_text(slots: Any, row: Any) -> Any:
    """Whether four rows are."""
    slot = slots[row]
    return slots[row + 1] == slot and slots[row + 2] == slot and slots[row + 3] == slot


@njit(**COMPILED)
def mix(
    out: Any, o: Any, weights: Any, at: Any, step: Any, n: Any, values: Any, i: Any, width: Any, places: Any
) -> None:  # fmt: skip
    """Weighted sums of so many places' values, from values[i] on, for one token or for four.

    Those of token t begin at weights[at + t × step] and go to out[o + t × width]. Added up in the order of the places
    by both ways, so that they give the same bits.
    """
    if n == 4:
        for k in range(0, width, LANES):
            a, b, c, d = zeros(), zeros(), zeros(), zeros()
            for s in range(places):
                value, w = load(values, i + s * width + k), at + s
                a = multiply_add(spread(weights[w]), value, a)
                b = multiply_add(spread(weights[w + step]), value, b)
                c = multiply_add(spread(weights[w + 2 * step]), value, c)
                d = multiply_add(spread(weights[w + 3 * step]), value, d)
            put(out, o + k, a)
            put(out, o + width + k, b)
            put(out, o + 2 * width + k, c)
            put(out, o + 3 * width + k, d)
        return
    for k in range(0, width, 2 * LANES):
        a, b = zeros(), zeros()
        for s in range(places):
            weight, value = spread(weights[at + s]), i + s * width + k
            a = multiply_add(weight, load(values, value), a)
            b = multiply_add(weight, load(values, value + LANES), b)
        put(out, o + k, a)
        put(out, o + k + LANES, b)


@njit(**COMPILED)
def attend_by_rows(
    head: Any, layer: Any, begin: Any, end: Any, slots: Any, places: Any, sizes: Any, cache: Any, room: Any, step: Any,
    thread: Any,
) -> None:  # fmt: skip
    """One head's context vectors of the tokens `begin` to `end`, for up to four of the same text at a time.

    What the next text left is asked for meanwhile: it lies elsewhere, and the processor does not guess where.
    """
    _, texts, groups, length, wide = cache.keys.shape
    keys, values, group = cache.keys.reshape(-1), cache.values.reshape(-1), head // (sizes.heads // sizes.kv_heads)
    scores, mixed, size = thread * AT_ONCE * length, thread * AT_ONCE * wide, length * wide
    row = begin
    while row < end:
        first = ((layer * texts + slots[row]) * groups + group) * size
        together = 4 if row + 4 <= end and are_of_one_text(slots, row) else 1
        low, high = (
            first_seen(places[row], sizes) // PLACES * PLACES,
            (places[row + together - 1] + ROWS) // ROWS * ROWS,
        )
        if row + together < end and slots[row + together] != slots[row]:
            ahead = ((layer * texts + slots[row + together]) * groups + group) * size + low * wide
            count = min(places[row + together] + 1 - low, MOST_AHEAD) * wide
            ask_for(keys, ahead, count)
            ask_for(values, ahead, count)
        start = (row * sizes.heads + head) * wide
        float_rows(
            room.scores, scores, length, room.queries, start, sizes.heads * wide, together, keys, first, wide,
            wide, low, high,
        )  # fmt: skip
        for t in range(together):
            place, at = places[row + t], scores + t * length
            softmax(room.scores, at + first_seen(place, sizes), at + place + 1, at + low, at + high)
        start, last = first + low * wide, places[row + together - 1] + 1
        mix(room.mixed, mixed, room.scores, scores + low, length, together, values, start, wide, last - low)
        for t in range(together):
            to, found = (row + t) * step + head * sizes.d_head, mixed + t * wide
            copy(room.mixed, found, room.context, to, sizes.d_head)
        row += together


def attend(
    head: Any, layer: Any, slots: Any, places: Any, long: Any, sizes: Any, cache: Any, room: Any, step: Any, thread: Any
) -> None:
    """One head's context vectors of all tokens, each row `step` numbers long; by tiles of those that are `long`."""
    raise NotImplementedError("compiled only")


@overload(attend, strict=False)
def _attend(
    head: Any, layer: Any, slots: Any, places: Any, long: Any, sizes: Any, cache: Any, room: Any, step: Any, thread: Any
) -> Any:
    def by_rows(head, layer, slots, places, long, sizes, cache, room, step, thread):  # type: ignore[no-untyped-def]
        attend_by_rows(head, layer, 0, slots.shape[0], slots, places, sizes, cache, room, step, thread)

    def by_both(head, layer, slots, places, long, sizes, cache, room, step, thread):  # type: ignore[no-untyped-def]
        row = 0
        while row < slots.shape[0]:
            end = row + 1
            while end < slots.shape[0] and long[end] == long[row]:
                end += 1
            if long[row]:
                attend_by_tiles(head, layer, row, end, slots, places, sizes, cache, room, step, thread)
            else:
                attend_by_rows(head, layer, row, end, slots, places, sizes, cache, room, step, thread)
            row = end

    return by_both if TILES_FIT and cache[0].dtype == types.uint16 else by_rows
