"""What one sees of a tokenizer: pieces that are the text, trees that are the merges, reports that are counts."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pellucid.runtime import DataError
from pellucid.text.bpe import BPETokenizer
from pellucid.text.look import COLOURS, Node, draw_tree, escaped, measure, merge_tree
from pellucid.text.samples import SAMPLES
from pellucid.text.tokenizer import Tokenizer
from pellucid.text.word import WordTokenizer

Cli = Any
relaxed = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
words = st.text("the foxgrap'日🙂", max_size=12) | st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


@pytest.fixture
def folder(bpe: BPETokenizer, tmp_path: Path) -> Path:
    bpe.save(tmp_path / "bpe")
    return tmp_path / "bpe"


@pytest.fixture(autouse=True)
def no_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PELLUCID_DATA", raising=False)


# ---------------------------------------------------------------- pieces


def test_pieces_are_separated_by_bars_where_there_is_no_terminal(call: Cli, folder: Path) -> None:
    done = call("tokenizer", "show", "the fox\n[b]Ü", "--tokenizer", folder)
    ids = Tokenizer.load(folder).encode("the fox\n[b]Ü")
    assert done.stdout.splitlines() == [
        "t|he| fox|\\n|[|b|]|\\xc3|\\x9c",
        " ".join(map(str, ids)),
        f"{len(ids)} tokens, {13 / len(ids):.2f} bytes a token",
    ]


def test_a_long_text_stays_on_one_line_where_there_is_no_terminal(call: Cli, folder: Path) -> None:
    assert len(call("tokenizer", "show", "the fox " * 100, "--tokenizer", folder).stdout.splitlines()) == 3


def test_on_a_terminal_neighbours_have_different_colours(
    call: Cli, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"FORCE_COLOR": "1", "TERM": "xterm-256color", "COLUMNS": "40"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("NO_COLOR", raising=False)
    out = call("tokenizer", "show", "the fox\n\nthe grapes " * 4, "--tokenizer", folder).stdout
    blue, orange = (f"\x1b[30;48;5;{colour[-4:-1]}m" for colour in COLOURS)
    assert f"{blue}t\x1b[0m{orange}he\x1b[0m{blue}·fox\x1b[0m" in out
    assert "⏎" in out
    monkeypatch.setenv("NO_COLOR", "1")
    assert "t|he| fox" in call("tokenizer", "show", "the fox", "--tokenizer", folder).stdout


def test_without_a_tokenizer_words_and_characters_are_side_by_side(call: Cli) -> None:
    done = call("tokenizer", "show", "-", "--json", stdin="It's Ünder!")
    words, characters = json.loads(done.stdout)["tokenizers"]
    assert [token["text"] for token in words["tokens"]] == ["It's", " ", "Ünder", "!"]
    assert (words["count"], words["bytes"], words["bytes_per_token"]) == (4, 12, 3.0)
    assert (characters["count"], characters["tokens"][0]["id"]) == (11, None)
    assert "PELLUCID_DATA" in done.stderr


def test_gpt2_stands_beside_them_where_it_is_at_hand(
    call: Cli, data_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PELLUCID_DATA", str(data_folder))
    result = json.loads(call("tokenizer", "show", "Hello, world!", "--json").stdout)["tokenizers"][-1]
    assert [token["id"] for token in result["tokens"]] == [15496, 11, 995, 0]


def test_several_tokenizers_stand_under_each_other_with_their_counts(call: Cli, folder: Path) -> None:
    out = call("tokenizer", "show", "the fox", "--tokenizer", folder, "--kinds").stdout
    assert out.splitlines() == [
        *("words:", "the| |fox", "3 tokens, 2.33 bytes a token", ""),
        *("characters:", "t|h|e| |f|o|x", "7 tokens, 1.00 bytes a token", ""),
        *(f"{folder}:", "t|he| fox", "3 tokens, 2.33 bytes a token"),
    ]


def test_what_is_unknown_is_counted_in_one_message(call: Cli, tmp_path: Path, story: str) -> None:
    WordTokenizer.train([story]).save(tmp_path)
    done = call("tokenizer", "show", "the zebra fox wug", "--tokenizer", tmp_path)
    assert "2 of 7 tokens are not in the vocabulary" in done.stderr
    assert done.stderr.count("\n") == 1
    assert "the| |zebra| |fox| |wug" in done.stdout
    assert "2 unknown" in done.stdout


def test_text_with_lone_surrogates_is_refused(call: Cli) -> None:
    done = call("tokenizer", "show", "a\ud800")
    assert (done.returncode, done.stdout) == (2, "")
    assert "lone surrogate" in done.stderr
    done = call("tokenizer", "show", os.fsdecode(b"caf\xe9"))  # an argument in Latin-1
    assert (done.returncode, done.stdout) == (2, "")
    assert "found the byte 0xe9, not UTF-8, at character 3" in done.stderr


def test_control_characters_are_shown_and_never_obeyed() -> None:
    assert escaped(b"a\x1b[31m\tb c\r\n") == "a\\x1b[31m⇥b·c\\x0d⏎"
    assert escaped("é".encode()[:1]) == "\\xc3"


# ---------------------------------------------------------------- trees


@relaxed
@given(word=words)
def test_the_leaves_are_the_bytes_and_the_roots_the_ids(bpe: BPETokenizer, word: str) -> None:
    roots = merge_tree(bpe, word.encode())
    assert [root.id for root in roots] == bpe.merge_piece(word.encode())
    assert b"".join(leaf.content for root in roots for leaf in root.leaves()) == word.encode()
    for root in roots:
        for joint in root.joints():
            assert joint.left and joint.right and joint.rank is not None
            assert bpe.merges()[joint.rank] == (joint.left.id, joint.right.id)
            assert bpe.token_bytes(joint.id) == joint.content == joint.left.content + joint.right.content
            assert joint.step > max(joint.left.step, joint.right.step)


@relaxed
@given(word=words)
def test_a_drawn_tree_has_a_line_for_each_merge_and_fits_the_width(bpe: BPETokenizer, word: str) -> None:
    roots = merge_tree(bpe, word.encode())
    lines = draw_tree(roots, 60)
    assert all(line.cell_len <= 60 for line in lines)
    assert len(lines) == 1 or len(lines) == 4 + sum(len(root.joints()) for root in roots)


def test_a_tree_shows_bytes_merges_in_their_order_and_tokens() -> None:
    bpe = BPETokenizer.train(["lower lower low low er"], 260)
    assert "\n".join(line.plain.rstrip() for line in draw_tree(merge_tree(bpe, b"lower"))) == (
        "  l   o   w   e   r\n"
        "  │   └─1─┘   │   │   o + w  merge 1\n"
        "  └──2──┘     │   │   l + ow  merge 2\n"
        "     │        └─3─┘   e + r  merge 3\n"
        "     │          │\n"
        "    low         er\n"
        "    257        258"
    )


def test_a_tree_wider_than_the_terminal_says_so() -> None:
    bpe = BPETokenizer.train(["ab"], 257)
    (line,) = draw_tree(merge_tree(bpe, b"ab" * 30))
    assert "60 bytes are too wide to draw" in line.plain


def test_trees_are_drawn_for_a_few_words_and_given_as_json(call: Cli, folder: Path) -> None:
    arguments = ("tokenizer", "show", "the fox the grapes", "--tokenizer", folder, "--tree")
    assert "└─1─┘" in call(*arguments).stdout
    trees = json.loads(call(*arguments, "--json").stdout)["trees"]
    assert ["".join(root["text"] for root in roots) for roots in trees] == ["the", " fox", " the", " grapes"]
    assert trees[1][0]["parts"][1].keys() >= {"id", "text"}


def test_trees_of_words_or_characters_are_refused(call: Cli) -> None:
    done = call("tokenizer", "show", "the fox", "--tree")
    assert done.returncode == 2
    assert "only BPE merges" in done.stderr


def test_a_single_byte_is_a_leaf(bpe: BPETokenizer) -> None:
    assert merge_tree(bpe, b"q") == [Node(ord("q"), b"q")]
    assert merge_tree(bpe, b"") == []


# ---------------------------------------------------------------- report


def test_the_samples_are_of_many_scripts_and_of_one_size() -> None:
    assert len(SAMPLES) == 16
    assert all(700 <= len(text.encode()) <= 1600 for text in SAMPLES.values())


def test_a_report_counts_what_encoding_gives(bpe: BPETokenizer, story: str) -> None:
    words = WordTokenizer.train([story])
    rows = {(row.text, row.tokenizer): row for row in measure({"b": bpe, "w": words}, {"one": story, "two": "the wug"})}
    ids = bpe.encode(story)
    row = rows["one", "b"]
    assert (row.bytes, row.tokens, row.unknown) == (len(story.encode()), len(ids), 0)
    assert row.bytes_per_token == pytest.approx(len(story.encode()) / len(ids), abs=0.001)
    assert row.vocabulary_used == pytest.approx(len(set(ids)) / 300, abs=0.0001)
    assert (rows["two", "w"].unknown, rows["all", "w"].unknown) == (1, 1)
    assert rows["all", "b"].tokens == row.tokens + rows["two", "b"].tokens
    assert rows["all", "w"].vocabulary_used == 1.0  # of the story all, and <|unk|> is no word


def test_the_report_has_bars_for_all_samples_and_own_texts(call: Cli, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("the fox and the grapes", encoding="utf-8")
    arguments = ("tokenizer", "report", folder, "--text", tmp_path / "mine.txt")
    out = call(*arguments).stdout
    assert all(label in out for label in (*SAMPLES, "mine.txt", "all"))
    assert "█" in out
    result = json.loads(call(*arguments, "--json").stdout)
    assert result["tokenizers"] == [{"tokenizer": str(folder), "kind": "bpe", "vocab_size": 304}]
    assert [row["text"] for row in result["texts"]] == [*SAMPLES, "mine.txt", "all"]


def test_the_report_sets_gpt2_beside_where_it_is_at_hand(
    call: Cli, folder: Path, data_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PELLUCID_DATA", str(data_folder))
    result = json.loads(call("tokenizer", "report", folder, "--json").stdout)
    assert [entry["tokenizer"] for entry in result["tokenizers"]] == [str(folder), "gpt2"]


def test_a_tokenizer_that_is_not_there_is_an_error(call: Cli) -> None:
    assert call("tokenizer", "report", "nowhere").returncode == 2
    with pytest.raises(DataError):
        Tokenizer.load("nowhere")
