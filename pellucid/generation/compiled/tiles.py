"""Products by AMX, which multiplies tiles of bytes: 16 rows of a matrix times 16 vectors, 64 numbers deep, at once.

A tile of the matrix is 64 bytes of 16 rows as they lie in memory. One of the vectors is what sixteens.py lays side by
side: four bytes of each of 16 vectors in a line. Their sums are the same whole numbers as by any other way.
Of bfloat16 it multiplies tiles half as deep (tiled.py).
Pages: Intel's guide for tdpbusd, tdpbf16ps; Linux's documentation, "Using XSTATE features in user space applications".
"""

from __future__ import annotations

import ctypes
import sys
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from pellucid.compiled.vectors import BYTE, FLOATS, INT, INTS, ask, call, place_of
from pellucid.generation.compiled.dots import WAY, has, without

SIDE = 16  # rows of a tile, and vectors of one
DEEP = 64  # numbers of a row in a tile
VOID, LONG = ir.VoidType(), ir.IntType(64)
WEIGHTS, VECTORS = 6, 7  # the tiles that are not sums; those are numbered from 0 on
ASK_FOR, TILE_DATA = 0x1023, 18  # of Linux's arch_prctl, number 158


def permitted() -> bool:
    """Whether this process may use tiles. Linux wants to be asked, as they make what it keeps of a thread larger."""
    if not (has("amx-int8") and sys.platform == "linux"):
        return False
    return bool(ctypes.CDLL(None).syscall(158, ASK_FOR, TILE_DATA) == 0)


TILES_FIT = permitted()


def bytes_are_fastest() -> bool:
    """Whether no other product is as fast here as that of bytes: AMX multiplies bfloat16 faster than AVX-512 bytes."""
    return WAY is not without and (TILES_FIT or not has("amx-bf16"))


def number(tile: int) -> Any:
    return ir.Constant(BYTE, tile)


@intrinsic
def begin_tiles(_: Any) -> Any:
    """Let all eight tiles of this thread be 16 lines of 64 bytes."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        bytes_ = [0] * 64
        bytes_[0] = 1  # the only way to divide them that there is
        bytes_[16:32:2] = [DEEP] * 8
        bytes_[48:56] = [SIDE] * 8
        place = cgutils.alloca_once_value(builder, ir.Constant(ir.ArrayType(BYTE, 64), bytes_))
        call(builder, "llvm.x86.ldtilecfg", VOID, [builder.bitcast(place, BYTE.as_pointer())])
        return context.get_dummy_value()

    return types.void(), generate


@intrinsic
def end_tiles(_: Any) -> Any:
    """This thread needs no tiles any more."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        call(builder, "llvm.x86.tilerelease", VOID, [])
        return context.get_dummy_value()

    return types.void(), generate


