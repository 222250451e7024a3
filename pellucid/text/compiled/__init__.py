"""The fast twins of `bpe.py` and `bpe_training.py`: the same pieces, merges and ids, compiled by Numba.

What is compiled is kept on disk. Numba gives each function doors for callers in Python and in C, which take a sixth of
the time of the first call (docs/performance.md); here none gets a door that nobody uses.
"""

from collections.abc import Callable
from typing import Any, TypeVar

from numba import njit

F = TypeVar("F", bound=Callable[..., Any])
_NOT_FROM_C: dict[str, Any] = {"no_cfunc_wrapper": True}
_NOT_FROM_PYTHON: dict[str, Any] = {"no_cpython_wrapper": True}


def entry(function: F) -> F:
    """Compile a function that Python calls."""
    compiled: F = njit(cache=True, nogil=True, **_NOT_FROM_C)(function)
    return compiled


def inner(function: F) -> F:
    """Compile a function that only compiled ones call."""
    compiled: F = njit(cache=True, nogil=True, **_NOT_FROM_C, **_NOT_FROM_PYTHON)(function)
    return compiled
