"""From logits to one token, with every column of the way kept: a picture of the table is the computation itself.

    logit → seen before? penalised → ÷ temperature: scaled → top-k, top-p, min-p decide what is kept
          → softmax over what is kept: probability → draw
The order is that of `transformers`, and tests hold each step against its processors.
Papers: Keskar et al. 2019, CTRL (repetition penalty); Fan et al. 2018 (top-k); Holtzman et al. 2020, "The Curious Case
of Neural Text Degeneration" (top-p); Nguyen et al. 2024, "Turning Up the Heat" (min-p).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from pellucid.compute import one_thread
from pellucid.runtime import ConfigError, DataError, problem

# B batch, V vocabulary

MANY = 1 << 22  # logits from which on all threads choose
FEW = 1024  # tokens among which those that together reach top_p are looked for first
COLDEST = 1e-6  # below this, a logit divided by the temperature leaves the range of float32


@dataclass(frozen=True)
class Sampling:
    """How to choose. Temperature 0 always takes the likeliest token; the other defaults keep all tokens as they are."""

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0

    def __post_init__(self) -> None:
        likeliest = "0 always takes the likeliest token; 1 takes the model's own probabilities."
        warm = self.temperature == 0 or COLDEST <= self.temperature < math.inf
        settings = [
            ("temperature", warm, f"0, or from {COLDEST:g} up", likeliest),
            ("top_k", self.top_k >= 0, "0 or more", "0 keeps all tokens."),
            ("top_p", 0 < self.top_p <= 1, "above 0 and up to 1", "1 keeps all tokens."),
            ("min_p", 0 <= self.min_p <= 1, "0 to 1", "0 keeps all tokens; 0.05 is common."),
            ("repetition_penalty", 0 < self.repetition_penalty < math.inf, "above 0", "1 is none; 1.2 is common."),
        ]
        for name, good, expected, advice in settings:
            if not good:
                raise ConfigError(problem(name, str(getattr(self, name)), expected, advice))


GREEDY = Sampling()


@dataclass(frozen=True)
class NextToken:
    """The columns of one choice, each (B, V): the probability is 0 where the token is not kept."""

    logit: Tensor
    penalised: Tensor
    scaled: Tensor
    kept: Tensor
    probability: Tensor

    @cached_property
    def order(self) -> Tensor:
        """The ids from the likeliest down, (B, V): by `scaled`, so that tokens which are not kept have a place, too."""
        return self.scaled.argsort(dim=1, descending=True, stable=True)

    @cached_property
    def cumulative(self) -> Tensor:
        """The probability of a token and of all that are likelier, (B, V)."""
        running = self.probability.gather(1, self.order).cumsum(dim=1)
        return torch.empty_like(running).scatter(1, self.order, running)


def next_token(logits: Tensor, sampling: Sampling, seen: Tensor | None = None) -> NextToken:
    """All columns for the logits (B, V) of the next token. `seen`, (B, V) booleans, are the tokens to penalise."""
    penalised = logits if seen is None else _penalised(logits, seen, sampling.repetition_penalty)
    if sampling.temperature == 0:
        scaled = penalised
        kept = torch.zeros_like(scaled, dtype=torch.bool).scatter(1, scaled.argmax(dim=1, keepdim=True), True)
    else:
        scaled = penalised / sampling.temperature
        kept = torch.ones_like(scaled, dtype=torch.bool)
        if sampling.top_k:  # each looks at the probabilities of what the last one left
            kept = _top_k(scaled, sampling.top_k)
        if sampling.top_p < 1:
            kept = kept & _top_p(scaled.masked_fill(~kept, -math.inf), sampling.top_p)
        if sampling.min_p:
            kept = kept & _min_p(scaled.masked_fill(~kept, -math.inf), sampling.min_p)
    probability = scaled.masked_fill(~kept, -math.inf).softmax(dim=1)
    return NextToken(logits, penalised, scaled, kept, probability)


def choose(table: NextToken, numbers: Sequence[float]) -> Tensor:
    """One id per row, (B,): the token in whose share of [0, 1) the row's number falls; shares lie in the ids' order.

    DataError where the logits were no numbers.
    """
    if int(table.kept.sum()) == len(table.kept):  # one candidate a row: nothing to draw
        chosen = table.kept.int().argmax(dim=1, keepdim=True)
        return _checked(chosen, table.probability.gather(1, chosen) > 0)
    return _in_shares(table.probability, numbers)


def _in_shares(probability: Tensor, numbers: Sequence[float]) -> Tensor:
    exact = torch.float32 if probability.device.type == "mps" else torch.float64  # mps has no float64
    ends = probability.cumsum(dim=1, dtype=exact)
    last = ends[:, -1:]  # 1, but for rounding
    points = torch.tensor(numbers, dtype=ends.dtype, device=ends.device)[:, None] * last
    points = points.minimum(last.nextafter(torch.zeros_like(last)))
    chosen = torch.searchsorted(ends, points, right=True)  # the first whose end lies beyond the point
    chosen = chosen.clamp(max=ends.shape[1] - 1)
    return _checked(chosen, probability.gather(1, chosen) > 0)


def draw(logits: Tensor, sampling: Sampling, seen: Tensor | None, numbers: Sequence[float]) -> Tensor:
    """What `choose` takes of `next_token`, (B,); without the table where nothing but the temperature is set.

    By one thread, if they are not very many: torch's others would go on looking for work for milliseconds, on the cores
    that the next pass wants.
    """
    with one_thread() if logits.numel() <= MANY else nullcontext():
        if seen is None and sampling.temperature == 0:
            chosen = likeliest(logits)[:, None]
            return _checked(chosen, logits.gather(1, chosen).isfinite())
        if seen is None and sampling == Sampling(sampling.temperature):
            return _in_shares((logits / sampling.temperature).softmax(dim=1), numbers)
        return choose(next_token(logits, sampling, seen), numbers)


def likeliest(logits: Tensor) -> Tensor:
    """The id of the largest logit in each row, (B,). NumPy finds it ten times as fast as torch, by one thread.

    Row by row, as it would copy all of them first where the rows are not next to each other.
    """
    if logits.device.type != "cpu":
        return logits.argmax(dim=1)
    return torch.tensor([int(row.argmax()) for row in logits.numpy()])


def _checked(chosen: Tensor, good: Tensor) -> Tensor:
    """The chosen ids, of (B, 1) as (B,). DataError where one is not good."""
    if not bool(good.all()):
        advice = "The weights are damaged or their training diverged: try an earlier checkpoint."
        raise DataError(problem("logits", "values that are no numbers", "finite ones", advice))
    return chosen[:, 0]


def _penalised(logits: Tensor, seen: Tensor, penalty: float) -> Tensor:
    return torch.where(seen, torch.where(logits < 0, logits * penalty, logits / penalty), logits)


def _top_k(scaled: Tensor, k: int) -> Tensor:
    """The k likeliest, and what is exactly as likely as the last of them."""
    return scaled >= scaled.topk(min(k, scaled.shape[1]), dim=1).values[:, -1:]


def _top_p(scaled: Tensor, p: float) -> Tensor:
    """The likeliest that together reach p: those before which less than p lies.

    Nearly always they are few, and to find those takes a tenth of the time that it takes to sort all.
    """
    probability = scaled.softmax(dim=1)
    first = probability.topk(min(FEW, probability.shape[1]), dim=1).values
    count = (first.cumsum(dim=1) - first < p).sum(dim=1, keepdim=True)
    kept = probability >= first.gather(1, (count - 1).clamp(min=0))
    if bool(((count < first.shape[1]) & (kept.sum(dim=1, keepdim=True) == count)).all()):
        return kept  # else there are more, or some that are exactly as likely as the last, of which the first ids count
    probability, order = probability.sort(dim=1, descending=True, stable=True)
    before = probability.cumsum(dim=1) - probability  # the likeliest token has nothing before it, so it is kept
    return torch.zeros_like(scaled, dtype=torch.bool).scatter(1, order, before < p)


def _min_p(scaled: Tensor, share: float) -> Tensor:
    """Those at least `share` times as likely as the likeliest."""
    probability = scaled.softmax(dim=1)
    return probability >= share * probability.amax(dim=1, keepdim=True)
