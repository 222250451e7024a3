"""How well a model predicts text it has not seen: loss, perplexity and bits per byte, each with its spread.

Every document is read from its beginning, so that no token is judged without the context it had. Documents longer than
the context are read in overlapping parts, and only the new half of a part counts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pellucid.compute import is_out_of_memory
from pellucid.model.gpt import GPT
from pellucid.pretrain.loss import token_losses
from pellucid.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Part:
    """A stretch of tokens: tokens[start : start + length + 1]; targets from `fresh` on are counted."""

    start: int
    length: int
    fresh: int


@dataclass(frozen=True)
class Measured:
    """Loss of each part: nats, predicted tokens and the bytes they stand for; all arrays of the same length."""

    nats: NDArray[np.float64]
    tokens: NDArray[np.int64]
    bytes: NDArray[np.int64]

    def summary(self, resamples: int = 1000, seed: int = 0) -> dict[str, Any]:
        """Loss (nats a token), perplexity, bits per byte; each with a 95 % interval from resampling the parts.

        Of fewer than two parts the intervals are empty: one alone says nothing of the spread.
        """
        generator = np.random.default_rng(seed)
        count = len(self.nats)
        draws = generator.integers(0, count, (resamples if count > 1 else 0, count))
        nats, tokens, size = (values[draws].sum(axis=1) for values in (self.nats, self.tokens, self.bytes))
        loss = float(self.nats.sum() / max(self.tokens.sum(), 1))
        bits = float(self.nats.sum() / math.log(2) / max(self.bytes.sum(), 1))
        return {
            "loss": loss,
            "loss_interval": interval(nats / np.maximum(tokens, 1)),
            "perplexity": math.exp(min(loss, 700)),
            "perplexity_interval": interval(np.exp(np.minimum(nats / np.maximum(tokens, 1), 700))),
            "bits_per_byte": bits,
            "bits_per_byte_interval": interval(nats / math.log(2) / np.maximum(size, 1)),
            "tokens": int(self.tokens.sum()),
            "bytes": int(self.bytes.sum()),
            "parts": count,
        }


def interval(values: NDArray[np.float64]) -> list[float]:
    """Where the middle 95 % of resampled values lie; empty where there are none."""
    return [float(edge) for edge in np.quantile(values, [0.025, 0.975])] if len(values) else []


def parts_of(offsets: Sequence[int] | NDArray[np.int64], context_length: int) -> Iterator[Part]:
    """Cut each document (from its leading end-of-text to the next) into parts that fit the context."""
    stride = max(1, context_length // 2)
    for begin, end in pairwise(offsets):
        begin, end = int(begin), int(end)
        yield Part(begin, min(end - begin, context_length), 0)
        done = begin + min(end - begin, context_length)
        while done < end:
            stop = min(done + stride, end)
            start = max(begin, stop - context_length)
            yield Part(start, stop - start, done - start)
            done = stop


def limited(parts: Sequence[Part], max_tokens: int, seed: int = 0) -> list[Part]:
    """Whole parts of about `max_tokens` tokens in all, drawn at random when there are more."""
    order = np.random.default_rng(seed).permutation(len(parts))
    chosen, total = [], 0
    for index in order:
        if total >= max_tokens:
            break
        chosen.append(int(index))
        total += parts[index].length - parts[index].fresh
    return [parts[index] for index in sorted(chosen)]


@torch.inference_mode()
def measure(
    model: GPT,
    tokens: NDArray[Any],
    parts: Sequence[Part],
    token_bytes: NDArray[np.int64],
    batch_size: int = 16,
    told: Callable[[int], None] = lambda tokens: None,
) -> Measured:
    """Run the model over the parts, alike lengths together. `token_bytes` maps an id to the bytes it stands for.

    `told` hears how many tokens each pass has read. Where memory runs out, fewer parts are read at once from then on.
    """
    model.eval()
    nats = np.zeros(len(parts))
    counts = np.array([part.length - part.fresh for part in parts], dtype=np.int64)
    sizes = np.zeros(len(parts), dtype=np.int64)
    order, first = sorted(range(len(parts)), key=lambda i: parts[i].length), 0
    divided = any(hasattr(weight, "full_tensor") for weight in model.parameters())  # over processes: in step
    while first < len(order):
        rows = order[first : first + batch_size]
        try:
            nats[rows], sizes[rows] = _read(model, tokens, token_bytes, [parts[i] for i in rows])
        except (MemoryError, RuntimeError) as error:
            if divided or len(rows) == 1 or not is_out_of_memory(error):
                raise
            batch_size = len(rows) // 2
            continue
        first += len(rows)
        told(sum(parts[i].length for i in rows))
    return Measured(nats, counts, sizes)


def _read(
    model: GPT, tokens: NDArray[Any], token_bytes: NDArray[np.int64], parts: Sequence[Part]
) -> tuple[list[float], list[int]]:
    """The nats of each part, read in one pass, and its bytes."""
    longest = max(part.length for part in parts)
    ids = torch.zeros(len(parts), longest + 1, dtype=torch.long)
    fresh = torch.zeros(len(parts), longest, dtype=torch.bool)
    sizes = []
    for row, part in enumerate(parts):
        window = tokens[part.start : part.start + part.length + 1].astype(np.int64)
        ids[row, : len(window)] = torch.from_numpy(window)
        fresh[row, part.fresh : part.length] = True
        sizes.append(int(token_bytes[window[part.fresh + 1 :]].sum()))
    ids, judged = ids.to(model.device), fresh.to(model.device)
    losses = token_losses(model, model.hidden(ids[:, :-1])[judged], ids[:, 1:][judged]).cpu().double()
    return [float(part.sum()) for part in torch.split(losses, fresh.sum(dim=1).tolist())], sizes


def bytes_per_token(tokenizer: Tokenizer, size: int) -> NDArray[np.int64]:
    """(size,) bytes that each id stands for; special tokens and ids beyond the tokenizer stand for none."""
    special = set(tokenizer.special_tokens.values())
    known = [0 if i in special else len(tokenizer.token_bytes(i)) for i in range(tokenizer.vocab_size)]
    return np.array(known + [0] * (size - len(known)), dtype=np.int64)
