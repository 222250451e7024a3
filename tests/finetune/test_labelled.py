"""Labelled texts: read from what people bring, refused with file and line, and split without leaks."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pellucid.finetune.labelled import Columns, Labelled, read_examples, read_labelled, read_texts
from pellucid.finetune.splits import normalised, read_splits, split_labelled
from pellucid.runtime import DataError

EXPECTED = [("win a prize, now", "spam"), ("see you", "ham")] * 3


def pairs(path: Path) -> list[tuple[str, str]]:
    return [(example.text, example.label) for example in read_labelled(path)]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", "text,label\n" + '"win a prize, now",spam\nsee you,ham\n' * 3),
        ("a.csv", "Label,Message,more\n" + 'spam,"win a prize, now",1\nham,see you,2\n' * 3),
        ("a.csv", "\ufeffv1,v2,,\n" + 'spam,"win a prize, now",,\nham,see you,,\n' * 3),
        ("a.csv", "id,comment,label\n" + "".join(f'{i},"win a prize, now",spam\n{i}0,see you,ham\n' for i in range(3))),
        ("a.csv", "text,id,kind\n" + "".join(f'"win a prize, now",{i},spam\nsee you,{i}0,ham\n' for i in range(3))),
        ("a.csv", "text,label\r\n" + '"win a prize, now",spam\r\nsee you,ham\r\n\r\n' * 3),
        ("a.tsv", "spam\twin a prize, now\nham\tsee you\n" * 3),
        ("a.jsonl", '{"text": "win a prize, now", "label": "spam"}\n\n{"Text": "see you", "label": "ham"}\n' * 3),
        ("a.jsonl", '{"sms": "win a prize, now", "class": "spam"}\n{"sms": "see you", "class": "ham"}\n' * 3),
        ("a.JSONL", '{"sms": "win a prize, now", "class": "spam"}\n{"sms": "see you", "class": "ham"}\n' * 3),
        ("a.json", json.dumps([{"text": text, "label": label} for text, label in EXPECTED], indent=1)),
        ("a.CSV", "text,label\n" + '"win a prize, now",spam\nsee you,ham\n' * 3),
        ("a.json", '{"text": "win a prize, now", "label": "spam"}\n{"text": "see you", "label": "ham"}\n' * 3),
        ("a.csv", "text;label\n" + "win a prize, now;spam\nsee you;ham\n" * 3),
        ("a.csv", "label;text\r\n" + 'spam;"win a prize, now"\r\nham;see you\r\n' * 3),
    ],
)
def test_the_columns_are_found_by_name_or_content(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8", newline="")
    assert pairs(tmp_path / name) == EXPECTED


def test_in_a_table_without_names_the_column_with_few_values_is_the_label(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("".join(f"win {i}\tspam\nsee you {i}\tham\n" for i in range(3)))
    assert pairs(tmp_path / "a.txt")[:2] == [("win 0", "spam"), ("see you 0", "ham")]


def test_a_first_example_that_is_called_like_a_column_stays_one(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("message,spam\n" + "".join(f"win {i},spam\nsee you {i},ham\n" for i in range(3)))
    assert pairs(tmp_path / "a.csv")[:2] == [("message", "spam"), ("win 0", "spam")]


def test_numbers_are_labels_and_0_is_one_of_them(tmp_path: Path) -> None:
    rows = [json.dumps({"text": f"t{i}", "label": i % 2}) for i in range(6)]
    (tmp_path / "a.jsonl").write_text("\n".join(rows))
    assert [label for _, label in pairs(tmp_path / "a.jsonl")] == ["0", "1"] * 3


def test_quotation_marks_in_a_tsv_are_part_of_the_message(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text('ham\t"hi" she said\nspam\t"win\n' * 3)
    assert pairs(tmp_path / "a.tsv")[:2] == [('"hi" she said', "ham"), ('"win', "spam")]


@pytest.mark.parametrize("mark", ["\u2028", "\u0085", "\x0b", "\x0c", "\x1d"])
def test_odd_line_marks_inside_a_text_do_not_end_the_line(tmp_path: Path, mark: str) -> None:
    rows = [json.dumps({"text": f"a{mark}b{i}", "label": "xy"[i % 2]}, ensure_ascii=False) for i in range(6)]
    (tmp_path / "a.jsonl").write_text("\n".join(rows), encoding="utf-8")
    assert pairs(tmp_path / "a.jsonl")[0] == (f"a{mark}b0", "x")


BAD: list[tuple[str, bytes | None, str]] = [
    ("a.csv", None, "cannot read: No such file"),
    ("a.csv", b"", "no labelled text"),
    ("a.csv", b"\n\n  \n", "no labelled text"),
    ("a.csv", b"text,label\n", "no labelled text"),
    ("a.csv", b"\x89PNG\x00\x00", "binary"),
    ("a.csv", b"text,label\nok,ham\ncaf\xe9,ham\n", "line 3: found the byte 0xe9"),
    ("a.csv", "text,label\nok,ham\n".encode("utf-16"), "UTF-16"),
    ("a.csv", b"text,label\nok,ham\nlonely\nwin,spam\n", "line 3: found 1 column"),
    ("a.csv", b"text,label\nok,ham\nempty,\nwin,spam\n", "line 3: found no label"),
    ("a.csv", b'text,label\nok,ham\n"open,ham\nwin,spam\n', "quotation mark"),
    ("a.csv", b"text,label\n" + b"ok,ham\n" * 9, "only the label 'ham'"),
    ("a.csv", b"text\nok\nwin\n", "one column"),
    ("a.csv", b"text\nok,ham\nwin,spam\n", "line 1: found 1 column"),
    ("a.csv", b"text,label\n" + b"".join(b"t%d,%d\n" % (i, i) for i in range(50)), "50 different labels in 50 rows"),
    ("a.csv", b"text,label\n" + b"ok,ham\nhi,spam\n" * 4 + b"x,rare\n", "fewer than 3 examples of 'rare'"),
    ("a.csv", b"text,label,split\nok,ham,trian\nhi,spam,test\n", "line 2: found split 'trian'"),
    ("a.csv", b"label,text\nspam,win\nham,see you, at ten\n", "line 3: found 3 columns; expected 2"),
    ("a.csv", b"spam,win\nham,hi, you\n" + b"spam,a\nham,b\n" * 3, "a comma in it needs quotation marks"),
    ("a.tsv", b"ham\tsee\tyou\n" + b"spam\twin\nham\tno\n" * 3, "line 1: found 3 columns; expected 2"),
    ("a.jsonl", b'{"text": "a", "label": "x"}\n{"text": "a\\ud83d", "label": "y"}\n', "line 2: found half a character"),
    ("a.json", b'[\n{"text": "a", "label": "x"},\n{"text" "b"}]', "line 3: found broken JSON"),
    ("a.json", b'[{"text": "a", "label": "x"}, {"words": "b"}]', "record 2: found the keys words"),
    ("a.csv", b"text,label\nok,ham\nwin, now,spam\n", "line 3: found 3 columns; expected 2"),
    ("a.json", b'[{"text": "a", "label": "x"},\n{"text" "b"}]', "line 2: found broken JSON"),
    ("a.json", b'[{"text": "a", "label": "x"}, "b"]', "record 2: found no JSON object"),
    ("a.json", b'{"a": {\n"text": "b"}}', "line 1: found broken JSON"),
    ("a.jsonl", b'{"text": "a", "label": "x"}\n{"text": \n', "line 2: found broken JSON"),
    ("a.jsonl", b'{"text": "a", "label": ' + b"1" * 5000 + b"}\n", "line 1: found broken JSON (a number"),
    ("a.jsonl", b'{"text": "a", "label": "x"}\n[1]\n', "line 2: found no JSON object"),
    ("a.jsonl", b'{"text": "a", "label": "x"}\n{"words": "a"}\n', "line 2: found the keys words"),
    ("a.jsonl", b'{"text": "a", "label": "x"}\n{"text": "b", "label": null}\n', "line 2: found no label"),
]


@pytest.mark.parametrize(("name", "content", "said"), BAD, ids=[f"{name} {said}" for name, _, said in BAD])
def test_a_bad_file_is_refused_with_its_name_and_line(
    tmp_path: Path, name: str, content: bytes | None, said: str
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError) as error:
        read_labelled(path)
    assert said in str(error.value)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_empty_texts_are_left_out_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.csv").write_text("text,label\n" + "ok,ham\nhi,spam\n" * 4 + ",ham\n  ,spam\n")
    assert len(read_labelled(tmp_path / "a.csv")) == 8
    assert "a.csv: left out as empty: 2 of 10 texts." in capsys.readouterr().err


def test_a_folder_holds_a_folder_of_texts_for_each_class(tmp_path: Path) -> None:
    for kind in ("neg", "pos"):
        for i in range(3):
            (tmp_path / "a" / kind).mkdir(parents=True, exist_ok=True)
            (tmp_path / "a" / kind / f"{i}.txt").write_text(f"{kind} {i}\n")
    assert pairs(tmp_path / "a")[2:4] == [("neg 2", "neg"), ("pos 0", "pos")]
    (tmp_path / "b").mkdir()
    (tmp_path / "a").rename(tmp_path / "b" / "train")
    assert {example.split for example in read_labelled(tmp_path / "b")} == {"train"}
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"no texts by class.*FOLDER/CLASS"):
        read_labelled(tmp_path / "empty")


def test_what_is_no_text_in_the_folder_of_a_class_is_left_out_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for kind in ("neg", "pos"):
        (tmp_path / kind).mkdir()
        for name in ("0.txt", "1.txt", "2.txt", ".hidden", "Thumbs.db"):
            (tmp_path / kind / name).write_text(f"{kind} {name}")
    read_labelled(tmp_path)
    assert capsys.readouterr().err == ""
    (tmp_path / "pos" / "3.md").write_text("pos 3")
    assert len(read_labelled(tmp_path)) == 6
    assert f"left out, as no .txt files: 1, such as {tmp_path / 'pos' / '3.md'}" in capsys.readouterr().err


def test_columns_with_other_names_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,words,kind\n" + "".join(f"{i},w {i},{'xy'[i % 2]}\n" for i in range(6)))
    columns = Columns("Words", "kind")
    assert [(e.text, e.label) for e in read_labelled(tmp_path / "a.csv", columns)][:2] == [("w 0", "x"), ("w 1", "y")]
    with pytest.raises(DataError, match=r"the columns id, words, kind.*'sort'"):
        read_labelled(tmp_path / "a.csv", Columns("words", "sort"))


@pytest.mark.parametrize("header", ["tweet,kind", "text,kind", "tweet,kind,split"])
def test_a_header_of_unknown_names_is_no_example(
    tmp_path: Path, header: str, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [f"t {i},{'xy'[i % 2]}" + ",train" * header.count("split") for i in range(12)]
    (tmp_path / "a.csv").write_text("\n".join([header, *rows]))
    found = read_labelled(tmp_path / "a.csv")
    assert [(e.text, e.label) for e in found][:2] == [("t 0", "x"), ("t 1", "y")]
    assert {e.split for e in found} == {"train" if "split" in header else ""}
    said = capsys.readouterr().err
    assert "a.csv, line 1: taken as a header" in said and "--text-column" in said and "--label-column" in said


def test_a_first_line_whose_label_stands_elsewhere_is_an_example(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("a,x|y\n" + "".join(f"b{i},y\nc{i},x\nd{i},z\n" for i in range(3)))
    assert len(read_labelled(tmp_path / "a.csv", Columns(several=True))) == 10
    (tmp_path / "b.csv").write_text("a,x\nb,y\n")
    assert len(read_examples(tmp_path / "b.csv")) == 2, "of the one nothing more is known than of the other"


@pytest.mark.parametrize(
    ("labels", "given", "said"),
    [
        (["x"] * 40, ["test"], "only the label 'x'"),
        ([str(i) for i in range(40)], ["val", "test"], "40 different labels in 40 rows"),
        ([*"xy" * 20, "rare"], ["test"], "fewer than 2 examples of 'rare'"),
    ],
)
def test_the_training_file_is_checked_where_val_and_test_have_files_of_their_own(
    tmp_path: Path, labels: list[str], given: list[str], said: str
) -> None:
    train, other = tmp_path / "train.csv", tmp_path / "other.csv"
    train.write_text("text,label\n" + "".join(f"t {i},{label}\n" for i, label in enumerate(labels)))
    other.write_text("text,label\na,x\nb,y\n")
    files = [other if name in given else None for name in ("val", "test")]
    with pytest.raises(DataError, match=said):
        read_splits(train, *files, Columns(), seed=0)
    train.write_text("text,label\n" + "".join(f"t {i},{label}\n" for i, label in enumerate([*"xy" * 20, "rare"])))
    (tmp_path / "val.csv").write_text("text,label\nc,x\nd,y\n")
    assert len(read_splits(train, tmp_path / "val.csv", other, Columns(), seed=0)["train"]) == 41


def test_a_class_needs_no_example_for_a_split_that_the_file_names(tmp_path: Path) -> None:
    rows = [(f"t {i}", "xy"[i % 2], ("train", "val", "test")[i // 4 % 3]) for i in range(24)]
    table = "".join(f"{text},{label},{split}\n" for text, label, split in [*rows, ("odd", "rare", "train")])
    (tmp_path / "a.csv").write_text("text,label,split\n" + table)
    assert len(read_splits(tmp_path / "a.csv", None, None, Columns(), seed=0)["train"]) == 9
    (tmp_path / "b.csv").write_text("text,label,split\n" + table.replace("test", "train"))
    with pytest.raises(DataError, match="fewer than 2 examples of 'rare'"):
        read_splits(tmp_path / "b.csv", None, None, Columns(), seed=0)


def test_a_text_may_have_several_labels_or_none(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,label\n" + "t,b | a\nu,\nv,a\n" * 3)
    rows = [json.dumps({"text": "t", "label": ["b", "a"]}), '{"text": "u", "label": []}', '{"text": "v", "label": "a"}']
    (tmp_path / "a.jsonl").write_text("\n".join(rows * 3))
    for name in ("a.csv", "a.jsonl"):
        found = read_labelled(tmp_path / name, Columns(several=True))
        assert [sorted(example.labels) for example in found[:3]] == [["a", "b"], [], ["a"]]
    with pytest.raises(DataError, match=r"line 1: found a list of 2 labels.*--multi-label"):
        read_labelled(tmp_path / "a.jsonl")


def test_labels_of_mixed_types_and_with_spaces_are_one_spelling_each(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values: list[object] = [1, "1", " 1 ", True, "true", "True"]
    (tmp_path / "a.jsonl").write_text(
        "\n".join(json.dumps({"text": f"{i}", "label": v}) for i, v in enumerate(values * 3))
    )
    assert Counter(label for _, label in pairs(tmp_path / "a.jsonl")) == {"1": 9, "true": 6, "True": 3}
    assert "2 labels are spelt alike but for their case (true)" in capsys.readouterr().err


def test_files_of_their_own_for_val_and_test_are_kept_and_share_no_text_with_train(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, numbers in (("train", range(40)), ("test", range(35, 50)), ("val", range(60, 70))):
        (tmp_path / f"{name}.csv").write_text("text,label\n" + "".join(f"t {i},{'xy'[i % 2]}\n" for i in numbers))
    files = [tmp_path / f"{name}.csv" for name in ("train", "val", "test")]
    splits = read_splits(files[0], files[1], files[2], Columns(), seed=0)
    assert {name: len(members) for name, members in splits.items()} == {"train": 35, "val": 10, "test": 15}
    assert "left out as repeats of others: 5 of 65 texts" in capsys.readouterr().err
    without_val = read_splits(files[0], None, files[2], Columns(), seed=0)
    assert len(without_val["test"]) == 15
    assert 2 <= len(without_val["val"]) <= 4


def test_a_label_that_training_never_meets_is_named_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("text,label\n" + "".join(f"t {i},{'xy'[i % 2]}\n" for i in range(40)))
    (tmp_path / "test.csv").write_text("text,label\na,x\nb,y\nc,z\n")
    with pytest.raises(DataError, match=r"test.csv, line 4: found the label 'z'; expected labels .*\(x, y\)"):
        read_splits(tmp_path / "train.csv", None, tmp_path / "test.csv", Columns(), seed=0)


def test_a_text_with_two_different_labels_is_counted(capsys: pytest.CaptureFixture[str]) -> None:
    examples = [Labelled(f"t {i // 2}", "ab"[i // 2 % 2] if i else "b") for i in range(80)]
    split_labelled(examples)
    assert "1 of them with another label." in capsys.readouterr().err


def test_several_labels_are_stratified_by_the_rarest(tmp_path: Path) -> None:
    examples = [Labelled(f"t {i}", "a|b" if i % 10 == 0 else "a") for i in range(100)]
    splits = split_labelled(examples, several=True)
    assert sum("b" in example.labels for example in splits["test"]) == 2
    assert sum("b" in example.labels for example in splits["val"]) == 1


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from("abc"), min_size=0, max_size=60), st.integers(0, 5))
def test_a_split_loses_no_text_and_shares_none_and_keeps_the_shares_of_the_classes(
    labels: list[str], seed: int
) -> None:
    labels = [*labels, *"abc" * 4]
    examples = [Labelled(f"text {i}", label) for i, label in enumerate(labels)]
    splits = split_labelled(examples, seed=seed)
    assert sorted(e.text for members in splits.values() for e in members) == sorted(e.text for e in examples)
    assert all(example.split == name for name, members in splits.items() for example in members)
    whole = Counter(labels)
    for name, share in (("test", 0.2), ("val", 0.1)):
        counts = Counter(example.label for example in splits[name])
        assert counts == {label: max(1, round(share * count)) for label, count in whole.items()}
    # the order of the file decides nothing
    assert {e.text for e in splits["test"]} == {e.text for e in split_labelled(examples[::-1], seed=seed)["test"]}


def test_a_text_that_stands_twice_is_in_one_split_only_though_case_and_spaces_differ(
    capsys: pytest.CaptureFixture[str],
) -> None:
    examples = [Labelled(f"{'  Win' if i % 2 else 'win '} {i // 2}", "ab"[i // 2 % 2]) for i in range(80)]
    splits = split_labelled(examples)
    texts = [normalised(example.text) for members in splits.values() for example in members]
    assert len(texts) == len(set(texts)) == 40
    assert "left out as repeats of others: 40 of 80 texts." in capsys.readouterr().err


def test_splits_that_the_file_names_are_kept_and_a_missing_one_is_taken_from_train() -> None:
    examples = [Labelled(f"t{i}", "ab"[i % 2], "test" if i < 10 else "train") for i in range(60)]
    splits = split_labelled(examples)
    assert [example.text for example in splits["test"]] == [f"t{i}" for i in range(10)]
    assert 2 <= len(splits["val"]) < 10
    assert len(splits["train"]) + len(splits["val"]) == 50
    examples = [Labelled(f"t{i}", "ab"[i % 2], "val" if i < 10 else "train") for i in range(60)]
    splits = split_labelled(examples)
    assert [example.text for example in splits["val"]] == [f"t{i}" for i in range(10)]
    assert (len(splits["train"]), len(splits["test"])) == (40, 10)


def test_too_few_examples_of_a_class_in_a_split_are_refused() -> None:
    examples = [Labelled(f"t{i}", "ab"[i % 2], "train") for i in range(20)] + [Labelled("x", "a", "test")]
    with pytest.raises(DataError, match="the test split has fewer than two classes"):
        split_labelled(examples)


@pytest.mark.parametrize(
    ("name", "content", "column"),
    [
        ("a.csv", "text\nwin now\nthe fox\n", ""),
        ("a.csv", "win now\nthe fox\n", ""),
        ("a.csv", "id,Message\n1,win now\n2,the fox\n", ""),
        ("a.csv", "id,words\n1,win now\n2,the fox\n", "Words"),
        ("a.tsv", "ham\twin now\nham\tthe fox\n", ""),
        ("a.tsv", "spam\twin now\nham\tthe fox\n", ""),
        ("a.jsonl", '{"id": 1, "text": "win now"}\n\n{"Text": "the fox", "label": ""}\n', ""),
        ("a.jsonl", '{"words": "win now", "text": "no"}\n{"words": "the fox"}\n', "words"),
        ("a.JSON", '[{"text": "win now"},\n {"text": "the fox"}]', ""),
    ],
)
def test_texts_without_labels_are_found_in_the_same_files(tmp_path: Path, name: str, content: str, column: str) -> None:
    (tmp_path / name).write_text(content)
    assert read_texts(tmp_path / name, column) == ["win now", "the fox"]


def test_which_column_is_taken_where_none_has_a_name_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.csv").write_text("Well, win now\nSo, the fox\n")
    assert read_texts(tmp_path / "a.csv") == [" win now", " the fox"]
    assert "no column has a name; what stands beside So, Well is taken as the texts" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "content", "column", "said"),
    [
        ("a.csv", "id,words\n" + "".join(f"{i},w {i}\n" for i in range(30)), "", "line 1: found the columns id, words"),
        ("a.csv", "id,text\n1,yes\n2\n", "", "line 3: found 1 column"),
        ("a.csv", "id,text\n1,yes\n2,win, now\n", "", "line 3: found 3 columns; expected 2"),
        ("a.csv", "text\nyes\nno, never\n", "", "line 3: found 2 columns; expected 1"),
        ("a.csv", "id,text\n1,yes\n", "words", "expected one named 'words'. Name it with --text-column."),
        ("a.jsonl", '{"text": "a"}\n{"words": "b"}\n', "", "line 2: found the keys words; expected the key text"),
        ("a.jsonl", '{"text": "a"}\n{"words": \n', "", "line 2: found broken JSON"),
    ],
)
def test_a_column_of_texts_that_is_not_found_is_named(
    tmp_path: Path, name: str, content: str, column: str, said: str
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError) as error:
        read_texts(tmp_path / name, column)
    assert said in str(error.value)
