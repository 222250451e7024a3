"""What the command line does with generation: continue a text."""

from __future__ import annotations

import sys
import time
from typing import Any

from pellucid.config import Generate
from pellucid.generation.engine import stream_ids
from pellucid.generation.sampling import Sampling
from pellucid.model.gpt import GPT
from pellucid.runtime import ConfigError, printable, problem
from pellucid.text.tokenizer import Tokenizer


def generate_text(options: Generate) -> tuple[dict[str, Any], str]:
    """`pellucid generate`: the text appears as it is made; with --json it comes at the end, with its speed."""
    if options.max_tokens < 1:
        raise ConfigError(problem("--max-tokens", str(options.max_tokens), "1 or more", "100 is a paragraph."))
    sampling = Sampling(options.temperature, options.top_k, options.top_p)
    model, tokenizer = GPT.load(options.run), Tokenizer.load(options.run)
    prompt = [tokenizer.end_of_text, *tokenizer.encode(options.prompt)]
    began = time.perf_counter()
    first = 0.0
    count = 0
    stream = tokenizer.stream()
    pieces = []
    if not options.json:
        print(printable(options.prompt), end="", flush=True)
    for token in stream_ids(model, prompt, options.max_tokens, sampling, options.seed, tokenizer.end_of_text):
        first = first or time.perf_counter() - began
        count += 1
        pieces.append(stream.push(token))
        if not options.json:
            print(printable(pieces[-1]), end="", flush=True)
    pieces.append(stream.flush())
    if not options.json:
        print(printable(pieces[-1]), flush=True)
    seconds = time.perf_counter() - began
    result = {"text": "".join(pieces), "tokens": count, "tokens_per_s": round(count / seconds, 1)}
    if sys.stderr.isatty() and not options.json:
        print(f"({count} tokens, {result['tokens_per_s']} tokens/s)", file=sys.stderr)
    return {**result, "first_token_s": round(first, 4)}, ""
