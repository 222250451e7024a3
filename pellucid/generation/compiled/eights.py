"""Vectors of AVX2's own width inside Numba's compiled code: what many.py multiplies bytes with.

Numbers of 16 bits are multiplied and neighbours added, 16 at a time, by `vpmaddwd`; the sums are whole numbers.
Page: Intel's guide for vpmaddwd and vphaddd.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from pellucid.compiled.vectors import BYTE, FLOAT, INT, LANES, Vector, call, ints, place_of, repeated
from pellucid.generation.compiled.dots import EIGHT, HALVES, multiply_pairs

EIGHT_FLOATS, FOUR_FLOATS = ir.VectorType(FLOAT, 8), ir.VectorType(FLOAT, 4)
halves, eight_ints, four_floats = Vector("16 halves", HALVES), Vector("8 ints", EIGHT), Vector("4 floats", FOUR_FLOATS)


@intrinsic
def load_wide(_: Any, array: Any, index: Any) -> Any:
    """array[index : index + 16] of bytes, 16 bits wide."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = place_of(context, builder, signature.args[0], *arguments)
        octets = builder.load(builder.bitcast(place, ir.VectorType(BYTE, LANES).as_pointer()), align=1)
        return (builder.sext if array.dtype == types.int8 else builder.zext)(octets, HALVES)

    return halves(array, types.intp), generate


