"""From a stream of tokens to training batches: where windows start, which ones come in a step, and the two tensors.

Everything is a pure function of its arguments: the state of the data is one integer, the step, so a stopped run goes on
with the very batch that it would have seen, on any number of machines.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pellucid.runtime import ConfigError, DataError, problem

if TYPE_CHECKING:
    import torch


def windows(offsets: NDArray[np.int64], total: int, length: int) -> NDArray[np.int64]:
    """Start positions of windows of exactly `length + 1` tokens (inputs and targets shifted by one).

    `offsets` are the positions of the end-of-text tokens, before each document and after the last; `total` counts all
    tokens. A window starts at the end-of-text before a document; where a document does not fit into the rest of a
    window but would fit into one, the next window starts at it. Longer documents are cut every `length` tokens.
    What is left at the end and fills no window is dropped. Raises DataError where nothing fills one.
    """
    if length < 1:
        raise ConfigError(problem("context length", str(length), "1 or more", "Choose another."))
    starts: list[int] = []
    start = 0
    while start + length < total:
        starts.append(start)
        start += length
        document = int(np.searchsorted(offsets, start, side="right")) - 1
        if 0 <= document < len(offsets) - 1:
            begin, end = int(offsets[document]), int(offsets[document + 1])
            if end - begin <= length:
                start = begin
    if not starts:
        found, expected = f"{total:,} tokens", f"at least {length + 1:,}, for one window of {length:,}"
        raise DataError(problem("shards", found, expected, "Give more text, or a smaller context length."))
    return np.array(starts, dtype=np.int64)


def sliding_windows(total: int, length: int, stride: int = 0) -> NDArray[np.int64]:
    """Start positions of all windows of `length + 1` tokens that begin every `stride` tokens (0: `length`).

    With a stride below the length they overlap, and a token is learnt in several contexts. Documents are not looked at.
    """
    if length < 1 or stride < 0:
        found = f"a length of {length} and a stride of {stride}"
        raise ConfigError(problem("windows", found, "a length of 1 or more, a stride of 0 or more", "Change them."))
    if total <= length:
        found, expected = f"{total:,} tokens", f"at least {length + 1:,}, for one window of {length:,}"
        raise DataError(problem("shards", found, expected, "Give more text, or a smaller context length."))
    return np.arange(0, total - length, stride or length, dtype=np.int64)


def random_windows(
    total: int, length: int, batch_size: int, seed: int, step: int, rank: int = 0, world_size: int = 1
) -> NDArray[np.int64]:
    """Start positions of one step's windows anywhere in the text: a pure function of its arguments.

    `batch_size` is the whole batch; rank r takes the r-th equal slice of it.
    """
    mine = Sampler(total - length, batch_size, seed, rank, world_size)  # refuses what makes no batch
    share = mine.batch_size // world_size
    starts = np.random.default_rng([seed, step]).integers(0, total - length, size=batch_size, dtype=np.int64)
    return starts[rank * share : (rank + 1) * share]


class Sampler:
    """Which samples a step takes: each of `count` once per epoch, in an order that only the seed and the epoch decide.

    `batch_size` is the whole batch over all ranks; rank r of `world_size` takes the r-th equal slice of it, so the same
    samples are in a step whatever the number of machines.
    """

    def __init__(self, count: int, batch_size: int, seed: int, rank: int = 0, world_size: int = 1) -> None:
        if count < 1 or batch_size < 1:
            found = f"{count} samples and a batch size of {batch_size}"
            raise ConfigError(problem("batches", found, "one or more of each", "Check the data and the batch size."))
        if not 0 <= rank < world_size:
            raise ConfigError(
                problem("batches", f"rank {rank} of {world_size}", "0 to world size - 1", "Check the launch.")
            )
        if batch_size % world_size:
            found = f"a batch size of {batch_size} on {world_size} ranks"
            raise ConfigError(problem("batches", found, "a multiple of the ranks", "Choose another batch size."))
        self.count = count
        self.batch_size = batch_size
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self._orders: dict[int, NDArray[np.int64]] = {}  # a cache of the last epochs' orders, nothing more

    def indices(self, step: int) -> NDArray[np.int64]:
        """The sample numbers of this rank in `step` (from 0): `batch_size // world_size` of them."""
        per_rank = self.batch_size // self.world_size
        first = step * self.batch_size + self.rank * per_rank
        positions = np.arange(first, first + per_rank, dtype=np.int64)
        epochs, places = np.divmod(positions, self.count)
        chosen = np.empty(per_rank, dtype=np.int64)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            chosen[here] = self._order(int(epoch))[places[here]]
        return chosen

    def epoch(self, step: int) -> float:
        """How often the data has been gone through before `step`."""
        return step * self.batch_size / self.count

    def _order(self, epoch: int) -> NDArray[np.int64]:
        if epoch not in self._orders:
            self._orders = {e: order for e, order in self._orders.items() if e == epoch - 1}
            self._orders[epoch] = np.random.default_rng([self.seed, epoch]).permutation(self.count)
        return self._orders[epoch]


def token_batch(tokens: NDArray[Any], starts: NDArray[np.int64], length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs and targets, both (B, T) int64: targets are the inputs one token later."""
    import torch

    places = starts[:, None] + np.arange(length + 1)  # (B, T + 1)
    batch = torch.from_numpy(np.asarray(tokens[places], dtype=np.int64))
    return batch[:, :-1].contiguous(), batch[:, 1:].contiguous()
