"""Vectors of 16 numbers inside Numba's compiled code: what the products need and Numba does not offer.

Numba vectorises a plain loop as LLVM sees fit, which for a product of floats and bytes is 70 times below the memory's
rate (docs/performance.md). Here each operation is one instruction of LLVM's own vectors: 16 float32, 16 int32 or 64
bytes. They compile on any machine; where it has no registers of that width, LLVM divides them.
Page: the LLVM Language Reference, "Vector Type"; Intel's guide for vpdpbusd (VNNI).
"""

from __future__ import annotations

import platform
import sys
from typing import Any

from llvmlite import binding, ir
from numba import types
from numba.core import cgutils, config
from numba.extending import intrinsic, models, register_model

LANES = 16
BYTES = 64
FLOAT, INT, BYTE, HALF = ir.FloatType(), ir.IntType(32), ir.IntType(8), ir.IntType(16)
FLOATS, INTS = ir.VectorType(FLOAT, LANES), ir.VectorType(INT, LANES)
OCTETS = ir.VectorType(BYTE, BYTES)


class Vector(types.Type):
    """A vector as a type of Numba's."""

    def __init__(self, name: str, of: ir.VectorType) -> None:
        self.of = of
        super().__init__(name=name)


@register_model(Vector)
class _Model(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Vector) -> None:
        super().__init__(manager, kind, kind.of)


floats, ints, octets = Vector("16 floats", FLOATS), Vector("16 ints", INTS), Vector("64 bytes", OCTETS)


def has(feature: str) -> bool:
    """Whether code is compiled for a processor with `feature`, by LLVM's name for it."""
    if config.CPU_NAME or config.CPU_FEATURES:  # set by NUMBA_CPU_NAME: for another machine than this one
        return False
    return bool(binding.get_host_cpu_features().get(feature))


def bytes_are_fastest() -> bool:
    """Whether no other product is as fast here as that of bytes: AMX multiplies bfloat16 several times as fast."""
    return (VNNI or AVX2) and not has("amx-bf16")


VNNI = has("avx512vnni")  # an instruction multiplies bytes and adds four products to each of 16 sums
AVX2 = has("avx2") and not VNNI


def _place(context: Any, builder: Any, array_type: Any, array: Any, index: Any) -> Any:
    return builder.gep(context.make_array(array_type)(context, builder, array).data, [index])


def _call(builder: Any, name: str, result: Any, arguments: Any, **flags: Any) -> Any:
    kind = ir.FunctionType(result, [argument.type for argument in arguments])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), arguments, **flags)


def _repeated(builder: Any, value: Any, vector: ir.VectorType) -> Any:
    first = builder.insert_element(ir.Constant(vector, ir.Undefined), value, INT(0))
    return builder.shuffle_vector(first, first, ir.Constant(ir.VectorType(INT, vector.count), [0] * vector.count))


# ---------------------------------------------------------------- memory


@intrinsic
def load(_: Any, array: Any, index: Any) -> Any:
    """array[index : index + 16] as floats; uint16 is bfloat16, the upper half of a float."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = _place(context, builder, signature.args[0], *arguments)
        if array.dtype == types.float32:
            return builder.load(builder.bitcast(place, FLOATS.as_pointer()), align=4)
        halves = ir.VectorType(HALF, LANES)
        wide = builder.zext(builder.load(builder.bitcast(place, halves.as_pointer()), align=2), INTS)
        return builder.bitcast(builder.shl(wide, ir.Constant(INTS, [16] * LANES)), FLOATS)

    return floats(array, types.intp), generate


@intrinsic
def load_bytes(_: Any, array: Any, index: Any) -> Any:
    """array[index : index + 64]."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = _place(context, builder, signature.args[0], *arguments)
        return builder.load(builder.bitcast(place, OCTETS.as_pointer()), align=1)

    return octets(array, types.intp), generate


@intrinsic
def fetch(_: Any, array: Any, index: Any) -> Any:
    """Ask for the cache line of array[index], which may lie behind the end: it will be read soon."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = _place(context, builder, signature.args[0], *arguments)
        kind = ir.FunctionType(ir.VoidType(), [place.type, INT, INT, INT])
        name = "llvm.prefetch.p0" if place.type.is_opaque else f"llvm.prefetch.p0{place.type.pointee.intrinsic_name}"
        function = cgutils.get_or_insert_function(builder.module, kind, name)
        builder.call(function, [place, INT(0), INT(3), INT(1)])  # to read, into the nearest cache, data
        return context.get_dummy_value()

    return types.void(array, types.intp), generate


@intrinsic
def load_four(_: Any, array: Any, index: Any) -> Any:
    """array[index : index + 4] of float32, as the first four of 16."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = _place(context, builder, signature.args[0], *arguments)
        four = builder.load(builder.bitcast(place, ir.VectorType(FLOAT, 4).as_pointer()), align=4)
        return builder.shuffle_vector(four, four, ir.Constant(INTS, [0, 1, 2, 3] * 4))

    return floats(array, types.intp), generate


