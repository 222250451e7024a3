"""`pellucid finetune …` and `pellucid classify` on own files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    rows = [f"win {i} lamps now,spam\nthe fox is with Ben {i},ham\n" for i in range(60)]
    (tmp_path / "labels.csv").write_text("text,label\n" + "".join(rows))
    return tmp_path / "labels.csv"


@pytest.fixture
def instructions(tmp_path: Path) -> Path:
    rows = [{"instruction": f"Say {i}.", "output": "Yes." if i % 2 else "No."} for i in range(60)]
    (tmp_path / "talk.json").write_text(json.dumps(rows))
    return tmp_path / "talk.json"


def test_a_classifier_is_made_scored_and_used(call: Any, base_folder: Path, labels: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    done = call("finetune", "classify", base_folder, "--data", labels, "--out", out, "--epochs", 2, "--json")
    assert done.returncode == 0, done.stderr
    scores = json.loads(done.stdout)
    assert scores["texts"] == 24
    assert sum(map(sum, scores["confusion"])) == 24
    assert json.loads((out / "run.json").read_text())["data"].keys() == {"labels.csv"}
    (tmp_path / "texts.txt").write_text("win 3 lamps now\n\nthe fox\n")
    for arguments, stdin in [(("--file", tmp_path / "texts.txt"), ""), (("--file", "-"), "win 3 lamps now\nthe fox\n")]:
        answer = json.loads(call("classify", out, *arguments, "--json", stdin=stdin).stdout)
        assert [row["text"] for row in answer["results"]] == ["win 3 lamps now", "the fox"]
    lines = call("classify", out, "win 3 lamps now", "the\nfox").stdout.splitlines()
    assert len(lines) == 2
    again = call("finetune", "classify", base_folder, "--data", labels, "--out", out, "--epochs", 2)
    assert again.returncode == 2
    assert "--resume" in again.stderr


def test_an_assistant_is_made_and_scored(call: Any, base_folder: Path, instructions: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    done = call("finetune", "instruct", base_folder, "--data", instructions, "--out", out, "--epochs", 2, "--json")
    assert done.returncode == 0, done.stderr
    scores = json.loads(done.stdout)
    assert scores["questions"] == 6
    assert 0 <= scores["exact_match"] <= 1
    assert call("chat", out, "--max-tokens", 3, stdin="Say 3.\n").returncode == 0


@pytest.mark.parametrize("verb", ["classify", "instruct"])
def test_the_model_that_is_finetuned_is_never_overwritten(
    call: Any, base_folder: Path, labels: Path, instructions: Path, verb: str
) -> None:
    before = (base_folder / "model.safetensors").read_bytes()
    data = labels if verb == "classify" else instructions
    for more in ([], ["--resume"]):
        done = call("finetune", verb, base_folder, "--data", data, "--out", base_folder / ".." / "base", *more)
        assert done.returncode == 2
        assert "--out" in done.stderr
    assert (base_folder / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize(
    ("more", "said"),
    [(["--epochs", 0], "0.0 epochs"), (["--batch-size", 0], "batch size of 0"), (["--lr=-1"], "lr")],
)
def test_impossible_settings_are_refused_before_anything_is_written(
    call: Any, base_folder: Path, labels: Path, tmp_path: Path, more: list[Any], said: str
) -> None:
    done = call("finetune", "classify", base_folder, "--data", labels, "--out", tmp_path / "run", *more)
    assert done.returncode == 2
    assert said in done.stderr
    assert not (tmp_path / "run").exists()
