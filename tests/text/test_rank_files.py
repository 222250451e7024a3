"""tiktoken's rank files: what tiktoken reads from ours, what we read from its, what is damaged."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiktoken
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiktoken.load import load_tiktoken_bpe

from pellucid.runtime import DataError, sha256
from pellucid.text.bpe import BPETokenizer
from pellucid.text.pieces import PATTERNS
from pellucid.text.rank_files import CL100K_SPECIAL, ENCODINGS, Encoding
from pellucid.text.tokenizer import Tokenizer

R50K_SHA256 = "306cd27f03c1a714eca7108e03d66b7dc042abe8c258b44c199a7ed9838dd930"  # as tiktoken checks OpenAI's file
texts = st.lists(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=40) | st.text("the fox's  \n'LL 12345", max_size=40),
    max_size=4,
).map("".join)
Cli = Any


@pytest.fixture(scope="module", params=sorted(PATTERNS))
def saved(
    request: pytest.FixtureRequest, story: str, tmp_path_factory: pytest.TempPathFactory
) -> tuple[BPETokenizer, Path]:
    path = tmp_path_factory.mktemp("ranks") / "mine.tiktoken"
    tokenizer = BPETokenizer.train([story], 350, request.param)
    tokenizer.save(path, to="tiktoken")
    return tokenizer, path


def test_what_is_written_is_read_back_with_the_end_of_text_on_top(saved: tuple[BPETokenizer, Path]) -> None:
    tokenizer, path = saved
    name = next(name for name, pattern in PATTERNS.items() if pattern == tokenizer.pattern)
    loaded = Tokenizer.load(f"{path}#{name}")
    assert loaded.merges() == tokenizer.merges()
    assert loaded.ordinary_tokens() == tokenizer.ordinary_tokens()
    assert loaded.pattern == tokenizer.pattern
    assert loaded.end_of_text == 350 == loaded.vocab_size - 1


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=texts)
def test_tiktoken_gives_the_same_ids_from_our_file(saved: tuple[BPETokenizer, Path], text: str) -> None:
    tokenizer, path = saved
    theirs = tiktoken.Encoding(
        "mine", pat_str=tokenizer.pattern, mergeable_ranks=load_tiktoken_bpe(str(path)), special_tokens={}
    )
    assert theirs.encode_ordinary(text) == tokenizer.encode(text)


def test_gpt2_written_as_ranks_is_openais_file_byte_for_byte(gpt2: Tokenizer, tmp_path: Path) -> None:
    path = tmp_path / "r50k_base.tiktoken"
    gpt2.save(path, to="tiktoken")
    assert sha256(path) == R50K_SHA256
    assert Tokenizer.load(path).fingerprint() == gpt2.fingerprint()


def test_cl100k_gets_openais_special_tokens_and_a_token_for_each_id_between_them(
    saved: tuple[BPETokenizer, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    special = {token_id - 100_256 + 350: name for token_id, name in CL100K_SPECIAL.items()}
    monkeypatch.setitem(ENCODINGS, "cl100k_base", Encoding("cl100k", 350, special))
    tokenizer = Tokenizer.load(f"{saved[1]}#cl100k_base")
    assert tokenizer.vocab_size == 371  # tiktoken's own n_vocab, with 350 for 100,256
    assert tokenizer.special_tokens["<|endofprompt|>"] == 370
    assert tokenizer.special_tokens["<|unused_350|>"] == 350
    assert tokenizer.end_of_text == 351
    assert tokenizer.encode("a<|fim_middle|>", "all")[-1] == 353


@pytest.mark.parametrize(("name", "found"), [("mine.tiktoken", "'mine'"), ("o200k_base.tiktoken", "'o200k_base'")])
def test_a_file_whose_name_does_not_say_its_split_pattern_is_an_error_that_says_how_to(
    saved: tuple[BPETokenizer, Path], tmp_path: Path, name: str, found: str
) -> None:
    (tmp_path / name).write_bytes(saved[1].read_bytes())
    with pytest.raises(DataError, match=rf"{name}: found the encoding {found}.*{name}#gpt2 or .*{name}#cl100k"):
        Tokenizer.load(tmp_path / name)


def edited(path: Path, folder: Path, change: Callable[[list[bytes]], object]) -> Path:
    lines = path.read_bytes().splitlines()
    change(lines)
    out = folder / "gpt2.tiktoken"
    out.write_bytes(b"\n".join(lines))
    return out


def line(token: bytes, rank: int) -> bytes:
    return base64.b64encode(token) + b" " + str(rank).encode()


DAMAGE: dict[str, tuple[Callable[[list[bytes]], object], str]] = {
    "bad base64": (
        lambda lines: lines.__setitem__(4, b"a!?= 4"),
        "line 5: found 'a!\\?= 4'; expected a token",
    ),
    "a rank that is text": (lambda lines: lines.__setitem__(9, b"CQ== nine"), "line 10: found 'CQ== nine'"),
    "cut in the middle of a line": (lambda lines: lines.__setitem__(-1, lines[-1][:3]), "line 350: found"),
    "a rank twice": (lambda lines: lines.append(line(b"zzz", 7)), "line 351: found the rank 7 again .as in line 8."),
    "a token twice": (lambda lines: lines.append(line(b"\x07", 350)), "line 351: found .* again .as in line 8."),
    "a rank missing": (lambda lines: lines.pop(300), "found no rank 300; expected 349 ranks"),
    "a byte missing": (lambda lines: lines.__setitem__(65, line(b"zzz", 65)), "no token for the byte b'A'"),
    "a token that nothing makes": (lambda lines: lines.append(line(b"qqqq", 350)), "b'qqqq' of rank 350, .* 4 parts"),
    "another file": (lambda lines: lines.__setitem__(slice(None), [b"{}", b"[]"]), "line 1: found '{}'"),
    "nothing": (lambda lines: lines.clear(), "no token for the byte"),
}


@pytest.mark.parametrize(("change", "message"), DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_file_is_an_error_that_names_the_file_and_the_line(
    saved: tuple[BPETokenizer, Path], tmp_path: Path, change: Callable[[list[bytes]], object], message: str
) -> None:
    path = edited(saved[1], tmp_path, change)
    with pytest.raises(DataError, match=message) as error:
        Tokenizer.load(path)
    assert str(error.value).startswith(str(path))


def test_openais_file_cut_short_at_a_line_is_an_error(saved: tuple[BPETokenizer, Path], tmp_path: Path) -> None:
    path = tmp_path / "cl100k_base.tiktoken"
    path.write_bytes(saved[1].read_bytes())
    with pytest.raises(DataError, match="found 350 ranks; expected the 100,256 of cl100k_base"):
        Tokenizer.load(path)
    with pytest.raises(DataError, match=r"nowhere\.tiktoken: found no readable file"):
        Tokenizer.load(f"{tmp_path / 'nowhere.tiktoken'}#gpt2")


def test_what_ranks_cannot_say_is_not_written(bpe: BPETokenizer, tmp_path: Path, story: str) -> None:
    table = [bytes([value]) for value in range(256)] + [b"ab", b"abc", b"bc"]
    odd = BPETokenizer(table, [(98, 99), (97, 98), (256, 99)], {})  # bc is merged first, but has the highest id
    with pytest.raises(DataError, match="ids that are no ranks"):
        odd.save(tmp_path / "odd.tiktoken", to="tiktoken")
    with pytest.raises(DataError, match="byte-level BPE"):
        from pellucid.text.word import WordTokenizer

        WordTokenizer.train([story]).save(tmp_path / "words.tiktoken", to="tiktoken")
    with pytest.raises(DataError, match=r"NAME\.tiktoken"):
        bpe.save(tmp_path / "folder", to="tiktoken")
    assert list(tmp_path.iterdir()) == []


def test_export_says_what_ranks_leave_out(call: Cli, bpe: BPETokenizer, tmp_path: Path) -> None:
    bpe.save(tmp_path)
    said = call("tokenizer", "export", tmp_path, "--to", "tiktoken", "--out", tmp_path / "x.tiktoken").stdout
    assert "the split pattern (gpt2)" in said
    assert "<|endoftext|> = 300" in said
    assert Tokenizer.load(f"{tmp_path / 'x.tiktoken'}#gpt2").merges() == bpe.merges()
