"""The minima of many hashes of a text's parts: what MinHash keeps of it (see `leaks.py`)."""

from __future__ import annotations

from typing import Any

import numpy as np

from pellucid.text.compiled import entry


@entry
def fill_minima(hashes: Any, ends: Any, factors: Any, shifts: Any, out: Any) -> None:
    """Write a row for each text: the low bits of the smallest value of each of many hash functions over its parts.

    The parts of text t are `hashes[ends[t]:ends[t + 1]]`; a text without parts gets a row of the largest number.
    """
    smallest = np.empty(len(factors), np.uint32)
    for text in range(out.shape[0]):
        smallest[:] = np.uint32(0xFFFFFFFF)
        for part in range(ends[text], ends[text + 1]):
            for k in range(len(factors)):
                value = np.uint32((factors[k] * hashes[part] + shifts[k]) >> np.uint64(32))
                smallest[k] = min(smallest[k], value)
        for k in range(len(factors)):
            out[text, k] = np.uint16(smallest[k])
