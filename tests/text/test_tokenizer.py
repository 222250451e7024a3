"""What all tokenizers promise: text comes back, special tokens only where allowed, offsets, streaming, clear errors."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pellucid.runtime import DataError
from pellucid.text.bpe import BPETokenizer
from pellucid.text.character import CharacterTokenizer
from pellucid.text.tokenizer import UNKNOWN, Tokenizer
from pellucid.text.word import WordTokenizer

relaxed = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
any_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=50)


@pytest.fixture(params=["char", "word", "bpe"])
def tokenizer(request: pytest.FixtureRequest, story: str) -> Tokenizer:
    if request.param == "bpe":
        return BPETokenizer.train([story], 300)
    return (CharacterTokenizer if request.param == "char" else WordTokenizer).train([story])


def test_known_text_comes_back_unchanged(tokenizer: Tokenizer, story: str) -> None:
    assert tokenizer.decode(tokenizer.encode(story)) == story
    assert tokenizer.encode("") == []
    assert tokenizer.decode([]) == ""


@relaxed
@given(text=any_text)
def test_pieces_cover_every_byte_of_any_text_in_order(tokenizer: Tokenizer, text: str) -> None:
    pieces = tokenizer.pieces(text)
    assert [piece.id for piece in pieces] == tokenizer.encode(text)
    ends = [0, *(piece.end for piece in pieces)]
    assert [piece.start for piece in pieces] == ends[:-1]
    assert ends[-1] == len(text.encode())
    for piece in pieces:
        assert piece.text == text.encode()[piece.start : piece.end].decode("utf-8", "replace")
        assert piece.id == tokenizer.unknown_id or piece.text == tokenizer.decode([piece.id])


@relaxed
@given(text=any_text)
def test_words_and_characters_cut_any_text_without_losing_any_of_it(text: str) -> None:
    assert "".join(WordTokenizer.split(text)) == text
    assert "".join(CharacterTokenizer.split(text)) == text


def test_a_word_token_is_a_word_a_mark_or_a_space() -> None:
    assert list(WordTokenizer.split("Don't stop,  he said.")) == [
        "Don't", " ", "stop", ",", " ", " ", "he", " ", "said", ".",
    ]  # fmt: skip


def test_batches_give_the_ids_of_single_texts(tokenizer: Tokenizer, story: str) -> None:
    texts = [story, "", "the fox", story * 60]
    assert tokenizer.encode_batch(texts) == [tokenizer.encode(text) for text in texts]
    assert tokenizer.decode_batch(tokenizer.encode_batch(texts)) == texts
    marked = [tokenizer.encode("the<|user|>", "all"), tokenizer.encode("fox")]
    assert tokenizer.decode_batch(marked, skip_special=True) == ["the", "fox"]


def test_a_stream_of_texts_is_encoded_as_it_comes(tokenizer: Tokenizer) -> None:
    assert next(tokenizer.encode_stream(itertools.repeat("the fox"))) == tokenizer.encode("the fox")


def test_special_tokens_are_text_unless_allowed(tokenizer: Tokenizer) -> None:
    text = "the<|user|>fox<|endoftext|>"
    user, end = tokenizer.special_tokens["<|user|>"], tokenizer.end_of_text
    assert not {user, end} & set(tokenizer.encode(text))
    assert user in tokenizer.encode(text, ["<|user|>"])
    assert end not in tokenizer.encode(text, ["<|user|>"])
    ids = tokenizer.encode(text, "all")
    assert ids == [*tokenizer.encode("the"), user, *tokenizer.encode("fox"), end]
    assert tokenizer.decode(ids) == text
    assert tokenizer.decode(ids, skip_special=True) == "thefox"
    assert tokenizer.offsets(text, "all")[-1] == (len(text) - 13, len(text))


def test_the_longest_of_two_special_tokens_that_fit_is_taken(tokenizer: Tokenizer) -> None:
    assert tokenizer.add_special_tokens(["<|a|>", "<|a|><|b|>", "<|user|>"]) == 2
    assert tokenizer.add_special_tokens(["<|a|>"]) == 0
    assert tokenizer.encode("<|a|><|b|>", "all") == [tokenizer.special_tokens["<|a|><|b|>"]]


def test_new_special_tokens_get_the_next_ids_and_change_the_fingerprint(tokenizer: Tokenizer) -> None:
    size, fingerprint = tokenizer.vocab_size, tokenizer.fingerprint()
    tokenizer.add_special_tokens(["<|one|>", "<|two|>"])
    assert (tokenizer.special_tokens["<|one|>"], tokenizer.special_tokens["<|two|>"]) == (size, size + 1)
    assert tokenizer.vocab_size == size + 2 == len(tokenizer.vocab())
    assert tokenizer.fingerprint() != fingerprint


def test_names_that_cannot_be_special_are_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(DataError, match="empty name"):
        tokenizer.add_special_tokens([""])
    with pytest.raises(DataError, match="not_there"):
        tokenizer.encode("x", ["not_there"])
    with pytest.raises(DataError, match="an ordinary token"):
        tokenizer.add_special_tokens([","])


@pytest.mark.parametrize("kind", [CharacterTokenizer, WordTokenizer])
@pytest.mark.parametrize("name", ["", "a"])
def test_names_that_cannot_be_special_are_refused_in_training_too(kind: type[CharacterTokenizer], name: str) -> None:
    with pytest.raises(DataError, match=r"special tokens: found (an empty name|'a', an ordinary token)"):
        kind.train(["a b"], special_tokens=[name])


def test_ids_out_of_range_are_an_error(tokenizer: Tokenizer) -> None:
    for bad in (-1, tokenizer.vocab_size):
        with pytest.raises(DataError, match="token id"):
            tokenizer.decode([bad])


def test_the_vocabulary_and_the_ids_are_one_table(tokenizer: Tokenizer) -> None:
    vocab = tokenizer.vocab()
    assert sorted(vocab.values()) == list(range(tokenizer.vocab_size))
    for token, token_id in vocab.items():
        assert tokenizer.token_bytes(token_id) == (token if isinstance(token, bytes) else token.encode())


@pytest.mark.parametrize(("cls", "text", "expected"), [(CharacterTokenizer, "axb", 1), (WordTokenizer, "a xyz b", 1)])
def test_what_is_unknown_becomes_unk_and_is_counted_in_a_message(
    cls: type[CharacterTokenizer], text: str, expected: int, capsys: pytest.CaptureFixture[str]
) -> None:
    tokenizer = cls.train(["a b"])
    ids = tokenizer.encode(text)
    assert ids.count(tokenizer.special_tokens[UNKNOWN]) == expected
    assert f"1 of {len(ids)} tokens" in capsys.readouterr().err
    list(tokenizer.encode_stream([text, text]))
    assert f"2 of {2 * len(ids)} tokens" in capsys.readouterr().err
    tokenizer.encode_batch([text, text])
    assert f"2 of {2 * len(ids)} tokens" in capsys.readouterr().err


def test_the_most_frequent_words_are_kept() -> None:
    tokenizer = WordTokenizer.train(["b b b a a c d"], vocab_size=3)
    assert list(tokenizer.vocab())[:3] == [" ", "b", "a"]
    assert tokenizer.vocab_size == 3 + 5


# ---------------------------------------------------------------- streaming


@relaxed
@given(st.lists(st.integers(0, 303), max_size=40))
def test_a_stream_gives_the_text_that_decode_gives(bpe: BPETokenizer, ids: list[int]) -> None:
    stream, shown = bpe.stream(), ""
    for token in ids:
        shown += stream.push(token)
        assert bpe.decode(ids).startswith(shown)
    assert shown + stream.flush() == bpe.decode(ids)


@relaxed
@given(any_text)
def test_a_stream_never_emits_half_a_character(bpe: BPETokenizer, text: str) -> None:
    stream = bpe.stream()
    shown = ""
    for token in bpe.encode(text):
        shown += stream.push(token)
        assert text.startswith(shown)
    assert stream.flush() == ""
    assert shown == text


def test_a_stream_that_ends_within_a_character_shows_that_something_is_missing(bpe: BPETokenizer) -> None:
    stream = bpe.stream()
    assert [stream.push(value) for value in "🙂".encode()[:3]] == ["", "", ""]
    assert stream.flush() == "\ufffd"
