"""What a quickstart takes: options, files and folders, good ones and bad ones."""

from __future__ import annotations

import os
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from pellucid.config import PRESETS, FitConfig
from pellucid.model.gpt import GPT
from pellucid.options import Quickstart
from pellucid.pretrain.speed import Speed
from pellucid.quickstart import steps
from pellucid.quickstart.run import Run
from pellucid.quickstart.shown import farewell
from pellucid.quickstart.steps import leading, preset_for, repeated, shape_of
from pellucid.runtime import PellucidError
from pellucid.text.documents import Document

GOOD_TEXT = "".join(f"Anna has {i} lamps, and Ben has {i + 1} of them.\n\n" for i in range(600))


def test_a_file_that_changed_in_a_folder_of_own_text_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "books").mkdir()
    (tmp_path / "books" / "one.txt").write_text(GOOD_TEXT)
    options = Quickstart(tmp_path / "run", text=(tmp_path / "books",))
    Run.open(options)
    (tmp_path / "run" / "results" / "text.json").write_text("{}")  # as if its first step were done
    Run.open(options)
    (tmp_path / "books" / "one.txt").write_text(GOOD_TEXT + "More.\n")
    with pytest.raises(PellucidError, match="other settings or files"):
        Run.open(options)


def test_at_the_end_own_data_gets_its_own_suggestions_and_paths_are_quoted() -> None:
    results = {"text": {"sentence": "Anna's lamp is red."}}
    report = {"seconds": {"total": 1}}
    said = farewell(Run(Quickstart(Path("my runs"), text=(Path("a.txt"),), labels=Path("b.csv")), results), report)
    assert "pellucid chat 'my runs/assistant'" in said and "dollars" not in said and "opposite" not in said
    commands = [shlex.split(line) for line in said.splitlines() if line.startswith("  pellucid")]
    assert commands[2] == ["pellucid", "see", "my runs", "--text", "Anna's lamp is red."]


@pytest.mark.parametrize(("text", "times"), [(1_000, 1), (6_000, 6), (10**6, 10)])
def test_own_messages_are_repeated_to_a_sixth_of_the_text_at_most_ten_times(text: int, times: int) -> None:
    messages = [Document("m" * 100, "labels.csv"), Document("n" * 100, "labels.csv")]
    assert repeated(messages, [Document("t" * text, "book.txt")]) == messages * times
    assert repeated([], []) == []


@pytest.mark.parametrize(
    ("options", "preset"),
    [
        (Quickstart(), "laptop"),
        (Quickstart(minutes=1e5), "laptop-large"),
        (Quickstart(text=(Path("book.txt"),)), "laptop-large"),
        (Quickstart(text=(Path("book.txt"),), minutes=5), "laptop"),
    ],
)
def test_the_larger_model_is_taken_where_there_is_time_to_train_it(options: Quickstart, preset: str) -> None:
    assert preset_for(Run(options, {})) == preset


@pytest.mark.parametrize(("seconds", "preset"), [(0.12, "laptop"), (0.11, "laptop-large")])  # 4.99 and 5.45 million
def test_of_the_embedded_corpus_the_larger_model_has_to_read_enough_on_the_device_that_trains_it(
    monkeypatch: pytest.MonkeyPatch, seconds: float, preset: str
) -> None:
    devices = []

    def timed(model: GPT, *_: object) -> Speed:
        devices.append(model.device.type)
        return Speed("float32", seconds, {})

    monkeypatch.setattr(steps, "measure_speed", timed)
    monkeypatch.setattr(steps, "pick_device", lambda _: torch.device("meta"))
    assert preset_for(Run(Quickstart(minutes=19.5), {})) == preset
    assert devices == ["meta"]


@pytest.mark.parametrize(
    ("speed", "minutes", "lessons", "led"),
    [
        (30_000, 5.2, ["names"], 0.23),
        (44_000, 5.2, ["one-name", "names-and-others", "names"], 0.45),
        (0, 5.2, ["names"], 0.23),
    ],
)
def test_all_lessons_are_given_where_the_measured_speed_lets_them_be_learnt(
    tmp_path: Path, speed: float, minutes: float, lessons: list[str], led: float
) -> None:
    run = Run(Quickstart(out=tmp_path, minutes=minutes), {"pretrain": {"tokens_per_s": speed}})
    leads = leading(run, FitConfig(minutes=2.0, lr=1.0, matrix_lr=2.0))
    assert [lead.name for lead in leads] == lessons
    assert sum(lead.config.minutes for lead in leads) == pytest.approx(2 * led, rel=1e-3)
    assert all(lead.config.enough > 0 for lead in leads) == (len(lessons) > 1), "they end when they are learnt"
    assert {lead.config.lr / lead.config.matrix_lr for lead in leads} == {0.5}
    assert all(lead.config.lr < 1 and lead.splits["train"] and lead.splits["val"] for lead in leads)


