"""Many processes, one run: the losses of one; any number goes on where another stopped; a lost one is replaced."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch.optim.optimizer import register_optimizer_step_post_hook

from pellucid.config import FitConfig, ModelConfig
from pellucid.model.gpt import GPT
from pellucid.pretrain import speed
from pellucid.pretrain.distributed import agreed_name, joined, world
from pellucid.pretrain.language import LanguageModelling
from pellucid.pretrain.metrics import read_lines
from pellucid.runtime import PellucidError
from pellucid.text.shards import Shards
from tests.forked import called_by_ranks, finish, start_ranks

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="torchrun is tried on Linux and macOS")
STEPS = 12


@pytest.fixture(scope="module")
def plain_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shape without dropout, whose dice would differ between numbers of processes."""
    file = tmp_path_factory.mktemp("shape") / "plain.toml"
    file.write_text("context_length = 16\nd_model = 16\nn_layers = 2\nn_heads = 2\n")
    return file


def arguments(shards: Shards, shape_file: Path, out: Path, *more: object, steps: int = STEPS) -> list[object]:
    names = ["--steps", steps, "--batch-size", 8, "--dtype", "float32", "--seed", 3, "--checkpoint-every", 4]
    return ["pretrain", "--data", shards.folder, "--model", shape_file, "--out", out, *names, "--resume", *more]


def losses(out: Path, key: str = "loss") -> list[tuple[int, str, float]]:
    return [(line["step"], line["split"], line[key]) for line in read_lines(out / "metrics.jsonl") if key in line]


def assert_same_losses(out: Path, whole: Path) -> None:
    ours, theirs = losses(out), losses(whole)
    assert [line[:2] for line in ours] == [line[:2] for line in theirs]
    for mine, other in zip(ours, theirs, strict=True):
        assert mine[2] == pytest.approx(other[2], rel=1e-6), mine
    assert losses(out, "tokens") == losses(whole, "tokens")


def train(count: int, out: Path, *command: object) -> Path:
    said = out.with_name(f"{out.name}.said")
    codes = finish(start_ranks(count, *command, out=said))
    assert codes == [0] * count, "\n".join(path.read_text() for path in sorted(out.parent.glob("*.said.*")))
    return out


