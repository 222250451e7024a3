"""No run is examined in what it was trained on, whatever divided its data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pellucid.finetune.instructions import read_instructions, split_examples
from pellucid.finetune.studies import held_out
from pellucid.runtime import DataError, sha256, write_json


@pytest.fixture
def talk(tmp_path: Path) -> Path:
    file = tmp_path / "talk.json"
    rows = [{"instruction": f"Say {i}.", "output": "Yes.", "chosen": "Yes.", "rejected": "No."} for i in range(60)]
    file.write_text(json.dumps(rows))
    return file


def taught(run: Path, data: Path, seed: int, verb: str = "instruct", base: Path = Path("base")) -> Path:
    """A run folder that says so of itself."""
    config = {"run": str(base), "data": str(data), "seed": seed}
    record = {"verb": f"finetune {verb}", "config": config, "data": {data.name: sha256(data)}}
    write_json(run / "run.json", record)
    return run


def test_the_seed_of_the_runs_divides_the_questions(base_folder: Path, talk: Path, tmp_path: Path) -> None:
    runs = [base_folder, taught(tmp_path / "a", talk, seed=3)]
    found = held_out(talk, runs)
    assert found.seed == 3 and not found.unsure
    assert found.examples == split_examples(read_instructions(talk), seed=3)["test"]
    assert held_out(talk, runs[:1]).seed == 0


@pytest.mark.parametrize("verb", ["instruct", "prefer"])
def test_what_any_run_or_the_model_it_was_made_of_was_trained_on_is_left_out_and_counted(
    talk: Path, tmp_path: Path, verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "other.json").write_text(talk.read_text() + "\n")
    first = taught(tmp_path / "a", tmp_path / "other.json", seed=3, verb=verb)
    second = taught(tmp_path / "b", talk, seed=4, base=first)
    found = held_out(talk, [second])
    three, four = (split_examples(read_instructions(talk), seed=seed)["test"] for seed in (3, 4))
    assert [e.key for e in found.examples] == [e.key for e in four if e.key in {e.key for e in three}]
    assert f"{6 - len(found.examples)} of 6 questions are left out" in capsys.readouterr().err
    with pytest.raises(DataError, match="no question that none of the runs was trained on"):
        held_out(talk, [second], seed=5)


def test_a_question_that_a_run_was_trained_on_within_a_talk_is_left_out(tmp_path: Path) -> None:
    said = [("user", "Hi 1"), ("assistant", "Yes."), ("user", "Who?"), ("assistant", "Anna.")]
    turns = [{"role": role, "content": content} for role, content in said]
    talks = [{"messages": turns, "split": "train"}, *({"prompt": f"Say {i}.", "completion": "Yes."} for i in range(9))]
    (tmp_path / "talks.json").write_text(json.dumps(talks))
    run = taught(tmp_path / "a", tmp_path / "talks.json", seed=0)
    asked = [{"prompt": f"Hi {i}", "completion": "Yes.", "split": "test" if i < 3 else ""} for i in range(9)]
    (tmp_path / "asked.json").write_text(json.dumps(asked))
    assert [e.instruction for e in held_out(tmp_path / "asked.json", [run]).examples] == ["Hi 0", "Hi 2"]


def test_where_the_training_data_are_gone_that_is_said(
    talk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = taught(tmp_path / "a", talk, seed=3)
    talk.write_text(talk.read_text().replace("Yes", "Well"))
    assert held_out(talk, [run]).unsure == [str(run)]
    assert "may have been trained on these questions" in capsys.readouterr().err
    (run / "run.json").write_text('{"verb": "finetune instruct", "config": 5}')
    assert held_out(talk, [run]).unsure == []


def test_an_assistant_is_asked_what_it_was_not_taught(call: Any, base_folder: Path, talk: Path, tmp_path: Path) -> None:
    out, html = tmp_path / "run", tmp_path / "page.html"
    given = ("--data", talk, "--epochs", 1, "--seed", 3, "--dtype", "float32")
    assert call("finetune", "instruct", base_folder, *given, "--out", out).returncode == 0
    given = ("compare", base_folder, out, "--data", talk, "--max-tokens", 3, "--html", html)
    done = call(*given, "--json")
    assert done.returncode == 0, done.stderr
    asked = {row["question"][0]["content"] for row in json.loads(done.stdout)["questions"]}
    assert asked == {e.instruction for e in split_examples(read_instructions(talk), seed=3)["test"]}
    assert "held out of training" in html.read_text()
    talk.write_text(talk.read_text().replace("Yes", "Well"))
    done = call(*given)
    assert "6 questions of talk.json, perhaps known to" in done.stdout
    assert "held out" not in done.stdout + html.read_text()


def test_where_an_assistant_that_preferences_were_trained_on_tells_nothing_that_is_said(
    talk: Path, tmp_path: Path
) -> None:
    run = taught(tmp_path / "b", talk, seed=3, verb="prefer", base=tmp_path / "moved")
    assert held_out(talk, [run]).unsure == [str(run)]
