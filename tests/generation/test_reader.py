"""What was read is not read again, and never stands for another text."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pellucid.generation.engine import continue_plainly, decode, stream_ids
from pellucid.generation.reader import Reader
from pellucid.generation.sampling import GREEDY
from pellucid.model.gpt import GPT
from tests.generation.lively import lively_model


def talk(reader: Reader, said: list[int], tokens: int = 6) -> list[int]:
    return list(stream_ids(reader, said, tokens, GREEDY))


def test_a_conversation_goes_on_without_reading_its_beginning_again(model: GPT) -> None:
    reader, said = Reader(model), [1, 2, 3, 4, 5]
    said += talk(reader, said)
    said += [7, 8]
    before = reader.read_tokens
    answer = talk(reader, said)
    assert answer == continue_plainly(model, said, 6)
    assert reader.read_tokens - before == 1 + 2 + 5  # the last token of the first answer, what is new, the next answer


def test_a_text_that_begins_otherwise_is_read_from_where_it_differs(model: GPT) -> None:
    reader, said = Reader(model), [1, 2, 3, 4, 5, 6, 7]
    reader.read([said])
    for other, new in (([1, 2, 3, 9, 5], 2), ([1, 2], 1), ([8, 2, 3], 3)):
        before = reader.read_tokens
        with torch.inference_mode():
            torch.testing.assert_close(reader.read([other]), model(torch.tensor([other]))[:, -1], atol=1e-4, rtol=1e-4)
        assert reader.read_tokens - before == new


ROWS = st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=40), min_size=1, max_size=3)


@settings(max_examples=60, deadline=None)
@given(st.lists(ROWS, min_size=2, max_size=4), st.lists(st.integers(0, 3), max_size=5), st.booleans())
def test_whatever_was_read_before_the_logits_are_those_of_the_text_alone(
    model: GPT, texts: list[list[list[int]]], more: list[int], with_more: bool
) -> None:
    reader = Reader(model)
    if with_more:  # rows that all grow by as many tokens
        texts = [texts[0], [[*row, 2, *more] for row in texts[0]], *texts[1:]]
    for rows in texts:
        logits = reader.read(rows)
        for row, found in zip(rows, logits, strict=True):
            torch.testing.assert_close(found[None], Reader(model).read([row]), atol=1e-4, rtol=1e-4)


def test_rows_of_different_lengths_that_grow_alike_are_not_read_again(model: GPT) -> None:
    reader, rows = Reader(model), [[1, 2, 3], [4], [5, 6]]
    made = torch.stack(list(decode(reader, rows, 5)), dim=1).tolist()
    rows = [[*row, *new, 9] for row, new in zip(rows, made, strict=True)]
    before = reader.read_tokens
    again = torch.stack(list(decode(reader, rows, 5)), dim=1).tolist()
    assert again == [continue_plainly(model, row, 5) for row in rows]
    assert reader.read_tokens - before == 3 * (2 + 4)


def test_equal_prompts_are_read_once(model: GPT) -> None:
    reader = Reader(model)
    reader.read([[1, 2, 3, 4]] * 5)
    assert reader.read_tokens == 4
    assert len(reader.rows) == 5


def test_the_cache_grows_with_the_text_and_not_with_the_window() -> None:
    large = lively_model(50, context_length=1000)
    reader = Reader(large)
    made = talk(reader, [1, 2, 3], 70)
    assert reader.cache is not None
    assert 70 <= reader.cache.length < 200
    assert made == continue_plainly(large, [1, 2, 3], 70)


def test_a_step_that_was_broken_off_leaves_nothing_behind(model: GPT, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = Reader(model)
    reader.read([[1, 2, 3]])
    with monkeypatch.context() as broken:
        broken.setattr(model, "logits", lambda _: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            reader.step([4])
    torch.testing.assert_close(reader.read([[1, 2, 3, 5]]), Reader(model).read([[1, 2, 3, 5]]), atol=1e-4, rtol=1e-4)


def test_no_text_at_all_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one token"):
        Reader(lively_model(50, 8)).read([[1], []])
