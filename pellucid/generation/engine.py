"""Generation: a prompt in, tokens out, one at a time, with a key-value cache that this file owns.

Prompts of different lengths stand flush right in one batch, and each gets the same tokens as if it were alone.
Past the context window the older half is dropped and the rest read again (learned positions cannot slide).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from pellucid.generation.sampling import Sampling, choose, next_token
from pellucid.model.cache import KVCache
from pellucid.model.gpt import GPT
from pellucid.runtime import inform
from pellucid.text.tokenizer import Tokenizer

# B batch, T tokens, V vocabulary


def generate(
    model: GPT,
    tokenizer: Tokenizer,
    prompt: str,
    max_tokens: int = 100,
    temperature: float = 0.0,
    top_k: int = 0,
    top_p: float = 1.0,
    seed: int = 0,
) -> str:
    """Continue `prompt` by at most `max_tokens` tokens, up to end-of-text; returns the continuation alone."""
    ids = [tokenizer.end_of_text, *tokenizer.encode(prompt)]
    sampling = Sampling(temperature, top_k, top_p)
    new = list(stream_ids(model, ids, max_tokens, sampling, seed, stop=tokenizer.end_of_text))
    return tokenizer.decode(new)


def stream_ids(
    model: GPT, prompt: Sequence[int], max_tokens: int, sampling: Sampling, seed: int = 0, stop: int | None = None
) -> Iterator[int]:
    """The next ids of one prompt, as they are made; ends before `stop` or after `max_tokens`."""
    for step in decode(model, [prompt], max_tokens, sampling, seed):
        token = int(step[0])
        if token == stop:
            return
        yield token


def generate_batch(
    model: GPT,
    prompts: Sequence[Sequence[int]],
    max_tokens: int,
    stop: int,
    sampling: Sampling | None = None,
    seed: int = 0,
    batch_size: int = 64,
) -> list[tuple[list[int], bool]]:
    """For each prompt its new ids and whether it ended by itself (`stop` reached). Similar lengths run together."""
    answers: list[tuple[list[int], bool]] = [([], False)] * len(prompts)
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        new: list[list[int]] = [[] for _ in rows]
        ended = [False] * len(rows)
        for step in decode(model, [prompts[i] for i in rows], max_tokens, sampling or Sampling(), seed):
            for row, token in enumerate(step.tolist()):
                ended[row] |= token == stop
                if not ended[row]:
                    new[row].append(token)
            if all(ended):
                break
        for row, i in enumerate(rows):
            answers[i] = (new[row], ended[row])
    return answers


@torch.inference_mode()
def decode(
    model: GPT, prompts: Sequence[Sequence[int]], max_tokens: int, sampling: Sampling, seed: int = 0
) -> Iterator[Tensor]:
    """The readable loop: yields one id per row, (B,), `max_tokens` times at most; the caller stops it."""
    model.eval()
    generator = torch.Generator(device=model.device).manual_seed(seed)
    window = model.config.context_length
    rows = [list(prompt) for prompt in prompts]
    if any(len(row) > window for row in rows):
        inform(f"a prompt is longer than the context of {window} tokens: only its end is read")
    said = False
    rows = [newest(row, window) for row in rows]
    cache, logits = prefill(model, rows, max_tokens)
    for step in range(max_tokens):
        chosen = choose(next_token(logits, sampling), generator)
        for row, token in zip(rows, chosen.tolist(), strict=True):
            row.append(token)
        yield chosen
        if step + 1 == max_tokens:
            return
        if cache.used == cache.length:
            if not said:
                inform(f"the context of {window} tokens is full: going on with its newer half")
            said = True
            rows = [newest(row, window) for row in rows]
            cache, logits = prefill(model, rows, max_tokens - step)
        else:
            logits = model(chosen[:, None], cache)[:, -1].float()


def newest(row: list[int], window: int) -> list[int]:
    """The row itself where it fits into the window, else as much of its end as fills half of it."""
    return row if len(row) <= window else row[-max(1, window // 2) :]


def prefill(model: GPT, rows: Sequence[Sequence[int]], max_tokens: int) -> tuple[KVCache, Tensor]:
    """Read rows that fit at once: a cache with room for what follows, and the logits (B, V) of the next token."""
    longest = max(len(row) for row in rows)
    lengths = torch.tensor([len(row) for row in rows], device=model.device)
    ids = torch.tensor([[0] * (longest - len(row)) + list(row) for row in rows], device=model.device)
    padding = None if len(set(map(len, rows))) == 1 else longest - lengths
    room = min(model.config.context_length, longest + max_tokens)
    cache = KVCache(model.config, len(rows), room, padding, model.token_embedding.weight.dtype, model.device)
    hidden = model.hidden(ids, cache)
    return cache, model.logits(hidden[:, -1]).float()
