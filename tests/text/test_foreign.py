"""Tokenizers of other makers: the ids of the library that made them, and the promises of every tokenizer of ours."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors
from transformers import AutoTokenizer

from pellucid.generation.engine import prompt_ids
from pellucid.runtime import DataError, PellucidError
from pellucid.text.bpe import BPETokenizer
from pellucid.text.foreign import ForeignTokenizer
from pellucid.text.tokenizer import Tokenizer
from tests.text.strings import strings

KINDS = ("NFC", "digits", "SentencePiece")
any_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=40) | st.text(
    "the fox's e\u0301 12  \n🦊", max_size=40
)


def with_bytes(story: str, kind: str) -> tokenizers.Tokenizer:
    """Byte-level BPE as Qwen3 (normalised) and SmolLM2 (each digit alone) have it."""
    made = tokenizers.Tokenizer(models.BPE())
    level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    if kind == "NFC":
        made.normalizer = normalizers.NFC()
        made.pre_tokenizer = level
    else:
        made.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), level])
    made.decoder = decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=400,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<s>", "</s>"],
        show_progress=False,
    )
    made.train_from_iterator([story], trainer)
    return made


def sentence_piece() -> tokenizers.Tokenizer:
    """As TinyLlama and Mistral have it: spaces as ▁, one before the text, unknown characters as bytes."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{value:02X}>" for value in range(256)), "▁", *"thefoxs'", "th", "the"]
    vocabulary = {piece: number for number, piece in enumerate([*pieces, "▁the", "▁f", "ox", "▁fox"])}
    merges = [("t", "h"), ("th", "e"), ("▁", "the"), ("▁", "f"), ("o", "x"), ("▁f", "ox")]
    made = tokenizers.Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    made.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    made.add_special_tokens(["<unk>", "<s>", "</s>"])
    made.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 1)])
    return made


@pytest.fixture(scope="module", params=KINDS)
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, story: str) -> Any:
    """Ours, theirs, and the folder of both."""
    folder = tmp_path_factory.mktemp(request.param)
    theirs = sentence_piece() if request.param == "SentencePiece" else with_bytes(story, request.param)
    theirs.save(str(folder / "tokenizer.json"))
    config = {"bos_token": "<s>", "eos_token": "</s>", "tokenizer_class": "PreTrainedTokenizerFast"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return Tokenizer.load(folder), theirs, folder


def test_what_ours_cannot_say_is_read_by_its_own_library(both: Any) -> None:
    ours, theirs, _ = both
    assert isinstance(ours, ForeignTokenizer)
    assert ours.vocab_size == theirs.get_vocab_size()
    assert prompt_ids(ours, "")[0] == theirs.token_to_id("<s>") == ours.begin_of_text
    assert ours.end_of_text == theirs.token_to_id("</s>")


def test_ids_and_text_are_those_of_the_library(both: Any) -> None:
    ours, theirs, _ = both
    texts = [text for text in strings(500) if "<" not in text]
    for text, ids in zip(texts, ours.encode_arrays(texts), strict=True):
        expected = theirs.encode(text, add_special_tokens=False).ids
        assert ids.tolist() == ours.encode(text) == expected
        assert ours.decode(expected) == theirs.decode(expected, skip_special_tokens=False)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=any_text)
def test_pieces_cover_every_byte_in_order(both: Any, text: str) -> None:
    pieces = both[0].pieces(text)
    assert [piece.id for piece in pieces] == both[0].encode(text)
    ends = [0, *(piece.end for piece in pieces)]
    assert [piece.start for piece in pieces] == ends[:-1]
    assert ends[-1] == len(text.encode())


def test_special_tokens_are_text_unless_allowed_and_streams_never_end_in_a_character(both: Any) -> None:
    ours, _, _ = both
    end = ours.end_of_text
    assert end not in ours.encode("the</s>fox")
    assert ours.encode("the</s>fox", ["</s>"]).count(end) == 1
    stream, ids = ours.stream(), ours.encode("the 🦊 é")
    pieces = [stream.push(token) for token in ids]
    assert "".join(pieces).strip() == "the 🦊 é" and stream.flush() == ""
    assert not any("\ufffd" in piece for piece in pieces)
    with pytest.raises(DataError, match="lone surrogate"):
        ours.encode("a\ud800")


def test_saved_with_a_new_special_token_transformers_gives_the_same_ids(both: Any, tmp_path: Path) -> None:
    _, _, folder = both
    ours = Tokenizer.load(folder)
    before = ours.fingerprint()
    assert ours.add_special_tokens(["<|user|>"]) == 1 and ours.fingerprint() != before
    ours.save(tmp_path)
    again, theirs = Tokenizer.load(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    assert again.fingerprint() == ours.fingerprint()
    assert (again.begin_of_text, again.end_of_text) == (ours.begin_of_text, ours.end_of_text)
    text = "the fox<|user|> 12 e\u0301</s>"
    assert (
        theirs(text, add_special_tokens=False)["input_ids"]
        == again.encode("the fox", "all")
        + [ours.special_tokens["<|user|>"]]
        + theirs(" 12 e\u0301</s>", add_special_tokens=False)["input_ids"]
    )
    assert theirs.bos_token == "<s>" and theirs.eos_token == "</s>"


@pytest.mark.parametrize(
    "change",
    [
        {"normalizer": {"type": "NFC"}},
        {"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}},
        {"pre_tokenizer": {"type": "Whitespace"}},
        {"model": {"byte_fallback": True}},
    ],
    ids=["a normalizer", "a prefix space", "another pre-tokenizer", "byte fallback"],
)
def test_each_rule_that_ours_do_not_know_is_left_to_the_library(
    change: dict[str, Any], tmp_path: Path, bpe: BPETokenizer
) -> None:
    bpe.save(tmp_path)
    content = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))
    for key, value in change.items():
        content[key] = content[key] | value if key == "model" else value
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    ours, theirs = Tokenizer.load(tmp_path), tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert isinstance(ours, ForeignTokenizer)
    for text in ("the fox couldn't find e\u0301 12 grapes", " two  spaces\n", ""):
        assert ours.encode(text) == theirs.encode(text, add_special_tokens=False).ids


def test_without_its_library_it_is_said_how_to_get_it(both: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(PellucidError, match=r"pip install 'pellucid\[foreign\]'"):
        Tokenizer.load(both[2])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"normalizer": {"type": "Nothing"}}, "cannot read"),
        (
            {"pre_tokenizer": {"type": "Split", "pattern": {"Regex": "("}, "behavior": "Isolated", "invert": False}},
            "cannot read",
        ),
        ({"normalizer": {"type": "NFC"}, "model": None}, "no model"),
    ],
)
def test_a_damaged_one_is_an_error_that_names_the_file(
    change: dict[str, Any], message: str, tmp_path: Path, bpe: BPETokenizer
) -> None:
    bpe.save(tmp_path)
    content = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))
    (tmp_path / "tokenizer.json").write_text(json.dumps(content | change))
    with pytest.raises(DataError, match=rf"tokenizer\.json: found .*{message}"):
        Tokenizer.load(tmp_path)
