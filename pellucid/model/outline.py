"""A model without its numbers: for its shape alone, or to be filled from a file."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.overrides import TorchFunctionMode


class Outline(TorchFunctionMode):
    """`with Outline():` models made inside lie on "meta": they have shapes and no numbers, and none are drawn.

    On "meta" alone torch would go through the motions of drawing them, and load its compiler for it: over a second.
    """

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """As torch has it, but for what only fills a tensor with random numbers."""
        if func.__name__ in ("normal_", "uniform_", "kaiming_uniform_"):
            return args[0] if args else kwargs["tensor"]
        with torch.device("meta"):
            return func(*args, **(kwargs or {}))
