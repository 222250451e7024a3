"""The page of one sentence: tokens, vectors, attention, norms, logit lens, next words, from one trace, in one file.

The page's script draws, with the modules that the workbench draws with; every number in it comes from `Trace.to_json`.
"""

from __future__ import annotations

import math
from pathlib import Path

from pellucid.config import ModelConfig
from pellucid.model.gpt import GPT
from pellucid.runtime import write_text
from pellucid.see.html import render
from pellucid.see.trace import trace
from pellucid.text.tokenizer import Tokenizer

WEIGHTS = 400_000  # attention weights that one page may hold (about 4 MB)
SCRIPTS = ("dom.js", "draw.js", "see.js")
TOKENS = 96  # more columns than this nobody can read


def write_see(model: GPT, tokenizer: Tokenizer, text: str, html: Path, title: str) -> None:
    """Write `html`, one self-contained page about what `model` does with `text`; long texts are cut, and it says so."""
    picture = trace(model, tokenizer, text, max_tokens=room(model.config))
    config = model.config
    facts = [
        ("layers", config.n_layers),
        ("heads in each", config.n_heads),
        ("numbers in a vector", config.d_model),
        ("tokens known", config.vocab_size),
        ("parameters", model.parameter_count()),
    ]
    write_text(html, render("see.html", scripts=SCRIPTS, title=title, facts=facts, data=picture.to_json()))


def room(config: ModelConfig) -> int:
    """Tokens that a page of this model can show without becoming too heavy to open."""
    return min(TOKENS, config.context_length, max(8, math.isqrt(WEIGHTS // (config.n_layers * config.n_heads))))
