"""Threads that run one compiled function together: the caller's own, and others that wait for it between calls."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Team:
    """`run(function, …)` calls function(…, arrived, thread, threads) in every thread at once, and waits for all.

    The function itself sees to it that the threads end together (`passes._meet`).
    """

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self.arrived: NDArray[np.int64] = np.zeros(8, np.int64)
        self._queues: list[SimpleQueue[Any]] = [SimpleQueue() for _ in range(threads - 1)]
        for number, queue in enumerate(self._queues, start=1):
            threading.Thread(target=_work, args=(queue, number, threads), daemon=True).start()
        weakref.finalize(self, _send_home, self._queues)

    def run(self, function: Callable[..., None], *arguments: Any) -> None:
        """Once in each thread; returns when the caller's has ended."""
        job = (function, (*arguments, self.arrived))
        for queue in self._queues:
            queue.put(job)
        function(*arguments, self.arrived, 0, self.threads)


def _work(queue: SimpleQueue[Any], number: int, threads: int) -> None:
    while (job := queue.get()) is not None:
        function, arguments = job
        function(*arguments, number, threads)
        del job, arguments  # nothing is held while waiting


def _send_home(queues: list[SimpleQueue[Any]]) -> None:
    for queue in queues:
        queue.put(None)
