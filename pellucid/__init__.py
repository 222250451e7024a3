"""Pellucid: a language model you build, train, use and see through.

The names below are imported when first used, so that `import pellucid` costs milliseconds.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from pellucid.version import __version__ as __version__

if TYPE_CHECKING:
    from pellucid.generation.engine import generate as generate
    from pellucid.model.gpt import GPT as GPT
    from pellucid.see.trace import trace as trace
    from pellucid.text.tokenizer import Tokenizer as Tokenizer

__all__ = ["GPT", "Tokenizer", "generate", "trace"]

_HOME = {
    "GPT": "pellucid.model.gpt",
    "generate": "pellucid.generation.engine",
    "Tokenizer": "pellucid.text.tokenizer",
    "trace": "pellucid.see.trace",
}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'pellucid' has no attribute {name!r}")
