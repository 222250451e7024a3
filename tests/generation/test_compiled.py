"""The compiled model: the same logits as the readable one, the same bits alone or among others, on any thread."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit

from pellucid.compiled.team import Team, meet
from pellucid.compiled.vectors import load, load_four, put_four, times, totals
from pellucid.generation.compiled import model as compiled_model
from pellucid.generation.compiled.model import CompiledModel
from pellucid.generation.compiled.packing import Dtype, pack
from pellucid.generation.compiled.products import INT8_OFFSET, NONE, int8_rows, product, span_of, to_bytes
from pellucid.generation.compiled.sixteens import FEWEST, rows_in_sixteens, sixteens_of
from pellucid.generation.compiled.steps import MANY, largest
from pellucid.generation.engine import continue_plainly, decode, stream_ids
from pellucid.generation.fast import FastReader, Index
from pellucid.generation.reader import Reader
from pellucid.generation.sampling import GREEDY, Sampling
from pellucid.model.formats import tensor_files
from pellucid.model.formats.folder import WEIGHTS, as_it_is, read_as_kept
from pellucid.model.formats.quantised import in_few_bits, write_quantised
from pellucid.model.formats.tensor_files import Piece
from pellucid.model.gpt import GPT
from pellucid.runtime import DataError
from tests.generation.lively import lively_model
from tests.model.families import TINY, difference, lively, some_ids

TOLERANCE = {"float32": 5e-6, "bfloat16": 0.03}  # of the largest logit


def logits_of(compiled: CompiledModel, ids: list[int], slots: int = 1, slot: int = 0) -> torch.Tensor:
    """After each of the ids, all read in one go."""
    places = list(range(len(ids)))
    return torch.from_numpy(compiled.logits(compiled.slots(slots), ids, [slot] * len(ids), places, places))


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_logits_are_those_of_the_readable_model(name: str, dtype: Any) -> None:
    model = lively(TINY[name])
    ids = some_ids(model.config, 1, 45)
    found = logits_of(CompiledModel.of(model, dtype), ids[0].tolist())
    assert difference(found, model(ids)[0]) < TOLERANCE[dtype]


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("kept", ["float32", "int8", "int4"])
@pytest.mark.parametrize("chunk", [500, 1 << 20])
def test_a_folder_read_piece_by_piece_is_packed_as_the_whole_model_is(
    name: str, kept: str, chunk: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lively(TINY[name]).save(tmp_path)
    if kept != "float32":
        bits = {"int8": 8, "int4": 4}[kept]
        _, weights, _ = read_as_kept(tmp_path, lambda name, weight: in_few_bits(name, weight, bits))
        write_quantised(tmp_path, weights)
        (tmp_path / WEIGHTS).unlink()
    config, whole, _ = read_as_kept(tmp_path, as_it_is)
    monkeypatch.setattr(tensor_files, "CHUNK", chunk)  # bytes: a few rows, or all
    dtypes: tuple[Dtype, ...] = ("float32", "bfloat16", "int8", "int4")
    for dtype in dtypes:
        expected = pack(config, (Piece(name, 0, weight) for name, weight in whole.items()), dtype)
        found = CompiledModel.load(tmp_path, dtype, threads=1).packed
        for one, other in zip((*found.matrices, found.vectors), (*expected.matrices, expected.vectors), strict=True):
            for part, same in zip(one, other, strict=True):
                np.testing.assert_array_equal(part, same)


def test_a_number_that_is_none_is_found_in_any_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = lively(TINY["gpt2"])
    with torch.no_grad():
        model.token_embedding.weight[-1, -1] = torch.nan
    model.save(tmp_path)
    monkeypatch.setattr(tensor_files, "CHUNK", 500)
    with pytest.raises(DataError, match=r"NaN or infinity in .*wte\.weight"):
        CompiledModel.load(tmp_path)


@pytest.mark.parametrize("name", ["gpt2", "llama"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8", "int4"])
def test_many_tokens_get_the_same_bits_whether_threads_share_rows_or_tokens(name: str, dtype: Any) -> None:
    model = lively(replace(TINY[name], context_length=3 * MANY))
    ids = some_ids(model.config, 1, 2 * MANY + 9)[0].tolist()
    found = []
    for threads in (1, 2, 3):  # three share rows, as there are too few tokens for them
        compiled = CompiledModel.of(model, dtype, threads)
        slots = compiled.slots(1, alike=True)
        slots.stretches = False
        found.append(compiled.logits(slots, ids, [0] * len(ids), range(len(ids)), range(len(ids))))
    assert np.array_equal(found[0], found[1]) and np.array_equal(found[0], found[2])


@pytest.mark.parametrize("name", ["gpt2", "llama", "mistral", "qwen3 window"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8", "int4"])
def test_a_token_alone_gets_the_bits_that_it_gets_among_others_in_any_slot_on_any_number_of_threads(
    name: str, dtype: Any
) -> None:
    model = lively(TINY[name])
    compiled, several = CompiledModel.of(model, dtype, threads=1), CompiledModel.of(model, dtype, threads=3)
    ids = some_ids(model.config, 1, 40)[0].tolist()
    together = logits_of(compiled, ids)
    slots = compiled.slots(3)
    alone = [compiled.logits(slots, [token], [2], [place])[0].copy() for place, token in enumerate(ids)]
    assert torch.equal(torch.from_numpy(np.stack(alone)), together)
    assert torch.equal(logits_of(several, ids, 2, 1), together)


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_logits_of_some_tokens_have_the_bits_that_they_have_among_those_of_all(name: str, dtype: Any) -> None:
    model = lively(TINY[name])
    compiled = CompiledModel.of(model, dtype, threads=2)
    ids = some_ids(model.config, 1, 40)[0].tolist()
    together, places = logits_of(compiled, ids).numpy(), list(range(40))
    for wanted in ([39], [0], [3, 4, 20], [], places[1:]):
        slots = compiled.slots(2)
        assert np.array_equal(compiled.logits(slots, ids, [1] * 40, places, wanted), together[wanted])
        after = compiled.logits(slots, ids[:1], [1], [40])  # all keys and values were left, whatever was wanted
        assert np.array_equal(after, logits_of(compiled, [*ids, ids[0]]).numpy()[-1:])


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_a_text_has_the_same_bits_in_any_number_of_passes(dtype: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    lively_one = lively(TINY["llama"])
    ids = some_ids(lively_one.config, 1, 40)[0].tolist()
    together = logits_of(CompiledModel.of(lively_one, dtype), ids)
    for size in (7, 32, 40):
        monkeypatch.setattr(compiled_model, "TOGETHER", size)
        compiled = CompiledModel.of(lively_one, dtype)
        assert torch.equal(logits_of(compiled, ids[:3]), together[:3])  # there was room for three, and now for more
        assert torch.equal(logits_of(compiled, ids), together)


@settings(deadline=None)  # the first call may compile
@given(st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=40))
def test_the_largest_float_is_found_among_whole_numbers(numbers: list[float]) -> None:
    assert largest(np.array(numbers, np.float32)) == max(numbers)


@pytest.mark.parametrize("name", TINY)
def test_the_likeliest_tokens_are_those_of_the_textbook_also_past_the_context(name: str) -> None:
    model = lively(TINY[name])
    reader = FastReader(CompiledModel.of(model))
    found = list(stream_ids(reader, [1, 2, 3], 120, GREEDY))
    assert found == continue_plainly(model, [1, 2, 3], 120)


def test_a_prompt_longer_than_the_context_is_cut_as_the_readable_reader_cuts_it(
    model: GPT, capsys: pytest.CaptureFixture[str]
) -> None:
    prompt = [number % 50 for number in range(100)]
    reader = FastReader(CompiledModel.of(model))
    assert list(stream_ids(reader, prompt, 60, GREEDY)) == continue_plainly(model, prompt, 60)
    said = capsys.readouterr().err
    assert said.count("only its end is read") == 1 and said.count("is full: going on with its newer half") == 1


def test_a_text_that_outgrows_the_context_is_not_told_that_its_prompt_was_too_long(
    model: GPT, capsys: pytest.CaptureFixture[str]
) -> None:
    list(stream_ids(FastReader(CompiledModel.of(model)), [1, 2, 3], 100, GREEDY))
    said = capsys.readouterr().err
    assert said.count("is full: going on with its newer half") == 1 and "only its end is read" not in said


@settings(max_examples=15, deadline=None)
@given(st.lists(st.lists(st.integers(0, 200), min_size=1, max_size=20), min_size=1, max_size=5), st.integers(1, 40))
def test_prompts_of_any_lengths_together_get_what_they_get_alone(
    model: GPT, prompts: list[list[int]], tokens: int
) -> None:
    compiled = CompiledModel.of(model)
    together = torch.stack(list(decode(FastReader(compiled), prompts, tokens)), dim=1).tolist()
    assert together == [continue_plainly(model, prompt, tokens) for prompt in prompts]


def test_drawn_texts_are_those_of_the_readable_reader(model: GPT) -> None:
    sampling = Sampling(0.9, top_k=40, repetition_penalty=1.1)
    for seed in range(5):
        found = list(stream_ids(FastReader(CompiledModel.of(model)), [5, 6], 60, sampling, seed))
        assert found == list(stream_ids(Reader(model), [5, 6], 60, sampling, seed))


def test_what_rows_share_and_what_was_read_before_is_not_read_again(model: GPT) -> None:
    reader, prefix = FastReader(CompiledModel.of(model), look_ahead=False), [7, 8, 9, 10, 11, 12]
    rows = [[*prefix, 1], [*prefix, 2, 3], prefix, [4, *prefix]]
    found = reader.read(rows)
    assert reader.read_tokens == 7 + 2 + 1 + 7
    for row, logits in zip(rows, found, strict=True):
        torch.testing.assert_close(logits[None], Reader(model).read([row]), atol=1e-4, rtol=1e-4)
    before = reader.read_tokens
    again = reader.read([[*row, 20] for row in rows])
    assert reader.read_tokens == before + 4
    assert torch.equal(again, FastReader(reader.model).read([[*row, 20] for row in rows]))


def test_a_row_may_be_any_beginning_of_what_another_slot_holds(model: GPT) -> None:
    reader = FastReader(CompiledModel.of(model))
    reader.read([[1, 2, 3, 4], [9, 8, 7, 6, 5]])
    swapped = [[9, 8, 7, 1], [1, 2, 3, 4, 5]]
    assert torch.equal(reader.read(swapped), FastReader(reader.model).read(swapped))
    with pytest.raises(ValueError, match="at least one token"):
        reader.read([[1], []])


def test_reading_ahead_saves_passes_and_changes_nothing() -> None:
    model = lively_model(50, context_length=256, seed=1)
    prompt = [3, 1, 4, 1, 5, 9, 2, 6] * 6
    compiled = CompiledModel.of(model)
    ahead, plain = FastReader(compiled), FastReader(compiled, look_ahead=False)
    texts = [list(stream_ids(reader, prompt, 200, GREEDY)) for reader in (ahead, plain)]
    assert texts[0] == texts[1] == continue_plainly(model, prompt, 200)
    assert plain.passes == 199
    following = [3, 1, 4, 1, 5, 9, 2, 6] * 6  # a caller who says what stood there before: each guess is right
    ahead.read([prompt])
    ahead.passes = 0
    for token in following:
        ahead.step([token])
    assert ahead.passes <= len(following) / 4


def test_threads_that_share_a_model_wait_for_each_other(model: GPT, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = CompiledModel.of(model, threads=1)
    run, inside, most = compiled.team.run, [0], [0]

    def slowly(*arguments: Any) -> None:
        inside[0] += 1
        most[0] = max(most[0], inside[0])
        time.sleep(0.001)
        run(*arguments)
        inside[0] -= 1

    def write(first: int) -> list[int]:
        return list(stream_ids(FastReader(compiled), [first, 2, 3], 8, GREEDY))

    monkeypatch.setattr(compiled.team, "run", slowly)
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(write, range(4))) == [continue_plainly(model, [first, 2, 3], 8) for first in range(4)]
    assert most == [1]


@pytest.mark.parametrize("step", [False, True])
def test_what_was_broken_off_leaves_nothing_behind(model: GPT, monkeypatch: pytest.MonkeyPatch, step: bool) -> None:
    compiled = CompiledModel.of(model)
    reader, text = FastReader(compiled, look_ahead=False), [1, 2, 3, 4]
    if step:
        reader.read([text[:3]])
    with monkeypatch.context() as broken:
        broken.setattr(compiled, "logits", interrupted)
        with pytest.raises(KeyboardInterrupt):
            reader.step(text[3:]) if step else reader.read([text])
    torch.testing.assert_close(reader.read([[*text, 5]]), Reader(model).read([[*text, 5]]), atol=1e-4, rtol=1e-4)


def interrupted(*_: Any) -> None:
    raise KeyboardInterrupt


def test_ctrl_c_before_the_first_share_leaves_no_thread_behind_the_others() -> None:
    team, pressed = Team(3), [False, True, False, False]

    def add(out: Any, arrived: Any, thread: int, threads: int) -> None:
        if thread == 0 and pressed.pop(0):
            raise KeyboardInterrupt
        out[thread] += 1
        meet(arrived, threads)

    for call in range(3):
        out = np.zeros(3)
        if call == 1:
            with pytest.raises(KeyboardInterrupt):
                team.run(add, out)
        else:
            team.run(add, out)
        assert out.tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("ids", "which", "places"), [([4000], [0], [0]), ([-1], [0], [0]), ([1], [1], [0]), ([1], [0], [99])]
)
def test_what_there_is_not_is_refused_before_anything_compiled_reads_it(
    model: GPT, ids: list[int], which: list[int], places: list[int]
) -> None:
    compiled = CompiledModel.of(model, "int8")
    with pytest.raises(IndexError, match="expected 0 to"):
        compiled.logits(compiled.slots(1), ids, which, places)


def test_the_index_finds_what_followed_last_time() -> None:
    index = Index()
    assert index.following([1, 2, 3, 4, 5]) == []
    assert index.following([1, 2, 3, 4, 5, 1, 2, 3]) == [4, 5, 1, 2, 3]
    assert index.following([1, 2, 3, 4, 5, 1, 2, 3, 9, 1, 2, 3]) == [9, 1, 2, 3]


@njit
def bytes_times(x: Any, n: Any, matrix: Any, out: Any) -> Any:
    """n vectors times all rows of a matrix of bytes; the vectors as they were rounded, in the end."""
    width, span = matrix[2], span_of(matrix)
    numbers, scales, sums = np.zeros(n * width, np.int8), np.zeros(n * width, np.float32), np.zeros(n * width, np.int32)
    to_bytes(x, 0, n * width // span, span, numbers, scales, sums, 0)
    product(
        out,
        len(matrix[1]),
        x,
        width,
        (numbers, scales, sums, NONE),
        NONE,
        n,
        matrix,
        NONE,
        NONE,
        np.int64(len(matrix[1])),
    )
    for place in range(n * width):
        x[place] = np.float32(numbers[place]) * scales[place // span]
    return span


@pytest.mark.parametrize(("width", "span"), [(64, 64), (128, 128), (192, 64), (384, 128), (512, 256), (768, 256)])
@pytest.mark.parametrize("count", [1, 3, 4, 9, 12, 50])
def test_vectors_times_a_matrix_of_bytes_are_the_sums_whatever_shares_a_scale(
    width: int, span: int, count: int
) -> None:
    dice = np.random.default_rng(width + count)
    rows = 8
    numbers = dice.integers(1, 256, rows * width, dtype=np.uint8)
    scales = dice.uniform(0.5, 2, rows).astype(np.float32)
    x = dice.normal(size=count * width).astype(np.float32) * np.repeat(dice.uniform(0.1, 9, count * width // 64), 64)
    x, before, out = x.astype(np.float32), x.copy(), np.zeros(count * rows, np.float32)
    assert bytes_times(x, count, (numbers, scales, width), out) == span
    largest = np.abs(before).reshape(-1, span).max(axis=1, keepdims=True)
    assert (np.abs(before - x).reshape(-1, span) <= largest / 254 * 1.001).all()
    weights = (numbers.reshape(rows, width).astype(np.float64) - 128) * scales[:, None]
    expected = x.reshape(count, width).astype(np.float64) @ weights.T
    np.testing.assert_allclose(out.reshape(count, rows), expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("count", [2, 5, 12, 17, 29, 50])
def test_a_vector_times_bytes_has_the_same_bits_alone_and_among_any_number(count: int) -> None:
    dice = np.random.default_rng(count)
    rows, width = 76, 512  # more rows than are taken at a time, and not a multiple of them
    numbers, scales = dice.integers(0, 256, rows * width, dtype=np.uint8), dice.uniform(0.5, 2, rows)
    matrix = (numbers, scales.astype(np.float32), width)
    x = dice.normal(size=count * width).astype(np.float32)
    together, alone = np.zeros(count * rows, np.float32), np.zeros(rows, np.float32)
    bytes_times(x.copy(), count, matrix, together)
    for vector, found in zip(x.reshape(count, width), together.reshape(count, rows), strict=True):
        bytes_times(vector.copy(), 1, matrix, alone)
        np.testing.assert_array_equal(alone, found)


@pytest.mark.parametrize("count", [3, 9, 19, 20, 32, 33, 50, 64, 90])
def test_sixteen_vectors_side_by_side_get_the_bits_that_they_get_alone(count: int) -> None:
    dice = np.random.default_rng(count)
    rows, width, span = 76, 512, 256
    numbers, scales = dice.integers(0, 256, rows * width, np.uint8), dice.uniform(0.5, 2, rows).astype(np.float32)
    spans, x = count * width // span, dice.normal(size=count * width).astype(np.float32)
    taken = np.zeros(count * width, np.int8), np.zeros(spans, np.float32), np.zeros(spans, np.int32)
    to_bytes(x, 0, spans, span, *taken, 0)
    expected, found = np.zeros((2, count, rows), np.float32)
    matrix = (numbers, scales, width, 0, 0, rows)
    int8_rows(expected.reshape(-1), rows, *taken, span, 0, count, *matrix)
    done = rows_in_sixteens(found.reshape(-1), rows, *taken, span, NONE, count, *matrix, INT8_OFFSET)
    assert done == min(count, 16 * sixteens_of(count)) and (done == count or count % 32 < FEWEST)
    np.testing.assert_array_equal(found[:done], expected[:done])
    assert not found[done:].any()
    int8_rows(found.reshape(-1), rows, *taken, span, done, count, *matrix)
    np.testing.assert_array_equal(found, expected)
    product_of_all = np.zeros((count, rows), np.float32)  # by the way that is taken on this machine
    bytes_times(x.copy(), count, (numbers, scales, width), product_of_all.reshape(-1))
    np.testing.assert_array_equal(product_of_all, expected)


@njit
def four_totals(numbers: Any) -> Any:
    out = np.full(6, np.float32(7))
    sums = totals(load(numbers, 0), load(numbers, 16), load(numbers, 32), load(numbers, 48))
    put_four(out, 1, times(sums, load_four(numbers, 60)))
    return out


def test_four_sums_are_made_and_scaled_at_once_and_nothing_else_is_written() -> None:
    numbers = np.arange(64, dtype=np.float32)
    expected = numbers.reshape(4, 16).sum(axis=1) * numbers[60:]
    assert four_totals(numbers).tolist() == [7, *expected.tolist(), 7]
