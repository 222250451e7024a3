"""Products of bytes: every way that this processor has gives the same whole numbers, and others' ways compile."""

from __future__ import annotations

import platform
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llvmlite import binding, ir
from numba import njit
from numba.extending import intrinsic

from pellucid.compiled.vectors import (
    INTS,
    OCTETS,
    as_floats,
    first,
    ints,
    load_bytes,
    octets,
    put_four,
    totals,
    zeros,
)
from pellucid.generation.compiled import dots

FEATURES = {dots.by_vnni: "avx512vnni", dots.by_avx_vnni: "avxvnni", dots.by_avx2: "avx2", dots.nibbles_by_avx2: "avx2"}
AT_HAND = [dots.without, *(way for way, feature in FEATURES.items() if dots.has(feature))]
Way = Callable[..., Any]


def summed_by(way: Way) -> Callable[..., float]:
    """A compiled function: start + the products of 64 bytes by `way`, all in one."""

    @intrinsic
    def lanes(_: Any, start: Any, unsigned: Any, signed: Any) -> Any:
        return ints(ints, octets, octets), lambda context, builder, signature, arguments: way(builder, *arguments)

    @njit
    def summed(unsigned: Any, signed: Any, start: Any) -> Any:
        out = np.empty(4, np.float32)
        found = as_floats(lanes(first(start), load_bytes(unsigned, 0), load_bytes(signed, 0)))
        put_four(out, 0, totals(found, zeros(), zeros(), zeros()))
        return out[0]

    return summed  # type: ignore[no-any-return]


@pytest.fixture(scope="module", params=AT_HAND, ids=lambda way: way.__name__)
def way(request: pytest.FixtureRequest) -> tuple[Way, Callable[..., float]]:
    return request.param, summed_by(request.param)


@settings(max_examples=50, deadline=None)
@given(st.binary(min_size=64, max_size=64), st.binary(min_size=64, max_size=64), st.integers(-9999, 9999))
def test_bytes_are_multiplied_exactly(
    way: tuple[Way, Callable[..., float]], one: bytes, other: bytes, start: int
) -> None:
    unsigned, signed = np.frombuffer(one, np.uint8), np.frombuffer(other, np.int8)
    if way[0] is dots.nibbles_by_avx2:
        unsigned = unsigned & 15
    expected = start + int(unsigned.astype(np.int64) @ signed.astype(np.int64))
    assert way[1](unsigned, signed, np.int32(start)) == expected


@pytest.mark.parametrize("sign", [-127, 127])
def test_nor_do_the_largest_bytes_run_over(way: tuple[Way, Callable[..., float]], sign: int) -> None:
    most = 15 if way[0] is dots.nibbles_by_avx2 else 255
    unsigned, signed = np.full(64, most, np.uint8), np.full(64, sign, np.int8)
    assert way[1](unsigned, signed, np.int32(0)) == 64 * most * sign


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="asks LLVM for code of x86 processors")
@pytest.mark.parametrize(
    ("way", "processor", "instruction", "times"),
    [
        (dots.by_vnni, "icelake-server", "vpdpbusd", 1),
        (dots.by_avx_vnni, "alderlake", "vpdpbusd", 2),
        (dots.by_avx2, "haswell", "vpmaddwd", 4),
        (dots.nibbles_by_avx2, "haswell", "vpmaddubsw", 2),
    ],
)
def test_a_way_is_the_instructions_it_is_named_for(way: Way, processor: str, instruction: str, times: int) -> None:
    module = ir.Module()
    function = ir.Function(module, ir.FunctionType(INTS, [INTS, OCTETS, OCTETS]), "products")
    builder = ir.IRBuilder(function.append_basic_block())
    builder.ret(way(builder, *function.args))
    binding.initialize_all_targets()
    binding.initialize_all_asmprinters()
    machine = binding.Target.from_default_triple().create_target_machine(cpu=processor)
    assembly = machine.emit_assembly(binding.parse_assembly(str(module)))
    assert assembly.count(instruction) == times
