"""Compiled code on tensors, by the very threads that torch computes with.

After each of its operations torch's threads wait for the next one busily, for milliseconds: others would have to take
turns with them, and a loop of one millisecond took two to three (docs/performance.md). So they are asked to take part,
through the library that rules them. Page: GCC, "GNU libgomp", section "The libgomp ABI".
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

Part = Callable[[], None]
ENTRY = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


def in_parts(function: Callable[..., None], *arguments: Any) -> None:
    """function(*arguments, part, parts) for each of so many parts as torch has threads, and by these.

    Tensors among the arguments are handed over as NumPy's arrays, of one dimension; bfloat16 as uint16.
    """
    parts, given = torch.get_num_threads(), [numbers(a) if isinstance(a, Tensor) else a for a in arguments]
    left, raised = iter(range(parts)), []

    def work() -> None:
        try:
            for part in left:
                function(*given, part, parts)
        except BaseException as error:  # Ctrl-C, for instance: whoever called must hear of it, and the caller is C
            raised.append(error)

    together = torch_threads()
    if parts > 1 and together:
        together(work, parts)
    else:
        work()
    if raised:
        raise raised[0]


MANY = 1 << 20  # numbers, of which compiled code gains more than it takes to begin


def worth_compiling(x: Tensor, many: int) -> bool:
    """Whether so many numbers, made of x, are for compiled code: on a CPU, and not those of a plan."""
    return type(x) is Tensor and x.device.type == "cpu" and many >= MANY and has_compiler()


@functools.cache
def has_compiler() -> bool:
    """Whether Numba can be loaded; where memory is nearly gone it may not."""
    try:
        import numba  # noqa: F401
    except (ImportError, OSError, MemoryError):
        return False
    return True


def numbers(x: Tensor) -> Any:
    """All numbers of a contiguous tensor in a row; bfloat16 as uint16."""
    flat = x.detach().view(-1)
    return flat.view(torch.uint16).numpy() if x.dtype == torch.bfloat16 else flat.numpy()


@functools.cache
def torch_threads() -> Callable[[Part, int], None] | None:
    """Has a function run by so many of torch's threads at once, and waits; None where GNU's OpenMP is not torch's."""
    found = sorted((Path(torch.__file__).parent / "lib").glob("libgomp*.so*"))
    if not found:
        return None
    library = ctypes.CDLL(str(found[0]))
    library.GOMP_parallel.argtypes = [ENTRY, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
    library.GOMP_parallel.restype = None

    def run(work: Part, threads: int) -> None:
        entry = ENTRY(lambda _: work())
        library.GOMP_parallel(entry, None, threads, 0)

    return run