@intrinsic
def put_four(_: Any, array: Any, index: Any, a: Any) -> Any:
    """array[index : index + 4] = the first four."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array, index, vector = arguments
        kind = ir.VectorType(FLOAT, 4)
        place = builder.bitcast(_place(context, builder, signature.args[0], array, index), kind.as_pointer())
        four = builder.shuffle_vector(vector, vector, ir.Constant(ir.VectorType(INT, 4), [0, 1, 2, 3]))
        builder.store(four, place, align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, floats), generate


# ---------------------------------------------------------------- arithmetic


@intrinsic
def zeros(_: Any) -> Any:
    """16 times 0.0."""
    return floats(), lambda context, builder, signature, arguments: ir.Constant(FLOATS, [0.0] * LANES)


@intrinsic
def spread(_: Any, number: Any) -> Any:
    """16 times the same float."""
    return floats(types.float32), lambda context, builder, signature, arguments: _repeated(
        builder, arguments[0], FLOATS
    )


@intrinsic
def first(_: Any, number: Any) -> Any:
    """A whole number in the first lane, and zeros."""
    return ints(types.int32), lambda context, builder, signature, arguments: builder.insert_element(
        ir.Constant(INTS, [0] * LANES), arguments[0], INT(0)
    )


@intrinsic
def times(_: Any, a: Any, b: Any) -> Any:
    """a × b."""
    return floats(floats, floats), lambda context, builder, signature, arguments: builder.fmul(*arguments)


@intrinsic
def multiply_add(_: Any, a: Any, b: Any, c: Any) -> Any:
    """a × b + c, rounded once."""
    return floats(floats, floats, floats), lambda context, builder, signature, arguments: _call(
        builder, "llvm.fma.v16f32", FLOATS, arguments
    )


@intrinsic
def totals(_: Any, a: Any, b: Any, c: Any, d: Any) -> Any:
    """The sums of the 16 floats of each of the four, as the first four; always added half to half."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        def shuffled(one: Any, other: Any, places: list[int]) -> Any:
            return builder.shuffle_vector(one, other, ir.Constant(INTS, places))

        def halved(one: Any, other: Any, width: int) -> Any:
            """Parts of `width` numbers, their halves added: those of one vector first, then those of the other."""
            starts = [start + i for start in range(0, 2 * LANES, width) for i in range(width // 2)]
            return builder.fadd(shuffled(one, other, starts), shuffled(one, other, [at + width // 2 for at in starts]))

        both = halved(halved(*arguments[:2], 16), halved(*arguments[2:], 16), 8)  # four numbers of each
        for width in (4, 2):
            both = halved(both, both, width)
        return both

    return floats(floats, floats, floats, floats), generate


@intrinsic
def as_floats(_: Any, a: Any) -> Any:
    """Whole numbers as floats."""
    return floats(ints), lambda context, builder, signature, arguments: builder.sitofp(arguments[0], FLOATS)


@intrinsic
def low_nibbles(_: Any, a: Any) -> Any:
    """The lower four bits of each byte."""
    return octets(octets), lambda context, builder, signature, arguments: builder.and_(
        arguments[0], ir.Constant(OCTETS, [15] * BYTES)
    )


@intrinsic
def high_nibbles(_: Any, a: Any) -> Any:
    """The upper four bits of each byte."""
    return octets(octets), lambda context, builder, signature, arguments: builder.lshr(
        arguments[0], ir.Constant(OCTETS, [4] * BYTES)
    )


def _dot_anywhere(builder: Any, start: Any, unsigned: Any, signed: Any) -> Any:
    """By 16-bit products, summed in pairs twice: LLVM finds the machine's instructions for it, where it has some."""
    wide = ir.VectorType(HALF, BYTES)
    a, b = builder.zext(unsigned, wide), builder.sext(signed, wide)

    def part(vector: Any, odd: int) -> Any:
        places = range(odd, vector.type.count, 2)
        return builder.shuffle_vector(
            vector, vector, ir.Constant(ir.VectorType(INT, vector.type.count // 2), list(places))
        )

    def product(odd: int) -> Any:
        pairs = ir.VectorType(INT, BYTES // 2)
        return builder.mul(builder.sext(part(a, odd), pairs), builder.sext(part(b, odd), pairs))

    sums = builder.add(product(0), product(1))
    return builder.add(start, builder.add(part(sums, 0), part(sums, 1)))


@intrinsic
def dot_anywhere(_: Any, start: Any, unsigned: Any, signed: Any) -> Any:
    """What `dot` does, on a processor without an instruction for it."""
    return ints(ints, octets, octets), lambda context, builder, signature, arguments: _dot_anywhere(builder, *arguments)


def _parts(builder: Any, vector: Any, count: int) -> list[Any]:
    """A vector cut into parts of `count`."""
    starts = range(0, vector.type.count, count)
    places = [ir.Constant(ir.VectorType(INT, count), list(range(start, start + count))) for start in starts]
    return [builder.shuffle_vector(vector, vector, part) for part in places]


def _pairs_of_avx2(builder: Any, a: Any, b: Any) -> Any:
    """16 numbers of 16 bits times 16 others, neighbours added."""
    return _call(builder, "llvm.x86.avx2.pmadd.wd", ir.VectorType(INT, LANES // 2), [a, b])


def _dot_of_avx2(builder: Any, start: Any, unsigned: Any, signed: Any) -> Any:
    """All made 16 bits wide: the instruction for bytes keeps the sums of two products in 16 bits, and they need 17."""
    wide = ir.VectorType(HALF, LANES)
    ones = [builder.zext(part, wide) for part in _parts(builder, unsigned, LANES)]
    others = [builder.sext(part, wide) for part in _parts(builder, signed, LANES)]
    sums = _parts(builder, start, LANES // 2)
    for i, (a, b) in enumerate(zip(ones, others, strict=True)):
        sums[i // 2] = builder.add(sums[i // 2], _pairs_of_avx2(builder, a, b))
    return builder.shuffle_vector(*sums, ir.Constant(INTS, list(range(LANES))))


def _dot_of_nibbles(builder: Any, start: Any, unsigned: Any, signed: Any) -> Any:
    """By AVX2's instruction for bytes: of nibbles the sums of two products do fit."""
    wide, sums = ir.VectorType(HALF, LANES), _parts(builder, start, LANES // 2)
    both = zip(_parts(builder, unsigned, BYTES // 2), _parts(builder, signed, BYTES // 2), strict=True)
    for i, pair in enumerate(both):
        twos = _call(builder, "llvm.x86.avx2.pmadd.ub.sw", wide, pair)
        sums[i] = builder.add(sums[i], _pairs_of_avx2(builder, twos, ir.Constant(wide, [1] * LANES)))
    return builder.shuffle_vector(*sums, ir.Constant(INTS, list(range(LANES))))


def _dot(builder: Any, start: Any, unsigned: Any, signed: Any) -> Any:
    if not VNNI:
        return (_dot_of_avx2 if AVX2 else _dot_anywhere)(builder, start, unsigned, signed)
    as_ints = [start, builder.bitcast(unsigned, INTS), builder.bitcast(signed, INTS)]
    return _call(builder, "llvm.x86.avx512.vpdpbusd.512", INTS, as_ints)


@intrinsic
def dot(_: Any, start: Any, unsigned: Any, signed: Any) -> Any:
    """start + products of bytes, each lane the sum of four of them: exact in whole numbers."""
    return ints(ints, octets, octets), lambda context, builder, signature, arguments: _dot(builder, *arguments)


@intrinsic
def dot_nibbles(_: Any, start: Any, unsigned: Any, signed: Any) -> Any:
    """What `dot` does, where the unsigned numbers are below 16."""
    return ints(ints, octets, octets), lambda context, builder, signature, arguments: (
        _dot_of_nibbles if AVX2 else _dot
    )(builder, *arguments)


# ---------------------------------------------------------------- threads


@intrinsic
def add_together(_: Any, array: Any, index: Any, number: Any) -> Any:
    """Add to array[index] while other threads do, too; what was there before."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = _place(context, builder, signature.args[0], *arguments[:2])
        return builder.atomic_rmw("add", place, arguments[2], "seq_cst")

    return types.int64(array, types.intp, types.int64), generate


@intrinsic
def let_others(_: Any, long: Any) -> Any:
    """While waiting: let the other half of the core work, and after a `long` wait other programs."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        if platform.machine().lower() in ("x86_64", "amd64"):
            _call(builder, "llvm.x86.sse2.pause", ir.VoidType(), [])
        if sys.platform != "win32":
            with builder.if_then(arguments[0]):
                _call(builder, "sched_yield", INT, [])
        return context.get_dummy_value()

    return types.void(types.boolean), generate
