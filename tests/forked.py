"""`pellucid …` as processes that start at once: a server that has imported torch forks them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import sys
from collections.abc import Callable
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["pellucid.pretrain.commands", "pellucid.options", "tyro"])


def start(*arguments: object, out: Path, environment: dict[str, str] | None = None) -> ForkServerProcess:
    """The verb as a process of one thread; what it says goes to the file `out`."""
    process = SERVER.Process(target=_run, args=([str(part) for part in arguments], str(out), environment or {}))
    process.start()
    return process


def _run(arguments: list[str], out: str, environment: dict[str, str]) -> None:
    import torch

    from pellucid.cli import main

    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.update(environment)
    torch.set_num_threads(1)
    with Path(out).open("a", encoding="utf-8") as file:
        sys.stdout = sys.stderr = file
        sys.argv = ["pellucid", *arguments]
        try:
            main()
        finally:
            file.flush()


def start_ranks(count: int, *arguments: object, out: Path) -> list[ForkServerProcess]:
    """The same verb as `count` processes that find each other, as torchrun starts them."""
    return [
        start(*arguments, out=out.with_suffix(f".{rank}"), environment=environment)
        for rank, environment in enumerate(surroundings(count))
    ]


def surroundings(count: int) -> list[dict[str, str]]:
    """What torchrun tells each of `count` processes."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    common = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    return [common | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(count)]


def called_by_ranks(count: int, function: Callable[..., Any], *arguments: Any, seconds: float = 60) -> list[Any]:
    """What a function of a test's module says in each of `count` such processes; its first argument is the rank."""
    queue = SERVER.Queue()
    processes = [
        SERVER.Process(target=_call, args=(queue, function, rank, arguments, environment))
        for rank, environment in enumerate(surroundings(count))
    ]
    for process in processes:
        process.start()
    try:
        said = dict(queue.get(timeout=seconds) for _ in processes)
    finally:
        finish(processes, 5)
    return [said[rank] for rank in range(count)]


def _call(queue: Any, function: Callable[..., Any], rank: int, arguments: Any, environment: dict[str, str]) -> None:
    import torch

    os.environ.update(environment)
    torch.set_num_threads(1)
    try:
        queue.put((rank, function(rank, *arguments)))
    except BaseException as error:
        queue.put((rank, error))
        raise


def finish(processes: list[ForkServerProcess], seconds: float = 120) -> list[Any]:
    """Wait for all of them; their exit codes. Whoever is late is killed, and is None."""
    for process in processes:
        process.join(seconds)
    codes = [process.exitcode for process in processes]
    for process in processes:
        process.kill()
    return codes