@pytest.mark.parametrize(("minutes", "preset"), [(5.2, "laptop"), (20, "laptop-large")])
def test_a_run_that_was_begun_before_its_model_was_noted_goes_on_with_the_model_of_then(
    minutes: float, preset: str
) -> None:
    shape = shape_of(Run(Quickstart(minutes=minutes), {"text": {"vocab_size": 4100}}))
    assert shape == replace(PRESETS[preset], vocab_size=4100)
    noted = Run(Quickstart(minutes=minutes), {"text": {"vocab_size": 4100, "preset": "laptop"}})
    assert shape_of(noted) == replace(PRESETS["laptop"], vocab_size=4100)


BAD: list[tuple[str, bytes | None, str]] = [
    ("--text", None, "no such file"),
    ("--text", b"", "no text"),
    ("--text", b"\x00\x01\x02", "binary"),
    ("--text", "Caf\u00e9.\n".encode("latin-1"), "not UTF-8"),
    ("--text", b"One line only.\n", "Give more text"),
    ("--labels", None, "cannot read"),
    ("--labels", b"", "no labelled text"),
    ("--labels", b"text,label\n" + b"hello,spam\n" * 30, "only the label 'spam'"),
    ("--labels", b"text,label\na,spam\nb\nc,ham\n", "line 3"),
    ("--labels", b"text,label\na,spam\nb,\nc,ham\n", "line 3: found no label"),
    ("--instructions", None, "cannot read"),
    ("--instructions", b"[]", "no record"),
    ("--instructions", b'[\n{"instruction": "a", "output": "b"},\n{"instruction": \n]', "line 4"),
    ("--instructions", b'[{"instruction": "a"}]', "record 1: found no output"),
    ("--instructions", b'[{"instruction": "a", "output": "b"}]', "too few"),
]


@pytest.mark.parametrize(("flag", "content", "said"), BAD, ids=[f"{flag} {said}" for flag, _, said in BAD])
def test_a_bad_file_is_refused_in_one_message_before_anything_is_written(
    call: Any, tmp_path: Path, flag: str, content: bytes | None, said: str
) -> None:
    suffix = {"--text": ".txt", "--labels": ".csv", "--instructions": ".json"}[flag]
    file = tmp_path / f"bad{suffix}"
    if content is not None:
        file.write_bytes(content)
    done = call("quickstart", "--minutes", 0.05, "--out", tmp_path / "run", flag, file)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert file.name in done.stderr or said == "too few"
    assert len(done.stderr.strip().splitlines()) <= 3
    assert done.stdout == ""
    assert not (tmp_path / "run").exists()


def test_a_folder_in_place_of_a_file_and_a_file_in_place_of_a_folder_are_refused(call: Any, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("mine")
    for arguments, said in [
        (("--labels", tmp_path / "folder", "--out", tmp_path / "run"), "folder"),
        (("--instructions", tmp_path / "folder", "--out", tmp_path / "run"), "folder"),
        (("--text", tmp_path / "folder", "--out", tmp_path / "run"), "a folder without text"),
        (("--out", tmp_path / "file"), "a file stands where a folder is needed"),
    ]:
        done = call("quickstart", "--minutes", 0.05, *arguments)
        assert done.returncode == 2, done.stderr
        assert said in done.stderr
        assert len(done.stderr.splitlines()) == 1
    assert (tmp_path / "file").read_text() == "mine"


def test_a_folder_with_something_else_in_it_is_left_alone(call: Any, tmp_path: Path) -> None:
    (tmp_path / "diary.txt").write_text("mine")
    done = call("quickstart", "--minutes", 0.05, "--out", tmp_path)
    assert done.returncode == 2
    assert "is not empty and holds no quickstart" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["diary.txt"]


def test_a_folder_that_may_not_be_written_is_named(call: Any, tmp_path: Path) -> None:
    folder = tmp_path / "locked"
    folder.mkdir()
    folder.chmod(0o500)
    out = folder / "run"
    if os.access(folder, os.W_OK):  # nothing is locked for root, but the kernel's own files are
        out = Path("/sys/pellucid")
        if not Path("/sys/kernel").is_dir():
            pytest.skip("this user may write everywhere")
    done = call("quickstart", "--minutes", 0.05, "--out", out)
    assert done.returncode == 2, done.stderr
    assert "cannot write" in done.stderr
    assert str(out) in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("minutes", ["-1", "nan", "inf"])
def test_impossible_minutes_are_refused(call: Any, tmp_path: Path, minutes: str) -> None:
    done = call("quickstart", f"--minutes={minutes}", "--out", tmp_path / "run")
    assert done.returncode == 2
    assert "--minutes" in done.stderr
    assert not (tmp_path / "run").exists()


def test_after_a_bad_file_is_mended_the_same_command_goes_on(call: Any, tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("text,label\na,spam\n")
    arguments = ("quickstart", "--minutes", 0.05, "--out", tmp_path / "run", "--labels", tmp_path / "labels.csv")
    assert call(*arguments).returncode == 2
    (tmp_path / "labels.csv").write_text("text,label\na,ham\n")
    assert "only the label 'ham'" in call(*arguments).stderr  # and not: other settings
