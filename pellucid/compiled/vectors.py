"""Vectors of 16 numbers inside Numba's compiled code: what the products need and Numba does not offer.

Numba vectorises a plain loop as LLVM sees fit, which for a product of floats and bytes is 70 times below the memory's
rate (docs/performance.md). Here each operation is one instruction of LLVM's own vectors: 16 float32, 16 int32 or 64
bytes. They compile on any machine; where it has no registers of that width, LLVM divides them. Products
of bytes are in `dots.py`.
Page: the LLVM Language Reference, "Vector Type".
"""

from __future__ import annotations

import platform
import sys
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model

# Arrays are counted nowhere but where one is made: threads that count the same ones wait for each other.
COMPILED: dict[str, Any] = {"cache": True, "nogil": True, "error_model": "numpy", "_nrt": False}
ALLOCATES: dict[str, Any] = {**COMPILED, "_nrt": True}
WITHIN: dict[str, Any] = {**COMPILED, "inline": "always"}  # a part of its caller, and not compiled on its own

LANES = 16
BYTES = 64
FLOAT, INT, BYTE, HALF = ir.FloatType(), ir.IntType(32), ir.IntType(8), ir.IntType(16)
FLOATS, INTS = ir.VectorType(FLOAT, LANES), ir.VectorType(INT, LANES)
OCTETS = ir.VectorType(BYTE, BYTES)
LOWEST, HIGHEST = -87.0, 88.0  # whose exponentials are numbers as floats are, and not smaller or larger ones
POLYNOMIAL = (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1)


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


def place_of(context: Any, builder: Any, array_type: Any, array: Any, index: Any) -> Any:
    return builder.gep(context.make_array(array_type)(context, builder, array).data, [index])


def call(builder: Any, name: str, result: Any, arguments: Any) -> Any:
    """A call of one of LLVM's own functions, or of C's."""
    kind = ir.FunctionType(result, [argument.type for argument in arguments])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), arguments)


def repeated(builder: Any, value: Any, vector: ir.VectorType) -> Any:
    first = builder.insert_element(ir.Constant(vector, ir.Undefined), value, INT(0))
    return builder.shuffle_vector(first, first, ir.Constant(ir.VectorType(INT, vector.count), [0] * vector.count))


# ---------------------------------------------------------------- memory


