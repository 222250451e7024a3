"""What every stage needs from the machine: threads that suit how busy it is."""

from __future__ import annotations

import errno
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pellucid.compute import (
    keep_few_programs,
    most_threads,
    peak_memory_bytes,
    pick_device,
    settle_threads,
    usable_cores,
)
from pellucid.machine import memory_bytes
from pellucid.runtime import (
    ConfigError,
    DataError,
    PellucidError,
    atomic_folder,
    held,
    inform,
    one_line_of_json,
    read_json,
    write_text,
)


@pytest.mark.nightly  # whether it is busy enough is up to the machine
@pytest.mark.skipif(most_threads() < 2, reason="torch has one thread here: there is nothing to choose")
def test_on_a_busy_machine_one_thread_is_chosen() -> None:
    before = torch.get_num_threads()
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2 * usable_cores())]
    try:
        chosen = [settle_threads() for _ in range(3)]
        assert 1 in chosen
        assert torch.get_num_threads() == chosen[-1]
    finally:
        for process in busy:
            process.kill()
            process.wait()
        torch.set_num_threads(before)


def test_the_choice_is_all_threads_or_one() -> None:
    before = torch.get_num_threads()
    try:
        assert settle_threads() in (1, most_threads())
    finally:
        torch.set_num_threads(before)


def test_a_device_that_is_not_here_is_an_error_that_names_those_that_are() -> None:
    assert pick_device("cpu").type == pick_device("cpu:0").type == "cpu"
    assert pick_device().type in ("cpu", "cuda", "mps")
    for name in ("gpu", "", "cpu:", "cpu:x", "cpu:1", "cpu:00", "cpu:\u0660", "cuda:99", "cuda:-1"):
        with pytest.raises(ConfigError, match=rf"--device: found '{name}'; expected auto or one .*cpu\)"):
            pick_device(name)


def test_a_limit_of_the_user_is_kept() -> None:
    code = "from pellucid.compute import most_threads, settle_threads; print(most_threads(), settle_threads())"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "1"]


def test_of_many_processes_the_first_one_speaks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for rank in "012":
        monkeypatch.setenv("RANK", rank)
        inform(f"this is {rank}")
    assert capsys.readouterr().err == "this is 0\n"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows opens no folder")
@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a place where no folder can be made")
def test_a_place_where_no_folder_can_be_made_is_said() -> None:
    with pytest.raises(PellucidError, match="/proc/x: cannot write: no folder can be made there; give --out another"):
        write_text(Path("/proc/x"), "text")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no such pipes")
def test_a_device_or_a_pipe_is_not_replaced_by_a_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(PellucidError, match="pipe: found a device or a pipe; expected a place for a file"):
        write_text(tmp_path / "pipe", "text")
    assert [path.is_fifo() for path in tmp_path.iterdir()] == [True]


def test_a_rename_is_on_the_disk_before_it_is_relied_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[tuple[int, list[str]]] = []

    def sync(handle: int) -> None:
        synced.append((os.fstat(handle).st_ino, sorted(path.name for path in tmp_path.iterdir())))

    monkeypatch.setattr(os, "fsync", sync)
    write_text(tmp_path / "a", "text")
    assert synced[-1] == (tmp_path.stat().st_ino, ["a"])
    with atomic_folder(tmp_path / "b") as folder:
        (folder / "in").mkdir()
        (folder / "in" / "file").write_text("text")
        inside = {path.stat().st_ino for path in (folder, folder / "in", folder / "in" / "file")}
    before = {number for number, names in synced[1:] if "b" not in names}
    assert inside <= before, "what it holds first"
    assert synced[-1] == (tmp_path.stat().st_ino, ["a", "b"])


def test_who_may_read_a_file_or_a_folder_stays_so_and_of_a_new_one_the_umask_says(tmp_path: Path) -> None:
    def modes() -> list[int]:
        return [path.stat().st_mode & 0o777 for path in (tmp_path / "file", tmp_path / "folder")]

    def write() -> None:
        write_text(tmp_path / "file", "a talk")
        with atomic_folder(tmp_path / "folder") as folder:
            write_text(folder / "inside", "a run")

    before = os.umask(0o077)
    try:
        write()
        assert modes() == [0o600, 0o700]
        os.umask(0o022)
        write()
        assert modes() == [0o600, 0o700]
        (tmp_path / "file").unlink()
        shutil.rmtree(tmp_path / "folder")
        write()
        assert modes() == [0o644, 0o755]
    finally:
        os.umask(before)


def test_a_folder_that_cannot_be_replaced_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "weights").touch()
    replace = Path.replace

    def refused(self: Path, target: Path) -> Path:
        if target == tmp_path / "run" and not self.name.endswith(".old"):
            raise PermissionError(errno.EACCES, "held by another program")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", refused)
    with pytest.raises(PellucidError), atomic_folder(tmp_path / "run"):
        pass
    assert list(tmp_path.rglob("*")) == [tmp_path / "run", tmp_path / "run" / "weights"]


def test_where_locks_and_their_kind_are_missing_as_on_windows_nothing_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with held(tmp_path / "lock"), pytest.raises(PellucidError, match="another process"), held(tmp_path / "lock"):
        pass
    for name in ("fcntl", "resource"):
        monkeypatch.setitem(sys.modules, name, None)
    with held(tmp_path / "lock"), held(tmp_path / "lock"):
        assert peak_memory_bytes() == 0
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert usable_cores() == os.cpu_count()


def test_auto_is_cuda_then_apples_gpu_then_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    there = {"cuda": True, "mps": True}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there["cuda"])
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: there["mps"])
    assert pick_device().type == "cuda"
    there["cuda"] = False
    assert pick_device().type == "mps"
    there["mps"] = False
    assert pick_device().type == "cpu"


def test_what_json_has_not_is_null_to_a_program_and_a_number_without_end_is_an_error(tmp_path: Path) -> None:
    assert one_line_of_json({"a": [math.nan, 1.5], "b": {"c": -math.inf}}) == '{"a": [null, 1.5], "b": {"c": null}}'
    (tmp_path / "long.json").write_text("1" * 5000)
    with pytest.raises(DataError, match=r"long\.json: found a number or brackets without end"):
        read_json(tmp_path / "long.json")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits a group's memory so")
def test_in_a_container_its_limit_is_the_memory_there_is(tmp_path: Path) -> None:
    whole = memory_bytes(tmp_path)
    for folder, names in (
        (tmp_path / "new", ("memory.max", "memory.current", "inactive_file")),
        (tmp_path / "old" / "memory", ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")),
    ):
        folder.mkdir(parents=True)
        limit, used, cache = names
        (folder / limit).write_text("3000000\n")
        (folder / used).write_text("2000000\n")
        (folder / "memory.stat").write_text(f"anon 1500000\n{cache} 500000\nslab 1\n")
        groups = tmp_path / folder.relative_to(tmp_path).parts[0]
        assert memory_bytes(groups) == {"all": 3e6, "free": 1.5e6}
        (folder / limit).write_text("max\n")
        assert memory_bytes(groups)["all"] == whole["all"]


def test_onednn_keeps_few_programs_of_a_large_model_and_what_the_user_has_set(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "ONEDNN_PRIMITIVE_CACHE_CAPACITY"
    monkeypatch.setenv(name, "500")
    keep_few_programs(124_000_000)
    assert os.environ[name] == "500"
    del os.environ[name]
    keep_few_programs(1_000_000)
    assert name not in os.environ
    keep_few_programs(124_000_000)
    assert os.environ[name] == "64"
