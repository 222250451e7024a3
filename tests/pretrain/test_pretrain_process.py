"""`pellucid pretrain` as a real process: stopped by a signal, killed, gone on with, and the same bits at the end."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pellucid.pretrain.metrics import read_lines
from pellucid.text.shards import Shards

STEPS = 60


def arguments(shards: Shards, shape_file: Path, out: Path) -> list[Any]:
    names = ["--steps", STEPS, "--batch-size", 8, "--dtype", "float32", "--seed", 3, "--checkpoint-every", 20]
    return ["pretrain", "--data", shards.folder, "--model", shape_file, "--out", out, *names, "--resume"]


@pytest.fixture(scope="module")
def whole(cli: Any, shards: Shards, shape_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that was never stopped."""
    out = tmp_path_factory.mktemp("whole") / "run"
    done = cli(*arguments(shards, shape_file, out))
    assert done.returncode == 0, done.stderr
    return out


def wait_for_step(out: Path, step: int, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        lines = read_lines(out / "metrics.jsonl")
        if lines and lines[-1]["step"] >= step:
            return
        time.sleep(0.005)
    raise AssertionError("it never came so far")


def assert_as_if_never_stopped(out: Path, whole: Path) -> None:
    assert (out / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    steps = [line["step"] for line in read_lines(out / "metrics.jsonl") if line["split"] == "train"]
    assert steps == list(range(1, STEPS + 1))


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 130), (signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)]
)
def test_a_process_stopped_by_a_signal_and_started_again_ends_with_the_same_file(
    number: signal.Signals,
    code: int,
    start: Callable[..., Any],
    cli: Any,
    shards: Shards,
    shape_file: Path,
    whole: Path,
    tmp_path: Path,
) -> None:
    out = tmp_path / "run"
    process = start(*arguments(shards, shape_file, out))
    wait_for_step(out, 23)  # a checkpoint was written at 20, the next would come at 40
    process.send_signal(number)
    out_text, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert out_text == ""
    assert "Traceback" not in err
    assert not (out / "model.safetensors").exists()
    again = cli(*arguments(shards, shape_file, out), "--json")
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["steps"] == STEPS
    assert_as_if_never_stopped(out, whole)


def test_the_run_folder_says_what_was_done(whole: Path, shards: Shards) -> None:
    record = json.loads((whole / "run.json").read_text())
    assert record["verb"] == "pretrain"
    assert record["command"][1:3] == ["pretrain", "--data"]
    assert record["config"]["steps"] == STEPS
    assert record["config"]["seed"] == 3
    assert record["data"] == shards.hashes()
    assert {"pellucid", "torch", "python", "numpy"} <= record["versions"].keys()


def test_the_pretrained_folder_can_be_evaluated_continued_and_told_apart_from_foreign_shards(
    call: Any, whole: Path, shards: Shards, base_folder: Path
) -> None:
    scores = json.loads(call("evaluate", whole, "--data", shards.folder, "--json").stdout)
    low, high = scores["loss_interval"]
    assert low <= scores["loss"] <= high
    assert scores["bytes"] == shards.bytes("test")
    assert call("generate", whole, "--prompt", "Anna", "--max-tokens", 5).returncode == 0
    foreign = call("evaluate", base_folder, "--data", shards.folder)
    assert foreign.returncode == 2
    assert "another tokenizer" in foreign.stderr


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (["--model", "laptpo"], "Did you mean laptop?"),
        (["--model", "no.toml"], "no.toml: cannot read"),
        (["--context", 100_000], "found 100000"),
        (["--context", -1], "-1"),
        (["--batch-size", 0], "batch_size"),
        (["--steps", 0, "--minutes", 0], "neither steps nor minutes"),
        (["--device", "gpu"], "gpu"),
        (["--data", "nowhere"], "nowhere: found no such folder"),
    ],
)
def test_impossible_wishes_are_refused_in_one_message_before_anything_is_written(
    call: Any, shards: Shards, shape_file: Path, tmp_path: Path, change: list[Any], said: str
) -> None:
    wishes = {"--data": shards.folder, "--model": shape_file, "--steps": 5, "--out": tmp_path / "run"}
    wishes |= dict(zip(change[::2], change[1::2], strict=True))
    done = call("pretrain", *(part for pair in wishes.items() for part in pair))
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_a_second_run_on_the_same_folder_is_refused_and_a_dead_one_stands_in_nobodys_way(
    start: Callable[..., Any], cli: Any, shards: Shards, shape_file: Path, whole: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    process = start(*arguments(shards, shape_file, out))
    wait_for_step(out, 3)
    process.send_signal(signal.SIGSTOP)  # it lives, and stands still
    record = (out / "run.json").read_bytes()
    second = cli(*arguments(shards, shape_file, out))
    assert (out / "run.json").read_bytes() == record
    assert second.returncode == 2
    assert f"another process (number {process.pid})" in second.stderr and "another --out" in second.stderr
    process.kill()
    process.communicate()
    third = cli(*arguments(shards, shape_file, out))
    assert third.returncode == 0, third.stderr
    assert_as_if_never_stopped(out, whole)
