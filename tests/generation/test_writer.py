"""Text as it grows: no half characters, no stop strings, the same however the tokens are cut."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pellucid.generation.writer import Writer
from pellucid.runtime import ConfigError
from pellucid.text.bpe import BPETokenizer

END = 10**6


@pytest.fixture(scope="module")
def tokenizer() -> BPETokenizer:
    return BPETokenizer.train(["abc abca aé aé 🦊 the fox, the end. " * 5], vocab_size=290)


def byte_ids(tokenizer: BPETokenizer, text: str) -> list[int]:
    """One token a byte: characters of several bytes are cut."""
    ids = {content: token for token, content in tokenizer.ordinary_tokens().items()}
    return [ids[bytes([byte])] for byte in text.encode()]


def until_stop(text: str, stop: list[str]) -> str:
    """The oracle: grow the text by characters until one of `stop` is whole, then take away the longest that is."""
    for end in range(1, len(text) + 1):
        whole = [one for one in stop if text[:end].endswith(one)]
        if whole:
            return text[: end - max(map(len, whole))]
    return text


TEXTS = st.text("abcé🦊. ", max_size=30)


@settings(max_examples=200, deadline=None)
@given(TEXTS, st.lists(st.text("abcé🦊. ", min_size=1, max_size=4), max_size=3), st.booleans())
def test_the_text_ends_before_the_stop_string_that_is_whole_first_however_tokens_are_cut(
    tokenizer: BPETokenizer, text: str, stop: list[str], by_bytes: bool
) -> None:
    writer = Writer(tokenizer, stop, {END})
    expected, given_out = until_stop(text, stop), ""
    for token in byte_ids(tokenizer, text) if by_bytes else tokenizer.encode(text):
        piece = writer.push(token)
        given_out += piece
        assert "\ufffd" not in piece
        assert expected.startswith(given_out)  # what is given out is never taken back, nor part of a stop string
    given_out += writer.finish()
    assert given_out == writer.text == expected
    assert writer.ended == ("max tokens" if expected == text else "stop string")


def test_text_is_held_back_only_while_it_may_be_a_stop_string(tokenizer: BPETokenizer) -> None:
    writer = Writer(tokenizer, ["abd"])
    assert [writer.push(token) for token in byte_ids(tokenizer, "cababc")] == ["c", "", "", "ab", "", "abc"]


def test_a_character_comes_when_its_last_byte_has_come(tokenizer: BPETokenizer) -> None:
    writer = Writer(tokenizer)
    assert [writer.push(token) for token in byte_ids(tokenizer, "a🦊")] == ["a", "", "", "", "🦊"]


def test_a_stop_string_of_one_character_may_span_tokens(tokenizer: BPETokenizer) -> None:
    writer = Writer(tokenizer, ["🦊"])
    assert [writer.push(token) for token in byte_ids(tokenizer, "a🦊b")] == ["a", "", "", "", "", ""]
    assert writer.ended == "stop string"
    assert len(writer.ids) == 5


def test_what_is_held_back_comes_when_the_text_ends_otherwise(tokenizer: BPETokenizer) -> None:
    for end, why in ((END, "stop token"), (None, "max tokens")):
        writer = Writer(tokenizer, ["abd"], {END})
        for token in byte_ids(tokenizer, "ab"):
            assert writer.push(token) == ""
        assert (writer.finish() if end is None else writer.push(end)) == "ab"
        assert (writer.text, writer.ended, len(writer.ids)) == ("ab", why, 2)
        assert writer.push(byte_ids(tokenizer, "c")[0]) == writer.finish() == ""


def test_an_end_within_a_character_shows_as_a_replacement(tokenizer: BPETokenizer) -> None:
    writer = Writer(tokenizer)
    assert "".join(map(writer.push, byte_ids(tokenizer, "é")[:1])) + writer.finish() == "\ufffd"


def test_an_empty_stop_string_is_refused(tokenizer: BPETokenizer) -> None:
    with pytest.raises(ConfigError, match="stop: found an empty text"):
        Writer(tokenizer, ["a", ""])
