"""One pass through the whole model in one compiled function: N tokens of any texts in, logits of the wanted ones out.

The fast twin of `GPT.hidden` and `GPT.logits` (fused attention and all). Every token says which slot its text has in
the cache and at which place it stands there, so a prompt's chunk, one more token of each of many texts, or both
together are the same to it. All threads run the same function, each on its share of rows, heads or outputs, and meet
where one needs what the others made.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pellucid.compiled.team import meet, share
from pellucid.compiled.vectors import COMPILED, WITHIN
from pellucid.generation.compiled.attention import attend, file_head
from pellucid.generation.compiled.products import product
from pellucid.generation.compiled.steps import (
    add_bias,
    add_to,
    copy,
    gate,
    gelu,
    look_up,
    norm,
    padded,
    part,
    take,
    take_all,
)

# N tokens, D width of the model, H heads of queries, G of keys and values, K width of a head, S places in the cache

Floats = NDArray[np.float32]
Matrix = tuple[Any, ...]  # numbers, scales, inputs with their padding; in twelve bits what was lost, too


class Sizes(NamedTuple):
    """Whole numbers and switches of a model."""

    layers: int
    d_model: int
    heads: int
    kv_heads: int
    d_head: int
    d_ff: int
    window: int
    eps: float
    centred: bool  # LayerNorm, not RMSNorm
    gated: bool  # SwiGLU, not GELU
    turned: bool  # rotary positions
    headed: bool  # queries and keys are normed


class Matrices(NamedTuple):
    """The matrices, those of all layers below each other."""

    embedding: Matrix
    attention: Matrix  # queries, keys, values
    output: Matrix
    expand: Matrix  # the gate first, where there is one
    contract: Matrix
    logits: Matrix


class Vectors(NamedTuple):
    """What is added, stretched or turned; always float32. Zeros where a family has none."""

    positions: Floats  # (context or 0, D)
    norms: Floats  # (2 × layers + 1, D)
    norm_biases: Floats
    attention: Floats  # (layers, …)
    output: Floats
    expand: Floats
    contract: Floats
    query_norms: Floats  # (layers, K)
    key_norms: Floats
    nothing: Floats  # (K,) zeros


class Cache(NamedTuple):
    """Keys and values, each (layers, slots, G, S, K)."""

    keys: NDArray[Any]
    values: NDArray[Any]
    cosines: Floats  # (S, K / 2)
    sines: Floats


class Room(NamedTuple):
    """Where a pass keeps what it has so far; all flat."""

    x: Floats
    normed: Floats
    heads: Floats
    queries: Floats
    context: Floats
    wide: Floats
    gate: Floats
    numbers: NDArray[np.int8]
    scales: Floats
    sums: NDArray[np.int32]
    scores: Floats
    mixed: Floats
    halves: NDArray[np.uint16]
    paired: NDArray[np.int32]


# ---------------------------------------------------------------- the pass


@njit(**WITHIN)
def _begin(
    ids: Any, places: Any, sizes: Any, matrices: Any, vectors: Any, room: Any, thread: Any, threads: Any
) -> None:
    width, d = matrices.attention[2], sizes.d_model
    for row in range(*share(ids.shape[0], thread, threads)):
        look_up(matrices.embedding, ids[row], room.x, row * width, d)
        if vectors.positions.shape[0]:
            x, position = room.x[row * width :], vectors.positions[places[row]]
            for i in range(d):
                x[i] += position[i]


@njit(**WITHIN)
def _queries_keys_values(
    layer: Any, slots: Any, places: Any, sizes: Any, matrices: Any, vectors: Any, cache: Any, room: Any, arrived: Any,
    thread: Any, threads: Any,
) -> None:  # fmt: skip
    """Norm, queries, and keys and values into the cache."""
    n, taken, width = slots.shape[0], (room.numbers, room.scales, room.sums, thread), matrices.attention[2]
    heads = (sizes.heads + 2 * sizes.kv_heads) * sizes.d_head
    pitch = padded(heads)
    for row in range(*share(n, thread, threads)):
        weight, bias = vectors.norms[2 * layer], vectors.norm_biases[2 * layer]
        norm(room.x, row * width, weight, bias, room.normed, row * width, sizes.eps, sizes.centred)
        take(room.normed, row * width, width, matrices.attention, taken, row)
    meet(arrived, threads)
    first, count, start, end = part(n, heads, thread, threads)
    product(room.heads, pitch, room.normed, width, taken, first, count, matrices.attention, layer * pitch, start, end)
    add_bias(room.heads, pitch, vectors.attention[layer], first, count, start, end)
    meet(arrived, threads)
    for j in range(*share(sizes.heads + 2 * sizes.kv_heads, thread, threads)):
        file_head(j, layer, slots, places, sizes, vectors, cache, room)
    meet(arrived, threads)


@njit(**WITHIN)
def _keep_only(
    wanted: Any, slots: Any, places: Any, long: Any, sizes: Any, width: Any, padded: Any, room: Any, arrived: Any,
    thread: Any, threads: Any,
) -> None:  # fmt: skip
    """Of vectors, queries, slots and what else a row has, the rows `wanted`, which are in order, move to the front."""
    if thread == 0:
        heads = sizes.heads * padded
        for to in range(wanted.shape[0]):
            row = wanted[to]
            slots[to], places[to], long[to] = slots[row], places[row], long[row]
            copy(room.x, row * width, room.x, to * width, width)
            copy(room.queries, row * heads, room.queries, to * heads, heads)
    meet(arrived, threads)


@njit(**WITHIN)
def _attention(
    layer: Any, slots: Any, places: Any, long: Any, sizes: Any, matrices: Any, vectors: Any, cache: Any, room: Any,
    arrived: Any, thread: Any, threads: Any,
) -> None:  # fmt: skip
    """Attention of the queries, shortcut."""
    n, taken = slots.shape[0], (room.numbers, room.scales, room.sums, thread)
    width, joined = matrices.attention[2], matrices.output[2]
    for head in range(*share(sizes.heads, thread, threads)):
        attend(head, layer, slots, places, long, sizes, cache, room, joined, thread)
    meet(arrived, threads)
    take_all(room.context, n, joined, matrices.output, taken, arrived, thread, threads)
    first, count, start, end = part(n, sizes.d_model, thread, threads)
    at = layer * padded(sizes.d_model)
    product(room.normed, width, room.context, joined, taken, first, count, matrices.output, at, start, end)
    add_to(room.x, width, room.normed, width, vectors.output[layer], first, count, start, end)
    meet(arrived, threads)


@njit(**WITHIN)
def _feed_forward(
    layer: Any, n: Any, sizes: Any, matrices: Any, vectors: Any, room: Any, arrived: Any, thread: Any, threads: Any
) -> None:
    """Norm, feed-forward, shortcut."""
    taken = (room.numbers, room.scales, room.sums, thread)
    width, wide = matrices.expand[2], matrices.contract[2]
    for row in range(*share(n, thread, threads)):
        weight, bias = vectors.norms[2 * layer + 1], vectors.norm_biases[2 * layer + 1]
        norm(room.x, row * width, weight, bias, room.normed, row * width, sizes.eps, sizes.centred)
        take(room.normed, row * width, width, matrices.expand, taken, row)
    meet(arrived, threads)
    first, count, start, end = part(n, sizes.d_ff, thread, threads)
    rows = padded(sizes.d_ff)
    if sizes.gated:
        at = 2 * layer * rows
        product(room.gate, wide, room.normed, width, taken, first, count, matrices.expand, at, start, end)
        product(room.wide, wide, room.normed, width, taken, first, count, matrices.expand, at + rows, start, end)
        for row in range(first, first + count):
            gate(room.wide, room.gate, row * wide + start, row * wide + end)
    else:
        product(room.wide, wide, room.normed, width, taken, first, count, matrices.expand, layer * rows, start, end)
        add_bias(room.wide, wide, vectors.expand[layer], first, count, start, end)
        for row in range(first, first + count):
            gelu(room.wide, row * wide + start, row * wide + end)
    meet(arrived, threads)
    take_all(room.wide, n, wide, matrices.contract, taken, arrived, thread, threads)
    first, count, start, end = part(n, sizes.d_model, thread, threads)
    at = layer * padded(sizes.d_model)
    product(room.normed, width, room.wide, wide, taken, first, count, matrices.contract, at, start, end)
    add_to(room.x, width, room.normed, width, vectors.contract[layer], first, count, start, end)
    meet(arrived, threads)


@njit(**COMPILED)
def forward(
    ids: Any, slots: Any, places: Any, long: Any, wanted: Any, out: Any, sizes: Any, matrices: Any, vectors: Any,
    cache: Any, room: Any, arrived: Any, thread: Any, threads: Any,
) -> None:  # fmt: skip
    """Read N tokens: `ids` at `places` of their `slots`. `out` gets the logits of the rows `wanted`. All in order.

    `long` are those of a long part of a text, however much of it is here.

    In the last layer the other rows leave their keys and values, and no more. Nothing is checked here. Each of the
    threads calls it with the same arguments and its own number.
    """
    width, taken = matrices.attention[2], (room.numbers, room.scales, room.sums, thread)
    _begin(ids, places, sizes, matrices, vectors, room, thread, threads)
    meet(arrived, threads)
    for layer in range(sizes.layers):
        _queries_keys_values(layer, slots, places, sizes, matrices, vectors, cache, room, arrived, thread, threads)
        if layer == sizes.layers - 1 and wanted.shape[0] < slots.shape[0]:
            _keep_only(wanted, slots, places, long, sizes, width, cache.keys.shape[4], room, arrived, thread, threads)
            slots, places, long = slots[: wanted.shape[0]], places[: wanted.shape[0]], long[: wanted.shape[0]]
        _attention(layer, slots, places, long, sizes, matrices, vectors, cache, room, arrived, thread, threads)
        _feed_forward(layer, slots.shape[0], sizes, matrices, vectors, room, arrived, thread, threads)
    for row in range(*share(wanted.shape[0], thread, threads)):
        weight, bias = vectors.norms[2 * sizes.layers], vectors.norm_biases[2 * sizes.layers]
        norm(room.x, row * width, weight, bias, room.normed, row * width, sizes.eps, sizes.centred)
        take(room.normed, row * width, width, matrices.logits, taken, row)
    meet(arrived, threads)
    first, count, start, end = part(wanted.shape[0], out.shape[1], thread, threads)
    flat = out.reshape(-1)
    product(flat, out.shape[1], room.normed, width, taken, first, count, matrices.logits, 0, start, end)
    meet(arrived, threads)
