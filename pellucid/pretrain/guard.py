"""What tells a loss that cannot be right: no number, or far above the ones before it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

RECENT = 64  # losses that a new one is compared with
FEWEST = 32  # with fewer, nothing is a spike
MOST_TROUBLES = 3


def spike(loss: float, recent: Sequence[float]) -> str:
    """What is wrong with a loss beside the recent ones; empty where nothing is.

    A spike lies above their median by six times their spread, and by one nat at least.
    """
    if len(recent) < FEWEST or loss <= max(recent):  # nearly always, so the rest may cost something
        return ""
    median, spread = float(np.median(recent)), float(np.std(recent))
    if loss <= median + max(1.0, 6 * spread):
        return ""
    return f"the loss is {loss:.2f}, after {median:.2f} in the steps before"
