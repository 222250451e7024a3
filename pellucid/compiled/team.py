"""Threads that run one compiled function together: the caller's own, and others that wait for it between calls."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pellucid.compiled.vectors import COMPILED, add_together, let_others

Queue = SimpleQueue[Any]


class Team:
    """`run(function, …)` calls function(…, arrived, thread, threads) in every thread at once, and waits for all.

    The function itself sees to it that the threads meet, at its end at least (`meet`, which counts `arrived`).
    """

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self.arrived: NDArray[np.int64] = np.zeros(8, np.int64)
        self._jobs = 0
        self._queues: list[Queue] = [SimpleQueue() for _ in range(threads - 1)]
        for number, queue in enumerate(self._queues, start=1):
            threading.Thread(target=_work, args=(queue, number, threads), daemon=True).start()
        weakref.finalize(self, _send_home, self._queues)

    def run(self, function: Callable[..., None], *arguments: Any) -> None:
        """Once in each thread; returns when the caller's has ended.

        Ctrl-C may come when the others have begun and the caller has not. They would wait for its share for ever, so
        that is done first. Until then no more than the others can have arrived.
        """
        self._jobs += 1
        job, before = (self._jobs, function, (*arguments, self.arrived)), self.arrived[0]
        try:
            for queue in self._queues:
                queue.put(job)
            function(*arguments, self.arrived, 0, self.threads)
        except KeyboardInterrupt:
            if self._queues and self.arrived[0] - before < self.threads:
                for queue in self._queues:
                    queue.put(job)  # in case it was not; a second one is passed over
                function(*arguments, self.arrived, 0, self.threads)
            raise


def _work(queue: Queue, number: int, threads: int) -> None:
    """Do each job that comes along the queue once, until there comes None."""
    last = 0
    while (job := queue.get()) is not None:
        this, function, arguments = job
        if this != last:
            function(*arguments, number, threads)
        last = this
        del job, function, arguments  # nothing is held while waiting


def _send_home(queues: Sequence[Queue]) -> None:
    for queue in queues:
        queue.put(None)


@njit(**COMPILED)
def share(count: Any, thread: Any, threads: Any) -> Any:
    """Where a thread's share of `count` things begins and ends."""
    return count * thread // threads, count * (thread + 1) // threads


@njit(**COMPILED)
def meet(arrived: Any, threads: Any) -> None:
    """Wait until all threads have come here."""
    if threads == 1:
        return
    all_of_them = (add_together(arrived, 0, 1) // threads + 1) * threads
    waited = 0
    while add_together(arrived, 0, 0) < all_of_them:
        waited += 1
        let_others(waited % 256 == 0)
