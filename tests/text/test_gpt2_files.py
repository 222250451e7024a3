"""vocab.json + merges.txt: read by `tokenizers`, read back by us, and GPT-2's own the same from every kind of file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tokenizers

from pellucid.runtime import DataError
from pellucid.text.bpe import BPETokenizer
from pellucid.text.tokenizer import Tokenizer
from pellucid.text.word import WordTokenizer

Cli = Any


def test_the_pair_is_read_back_as_the_same_tokenizer(bpe: BPETokenizer, tmp_path: Path) -> None:
    bpe.save(tmp_path, to="vocab-merges")
    assert {path.name for path in tmp_path.iterdir()} == {"vocab.json", "merges.txt"}
    assert Tokenizer.load(tmp_path).fingerprint() == bpe.fingerprint()


def test_tokenizers_gives_the_same_ids_from_our_pair(bpe: BPETokenizer, tmp_path: Path, story: str) -> None:
    bpe.save(tmp_path, to="vocab-merges")
    theirs = tokenizers.ByteLevelBPETokenizer(str(tmp_path / "vocab.json"), str(tmp_path / "merges.txt"))
    assert theirs.encode(story).ids == bpe.encode(story)


def test_gpt2_has_the_same_ids_from_every_format(gpt2: Tokenizer, tmp_path: Path, data_folder: Path) -> None:
    gpt2.save(tmp_path / "hf")
    gpt2.save(tmp_path / "pair", to="vocab-merges")
    gpt2.save(tmp_path / "gpt2.tiktoken", to="tiktoken")
    text = (data_folder / "text" / "the-verdict.txt").read_text(encoding="utf-8")[:3000] + " Naïve 日本 🙂<|endoftext|>"
    ids = gpt2.encode(text, "all")
    for where in ("hf", "pair", "gpt2.tiktoken"):
        loaded = Tokenizer.load(tmp_path / where)
        assert loaded.encode(text, "all") == ids
        assert loaded.fingerprint() == gpt2.fingerprint()
    openais = json.loads((data_folder / "gpt2" / "encoder.json").read_text("utf-8"))
    assert json.loads((tmp_path / "pair" / "vocab.json").read_text("utf-8")) == openais
    merges = (data_folder / "gpt2" / "vocab.bpe").read_text("utf-8").splitlines()
    assert (tmp_path / "pair" / "merges.txt").read_text("utf-8").splitlines() == merges


def test_what_the_pair_cannot_say_is_not_written(bpe: BPETokenizer, tmp_path: Path, story: str) -> None:
    with pytest.raises(DataError, match="another split pattern"):
        BPETokenizer.train([story], 300, "cl100k").save(tmp_path, to="vocab-merges")
    with pytest.raises(DataError, match="a word tokenizer"):
        WordTokenizer.train([story]).save(tmp_path, to="vocab-merges")
    bpe.add_special_tokens(["END OF IT"])
    with pytest.raises(DataError, match="the special token 'END OF IT'"):
        bpe.save(tmp_path, to="vocab-merges")
    assert list(tmp_path.iterdir()) == []


def test_export_turns_the_pair_into_a_tokenizer_json_and_back(call: Cli, bpe: BPETokenizer, tmp_path: Path) -> None:
    bpe.save(tmp_path / "pair", to="vocab-merges")
    for source, to in (("pair", "tokenizer.json"), ("tokenizer.json", "vocab-merges")):
        done = call("tokenizer", "export", tmp_path / source, "--to", to, "--out", tmp_path / to, "--json")
        assert json.loads(done.stdout) == {"out": str(tmp_path / to), "to": to, "vocab_size": bpe.vocab_size}
        assert Tokenizer.load(tmp_path / to).fingerprint() == bpe.fingerprint()
