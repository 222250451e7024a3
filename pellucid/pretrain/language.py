"""Pretraining as a task for `fit`: predict the next token of windows over token shards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pellucid.config import FitConfig
from pellucid.generation.engine import stream_ids
from pellucid.generation.sampling import Sampling
from pellucid.model.gpt import GPT
from pellucid.pretrain.alike import Alike
from pellucid.pretrain.evaluate import bytes_per_token, limited, measure, parts_of
from pellucid.pretrain.loss import Loss, token_loss
from pellucid.runtime import PellucidError
from pellucid.text.batches import Sampler, random_windows, sliding_windows, token_batch, windows
from pellucid.text.shards import Shards

VALIDATION_TOKENS = 20_000
Stride = int | Literal["random"]
LONG_TEXT = 100_000_000  # tokens from which on nobody looks which of them the text never holds
A_PART = 1_000_000  # of them, looked at at a time
SHUFFLED = 200  # windows that an ordered pass mixes with each other


@dataclass(frozen=True)
class TokenBatch:
    """Inputs and targets, (B, T) ids each; `tokens` is how many positions are read."""

    inputs: Tensor
    targets: Tensor

    @property
    def tokens(self) -> int:
        return self.inputs.numel()


@dataclass
class LanguageModelling:
    """Windows of `context` tokens from the shards' train split, scored on the val split."""

    shards: Shards
    config: FitConfig
    context: int
    in_order: bool = False  # the first time through, meet the documents roughly in the order in which they were written
    name: str = "pretrain"
    stride: Stride = 0
    """Tokens between the beginnings of two windows; 0 begins them at documents where these fit, random anywhere."""
    prompts: tuple[str, ...] = ()
    """Beginnings that are continued at each evaluation."""
    alike: Alike | None = None
    """Tokens that the text never holds, as the loop found them."""
    _cached: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.train = self.shards.tokens("train")
        if self.stride and self.stride != "random":
            self.starts = sliding_windows(len(self.train), self.context, self.stride)
        else:
            self.starts = windows(self.shards.offsets("train"), len(self.train), self.context)
        self.sampler = Sampler(len(self.starts), self.config.batch_size, self.config.seed)
        jitter = np.random.default_rng(self.config.seed).uniform(0, SHUFFLED, len(self.starts))
        order = np.argsort(np.arange(len(self.starts)) + jitter)
        self.order = order if self.in_order else order[:0]
        self.tokenizer = self.shards.tokenizer()

    def batches(self, step: int) -> Sequence[TokenBatch]:
        """The windows of a step."""
        return [TokenBatch(*token_batch(self.train, self._starts(step), self.context))]

    def describe(self, step: int) -> str:
        """Where the windows of a step begin."""
        first = np.sort(self._starts(step))
        named = ", ".join(f"{start:,}" for start in first[:8])
        more = f" and {len(first) - 8} more" if len(first) > 8 else ""
        return f"windows of the train split from tokens {named}{more} on"

    def _starts(self, step: int) -> NDArray[np.int64]:
        if self.stride == "random":
            return random_windows(len(self.train), self.context, self.config.batch_size, self.config.seed, step)
        return self.starts[self._indices(step)]

    def _indices(self, step: int) -> NDArray[np.int64]:
        first = step * self.config.batch_size
        ahead = self.order[first : first + self.config.batch_size]  # of the first time through
        return np.concatenate([ahead, self.sampler.indices(step)[len(ahead) :]])

    def loss(self, model: GPT, batch: TokenBatch) -> Loss:
        """Cross-entropy over all positions."""
        return token_loss(model, batch.inputs.to(model.device), batch.targets.to(model.device), alike=self.alike)

    def used(self) -> Tensor:
        """The tokens of the train split; of a very long one, where few are left out, all."""
        used = np.full(self.shards.vocab_size, len(self.train) > LONG_TEXT)
        for start in range(0, 0 if used[0] else len(self.train), A_PART):
            used[self.train[start : start + A_PART]] = True
        return torch.from_numpy(used)

    def evaluate(self, model: GPT) -> dict[str, float]:
        """Loss on a fixed part of the val split."""
        if "parts" not in self._cached:
            parts = list(parts_of(self.shards.offsets("val"), model.config.context_length))
            self._cached["parts"] = limited(parts, VALIDATION_TOKENS)
            self._cached["bytes"] = bytes_per_token(self.tokenizer, model.config.vocab_size)
        measured = measure(model, self.shards.tokens("val"), self._cached["parts"], self._cached["bytes"])
        summary = measured.summary(resamples=1)
        return {key: summary[key] for key in ("loss", "perplexity", "bits_per_byte")}

    def sample(self, model: GPT) -> list[str]:
        """A text from nothing, and each prompt with what follows, at temperature 0.8, always with the same seed."""
        end, length = self.tokenizer.end_of_text, model.config.context_length
        texts = []
        for prompt in ("", *self.prompts):
            begin = [end, *self.tokenizer.encode(prompt)][-max(1, length - 1) :]
            most = max(1, min(80, length - len(begin) + 1))
            size = self.tokenizer.vocab_size
            ids = stream_ids(model, begin, most, Sampling(0.8), seed=0, stop=end, vocab_size=size)
            texts.append((prompt + self.tokenizer.decode(ids)).strip())
        return texts


def save_language_model(model: GPT, task: LanguageModelling, out: Path) -> None:
    """Write the model with its tokenizer: a Hugging Face model folder."""
    end = task.tokenizer.end_of_text
    model.save(out, bos_token_id=end, eos_token_id=end)
    task.tokenizer.model_max_length = model.config.context_length
    task.tokenizer.save(out)


def check_vocab(vocab_size: int, shards: Shards) -> None:
    """Refuse shards whose ids a model of that vocabulary has no embedding for."""
    if shards.vocab_size != vocab_size:
        raise PellucidError(
            f"the shards hold {shards.vocab_size} kinds of tokens and the model {vocab_size}. "
            "Encode the text with the model's own tokenizer."
        )
