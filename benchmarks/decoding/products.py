"""Products of bytes: `python benchmarks/decoding/products.py [VECTORS…]`, billions of operations a second and thread.

One thread, by its own processor time, the fastest of 25; matrices of GPT-2 124M: (outputs, inputs).
"""

from __future__ import annotations

import sys
import time
from typing import Any

import numpy as np
from numba import njit

from pellucid.generation.compiled.products import NONE, product

SHAPES = [(1152, 768), (384, 3072), (12544, 768)]
LEAST = 2e7  # products that are timed at once


@njit
def multiply(out: Any, x: Any, taken: Any, n: Any, matrix: Any, rows: Any) -> None:
    """n vectors times all rows."""
    product(out, rows, x, matrix[2], taken, NONE, n, matrix, NONE, NONE, rows)


def prepared(n: int, rows: int, width: int) -> tuple[Any, ...]:
    """What `multiply` takes: random bytes."""
    dice = np.random.default_rng(n)
    numbers = dice.integers(-127, 128, n * width).astype(np.int8)
    taken = (numbers, np.ones(n * width // 64, np.float32), np.zeros(n * width // 64, np.int32))
    matrix = (dice.integers(1, 256, rows * width).astype(np.uint8), np.ones(rows, np.float32), width)
    return np.zeros(n * rows, np.float32), np.zeros(n * width, np.float32), taken, n, matrix, rows


def seconds(case: tuple[Any, ...], times: int) -> float:
    """Of the thread's own, for one product."""
    began = time.thread_time()
    for _ in range(times):
        multiply(*case)
    return (time.thread_time() - began) / times


def main() -> None:
    """Print the rate of each shape and number of vectors; they take turns."""
    counts = [int(count) for count in sys.argv[1:]] or [1, 4, 8, 16, 32]
    cases = {(shape, n): prepared(n, *shape) for shape in SHAPES for n in counts}
    best = {key: seconds(case, 1) for key, case in cases.items()}  # compiles, too
    for _ in range(25):
        for (shape, n), case in cases.items():
            times = max(1, int(LEAST // (n * shape[0] * shape[1])))
            best[shape, n] = min(best[shape, n], seconds(case, times))
    for shape in SHAPES:
        rates = {n: round(2 * n * shape[0] * shape[1] / best[shape, n] / 1e9) for n in counts}
        print(shape, rates)


if __name__ == "__main__":
    main()