@intrinsic
def load(_: Any, array: Any, index: Any) -> Any:
    """array[index : index + 16] as floats; uint16 is bfloat16, the upper half of a float."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = place_of(context, builder, signature.args[0], *arguments)
        if array.dtype == types.float32:
            return builder.load(builder.bitcast(place, FLOATS.as_pointer()), align=4)
        halves = ir.VectorType(HALF, LANES)
        wide = builder.zext(builder.load(builder.bitcast(place, halves.as_pointer()), align=2), INTS)
        return builder.bitcast(builder.shl(wide, ir.Constant(INTS, [16] * LANES)), FLOATS)

    return floats(array, types.intp), generate


def as_they_lie(vector: ir.VectorType) -> Any:
    """How a vector is loaded whose numbers are those of the array, or parts of them."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = place_of(context, builder, signature.args[0], *arguments)
        return builder.load(builder.bitcast(place, vector.as_pointer()), align=vector.element.width // 8)

    return generate


@intrinsic
def load_bytes(_: Any, array: Any, index: Any) -> Any:
    """array[index : index + 64]."""
    return octets(array, types.intp), as_they_lie(OCTETS)


@intrinsic
def load_words(_: Any, array: Any, index: Any) -> Any:
    """array[index : index + 16] of uint32."""
    return ints(array, types.intp), as_they_lie(INTS)


def ask(builder: Any, place: Any, nearness: int = 3) -> None:
    """Have the cache line of a place read, into the nearest cache (3) or the one behind it (2)."""
    kind = ir.FunctionType(ir.VoidType(), [place.type, INT, INT, INT])
    name = "llvm.prefetch.p0" if place.type.is_opaque else f"llvm.prefetch.p0{place.type.pointee.intrinsic_name}"
    function = cgutils.get_or_insert_function(builder.module, kind, name)
    builder.call(function, [place, INT(0), INT(nearness), INT(1)])  # to read, data


def asking(nearness: int) -> Any:
    """How the cache line of a place in an array is asked for."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        ask(builder, place_of(context, builder, signature.args[0], *arguments), nearness)
        return context.get_dummy_value()

    return generate


@intrinsic
def repeat_four(_: Any, array: Any, index: Any) -> Any:
    """16 times array[index : index + 4] of bytes."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = place_of(context, builder, signature.args[0], *arguments)
        four = builder.load(builder.bitcast(place, INT.as_pointer()), align=1)
        return builder.bitcast(repeated(builder, four, INTS), OCTETS)

    return octets(array, types.intp), generate


@intrinsic
def fetch(_: Any, array: Any, index: Any) -> Any:
    """Ask for the cache line of array[index], which may lie behind the end: it will be read soon."""
    return types.void(array, types.intp), asking(nearness=3)


@intrinsic
def fetch_early(_: Any, array: Any, index: Any) -> Any:
    """The same, into the second cache only: the nearest one waits for a few lines at a time."""
    return types.void(array, types.intp), asking(nearness=2)


@intrinsic
def load_four(_: Any, array: Any, index: Any) -> Any:
    """array[index : index + 4] of float32, as the first four of 16."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = place_of(context, builder, signature.args[0], *arguments)
        four = builder.load(builder.bitcast(place, ir.VectorType(FLOAT, 4).as_pointer()), align=4)
        return builder.shuffle_vector(four, four, ir.Constant(INTS, [0, 1, 2, 3] * 4))

    return floats(array, types.intp), generate


@intrinsic
def put(_: Any, array: Any, index: Any, a: Any) -> Any:
    """array[index : index + as many as there are] = a; of floats the upper halves where it is of uint16: bfloat16."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place, numbers = place_of(context, builder, signature.args[0], *arguments[:2]), arguments[2]
        if array.dtype == types.uint16 and a is floats:
            upper = builder.lshr(builder.bitcast(numbers, INTS), ir.Constant(INTS, [16] * LANES))
            numbers = builder.trunc(upper, ir.VectorType(HALF, LANES))
        builder.store(numbers, builder.bitcast(place, numbers.type.as_pointer()), align=array.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(array, types.intp, a), generate


@intrinsic
def put_rounded(_: Any, array: Any, index: Any, a: Any) -> Any:
    """array[index : index + 16] = a; of uint16 as the nearest bfloat16, of two the even one."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place, numbers = place_of(context, builder, signature.args[0], *arguments[:2]), arguments[2]
        if array.dtype == types.uint16:
            upper, bits = ir.Constant(INTS, [16] * LANES), builder.bitcast(numbers, INTS)
            odd = builder.and_(builder.lshr(bits, upper), ir.Constant(INTS, [1] * LANES))
            half = builder.add(odd, ir.Constant(INTS, [0x7FFF] * LANES))
            numbers = builder.trunc(builder.lshr(builder.add(bits, half), upper), ir.VectorType(HALF, LANES))
        builder.store(numbers, builder.bitcast(place, numbers.type.as_pointer()), align=array.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(array, types.intp, floats), generate


@intrinsic
def put_four(_: Any, array: Any, index: Any, a: Any) -> Any:
    """array[index : index + 4] = the first four."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array, index, vector = arguments
        kind = ir.VectorType(FLOAT, 4)
        place = builder.bitcast(place_of(context, builder, signature.args[0], array, index), kind.as_pointer())
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
    """16 times the same float, or whole number."""
    whole = number == types.int32
    return (
        ints(types.int32) if whole else floats(types.float32)
    ), lambda context, builder, signature, arguments: repeated(builder, arguments[0], INTS if whole else FLOATS)


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
def add(_: Any, a: Any, b: Any) -> Any:
    """a + b of whole numbers."""
    return ints(ints, ints), lambda context, builder, signature, arguments: builder.add(*arguments)


@intrinsic
def plus(_: Any, a: Any, b: Any) -> Any:
    """a + b of floats."""
    return floats(floats, floats), lambda context, builder, signature, arguments: builder.fadd(*arguments)


@intrinsic
def minus(_: Any, a: Any, b: Any) -> Any:
    """a − b."""
    return floats(floats, floats), lambda context, builder, signature, arguments: builder.fsub(*arguments)


@intrinsic
def over(_: Any, a: Any, b: Any) -> Any:
    """a / b."""
    return floats(floats, floats), lambda context, builder, signature, arguments: builder.fdiv(*arguments)


@intrinsic
def larger(_: Any, a: Any, b: Any) -> Any:
    """The larger of each two."""
    return floats(floats, floats), lambda context, builder, signature, arguments: larger_of(builder, *arguments)


@intrinsic
def exponentials(_: Any, a: Any) -> Any:
    """e to the power of each: 2 to a whole power times a polynomial of the rest. Page: Moshier, Cephes, `expf`.

    Numbers below LOWEST count as it, those above HIGHEST as that: there it is nearly 0, and nearly infinite.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        def fused(a: Any, b: Any, c: Any) -> Any:
            return call(builder, "llvm.fma.v16f32", FLOATS, [a, b, c])

        a = larger_of(builder, arguments[0], same(LOWEST))
        a = builder.select(builder.fcmp_ordered("<", a, same(HIGHEST)), a, same(HIGHEST))
        power = call(builder, "llvm.rint.v16f32", FLOATS, [builder.fmul(a, same(1.4426950408889634))])
        rest = fused(power, same(2.12194440e-4), fused(power, same(-0.693359375), a))  # log 2 in two parts
        y = same(POLYNOMIAL[0])
        for factor in POLYNOMIAL[1:]:
            y = fused(y, rest, same(factor))
        y = fused(y, builder.fmul(rest, rest), builder.fadd(rest, same(1.0)))
        exponent = builder.add(builder.fptosi(power, INTS), ir.Constant(INTS, [127] * LANES))
        return builder.fmul(y, builder.bitcast(builder.shl(exponent, ir.Constant(INTS, [23] * LANES)), FLOATS))

    return floats(floats), generate


def same(number: float) -> ir.Constant:
    return ir.Constant(FLOATS, [number] * LANES)


def larger_of(builder: Any, a: Any, b: Any) -> Any:
    return builder.select(builder.fcmp_ordered(">", a, b), a, b)


@intrinsic
def multiply_add(_: Any, a: Any, b: Any, c: Any) -> Any:
    """a × b + c, rounded once."""
    return floats(floats, floats, floats), lambda context, builder, signature, arguments: call(
        builder, "llvm.fma.v16f32", FLOATS, arguments
    )


def _totals(builder: Any, four: Any, add: Any) -> Any:
    """Of four vectors, always half added to half."""

    def shuffled(one: Any, other: Any, places: list[int]) -> Any:
        return builder.shuffle_vector(one, other, ir.Constant(INTS, places))

    def halved(one: Any, other: Any, width: int) -> Any:
        """Parts of `width` numbers, their halves added: those of one vector first, then those of the other."""
        starts = [start + i for start in range(0, 2 * LANES, width) for i in range(width // 2)]
        return add(shuffled(one, other, starts), shuffled(one, other, [at + width // 2 for at in starts]))

    both = halved(halved(*four[:2], 16), halved(*four[2:], 16), 8)  # four numbers of each
    for width in (4, 2):
        both = halved(both, both, width)
    return both


@intrinsic
def totals(_: Any, a: Any, b: Any, c: Any, d: Any) -> Any:
    """The sums of the 16 floats of each of the four, as the first four."""
    return floats(floats, floats, floats, floats), lambda context, builder, signature, arguments: _totals(
        builder, arguments, builder.fadd
    )


@intrinsic
def whole_totals(_: Any, a: Any, b: Any, c: Any, d: Any) -> Any:
    """The sums of the 16 whole numbers of each of the four, as the first four."""
    return ints(ints, ints, ints, ints), lambda context, builder, signature, arguments: _totals(
        builder, arguments, builder.add
    )


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


# ---------------------------------------------------------------- threads


@intrinsic
def add_together(_: Any, array: Any, index: Any, number: Any) -> Any:
    """Add to array[index] while other threads do, too; what was there before."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = place_of(context, builder, signature.args[0], *arguments[:2])
        return builder.atomic_rmw("add", place, arguments[2], "seq_cst")

    return types.int64(array, types.intp, types.int64), generate


@intrinsic
def let_others(_: Any, long: Any) -> Any:
    """While waiting: let the other half of the core work, and after a `long` wait other programs."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        if platform.machine().lower() in ("x86_64", "amd64"):
            call(builder, "llvm.x86.sse2.pause", ir.VoidType(), [])
        if sys.platform != "win32":
            with builder.if_then(arguments[0]):
                call(builder, "sched_yield", INT, [])
        return context.get_dummy_value()

    return types.void(types.boolean), generate