def columns_of_four(builder: Any, lines: list[Any], targets: list[Any]) -> None:
    """Four lines of eight numbers become eight columns of four."""

    def shuffled(one: Any, other: Any, places: list[int]) -> Any:
        return builder.shuffle_vector(one, other, ir.Constant(ir.VectorType(INT, len(places)), places))

    pairs = [
        shuffled(*two, places)
        for two in (lines[:2], lines[2:])
        for places in ([0, 8, 1, 9, 4, 12, 5, 13], [2, 10, 3, 11, 6, 14, 7, 15])
    ]
    for column in range(4):  # and the fourth from it, which lies in the upper half
        places = [0, 1, 8, 9, 4, 5, 12, 13] if column % 2 == 0 else [2, 3, 10, 11, 6, 7, 14, 15]
        both = shuffled(pairs[column // 2], pairs[column // 2 + 2], places)
        for half in (0, 4):
            four = shuffled(both, both, list(range(half, half + 4)))
            builder.store(four, builder.bitcast(targets[column + half], four.type.as_pointer()), align=4)


@intrinsic
def put_side_by_side(_: Any, sides: Any, to: Any, numbers: Any, a: Any, b: Any, c: Any, d: Any) -> Any:
    """16 bytes of each of four vectors, two of 16 bits in one number: 8 × 4 of them, every eighth four of `sides`."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        sides, to, numbers, *starts = arguments
        lines = []
        for start in starts:
            place = place_of(context, builder, signature.args[2], numbers, start)
            octets = builder.load(builder.bitcast(place, ir.VectorType(BYTE, LANES).as_pointer()), align=1)
            lines.append(builder.bitcast(builder.sext(octets, HALVES), EIGHT))
        targets = [builder.add(to, to.type(8 * k)) for k in range(8)]
        places = [place_of(context, builder, signature.args[0], sides, target) for target in targets]
        columns_of_four(builder, lines, places)
        return context.get_dummy_value()

    return types.void(sides, types.intp, numbers, *[types.intp] * 4), generate


@intrinsic
def put_eight(
    _: Any, out: Any, to: Any, step: Any, most: Any, sums: Any, at: Any, pitch: Any, scales: Any, row: Any
) -> Any:
    """Sums of eight vectors and four rows, `pitch` apart, times the rows' scales; the vectors go `step` apart.

    Those behind the one numbered `most` are the same as it.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        out, to, step, most, sums, at, pitch, scales, row = arguments
        lines = []
        for r in range(4):
            source = builder.add(at, builder.mul(pitch, pitch.type(r)))
            place = place_of(context, builder, signature.args[4], sums, source)
            line = builder.load(builder.bitcast(place, EIGHT_FLOATS.as_pointer()), align=4)
            scale = builder.load(place_of(context, builder, signature.args[7], scales, builder.add(row, row.type(r))))
            lines.append(builder.fmul(line, repeated(builder, scale, EIGHT_FLOATS)))
        places = []
        for v in range(8):
            last = builder.icmp_signed("<", most, most.type(v))
            target = builder.add(to, builder.mul(step, builder.select(last, most, most.type(v))))
            places.append(place_of(context, builder, signature.args[0], out, target))
        columns_of_four(builder, lines, places)
        return context.get_dummy_value()

    whole = types.intp
    return types.void(out, whole, whole, whole, sums, whole, whole, scales, whole), generate


@intrinsic
def begin_with(_: Any, number: Any) -> Any:
    """A whole number in the first lane, and zeros."""
    return eight_ints(types.int32), lambda context, builder, signature, arguments: builder.insert_element(
        ir.Constant(EIGHT, [0] * 8), arguments[0], INT(0)
    )


@intrinsic
def folded(_: Any, sums: Any) -> Any:
    """The first eight of 16 whole numbers, the others added."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        low, high = (ir.Constant(EIGHT, list(range(at, at + 8))) for at in (0, 8))
        (sums,) = arguments
        return builder.add(builder.shuffle_vector(sums, sums, low), builder.shuffle_vector(sums, sums, high))

    return eight_ints(ints), generate


@intrinsic
def add_pairs(_: Any, sums: Any, one: Any, other: Any) -> Any:
    """sums + one × other, each lane that of two neighbours."""
    return eight_ints(eight_ints, halves, halves), lambda context, builder, signature, arguments: builder.add(
        arguments[0], multiply_pairs(builder, *arguments[1:])
    )


@intrinsic
def no_floats(_: Any) -> Any:
    """4 times 0.0."""
    return four_floats(), lambda context, builder, signature, arguments: ir.Constant(FOUR_FLOATS, [0.0] * 4)


@intrinsic
def add_totals(_: Any, so_far: Any, scale: Any, a: Any, b: Any, c: Any, d: Any) -> Any:
    """so_far + scale × the totals of the four."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        def neighbours(one: Any, other: Any) -> Any:
            return call(builder, "llvm.x86.avx2.phadd.d", EIGHT, [one, other])

        so_far, scale, *four = arguments
        both = neighbours(neighbours(*four[:2]), neighbours(*four[2:]))
        low, high = (ir.Constant(ir.VectorType(INT, 4), list(range(at, at + 4))) for at in (0, 4))
        whole = builder.add(builder.shuffle_vector(both, both, low), builder.shuffle_vector(both, both, high))
        factors = [repeated(builder, scale, FOUR_FLOATS), builder.sitofp(whole, FOUR_FLOATS), so_far]
        return call(builder, "llvm.fma.v4f32", FOUR_FLOATS, factors)

    kinds = (eight_ints, eight_ints, eight_ints, eight_ints)
    return four_floats(four_floats, types.float32, *kinds), generate


@intrinsic
def put_times(_: Any, out: Any, to: Any, numbers: Any, scales: Any, at: Any) -> Any:
    """out[to : to + 4] = numbers × scales[at : at + 4]."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        out, to, numbers, scales, at = arguments
        source = place_of(context, builder, signature.args[3], scales, at)
        target = place_of(context, builder, signature.args[0], out, to)
        four = builder.load(builder.bitcast(source, FOUR_FLOATS.as_pointer()), align=4)
        builder.store(builder.fmul(numbers, four), builder.bitcast(target, FOUR_FLOATS.as_pointer()), align=4)
        return context.get_dummy_value()

    return types.void(out, types.intp, four_floats, scales, types.intp), generate


def span_adder(side: int, together: int, multiply: Callable[..., Any]) -> Any:
    """An intrinsic that adds a span of R rows times E sides of vectors, scaled, to their sums, (R, E, side).

    `together` numbers of a row make a whole number, and as many of each of the `side` vectors meet it by
    `multiply(builder, sums, weights, vectors)`. Rows begin at w[w_at], `w_pitch` apart; sides at sides[at], `pitch`
    apart; their scales and begins at `group`, `step` apart.
    """
    whole, real = ir.VectorType(INT, side), ir.VectorType(FLOAT, side)

    @intrinsic(prefer_literal=True)
    def add_span(
        _: Any, sums: Any, to: Any, w: Any, w_at: Any, w_pitch: Any, span: Any, sides: Any, at: Any, pitch: Any,
        scales: Any, begins: Any, group: Any, step: Any, rows: Any, count: Any,
    ) -> Any:  # fmt: skip
        row_count, side_count = rows.literal_value, count.literal_value

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            kinds = signature.args
            sums, to, w, w_at, w_pitch, span, sides, at, pitch, scales, begins, group, step, *_ = arguments
            every = [(r, e) for e in range(side_count) for r in range(row_count)]

            def start(kind: Any, array: Any, index: Any, vector: Any) -> Any:
                return builder.bitcast(place_of(context, builder, kind, array, index), vector.as_pointer())

            def there(first: Any, number: int, apart: Any) -> Any:
                return builder.add(first, builder.mul(apart, apart.type(number)))

            groups = [there(group, e, step) for e in range(side_count)]
            found = [builder.load(start(kinds[10], begins, one, whole), align=4) for one in groups]
            totals = {(r, e): cgutils.alloca_once_value(builder, found[e]) for r, e in every}
            firsts = [there(at, e, pitch) for e in range(side_count)]
            lines = [there(w_at, r, w_pitch) for r in range(row_count)]
            with cgutils.for_range_slice(builder, to.type(0), span, to.type(2 * together), to.type) as (k, _):
                for ahead in (0, together):
                    here = builder.add(k, to.type(ahead))
                    places = [start(kinds[2], w, builder.add(line, here), INT) for line in lines]
                    weights = [repeated(builder, builder.load(place, align=1), whole) for place in places]
                    for e in range(side_count):
                        index = builder.add(firsts[e], builder.mul(here, to.type(side // together)))
                        vectors = builder.load(start(kinds[6], sides, index, whole), align=4)
                        for r in range(row_count):
                            more = multiply(builder, builder.load(totals[r, e]), weights[r], vectors)
                            builder.store(more, totals[r, e])
            for r, e in every:
                target = start(kinds[0], sums, builder.add(to, to.type((r * side_count + e) * side)), real)
                scale = builder.load(start(kinds[9], scales, groups[e], real), align=4)
                found_there = builder.sitofp(builder.load(totals[r, e]), real)
                factors = [scale, found_there, builder.load(target, align=4)]
                builder.store(call(builder, f"llvm.fma.v{side}f32", real, factors), target, align=4)
            return context.get_dummy_value()

        arrays = (sums, to, w, w_at, w_pitch, span, sides, at, pitch, scales, begins, group, step, rows, count)
        return types.void(*arrays), generate

    return add_span


def add_product_of_pairs(builder: Any, sums: Any, weights: Any, vectors: Any) -> Any:
    """sums + weights × vectors, two numbers of 16 bits in each lane."""
    pairs = [builder.bitcast(one, HALVES) for one in (weights, vectors)]
    return builder.add(sums, multiply_pairs(builder, *pairs))


add_span = span_adder(8, 2, add_product_of_pairs)
