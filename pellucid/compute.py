"""What every stage needs of the machine: seeds, the device, threads, and memory.

Functions only; nothing runs at import, and torch is imported by the functions that need it.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import statistics
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from pellucid.runtime import ConfigError, problem

if TYPE_CHECKING:
    import torch


LARGE = 1 << 25  # numbers of a model
FEW_PROGRAMS = "64"


def seed_everything(seed: int) -> None:
    """Seed torch's global generator (dropout, initialisation). Data order has generators of its own."""
    import torch

    torch.manual_seed(seed)


def pick_device(name: str = "auto") -> torch.device:
    """`auto` is cuda where there is one, then mps, then cpu; a device that is not there is a ConfigError."""
    import torch

    cuda = torch.cuda.device_count() if torch.cuda.is_available() else 0
    there = {"cuda": cuda, "mps": int(torch.backends.mps.is_available()), "cpu": 1}  # kind → how many
    if name == "auto":
        return torch.device(next(kind for kind, count in there.items() if count))
    numbered = {f"{kind}:{number}" for kind, count in there.items() for number in range(count)}
    if not there.get(name) and name not in numbered:
        known = ", ".join(kind for kind, count in there.items() if count)
        raise ConfigError(problem("--device", repr(name), f"auto or one that is here ({known})", "Change it."))
    return torch.device(name)


def exact_products() -> None:
    """Ask MKL for the same bits from the same matrices, wherever these lie in memory and however many threads help.

    Without it a process that goes on from a checkpoint, whose memory is laid out otherwise, may round otherwise (a
    test of resuming failed by it, once). MKL reads the wish at its first product, so it has to come before any. What
    the user has set stays. Page: Intel, "Obtaining Numerically Reproducible Results", oneMKL Developer Guide.
    """
    os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")


def keep_freed_memory() -> None:
    """Tell glibc to keep freed blocks instead of returning them to the system.

    A training step frees and takes the same large blocks again and again; each return costs page faults, a third of
    the step of a small model (docs/performance.md). Elsewhere than on glibc this does nothing.
    """
    m_trim_threshold, m_mmap_max = -1, -4
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(m_mmap_max, 0)
        libc.mallopt(m_trim_threshold, 2**31 - 1)


def return_freed_memory() -> None:
    """Tell glibc to return what is free to the system, holes included: after a load that took more than it keeps."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def keep_few_programs(numbers: int) -> None:
    """Of a model of so many numbers: where they are many, let oneDNN keep few of the programs that it writes.

    It writes one for each shape of a product and keeps 1,024 of them, between which the heap grows: by the end of an
    epoch of conversations, all of other lengths, GPT-2's finetuning took twice its memory. A large model's products
    take so long that to write some again is nothing; a small one's would wait. oneDNN reads the wish at its first
    product, and what the user has set stays. Page: oneDNN, "Primitive Cache".
    """
    if numbers >= LARGE:
        os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", FEW_PROGRAMS)


@functools.cache
def most_threads() -> int:
    """How many threads torch had when this was first asked: one for each core, or what OMP_NUM_THREADS says."""
    import torch

    return torch.get_num_threads()


def settle_threads() -> int:
    """Let torch work with all its threads, or with one where other programs keep the cores busy; how many it is.

    Threads wait for each other after every operation. Where one of them has to wait for a core, all lose a time slice
    each time: beside one busy program two threads on two cores trained 25 times slower than one (docs/performance.md).
    """
    import torch

    most, matrix = most_threads(), torch.ones(1024, 96)

    def seconds(threads: int) -> float:
        torch.set_num_threads(threads)
        times = []
        for _ in range(20):
            began = time.perf_counter()
            matrix.mT @ matrix
            times.append(time.perf_counter() - began)
        return statistics.median(times)

    alone, together = seconds(1), seconds(most)
    threads = 1 if together > 1.5 * alone else most
    torch.set_num_threads(threads)
    return threads


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute by this thread alone for a while."""
    import torch

    most_threads()  # asked before it would be one
    usual = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(usual)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out: torch has a class for it on a GPU, and words elsewhere."""
    import torch

    said = str(error)
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or any(
        words in said for words in ("can't allocate memory", "not enough memory", "out of memory", "bad_alloc")
    )


def usable_cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def peak_memory_bytes() -> int:
    """Largest resident size of this process so far, in bytes (0 where the system cannot say)."""
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
