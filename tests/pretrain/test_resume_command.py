"""`pellucid pretrain` in a folder where something is: what goes on there, and what is refused and stays as it was."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from pellucid.pretrain.metrics import read_lines
from pellucid.text.shards import Shards


@pytest.fixture
def begin(call: Any, shards: Shards, shape_file: Path, tmp_path: Path) -> Any:
    """The verb, for four steps in a run folder, with more or other settings."""

    def run(*more: object) -> Any:
        out = ["--out", tmp_path / "run", "--dtype", "float32", "--checkpoint-every", 2]
        steps = [] if "--tokens" in more else ["--steps", 4]
        return call("pretrain", "--data", shards.folder, "--model", shape_file, *out, *steps, *more)

    return run


def content(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_settings_that_are_refused_leave_all_files_as_they_were(begin: Any, tmp_path: Path) -> None:
    assert begin().returncode == 0
    before = content(tmp_path / "run")
    done = begin("--resume", "--lr", 0.5)
    assert done.returncode == 2 and "started with lr = " in done.stderr
    after = content(tmp_path / "run")
    assert {name for name in before if before[name] != after[name]} <= {"training/lock"}


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        ("d_model = 32\nn_layers = 2\nn_heads = 2\ndropout = 0.1", "d_model 32, not 16"),
        ("d_model = 16\nn_layers = 2\nn_heads = 4\ndropout = 0.1", "n_heads 4, not 2"),
        ('family = "llama"\nd_model = 16\nn_layers = 2\nn_heads = 2\ndropout = 0.1', "family llama, not gpt2"),
    ],
)
def test_another_shape_is_refused_by_what_is_other_in_it(begin: Any, tmp_path: Path, sizes: str, said: str) -> None:
    assert begin().returncode == 0
    other = tmp_path / "other.toml"
    other.write_text(f"context_length = 16\n{sizes}\n")
    done = begin("--resume", "--model", other)
    assert done.returncode == 2
    assert said in done.stderr and "--model" in done.stderr and len(done.stderr.splitlines()) == 1


def test_a_batch_that_followed_from_the_budget_stays_what_it_was(begin: Any, tmp_path: Path) -> None:
    assert begin("--tokens", 500, "--batch-size", 3).returncode == 0, "as the rule would have it for three processes"
    before = (tmp_path / "run" / "model.safetensors").read_bytes()
    done = begin("--tokens", 500, "--resume")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == before
    assert begin("--tokens", 500, "--batch-size", 4, "--resume").returncode == 2


@pytest.mark.parametrize("name", ["job-7", "none"])
def test_started_again_by_torchrun_a_run_goes_on_only_where_this_launch_began_it(
    begin: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    assert begin().returncode == 0, "a run of another day"
    before = content(tmp_path / "run")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", name)
    for restarts in ("0", "1"):
        monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", restarts)
        done = begin("--steps", 4)
        assert done.returncode == 2 and "holds a run already" in done.stderr
    assert content(tmp_path / "run").keys() == before.keys()
    shutil.rmtree(tmp_path / "run")
    for restarts in ("0", "1"):
        monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", restarts)
        assert begin().returncode == 0
    assert len([line for line in read_lines(tmp_path / "run" / "metrics.jsonl") if line["split"] == "train"]) == 4


@pytest.mark.parametrize("more", [[], ["--resume"]])
def test_a_model_that_came_from_elsewhere_is_not_written_over(
    begin: Any, base_folder: Path, tmp_path: Path, more: list[str]
) -> None:
    shutil.copytree(base_folder, tmp_path / "run")
    done = begin(*more)
    assert done.returncode == 2 and "a model without its checkpoints" in done.stderr and "another --out" in done.stderr
    assert content(tmp_path / "run") == content(base_folder)
