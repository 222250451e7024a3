"""Batches of examples of different lengths: padded on the right, where causal attention never looks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from pellucid.runtime import shown
from pellucid.text.batches import Sampler
from pellucid.text.tokenizer import Tokenizer

GROUP = 8
NAMED = 8  # examples of a step


class LengthGroupedSampler:
    """Each example once an epoch, in batches of similar lengths, so that little is padded.

    Eight batches (fewer where an epoch has not so many) are drawn at random, sorted by length, cut, and taken in random
    order. Like `Sampler`, a pure function of (seed, step).
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        self.lengths = np.asarray(lengths)
        self.batch_size = batch_size
        self.seed = seed
        # no more than an epoch, or the same example would stand in a batch again and again
        self.group = max(1, min(GROUP, len(lengths) // max(1, batch_size)))
        self.sampler = Sampler(len(lengths), self.group * batch_size, seed)

    def indices(self, step: int) -> list[int]:
        """The examples of a step."""
        group, place = divmod(step, self.group)
        drawn = self.sampler.indices(group)
        drawn = drawn[np.argsort(self.lengths[drawn], kind="stable")]
        order = np.random.default_rng([self.seed, group]).permutation(self.group)
        first = int(order[place]) * self.batch_size
        return [int(index) for index in drawn[first : first + self.batch_size]]


def pad(rows: Sequence[Sequence[int]], fill: int) -> tuple[Tensor, Tensor]:
    """(B, T) ids filled up on the right, and (B,) true lengths."""
    lengths = torch.tensor([len(row) for row in rows])
    ids = torch.full((len(rows), int(lengths.max())), fill)
    for number, row in enumerate(rows):
        ids[number, : len(row)] = torch.tensor(row)
    return ids, lengths


def named(rows: Sequence[Sequence[int]], tokenizer: Tokenizer) -> str:
    """How the texts of a step begin, so that a bad one can be found."""
    begin = ", ".join(repr(shown(tokenizer.decode(list(row[:20])))) for row in rows[:NAMED])
    more = f" and {len(rows) - NAMED} more" if len(rows) > NAMED else ""
    return f"texts that begin with {begin}{more}"