@pytest.fixture(scope="module")
def alone(shards: Shards, plain_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of one process."""
    out = tmp_path_factory.mktemp("alone") / "run"
    return train(1, out, *arguments(shards, plain_file, out))


nightly = pytest.mark.nightly


@pytest.mark.parametrize(
    ("count", "more"),
    [
        (2, []),
        (4, []),
        (3, ["--shard", "--micro-batch-size", 2]),  # 2, 3 and 3 windows: one has a pass less to make
        pytest.param(2, ["--shard"], marks=nightly),
        pytest.param(2, ["--micro-batch-size", 1], marks=nightly),
        pytest.param(3, ["--micro-batch-size", 2], marks=nightly),
        pytest.param(4, ["--shard", "--recompute"], marks=nightly),
    ],
)
def test_any_number_of_processes_has_the_losses_of_one(
    shards: Shards, plain_file: Path, alone: Path, tmp_path: Path, count: int, more: list[Any]
) -> None:
    out = tmp_path / "run"
    train(count, out, *arguments(shards, plain_file, out, *more))
    assert_same_losses(out, alone)
    assert (out / "model.safetensors").stat().st_size == (alone / "model.safetensors").stat().st_size


@pytest.mark.parametrize(
    ("before", "after", "more"),
    [
        (2, 1, []),
        (2, 1, ["--shard"]),
        pytest.param(1, 2, [], marks=nightly),
        pytest.param(1, 2, ["--shard"], marks=nightly),
        pytest.param(2, 4, ["--shard"], marks=nightly),
    ],
)
def test_another_number_of_processes_goes_on_with_the_same_data(
    shards: Shards, plain_file: Path, alone: Path, tmp_path: Path, before: int, after: int, more: list[Any]
) -> None:
    out = tmp_path / "run"
    command = arguments(shards, plain_file, out, *more)
    for _ in range(3):  # a run that came to its end before it was killed is done over
        shutil.rmtree(out, ignore_errors=True)
        processes = start_ranks(before, *command, out=tmp_path / "said")
        wait_for_checkpoint(out, processes)
        for process in processes:
            process.kill()
            process.join()
        done = sorted(path.name for path in (out / "training").glob("step-*"))
        if done[-1:] != [f"step-{STEPS:08d}"]:
            break
    assert done and done[-1] != f"step-{STEPS:08d}", "steps are left"
    train(after, out, *command)
    assert_same_losses(out, alone)


def wait_for_checkpoint(out: Path, processes: list[Any]) -> None:
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline and all(process.is_alive() for process in processes):
        if any((out / "training").glob("step-*")):
            return
        time.sleep(0.002)


@pytest.mark.nightly
def test_a_lost_process_is_started_again_and_the_run_ends_right(
    shards: Shards, plain_file: Path, surroundings: dict[str, str], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    whole = train(2, tmp_path / "whole", *arguments(shards, plain_file, tmp_path / "whole", steps=100))
    command = arguments(shards, plain_file, out, steps=100)[:-1]  # without --resume: a restart goes on by itself
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--max-restarts", "2"]
    torchrun += ["--standalone"]
    run = subprocess.Popen(
        [*torchrun, "-m", "pellucid", *map(str, command)],
        env=surroundings | {"OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 240
    while not any((out / "training").glob("step-*")) and time.monotonic() < deadline and run.poll() is None:
        time.sleep(0.002)
    os.kill(children(run.pid)[-1], signal.SIGKILL)
    said, _ = run.communicate(timeout=300)
    assert run.returncode == 0, said
    assert losses(out) == losses(whole), "to the last bit, as both are of two processes"
    assert json.loads((out / "config.json").read_text())["model_type"] == "gpt2"


def tried_by(rank: int, folder: Path) -> int:
    """A trial of the precision by two processes, the second of which is held up at the end of a step; its steps."""
    steps = []

    def stepped(*_: object) -> None:
        steps.append(rank)
        if rank and len(steps) == 2:  # once the first one is already on its way to the next step
            time.sleep(2 * speed.LONG)

    speed.LONG = 0.5
    register_optimizer_step_post_hook(stepped)
    shards = Shards.open(folder)
    shape = ModelConfig(vocab_size=shards.vocab_size, context_length=16, d_model=16, n_layers=1, n_heads=2)
    config = FitConfig(steps=1, batch_size=8, optimizer="adamw", dtype="float32")
    with joined():
        model = GPT(shape)
        speed.measure_speed(model, LanguageModelling(shards, config, 16), config)
        world().wait()
    return len(steps)


def chosen_by(rank: int) -> list[str]:
    """What is worth a try where each process finds another precision the faster one."""
    speed.fastest_precision = lambda: (torch.float32, torch.bfloat16)[rank]
    with joined():
        return list(speed.worth_trying(torch.nn.Linear(1, 1)))


def test_what_is_worth_a_trial_is_what_the_first_process_finds() -> None:
    assert called_by_ranks(2, chosen_by) == [["float32"], ["float32"]]


def test_in_a_trial_the_first_process_says_how_many_steps_are_enough(shards: Shards) -> None:
    counts = called_by_ranks(2, tried_by, shards.folder, seconds=30)
    assert counts[0] == counts[1] > 2


def test_processes_that_meet_again_do_not_take_what_is_left_of_the_last_meeting() -> None:
    store = dist.HashStore()
    names = set()
    for _ in range(20):  # whoever comes first, the others find what is left of the time before
        with ThreadPoolExecutor(3) as pool:
            met = {future.result() for future in [pool.submit(agreed_name, store, rank, 3, 20.0) for rank in (2, 1, 0)]}
        assert len(met) == 1
        names |= met
    assert len(names) == 20


@pytest.mark.parametrize("rank", [0, 1])
def test_who_waits_in_vain_for_the_others_says_so(rank: int) -> None:
    store = dist.HashStore()
    store.set("meeting", "of another time")
    with pytest.raises(PellucidError, match="not all of 2 processes after 0 seconds"):
        agreed_name(store, rank, 2, patience=0.1)


def left_alone(rank: int) -> str:
    """What a process says to which another one does not answer."""
    try:
        with joined() as here:
            if here.first:
                here.sum(1.0)
    except PellucidError as error:
        return str(error)
    return ""


def test_who_is_left_by_another_process_says_so() -> None:
    said = called_by_ranks(2, left_alone)
    assert said[1] == ""
    assert "found a process that has ended, or does not answer; expected all 2" in said[0]


def children(pid: int) -> list[int]:
    listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True).stdout
    return sorted(int(word) for word in listed.split())
