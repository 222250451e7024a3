"""Generation: a prompt in, tokens or text out, as they are made. `decode` is the loop; all the rest stands on it.

Prompts of different lengths run in one batch, and each gets the same tokens as if it were alone. What the model has
read belongs to the caller (`Reader`). Each row draws with dice of its own, so that it does not matter how many rows
run beside it.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator, Sequence

import torch
from torch import Tensor

from pellucid.generation.reader import AnyReader, Reader, newest
from pellucid.generation.sampling import GREEDY, Sampling, draw
from pellucid.generation.writer import Writer
from pellucid.model.gpt import GPT
from pellucid.runtime import ConfigError, problem
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
    *,
    min_p: float = 0.0,
    repetition_penalty: float = 1.0,
    stop: Sequence[str] = (),
) -> str:
    """Continue `prompt` by at most `max_tokens` tokens, up to end-of-text or a text in `stop`: the continuation alone.

    The same seed gives the same text on the same machine. ConfigError for a setting that is out of range.
    """
    sampling = Sampling(temperature, top_k, top_p, min_p, repetition_penalty)
    return generate_samples(model, tokenizer, prompt, 1, max_tokens, sampling, seed, stop)[0]


def generate_samples(
    model: GPT,
    tokenizer: Tokenizer,
    prompt: str,
    samples: int,
    max_tokens: int = 100,
    sampling: Sampling = GREEDY,
    seed: int = 0,
    stop: Sequence[str] = (),
) -> list[str]:
    """Several continuations of one prompt, which is read once. Sample i is the same however many there are."""
    writers = [Writer(tokenizer, stop, {tokenizer.end_of_text}) for _ in range(samples)]
    for _ in write(Reader(model), tokenizer, prompt_ids(tokenizer, prompt), writers, max_tokens, sampling, seed):
        pass
    return [writer.text for writer in writers]


def stream_text(
    model: GPT,
    tokenizer: Tokenizer,
    prompt: str,
    max_tokens: int = 100,
    sampling: Sampling = GREEDY,
    seed: int = 0,
    stop: Sequence[str] = (),
) -> Iterator[str]:
    """What `generate` returns, in pieces as they become certain: none ends within a character or a stop string."""
    writer = Writer(tokenizer, stop, {tokenizer.end_of_text})
    ids = prompt_ids(tokenizer, prompt)
    return (piece for _, piece in write(Reader(model), tokenizer, ids, [writer], max_tokens, sampling, seed) if piece)


def prompt_ids(tokenizer: Tokenizer, prompt: str) -> list[int]:
    """A text to continue: the token with which every text begins (end-of-text), and the tokens of `prompt`."""
    return [tokenizer.begin_of_text, *tokenizer.encode(prompt)]


def write(
    reader: AnyReader,
    tokenizer: Tokenizer,
    prompt: Sequence[int],
    writers: Sequence[Writer],
    max_tokens: int,
    sampling: Sampling = GREEDY,
    seed: int = 0,
) -> Iterator[tuple[int, str]]:
    """Continue one prompt once for each writer, all at the same time, until all have ended.

    Yields (which writer, the text that became certain), also where that is empty: once for each token, and at the end.
    """
    dice = make_dice(seed, range(len(writers)))
    for step in decode(reader, [prompt] * len(writers), max_tokens, sampling, dice, tokenizer.vocab_size):
        for row, token in enumerate(step.tolist()):
            if not writers[row].ended:
                yield row, writers[row].push(token)
        if all(writer.ended for writer in writers):
            return
    for row, writer in enumerate(writers):
        yield row, writer.finish()


def stream_ids(
    model: GPT | AnyReader,
    prompt: Sequence[int],
    max_tokens: int,
    sampling: Sampling,
    seed: int = 0,
    stop: int | Collection[int] | None = None,
    vocab_size: int | None = None,
) -> Iterator[int]:
    """The next ids of one prompt, as they are made; ends before an id in `stop` or after `max_tokens`.

    Give a reader that has read the prompt's beginning instead of its model, and only the rest is read. ValueError for
    an empty prompt; ConfigError where max_tokens < 1. Ids from `vocab_size` on are never chosen.
    """
    ends = {stop} if isinstance(stop, int) else set(stop or ())
    reader = Reader(model) if isinstance(model, GPT) else model
    for step in decode(reader, [prompt], max_tokens, sampling, make_dice(seed, range(1)), vocab_size):
        token = int(step[0])
        if token in ends:
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
    vocab_size: int | None = None,
) -> list[tuple[list[int], bool]]:
    """For each prompt its new ids and whether it ended by itself (`stop` reached). Similar lengths run together.

    Errors, and `vocab_size`, as of `stream_ids`.
    """
    answers: list[tuple[list[int], bool]] = [([], False)] * len(prompts)
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        new: list[list[int]] = [[] for _ in rows]
        ended = [False] * len(rows)
        dice = make_dice(seed, rows)
        texts = [prompts[i] for i in rows]
        for step in decode(Reader(model), texts, max_tokens, sampling or GREEDY, dice, vocab_size):
            for row, token in enumerate(step.tolist()):
                ended[row] |= token == stop
                if not ended[row]:
                    new[row].append(token)
            if all(ended):
                break
        for row, i in enumerate(rows):
            answers[i] = (new[row], ended[row])
    return answers


def decode(
    reader: AnyReader,
    prompts: Sequence[Sequence[int]],
    max_tokens: int,
    sampling: Sampling = GREEDY,
    dice: Sequence[random.Random] | None = None,
    vocab_size: int | None = None,
) -> Iterator[Tensor]:
    """The readable loop: yields one id per row, (B,), `max_tokens` times at most; the caller stops it.

    Prompts are whole texts, none empty; what `reader` already holds of them is not read again. Ids from `vocab_size` on
    are never chosen (a model may have more logits than its tokenizer has tokens). ConfigError where max_tokens < 1.
    """
    if max_tokens < 1:
        raise ConfigError(problem("max_tokens", str(max_tokens), "1 or more", "100 is a paragraph."))
    dice = make_dice(0, range(len(prompts))) if dice is None else dice
    logits = reader.read(prompts)[:, :vocab_size]
    seen = seen_tokens(prompts, logits) if sampling.repetition_penalty != 1 else None
    for left in range(max_tokens, 0, -1):
        chosen = draw(logits, sampling, seen, [die.random() for die in dice])
        if seen is not None:
            seen.scatter_(1, chosen[:, None], True)
        yield chosen
        if left > 1:
            logits = reader.step(chosen.tolist())[:, :vocab_size]


def make_dice(seed: int, rows: Sequence[int]) -> list[random.Random]:
    """Random numbers for each of `rows`, which depend on the seed and the row's number alone."""
    return [random.Random(f"{seed}/{row}") for row in rows]


def seen_tokens(prompts: Sequence[Sequence[int]], logits: Tensor) -> Tensor:
    """Which tokens each prompt holds: (B, V) booleans."""
    seen = torch.zeros_like(logits, dtype=torch.bool)
    for row, prompt in enumerate(prompts):
        seen[row, [token for token in set(prompt) if token < seen.shape[1]]] = True
    return seen


@torch.inference_mode()
def continue_plainly(model: GPT, prompt: Sequence[int], max_tokens: int) -> list[int]:
    """The likeliest ids after `prompt` as a textbook has it: no cache, no batch, everything read again for each token.

    The oracle of `decode`.
    """
    model.eval()
    row, made = list(prompt), []
    for _ in range(max_tokens):
        row = newest(row, model.config.context_length)
        token = int(model(torch.tensor([row], device=model.device))[0, -1].argmax())
        row.append(token)
        made.append(token)
    return made
