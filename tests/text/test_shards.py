"""Shards hold exactly what was written, with whichever tokenizer; damage of any kind is found and named."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pellucid.runtime import DataError, PellucidError
from pellucid.text.bpe import BPETokenizer
from pellucid.text.character import CharacterTokenizer
from pellucid.text.documents import Document
from pellucid.text.shard_writer import write_shards
from pellucid.text.shards import Shards, smallest_dtype
from pellucid.text.tokenizer import Tokenizer

TEXTS = {"train": ["The fox ran.", "", "Naïve 🙂 café " * 50], "val": ["grapes"], "test": ["the end", "really"]}


def documents(nats: float | None = None) -> dict[str, list[Document]]:
    return {split: [Document(text, "here", nats=nats) for text in texts] for split, texts in TEXTS.items()}


@pytest.fixture
def shards(tmp_path: Path, bpe: BPETokenizer) -> Shards:
    return write_shards(documents(), bpe, tmp_path / "shards")


def read_back(shards: Shards, split: str, tokenizer: Tokenizer) -> list[str]:
    tokens, offsets = shards.tokens(split), shards.offsets(split)
    return [tokenizer.decode(tokens[a + 1 : b].tolist()) for a, b in pairwise(offsets.tolist())]


def test_documents_come_back_from_the_shards(shards: Shards, bpe: BPETokenizer) -> None:
    opened = Shards.open(shards.folder)
    assert opened.splits == ["train", "val", "test"]
    for split, texts in TEXTS.items():
        assert read_back(opened, split, opened.tokenizer()) == texts
        assert opened.documents(split) == len(texts)
        assert opened.bytes(split) == sum(len(text.encode()) for text in texts)
        assert isinstance(opened.tokens(split), np.memmap)
        assert opened.tokens(split).dtype == np.uint16
    assert opened.vocab_size == bpe.vocab_size


def test_an_end_of_text_stands_before_each_document_and_after_the_last(shards: Shards, bpe: BPETokenizer) -> None:
    for split in shards.splits:
        tokens, offsets = shards.tokens(split), shards.offsets(split)
        assert np.flatnonzero(tokens == bpe.end_of_text).tolist() == offsets.tolist()
        assert offsets[0] == 0
        assert offsets[-1] == len(tokens) - 1


def test_a_document_that_holds_the_name_of_a_special_token_does_not_end_itself(
    tmp_path: Path, bpe: BPETokenizer
) -> None:
    shards = write_shards({"train": [Document("a<|endoftext|>b", "x")]}, bpe, tmp_path / "s")
    assert (shards.tokens("train") == bpe.end_of_text).sum() == 2


@settings(deadline=None, max_examples=25)
@given(texts=st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=30), max_size=6))
def test_any_documents_come_back(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    tokenizer = BPETokenizer.train(["some text"], 258)
    out = tmp_path_factory.mktemp("any") / "s"
    shards = write_shards({"train": (Document(text, "x") for text in texts)}, tokenizer, out)
    assert read_back(shards, "train", tokenizer) == texts


def test_nats_are_summed_where_every_document_has_them(tmp_path: Path, bpe: BPETokenizer) -> None:
    assert write_shards(documents(nats=1.5), bpe, tmp_path / "a").nats("train") == 4.5
    mixed = {"train": [Document("a", "x", nats=1.0), Document("b", "x")], "val": []}
    shards = write_shards(mixed, bpe, tmp_path / "b")
    assert shards.nats("train") is None
    assert shards.nats("val") is None


def test_unknown_tokens_are_counted_in_one_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tokenizer = CharacterTokenizer.train(["ab"])
    shards = write_shards({"train": [Document("axb", "1"), Document("y", "2")]}, tokenizer, tmp_path / "s")
    assert capsys.readouterr().err.count("2 of 7 tokens") == 1
    assert shards.tokens("train").dtype == np.uint8
    assert Shards.open(tmp_path / "s").tokenizer().fingerprint() == tokenizer.fingerprint()


def test_the_smallest_type_that_holds_every_id_is_taken() -> None:
    sizes = {256: "uint8", 257: "uint16", 65536: "uint16", 65537: "uint32"}
    assert {size: smallest_dtype(size).name for size in sizes} == sizes


def test_the_same_documents_give_the_same_bytes(tmp_path: Path, bpe: BPETokenizer) -> None:
    for name in ("a", "b"):
        write_shards(documents(), bpe, tmp_path / name)
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert files == sorted(path.name for path in (tmp_path / "b").iterdir())
    assert all((tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes() for name in files)


def test_shards_replace_shards_but_nothing_else(tmp_path: Path, bpe: BPETokenizer) -> None:
    write_shards(documents(), bpe, tmp_path / "s")
    write_shards({"train": [Document("new", "x")]}, bpe, tmp_path / "s")
    assert Shards.open(tmp_path / "s").splits == ["train"]
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("years of work")
    with pytest.raises(DataError, match="something else there"):
        write_shards(documents(), bpe, tmp_path / "thesis")
    with pytest.raises(DataError, match="something else there"):
        write_shards(documents(), bpe, tmp_path / "thesis" / "chapter.txt")
    assert (tmp_path / "thesis" / "chapter.txt").read_text() == "years of work"
    (tmp_path / "s" / "shards.json").write_text("damaged")
    (tmp_path / "s" / "run").mkdir()
    with pytest.raises(DataError, match=r"something else there \(run\)"):
        write_shards(documents(), bpe, tmp_path / "s")
    (tmp_path / "s" / "run").rmdir()
    (tmp_path / "s" / ".DS_Store").write_text("what a system leaves")
    write_shards(documents(), bpe, tmp_path / "s")


def test_an_error_while_writing_leaves_nothing_and_keeps_what_was_there(tmp_path: Path, bpe: BPETokenizer) -> None:
    write_shards(documents(), bpe, tmp_path / "s")

    def broken() -> object:
        yield Document("one", "x")
        raise PellucidError("the source broke")

    with pytest.raises(PellucidError, match="the source broke"):
        write_shards({"train": broken()}, bpe, tmp_path / "s")  # type: ignore[dict-item]
    assert Shards.open(tmp_path / "s").documents("train") == 3
    assert [path.name for path in tmp_path.iterdir()] == ["s"]


# ---------------------------------------------------------------- damage


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("name", ["train-00000.npy", "test-00000.npy", "val-00000.offsets.npy"])
def test_a_flipped_bit_is_found(shards: Shards, name: str) -> None:
    flip_a_bit(shards.folder / name)
    with pytest.raises(DataError, match=f"{name}: found changed content"):
        Shards.open(shards.folder)


@pytest.mark.parametrize("left", [0, 5, 60, -1])
def test_a_truncated_file_is_found_even_without_verifying(shards: Shards, left: int) -> None:
    path = shards.folder / "train-00000.npy"
    path.write_bytes(path.read_bytes()[:left])
    with pytest.raises(DataError, match=r"train-00000\.npy: found"):
        Shards.open(shards.folder, verify=False)


def test_a_missing_file_is_found(shards: Shards) -> None:
    (shards.folder / "val-00000.npy").unlink()
    with pytest.raises(DataError, match=r"val-00000\.npy: found no file"):
        Shards.open(shards.folder)


def test_a_file_of_another_length_or_type_is_found(shards: Shards) -> None:
    np.save(shards.folder / "train-00000.npy", np.zeros(7, dtype=np.uint32))
    with pytest.raises(DataError, match="7 numbers of type uint32"):
        Shards.open(shards.folder, verify=False)


def test_a_pickle_is_not_opened(shards: Shards) -> None:
    np.save(shards.folder / "train-00000.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match="damaged file"):
        Shards.open(shards.folder)


def test_another_tokenizer_is_refused(shards: Shards, bpe: BPETokenizer) -> None:
    shards.require_tokenizer(bpe)
    other = BPETokenizer.train(["another text"], 260)
    with pytest.raises(DataError, match="another tokenizer"):
        shards.require_tokenizer(other)
    other.save(shards.folder)
    with pytest.raises(DataError, match="another tokenizer"):
        shards.tokenizer()


DESCRIPTIONS = [
    ({"version": 99}, "version 99"),
    ({"tokenizer": None}, "no valid 'tokenizer'"),
    ({"splits": {"train": {}}}, "broken description of 'train'"),
    ({"dtype": "object"}, "'object'"),
]


@pytest.mark.parametrize(("change", "message"), DESCRIPTIONS)
def test_a_broken_description_is_named(shards: Shards, change: dict[str, object], message: str) -> None:
    path = shards.folder / "shards.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(DataError, match=message):
        Shards.open(shards.folder)


def test_what_is_no_folder_of_shards_is_named(tmp_path: Path, shards: Shards) -> None:
    with pytest.raises(DataError, match=r"no shards\.json"):
        Shards.open(tmp_path)
    with pytest.raises(DataError, match="no such folder"):
        Shards.open(tmp_path / "nothing")
    with pytest.raises(DataError, match="no split 'dev'"):
        shards.tokens("dev")
