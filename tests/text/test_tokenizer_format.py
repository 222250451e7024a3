"""Tokenizer files: what `tokenizers` and `transformers` read from ours, what we read from theirs, what we refuse."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from transformers import AutoTokenizer

from pellucid.runtime import DataError
from pellucid.text.bpe import BPETokenizer
from pellucid.text.gpt2_files import spell
from pellucid.text.tokenizer import Tokenizer
from pellucid.text.tokenizer_format import KINDS

VARIANTS = {"char": ("char", None), "word": ("word", None), "gpt2": ("bpe", "gpt2"), "cl100k": ("bpe", "cl100k")}
MODEL_CONFIGS = [None, {"model_type": "gpt2"}, {"model_type": "llama"}]
LLAMA_3 = (  # as in its tokenizer.json
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
TEMPLATE = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% endfor %}"
texts = st.lists(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=40) | st.text("the fox's  \n'LL 12345", max_size=40),
    max_size=4,
).map("".join)


def make(variant: str, story: str) -> Tokenizer:
    kind, pattern = VARIANTS[variant]
    if kind == "bpe":
        assert pattern is not None
        return BPETokenizer.train([story], 300, pattern)
    cls: Any = KINDS[kind]
    tokenizer: Tokenizer = cls.train([story])
    return tokenizer


@pytest.fixture(scope="module", params=sorted(VARIANTS))
def saved(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Tokenizer, Path]:
    folder = tmp_path_factory.mktemp(request.param)
    tokenizer = make(request.param, "The fox couldn't find 42 grapes.\n\nHe'll find <|them|>, naïve  日本語 🙂!\n" * 3)
    tokenizer.chat_template = TEMPLATE
    tokenizer.model_max_length = 256
    tokenizer.save(folder)
    return tokenizer, folder


def test_a_saved_tokenizer_loads_as_the_same(saved: tuple[Tokenizer, Path]) -> None:
    tokenizer, folder = saved
    for where in (folder, folder / "tokenizer.json", str(folder)):
        loaded = Tokenizer.load(where)
        assert type(loaded) is type(tokenizer)
        assert loaded.fingerprint() == tokenizer.fingerprint()
        assert loaded.chat_template == TEMPLATE
        assert loaded.model_max_length == 256
        assert loaded.end_of_text == tokenizer.end_of_text


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=texts)
def test_tokenizers_gives_the_same_ids_and_text(saved: tuple[Tokenizer, Path], text: str) -> None:
    tokenizer, folder = saved
    theirs = cached_theirs(folder)
    ids = tokenizer.encode(text, "all")
    assert theirs.encode(text).ids == ids
    assert theirs.decode(ids, skip_special_tokens=False) == tokenizer.decode(ids)


theirs_by_folder: dict[Path, tokenizers.Tokenizer] = {}


def cached_theirs(folder: Path) -> tokenizers.Tokenizer:
    if folder not in theirs_by_folder:
        theirs_by_folder[folder] = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    return theirs_by_folder[folder]


@pytest.mark.parametrize("model_config", MODEL_CONFIGS)
def test_transformers_gives_the_same_ids_in_a_run_folder(
    saved: tuple[Tokenizer, Path], model_config: dict[str, str] | None
) -> None:
    tokenizer, folder = saved
    (folder / "config.json").unlink(missing_ok=True)
    if model_config:
        (folder / "config.json").write_text(json.dumps(model_config))
    theirs = AutoTokenizer.from_pretrained(folder)
    text = "The fox<|endoftext|> zebra's ÿ  \n\n日本\t<|user|>He'LL find 12345 \u00a0<|them|>🙂"
    assert theirs(text)["input_ids"] == tokenizer.encode(text, "all")
    assert theirs.decode(tokenizer.encode("The fox , he 's 42!")) == tokenizer.decode(
        tokenizer.encode("The fox , he 's 42!")
    )
    assert len(theirs) == tokenizer.vocab_size
    assert theirs.eos_token_id == theirs.bos_token_id == tokenizer.end_of_text
    assert theirs.unk_token_id == tokenizer.unknown_id
    assert theirs.model_max_length == 256
    chat = theirs.apply_chat_template([{"role": "user", "content": "fox"}], tokenize=False)
    assert chat == "<|user|>fox"


def test_what_transformers_saves_loads_as_the_same(saved: tuple[Tokenizer, Path], tmp_path: Path) -> None:
    tokenizer, folder = saved
    AutoTokenizer.from_pretrained(folder).save_pretrained(tmp_path)
    loaded = Tokenizer.load(tmp_path)
    assert loaded.fingerprint() == tokenizer.fingerprint()
    assert loaded.chat_template == TEMPLATE


def test_a_tokenizer_that_tokenizers_trained_gives_its_ids(tmp_path: Path, story: str) -> None:
    theirs = tokenizers.ByteLevelBPETokenizer()
    theirs.train_from_iterator([story], vocab_size=400, special_tokens=["<|endoftext|>"], show_progress=False)
    theirs.save(str(tmp_path / "tokenizer.json"))
    ours = Tokenizer.load(tmp_path)
    assert ours.end_of_text == 0
    assert ours.encode(story) == theirs.encode(story).ids
    ours.save(tmp_path / "again")
    again = tokenizers.Tokenizer.from_file(str(tmp_path / "again" / "tokenizer.json"))
    assert again.encode(story + "<|endoftext|>").ids == theirs.encode(story + "<|endoftext|>").ids


@pytest.mark.parametrize("names", [("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe")])
def test_vocabulary_and_merges_files_load_under_both_names(
    tmp_path: Path, bpe: BPETokenizer, names: tuple[str, str]
) -> None:
    write_pair(bpe, tmp_path, names)
    for where in (tmp_path, tmp_path / names[0], tmp_path / names[1]):
        assert Tokenizer.load(where).fingerprint() == bpe.fingerprint()


def write_pair(bpe: BPETokenizer, folder: Path, names: tuple[str, str]) -> None:
    vocab = {spell(t) if isinstance(t, bytes) else t: i for t, i in bpe.vocab().items()}
    merges = [f"{spell(bpe.token_bytes(a))} {spell(bpe.token_bytes(b))}" for a, b in bpe.merges()]
    (folder / names[0]).write_text(json.dumps(vocab), encoding="utf-8")
    (folder / names[1]).write_text("#version: 0.2\n" + "\n".join(merges) + "\n", encoding="utf-8")


def test_what_says_how_text_is_split_is_as_in_gpt2s_and_llama_3s_files(tmp_path: Path, story: str) -> None:
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    split = {"type": "Split", "pattern": {"Regex": LLAMA_3}, "behavior": "Isolated", "invert": False}
    of_llama_3 = {"type": "Sequence", "pretokenizers": [split, byte_level | {"use_regex": False}]}
    for pattern, expected in (("gpt2", byte_level), ("cl100k", of_llama_3)):
        BPETokenizer.train([story], 300, pattern).save(tmp_path)
        content = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))
        assert content["pre_tokenizer"] == expected
        assert content["decoder"] == byte_level | {"add_prefix_space": True}
        assert (content["normalizer"], content["model"]["type"]) == (None, "BPE")


def test_the_readable_vocabulary_shows_counts_where_training_left_them(tmp_path: Path) -> None:
    tokenizer = BPETokenizer.train(["ababab \t\t 日日"], 259)
    tokenizer.counts = {256: 1234, 257: 5}
    tokenizer.save(tmp_path)
    lines = (tmp_path / "vocab.txt").read_text(encoding="utf-8").splitlines()
    assert lines[256].split()[:5] == ["256", "'ab'", "1,234", "=", "'a'"]
    assert lines[257].split()[2] == "5"
    assert lines[9].split() == ["9", "'\\t'"]
    assert len({cell_len(line[: line.index("=")]) for line in lines[256:259]}) == 1  # aligned, of wide letters, too
    Tokenizer.load(tmp_path).save(tmp_path)
    assert "1,234" not in (tmp_path / "vocab.txt").read_text(encoding="utf-8")


def test_the_readable_vocabulary_names_each_token_and_its_parents(tmp_path: Path) -> None:
    BPETokenizer.train(["ababab 🙂"], 258).save(tmp_path)
    lines = (tmp_path / "vocab.txt").read_text(encoding="utf-8").splitlines()
    assert lines[256].split() == ["256", "'ab'", "3", "=", "'a'", "+", "'b'"]
    assert lines[258].split() == ["258", "'<|endoftext|>'", "(special)"]
    assert "b'\\xf0'" in lines[0xF0]


# ---------------------------------------------------------------- damaged and foreign files


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")


def split_by(pattern: str) -> dict[str, Any]:
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}
    return {"type": "Sequence", "pretokenizers": [split, byte_level]}


DAMAGE: list[tuple[str, Callable[[dict[str, Any]], object], str]] = [
    ("no model", lambda c: c.pop("model"), "no model"),
    ("another model", lambda c: c["model"].update(type="Unigram"), "Unigram"),
    ("WordPiece", lambda c: c["model"].update(type="WordPiece"), "a tokenizer of type WordPiece"),
    ("an id twice", lambda c: c["model"]["vocab"].update(a=c["model"]["vocab"]["b"]), "the id 98 where"),
    ("a merge of tokens whose sum is none", lambda c: c["model"]["merges"].append("z z"), "no token 'zz'"),
    ("a pattern that is none", lambda c: c.update(pre_tokenizer=split_by("(")), "unmatched parenthesis"),
    ("no merges", lambda c: c["model"].pop("merges"), "no list of merges"),
    ("a merge of three", lambda c: c["model"]["merges"].insert(2, "a b c"), "merge 3"),
    ("a merge of nothing known", lambda c: c["model"]["merges"].append("zzz y"), "no token 'zzz'"),
    (
        "a missing byte",
        lambda c: c["model"]["vocab"].update({"€": c["model"]["vocab"].pop("Ġ")}),
        "stands for no byte|no token",
    ),
    ("a gap in the ids", lambda c: c["model"]["vocab"].update(a=9999), "the id"),
    ("an id that is text", lambda c: c["model"]["vocab"].update(a="7"), "'7'"),
    ("two ids for one token", lambda c: c["added_tokens"][0].update(id=3), "one id for a token"),
    ("an added token without content", lambda c: c["added_tokens"].append({"id": 1}), "added token"),
    ("a vocabulary that is a list", lambda c: c["model"].update(vocab=[]), "list"),
]


@pytest.mark.parametrize(("change", "message"), [case[1:] for case in DAMAGE], ids=[case[0] for case in DAMAGE])
def test_a_damaged_or_foreign_tokenizer_json_is_an_error_that_names_file_and_fault(
    tmp_path: Path, bpe: BPETokenizer, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    bpe.save(tmp_path)
    edit(tmp_path / "tokenizer.json", change)
    with pytest.raises(DataError, match=message) as error:
        Tokenizer.load(tmp_path)
    assert "tokenizer.json" in str(error.value)


def test_a_truncated_tokenizer_json_is_an_error(tmp_path: Path, bpe: BPETokenizer) -> None:
    bpe.save(tmp_path)
    path = tmp_path / "tokenizer.json"
    whole = path.read_text(encoding="utf-8")
    for length in (0, 1, 4000, len(whole) - 2):
        path.write_text(whole[:length], encoding="utf-8")
        with pytest.raises(DataError, match=r"tokenizer\.json, line \d+"):
            Tokenizer.load(tmp_path)
    path.write_bytes(whole[: whole.index("é") + 1].encode()[:-1])
    with pytest.raises(DataError, match=r"tokenizer\.json: found bytes that are not UTF-8"):
        Tokenizer.load(tmp_path)


def test_merges_cut_short_do_not_fit_the_vocabulary(tmp_path: Path, bpe: BPETokenizer) -> None:
    write_pair(bpe, tmp_path, ("vocab.json", "merges.txt"))
    merges = tmp_path / "merges.txt"
    merges.write_text("\n".join(merges.read_text(encoding="utf-8").split("\n")[:20]), encoding="utf-8")
    with pytest.raises(DataError, match=r"vocab\.json.*no merge in merges\.txt"):
        Tokenizer.load(tmp_path)


def test_a_word_level_tokenizer_of_others_is_refused(tmp_path: Path) -> None:
    model = tokenizers.models.WordLevel({"<|unk|>": 0, "a": 1}, unk_token="<|unk|>")
    theirs = tokenizers.Tokenizer(model)
    theirs.add_special_tokens(["<|unk|>"])
    theirs.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(DataError, match="Pellucid's word or character split"):
        Tokenizer.load(tmp_path)


def test_a_place_without_a_tokenizer_is_an_error_that_says_what_is_expected(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"merges\.txt"):
        Tokenizer.load(tmp_path)
    with pytest.raises(DataError, match="no file or folder"):
        Tokenizer.load(tmp_path / "nothing")


@pytest.mark.parametrize("other", ["config.json", "model.safetensors", "shards.json"])
def test_the_tokenizer_of_a_model_or_of_shards_is_not_written_over(
    call: Any, bpe: BPETokenizer, tmp_path: Path, other: str
) -> None:
    bpe.save(tmp_path / "own")
    out = tmp_path / "run"
    out.mkdir()
    (out / other).touch()
    for verb in (["train", tmp_path / "own" / "vocab.txt"], ["export", tmp_path / "own", "--to", "tokenizer.json"]):
        done = call("tokenizer", *verb, "--out", out)
        assert done.returncode == 2 and f"{out}: found {other}" in done.stderr
    assert [path.name for path in out.iterdir()] == [other]


# ---------------------------------------------------------------- gpt2 by name


def test_gpt2_by_name_is_read_from_the_data_folder(monkeypatch: pytest.MonkeyPatch, data_folder: Path) -> None:
    monkeypatch.setenv("PELLUCID_DATA", str(data_folder))
    tokenizer = Tokenizer.load("gpt2")
    assert tokenizer.encode("Hello, world!") == [15496, 11, 995, 0]
    assert tokenizer.end_of_text == 50256


def test_gpt2_by_name_with_damaged_files_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PELLUCID_DATA", str(tmp_path))
    (tmp_path / "gpt2").mkdir()
    (tmp_path / "gpt2" / "encoder.json").write_text("{}")
    (tmp_path / "gpt2" / "vocab.bpe").write_text("")
    with pytest.raises(DataError, match="SHA-256"):
        Tokenizer.load("gpt2")


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=texts)
def test_gpt2_saved_by_us_gives_tokenizers_the_same_ids(
    gpt2: Tokenizer, tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    folder = tmp_path_factory.getbasetemp() / "gpt2-saved"
    if not folder.exists():
        gpt2.save(folder)
    assert cached_theirs(folder).encode(text).ids == gpt2.encode(text, "all")
