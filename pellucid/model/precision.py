"""In which precision this processor multiplies matrices fastest."""

from __future__ import annotations

import time
from functools import cache

import torch

SIZES = (256, 512)  # of the matrices that are tried, the small ones first: without instructions for it
CLEARLY = 3  # times as long, bfloat16 takes seconds for large ones


@cache
def fastest_precision() -> torch.dtype:
    """bfloat16 where a product in it is faster than in float32: measured, in some milliseconds, once a process."""
    for size in SIZES:
        seconds = {dtype: seconds_of_product(size, dtype) for dtype in (torch.float32, torch.bfloat16)}
        if seconds[torch.bfloat16] > CLEARLY * seconds[torch.float32]:
            break
    return min(seconds, key=lambda dtype: seconds[dtype])


def seconds_of_product(size: int, dtype: torch.dtype) -> float:
    """The best of five: other work only ever makes one slower."""
    x = torch.ones(size, size, dtype=dtype)
    times = []
    for _ in range(5):
        began = time.perf_counter()
        x @ x
        times.append(time.perf_counter() - began)
    return min(times)
