"""What the loop is told about the work: tasks, their batches, and how a batch is cut into smaller ones.

A task knows nothing of micro-batches or of other processes: it gives the whole batch of a step, and the loop cuts it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, Literal, Protocol, runtime_checkable

from torch import Tensor

from pellucid.pretrain.alike import Alike
from pellucid.pretrain.loss import Loss


class Task(Protocol):
    """What the loop is told about the work."""

    name: str

    def batches(self, step: int) -> Sequence[Any]:
        """The batches of optimizer step `step` (one of each kind of example); always the same for the same step.

        A batch is a dataclass whose tensors have a row for each example; `tokens` is how many tokens are read.
        """

    def loss(self, model: Any, batch: Any) -> Loss:
        """Sum of the losses of a batch, and over how many trained tokens."""

    def evaluate(self, model: Any) -> dict[str, float]:
        """Scores on held-out data; `loss` among them."""

    def sample(self, model: Any) -> str | list[str]:
        """A text that shows what the model can do by now, or several; empty for none."""


@runtime_checkable
class Describing(Protocol):
    """A task that can say what a step's examples are."""

    def describe(self, step: int) -> str:
        """Where the examples of a step come from, in a few words, so that a bad one can be found."""


@runtime_checkable
class Reading(Protocol):
    """A task that knows which tokens its texts hold; `alike` is the loop's answer, which `loss` may use."""

    alike: Alike | None

    def used(self) -> Tensor:
        """(V,) booleans: whether a token is met anywhere in the training texts."""


def pieces(batches: Sequence[Any], rows: int = 0, rank: int = 0, ranks: int = 1) -> Iterator[tuple[Any, Literal[0, 1]]]:
    """The part of the batches that process `rank` of `ranks` has, in pieces of at most `rows` examples (0: whole).

    Each process has an equal slice, in order (to within one row); together they have every row once. And each has as
    many pieces, for a pass is made by all together: who has no more rows reads one that counts nothing. Beside each
    piece stands how often it counts.
    """
    for batch in batches:
        if not rows and ranks == 1:
            yield batch, 1
            continue
        count = rows_of(batch)
        first, last, most = rank * count // ranks, (rank + 1) * count // ranks, -(-count // ranks)
        for start in range(first, first + most, rows or max(most, 1)):
            if start < last:
                yield cut(batch, start, min(start + (rows or most), last)), 1
            else:
                yield cut(batch, 0, 1), 0


def rows_of(batch: Any) -> int:
    """How many examples a batch has."""
    return max((len(value) for value in vars(batch).values() if isinstance(value, Tensor)), default=1)


def cut(batch: Any, first: int, last: int) -> Any:
    """Examples `first` up to `last` of a batch."""
    rows = {
        item.name: getattr(batch, item.name)[first:last]
        for item in dataclasses.fields(batch)
        if isinstance(getattr(batch, item.name), Tensor)
    }
    return dataclasses.replace(batch, **rows)
