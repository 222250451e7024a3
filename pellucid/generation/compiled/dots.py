"""Products of bytes, four of them added to each of 16 sums: by the instruction that the processor has for it.

All give the same whole numbers. A way takes LLVM's builder, 16 sums, 64 unsigned and 64 signed bytes.
Page: Intel's guide for vpdpbusd (VNNI), vpmaddubsw and vpmaddwd (AVX2).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba.core import config
from numba.core.codegen import get_host_cpu_features
from numba.extending import intrinsic

from pellucid.compiled.vectors import BYTES, HALF, INT, INTS, LANES, call, ints, octets

EIGHT = ir.VectorType(INT, LANES // 2)
HALVES = ir.VectorType(HALF, LANES)


def has(feature: str) -> bool:
    """Whether Numba compiles for a processor with `feature`, by LLVM's name for it."""
    if config.CPU_NAME or config.CPU_FEATURES:  # set by NUMBA_CPU_NAME: for another machine than this one
        return False
    return f"+{feature}" in get_host_cpu_features().split(",")


# ---------------------------------------------------------------- the ways


def by_vnni(builder: Any, start: Any, unsigned: Any, signed: Any) -> Any:
    """The instruction that is made for it, of AVX-512."""
    as_ints = [start, builder.bitcast(unsigned, INTS), builder.bitcast(signed, INTS)]
    return call(builder, "llvm.x86.avx512.vpdpbusd.512", INTS, as_ints)


def by_avx_vnni(builder: Any, start: Any, unsigned: Any, signed: Any) -> Any:
    """The same in half the width, which processors of laptops have."""
    as_ints = [start, builder.bitcast(unsigned, INTS), builder.bitcast(signed, INTS)]
    halves = zip(*(_parts(builder, one, LANES // 2) for one in as_ints), strict=True)
    return _joined(builder, [call(builder, "llvm.x86.avx512.vpdpbusd.256", EIGHT, half) for half in halves])


def by_avx2(builder: Any, start: Any, unsigned: Any, signed: Any) -> Any:
    """All made 16 bits wide: the instruction for bytes keeps the sum of two products in 16 bits, and it needs 17."""
    ones = [builder.zext(part, HALVES) for part in _parts(builder, unsigned, LANES)]
    others = [builder.sext(part, HALVES) for part in _parts(builder, signed, LANES)]
    sums = _parts(builder, start, LANES // 2)
    for i, (a, b) in enumerate(zip(ones, others, strict=True)):
        sums[i // 2] = builder.add(sums[i // 2], multiply_pairs(builder, a, b))
    return _joined(builder, sums)


def nibbles_by_avx2(builder: Any, start: Any, unsigned: Any, signed: Any) -> Any:
    """The instruction for bytes: where the unsigned ones are below 16, the sum of two products fits into 16 bits."""
    sums = _parts(builder, start, LANES // 2)
    both = zip(_parts(builder, unsigned, BYTES // 2), _parts(builder, signed, BYTES // 2), strict=True)
    for i, pair in enumerate(both):
        twos = call(builder, "llvm.x86.avx2.pmadd.ub.sw", HALVES, pair)
        sums[i] = builder.add(sums[i], multiply_pairs(builder, twos, ir.Constant(HALVES, [1] * LANES)))
    return _joined(builder, sums)


def without(builder: Any, start: Any, unsigned: Any, signed: Any) -> Any:
    """By products of 16 bits, summed in pairs twice: LLVM finds what the machine has for it."""
    wide = ir.VectorType(HALF, BYTES)
    a, b = builder.zext(unsigned, wide), builder.sext(signed, wide)

    def every_other(vector: Any, first: int) -> Any:
        places = list(range(first, vector.type.count, 2))
        return builder.shuffle_vector(vector, vector, ir.Constant(ir.VectorType(INT, len(places)), places))

    def products(first: int) -> Any:
        pairs = ir.VectorType(INT, BYTES // 2)
        return builder.mul(builder.sext(every_other(a, first), pairs), builder.sext(every_other(b, first), pairs))

    sums = builder.add(products(0), products(1))
    return builder.add(start, builder.add(every_other(sums, 0), every_other(sums, 1)))


def multiply_pairs(builder: Any, a: Any, b: Any) -> Any:
    """16 numbers of 16 bits times 16 others, neighbours added, by AVX2."""
    return call(builder, "llvm.x86.avx2.pmadd.wd", EIGHT, [a, b])


def _parts(builder: Any, vector: Any, count: int) -> list[Any]:
    """A vector cut into parts of `count`."""
    starts = range(0, vector.type.count, count)
    places = [ir.Constant(ir.VectorType(INT, count), list(range(start, start + count))) for start in starts]
    return [builder.shuffle_vector(vector, vector, part) for part in places]


def _joined(builder: Any, halves: Sequence[Any]) -> Any:
    return builder.shuffle_vector(*halves, ir.Constant(INTS, list(range(LANES))))


# ---------------------------------------------------------------- the one that is taken here


def here() -> Callable[..., Any]:
    """The fastest way that the processor has."""
    ways = {"avx512vnni": by_vnni, "avxvnni": by_avx_vnni, "avx2": by_avx2}
    return next((way for feature, way in ways.items() if has(feature)), without)


WAY = here()
FOUR_FIT = has("avx512f")  # registers hold the sums of four rows, or of two groups, and four vectors at once


@intrinsic
def dot(_: Any, start: Any, unsigned: Any, signed: Any) -> Any:
    """start + products of bytes, each lane the sum of four of them: exact in whole numbers."""
    return ints(ints, octets, octets), lambda context, builder, signature, arguments: WAY(builder, *arguments)


@intrinsic
def dot_nibbles(_: Any, start: Any, unsigned: Any, signed: Any) -> Any:
    """What `dot` does, where the unsigned numbers are below 16."""
    way = nibbles_by_avx2 if WAY is by_avx2 else WAY
    return ints(ints, octets, octets), lambda context, builder, signature, arguments: way(builder, *arguments)
