"""Windows, the sampler and batches: every token where it belongs, every sample once per epoch, the step says it all."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pellucid.runtime import ConfigError, DataError
from pellucid.text.batches import Sampler, random_windows, sliding_windows, token_batch, windows

lengths_of_documents = st.lists(st.integers(0, 9), min_size=1, max_size=30)


def stream(lengths: list[int]) -> tuple[np.ndarray, int]:
    """Offsets and total of a stream of documents of these lengths, with an end-of-text around each."""
    offsets = np.cumsum([0] + [length + 1 for length in lengths]).astype(np.int64)
    return offsets, int(offsets[-1]) + 1


@settings(deadline=None)
@given(lengths_of_documents, st.integers(1, 10))
def test_windows_cover_the_stream_and_never_begin_within_a_document_that_fits(lengths: list[int], length: int) -> None:
    offsets, total = stream(lengths)
    if total < length + 1:
        with pytest.raises(DataError, match="one window"):
            windows(offsets, total, length)
        return
    starts = windows(offsets, total, length)
    assert starts[0] == 0
    assert (starts + length < total).all()
    assert ((np.diff(starts) > 0) & (np.diff(starts) <= length)).all()  # none twice, no token is left out between
    for start in starts:
        document = int(np.searchsorted(offsets, start, side="right")) - 1
        span = int(offsets[document + 1] - offsets[document]) if document < len(lengths) else 0
        assert start == offsets[document] or span > length
    assert total - 1 - (int(starts[-1]) + length) < length or lengths[-1] + 1 <= length


def test_windows_by_hand() -> None:
    offsets, total = stream([3, 3, 9, 2])  # end-of-text at 0, 4, 8, 18, 21
    assert windows(offsets, total, 5).tolist() == [0, 4, 9, 14]
    assert windows(offsets, total, 4).tolist() == [0, 4, 8, 12, 16]
    assert windows(offsets, total, 21).tolist() == [0]


def test_a_document_that_just_fits_is_not_cut() -> None:
    offsets, total = stream([2, 7, 7])  # end-of-text at 0, 3, 11, 19
    assert windows(offsets, total, 8).tolist() == [0, 3, 11]
    assert windows(offsets, total, 7).tolist() == [0, 7]


def test_a_context_length_below_one_is_refused() -> None:
    with pytest.raises(ConfigError):
        windows(np.array([0, 4]), 5, 0)


# ---------------------------------------------------------------- the sampler

shapes = st.tuples(st.integers(1, 40), st.integers(1, 12), st.integers(1, 4), st.integers(0, 3))


@settings(deadline=None)
@given(shapes)
def test_each_sample_comes_once_per_epoch_for_any_batch_size_and_number_of_ranks(
    shape: tuple[int, int, int, int],
) -> None:
    count, per_rank, world_size, seed = shape
    batch = per_rank * world_size
    ranks = [Sampler(count, batch, seed, rank, world_size) for rank in range(world_size)]
    epochs = 3
    steps = -(-epochs * count // batch)
    seen = np.concatenate([sampler.indices(step) for step in range(steps) for sampler in ranks])[: epochs * count]
    for epoch in seen.reshape(epochs, count):
        assert sorted(epoch.tolist()) == list(range(count))


@settings(deadline=None)
@given(shapes, st.integers(0, 10_000))
def test_a_step_is_a_pure_function_and_the_batch_is_the_same_for_any_number_of_ranks(
    shape: tuple[int, int, int, int], step: int
) -> None:
    count, per_rank, world_size, seed = shape
    batch = per_rank * world_size
    used = Sampler(count, batch, seed)
    for other in (0, step + 7, 3):
        used.indices(other)
    alone = Sampler(count, batch, seed).indices(step)
    together = [Sampler(count, batch, seed, rank, world_size).indices(step) for rank in range(world_size)]
    assert alone.tolist() == used.indices(step).tolist() == np.concatenate(together).tolist()
    assert all(len(part) == per_rank for part in together)


def test_epochs_and_seeds_differ_in_order() -> None:
    orders = [Sampler(100, 100, seed).indices(step).tolist() for seed in (1, 2) for step in (0, 1)]
    assert len({tuple(order) for order in orders}) == 4
    assert Sampler(10, 4, 0).epoch(5) == 2.0


def test_the_order_of_a_seed_is_fixed_for_all_time() -> None:
    assert Sampler(10, 5, seed=7).indices(3).tolist() == [1, 3, 4, 2, 5]


@pytest.mark.parametrize(
    "arguments", [(0, 4, 0), (4, 0, 0), (4, 4, 0, 2, 2), (4, 4, 0, -1, 2), (4, 5, 0, 0, 2)], ids=str
)
def test_impossible_samplers_are_refused(arguments: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError):
        Sampler(*arguments)


# ---------------------------------------------------------------- batches


def test_targets_are_the_inputs_one_token_later() -> None:
    tokens = np.arange(100, dtype=np.uint16)
    inputs, targets = token_batch(tokens, np.array([0, 50, 95]), 4)
    assert inputs.tolist() == [[0, 1, 2, 3], [50, 51, 52, 53], [95, 96, 97, 98]]
    assert torch.equal(targets, inputs + 1)
    assert inputs.dtype == targets.dtype == torch.int64
    assert inputs.is_contiguous() and targets.is_contiguous()


@given(st.integers(1, 20), st.integers(0, 25), st.integers(0, 200))
def test_sliding_windows_begin_every_stride_and_each_is_whole(length: int, stride: int, more: int) -> None:
    total = length + 1 + more
    starts = sliding_windows(total, length, stride)
    assert starts[0] == 0
    assert set(np.diff(starts)) <= {stride or length}
    assert starts[-1] + length + 1 <= total < starts[-1] + (stride or length) + length + 1
    inputs, targets = token_batch(np.arange(total), starts, length)
    assert (targets == inputs + 1).all()


def test_windows_that_cannot_be_are_refused() -> None:
    with pytest.raises(DataError, match="at least 9"):
        sliding_windows(8, 8)
    with pytest.raises(ConfigError, match="a stride of -1"):
        sliding_windows(100, 8, -1)


@given(st.integers(0, 5), st.integers(0, 50), st.sampled_from([1, 2, 4]))
def test_random_windows_depend_on_seed_and_step_alone_and_ranks_share_them(seed: int, step: int, world: int) -> None:
    whole = random_windows(1000, 16, 8, seed, step)
    ranks = [random_windows(1000, 16, 8, seed, step, rank, world) for rank in range(world)]
    assert np.array_equal(np.concatenate(ranks), whole)
    assert whole.min() >= 0 and whole.max() + 17 <= 1000
    assert not np.array_equal(whole, random_windows(1000, 16, 8, seed, step + 1))
