"""HTTP by uvicorn, with an end to its patience: a client that sends half a header and waits is let go.

uvicorn bounds the size of a header and the time between two requests, but not how long a header may take.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

HEADER_SECONDS = 10.0


class PatientProtocol(H11Protocol):
    """One connection."""

    header_seconds = HEADER_SECONDS
    _waiting: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """The client has this long for its first header."""
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        """With each request that is whole the waiting ends; with the first bytes of the next it begins."""
        super().data_received(data)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is waited for any more."""
        self._stop()
        super().connection_lost(exc)

    def _wait(self) -> None:
        if not idle(self.cycle):
            self._stop()
        elif self._waiting is None and not self.transport.is_closing():
            self._waiting = self.loop.call_later(self.header_seconds, self._give_up)

    def _stop(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    def _give_up(self) -> None:
        self._waiting = None
        if idle(self.cycle) and not self.transport.is_closing():
            self.transport.close()


def idle(cycle: RequestResponseCycle | None) -> bool:
    """Whether no request is being answered."""
    return cycle is None or cycle.response_complete
