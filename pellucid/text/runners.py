"""Who does the units of an encoding: the threads of this machine, or all machines of a Ray cluster.

Either does the same with each unit and gives the results in the units' order, so what comes out is the same.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from pellucid.runtime import PellucidError, inform, progress_bar

W = TypeVar("W")
R = TypeVar("R")


class Runner(Protocol):
    """Does something with each of the units 0 to count - 1 of some work; results in order."""

    def __call__(self, do: Callable[[W, int], R], work: W, count: int, title: str) -> list[R]: ...


def run_with_threads(workers: int, do: Callable[[W, int], R], work: W, count: int, title: str) -> list[R]:
    """Do the units with threads (encoding holds no lock). An error or Ctrl-C ends it behind the units in hand."""
    results: list[R] = []
    with progress_bar() as bar, ThreadPoolExecutor(max(1, workers)) as pool:
        task = bar.add_task(title, total=count, note="")
        futures = [pool.submit(do, work, number) for number in range(count)]
        try:
            for future in futures:
                results.append(future.result())
                bar.update(task, completed=len(results))
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
    return results


# ---------------------------------------------------------------- Ray


@dataclass(frozen=True)
class Outcome:
    """What a unit came to, or the message that says why it did not; a class of ours, so that Ray leaves it as it is."""

    result: Any
    error: PellucidError | None = None


def run_with_ray(do: Callable[[W, int], R], work: W, count: int, title: str) -> list[R]:
    """Do the units with Ray Data on all machines of its cluster, which must see the same folders.

    The cluster is the one this process is connected to, or that RAY_ADDRESS names, or else one on this machine alone.
    """
    with _ray() as ray:
        shared = ray.put((do, work))

        class Worker:
            """A process that has the work at hand, and does unit after unit."""

            def __init__(self) -> None:
                self.do, self.work = ray.get(shared)

            def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
                try:
                    return {"id": row["id"], "outcome": Outcome(self.do(self.work, int(row["id"])))}
                except PellucidError as error:
                    return {"id": row["id"], "outcome": Outcome(None, error)}

        most = max(1, int(ray.cluster_resources().get("CPU", 1)))
        inform(f"{title}: {count:,} parts, with Ray on {most:,} cores")
        pool = ray.data.ActorPoolStrategy(min_size=1, max_size=most)
        units = ray.data.range(count, override_num_blocks=count)
        outcomes: dict[int, Outcome] = {}
        for row in units.map(Worker, compute=pool).iter_rows():
            if row["outcome"].error is not None:
                raise row["outcome"].error
            outcomes[row["id"]] = row["outcome"]
    return [outcomes[number].result for number in range(count)]


@contextlib.contextmanager
def _ray() -> Iterator[Any]:
    """Ray, connected and quiet; what was started here is ended here. It reports nothing to its makers."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise PellucidError("--engine ray needs Ray Data. Install it: pip install 'pellucid[ray]'") from error
    from pellucid.text.compiled.encoding import FastBPE

    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.ERROR)
    ours = not ray.is_initialized()
    if ours:
        address = os.environ.get("RAY_ADDRESS") or "local"
        dashboard = False if address == "local" else None  # of another's cluster nothing is decided here
        try:
            ray.init(address, include_dashboard=dashboard, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, ValueError) as error:
            raise PellucidError(f"RAY_ADDRESS={address}: no Ray cluster answers there ({error}).") from error
    ray.data.DataContext.get_current().enable_progress_bars = False
    # Each process compiles for itself: tables in use by threads cannot be sent.
    ray.util.register_serializer(FastBPE, serializer=lambda _: None, deserializer=lambda _: None)
    try:
        yield ray
    finally:
        if ours:
            ray.shutdown()