@intrinsic(prefer_literal=True)
def clear_tile(_: Any, tile: Any) -> Any:
    """All zeros."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        call(builder, "llvm.x86.tilezero", VOID, [number(tile.literal_value)])
        return context.get_dummy_value()

    return types.void(tile), generate


@intrinsic(prefer_literal=True)
def load_tile(_: Any, tile: Any, array: Any, index: Any, pitch: Any) -> Any:
    """16 lines of 64 bytes from array[index] on, each `pitch` numbers behind the one before."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _, found, at, apart = arguments
        place = builder.bitcast(place_of(context, builder, array, found, at), BYTE.as_pointer())
        between = builder.mul(apart, apart.type(array.dtype.bitwidth // 8))
        call(builder, "llvm.x86.tileloadd64", VOID, [number(tile.literal_value), place, between])
        return context.get_dummy_value()

    return types.void(tile, array, types.intp, types.intp), generate


@intrinsic(prefer_literal=True)
def put_tile(_: Any, tile: Any, array: Any, index: Any, pitch: Any) -> Any:
    """The other way round."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _, found, at, apart = arguments
        place = builder.bitcast(place_of(context, builder, array, found, at), BYTE.as_pointer())
        between = builder.mul(apart, apart.type(array.dtype.bitwidth // 8))
        call(builder, "llvm.x86.tilestored64", VOID, [number(tile.literal_value), place, between])
        return context.get_dummy_value()

    return types.void(tile, array, types.intp, types.intp), generate


@intrinsic(prefer_literal=True)
def add_products(_: Any, sums: Any, a: Any, b: Any) -> Any:
    """A tile of 16 × 16 floats += one of bfloat16, 16 lines of 32 numbers, times one of 16 such, two in each lane."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        call(builder, "llvm.x86.tdpbf16ps", VOID, [number(one.literal_value) for one in (sums, a, b)])
        return context.get_dummy_value()

    return types.void(sums, a, b), generate


@intrinsic(prefer_literal=True)
def add_tiles(
    _: Any, sums: Any, to: Any, w: Any, w_at: Any, w_pitch: Any, span: Any, sides: Any, at: Any, pitch: Any,
    scales: Any, begins: Any, group: Any, step: Any, ahead: Any, count: Any,
) -> Any:  # fmt: skip
    """Add a span of 16 rows times so many sixteens of vectors, scaled, to their sums: what `span_adder` says.

    As many bytes are asked for from w[ahead] on, a few with each product: all at once would be waited for.
    """
    side_count = count.literal_value

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kinds = signature.args
        sums, to, w, w_at, w_pitch, span, sides, at, pitch, scales, begins, group, step, ahead, _ = arguments

        def start(kind: Any, array: Any, index: Any, vector: Any = BYTE) -> Any:
            return builder.bitcast(place_of(context, builder, kind, array, index), vector.as_pointer())

        def there(first: Any, number: int, apart: Any) -> Any:
            return builder.add(first, builder.mul(apart, apart.type(number)))

        def load(tile: int, place: Any, between: Any) -> None:
            call(builder, "llvm.x86.tileloadd64", VOID, [number(tile), place, between])

        groups = [there(group, e, step) for e in range(side_count)]
        for e in range(side_count):
            load(e, start(kinds[10], begins, groups[e]), LONG(0))  # the same for each row
        firsts = [there(at, e, pitch) for e in range(side_count)]
        with cgutils.for_range_slice(builder, to.type(0), span, to.type(DEEP), to.type) as (k, _):
            load(WEIGHTS, start(kinds[2], w, builder.add(w_at, k)), w_pitch)
            for e in range(side_count):
                index = builder.add(firsts[e], builder.mul(k, to.type(SIDE // 4)))
                load(VECTORS, start(kinds[6], sides, index), LONG(DEEP))
                call(builder, "llvm.x86.tdpbusd", VOID, [number(one) for one in (e, WEIGHTS, VECTORS)])
                for line in range(SIDE * e // side_count, SIDE * (e + 1) // side_count):
                    far = builder.add(builder.mul(k, to.type(SIDE)), to.type(line * DEEP))
                    ask(builder, place_of(context, builder, kinds[2], w, builder.add(ahead, far)))
        found = [cgutils.alloca_once(builder, ir.ArrayType(INTS, SIDE)) for _ in range(side_count)]
        for e in range(side_count):
            place = builder.bitcast(found[e], BYTE.as_pointer())
            call(builder, "llvm.x86.tilestored64", VOID, [number(e), place, LONG(DEEP)])
        for e in range(side_count):
            scale = builder.load(start(kinds[9], scales, groups[e], FLOATS), align=4)
            for r in range(SIDE):
                line = builder.load(builder.gep(found[e], [INT(0), INT(r)]), align=4)
                target = start(kinds[0], sums, builder.add(to, to.type((r * side_count + e) * SIDE)), FLOATS)
                factors = [scale, builder.sitofp(line, FLOATS), builder.load(target, align=4)]
                builder.store(call(builder, "llvm.fma.v16f32", FLOATS, factors), target, align=4)
        return context.get_dummy_value()

    arrays = (sums, to, w, w_at, w_pitch, span, sides, at, pitch, scales, begins, group, step, ahead, count)
    return types.void(*arrays), generate
