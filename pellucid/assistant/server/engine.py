"""Many requests, one model: their texts are decoded together, in a thread of the model's own.

The event loop hands over wishes and gets events back; `Continuous` sees to it that a text is what it would be alone.
At most `rows` texts are decoded and `waiting` wait; whoever comes then is told when to try again.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from pellucid.assistant.server.errors import RefusedError
from pellucid.generation.continuous import Continuous, Event
from pellucid.generation.decoder import Decoder
from pellucid.generation.sampling import GREEDY, Sampling
from pellucid.model.gpt import GPT
from pellucid.opened import BusyError
from pellucid.runtime import ConfigError, problem
from pellucid.text.tokenizer import Tokenizer

CACHE_BYTES = 1 << 30  # what the keys and values of all rows may take
MOST_ROWS = 64
WAITING = 256
SECONDS = 120.0  # for all texts of a request


@dataclass(frozen=True)
class Wish:
    """One text that somebody wants: what `Continuous.add` takes."""

    prompt: Sequence[int]
    max_tokens: int
    sampling: Sampling = GREEDY
    seed: int = 0
    stop: Sequence[str] = ()
    alternatives: int | None = None
    row: int = 0


@dataclass(eq=False)
class Ticket:
    """The texts of one request. Made by `Engine.order`, read by one task, and cancelled by it when it ends early."""

    engine: Engine
    wishes: Sequence[Wish]
    at_once: bool
    handles: dict[int, int] = field(default_factory=dict)  # handle → which wish
    left: int = 0  # texts that have not ended
    made: list[tuple[int, Event]] = field(default_factory=list)  # not handed over yet; of the thread
    arrived: asyncio.Queue[list[tuple[int, Event]] | Exception | None] = field(default_factory=asyncio.Queue)

    async def begun(self) -> None:
        """Wait until the wishes are taken; raises what is wrong with them."""
        first = await self.arrived.get()
        if isinstance(first, Exception):
            raise first

    async def events(self) -> AsyncIterator[tuple[int, Event]]:
        """Which wish, and what happened to its text, until all have ended. Raises what stops them. After `begun`."""
        left, until = len(self.wishes), asyncio.get_running_loop().time() + SECONDS
        while left:
            try:
                async with asyncio.timeout_at(until):
                    news = await self.arrived.get()
            except TimeoutError:
                message = problem("request", f"texts that take longer than {SECONDS:g} s", "fewer tokens", "Ask again.")
                raise RefusedError(message, 504, "timeout") from None
            if isinstance(news, Exception):
                raise news
            for place, event in news or ():
                left -= bool(event.ended)
                yield place, event

    def cancel(self) -> None:
        """Nobody reads this any more; may be called at any time, and again."""
        self.engine.forget(self)


STEP = 5.0  # seconds that a step may take at the end


class Engine:
    """The thread of one model. All but `close` is called from the event loop it was made in."""

    def __init__(self, model: GPT | Decoder[Any], tokenizer: Tokenizer, rows: int = 0, waiting: int = WAITING) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.rows, self.waiting = rows or fitting_rows(model), waiting
        self.count = 0  # texts that are decoded or wait
        self._machine = Continuous(model, tokenizer, self.rows)
        self._tickets: dict[int, Ticket] = {}  # handle → ticket; of the thread
        self._inbox: deque[Callable[[], None]] = deque()
        self._awake = threading.Condition()
        self._closed = self._retired = False
        self._ends: deque[float] = deque([time.monotonic()], maxlen=50)  # when the last texts ended
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run, name="pellucid-decoding", daemon=True)
        self._thread.start()

    def order(self, wishes: Sequence[Wish], at_once: bool) -> Ticket:
        """Have these texts made; `at_once` tells of each token, otherwise of all when the last text has ended.

        BusyError where they would wait too long.
        """
        room = self.rows + self.waiting
        if len(wishes) > room:
            raise ConfigError(problem("request", f"{len(wishes)} texts", f"at most {room}", "Ask for fewer at a time."))
        if self._closed or self._retired:
            raise BusyError("the model is being replaced or the server is stopping; try again in a moment.")
        if self.count + len(wishes) > room:
            message = f"{self.count} texts are decoded or wait, and no more can wait; try again in a moment."
            raise BusyError(message, self.seconds_until_room(len(wishes)))
        ticket = Ticket(self, wishes, at_once, left=len(wishes))
        self.count += len(wishes)
        self._tell(lambda: self._take(ticket))
        return ticket

    def forget(self, ticket: Ticket) -> None:
        """Decode no more of this."""
        if ticket.left:
            self._tell(lambda: self._drop(ticket))

    def seconds_until_room(self, texts: int) -> int:
        """When so many more texts will fit, by how fast the last ones ended: 1 to 60 seconds."""
        over = self.count + texts - self.rows - self.waiting
        each = (time.monotonic() - self._ends[0]) / len(self._ends)
        return min(60, max(1, math.ceil(over * each)))

    def retire(self) -> None:
        """Take no more; the thread ends with its last text."""
        with self._awake:
            self._retired = True
            self._awake.notify()

    def close(self) -> None:
        """End the thread; texts that are not whole end with an error.

        Its step is waited for: a process that ends while a thread computes in C++ is aborted.
        """
        with self._awake:
            self._closed = True
            self._awake.notify()
        self._thread.join(STEP)

    # ------------------------------------------------------------ in the thread

    def _tell(self, message: Callable[[], None]) -> None:
        with self._awake:
            self._inbox.append(message)
            self._awake.notify()

    def _run(self) -> None:
        while True:
            with self._awake:
                while not (self._inbox or self._tickets or self._closed or self._retired):
                    self._awake.wait()
                messages = list(self._inbox)
                self._inbox.clear()
            for message in messages:
                message()
            if self._closed:
                return self._fail(BusyError("the server is stopping."))
            if self._retired and not (self._tickets or self._inbox):
                return
            try:
                events = self._machine.step()
            except Exception as error:  # such as weights that give no numbers: the next ones get a new machine
                self._fail(error)
                self._machine = Continuous(self.model, self.tokenizer, self.rows)
            else:
                self._hand_over(events)

    def _take(self, ticket: Ticket) -> None:
        try:
            for place, wish in enumerate(ticket.wishes):
                handle = self._machine.add(
                    wish.prompt, wish.max_tokens, wish.sampling, wish.seed, wish.stop,
                    alternatives=wish.alternatives, row=wish.row,
                )  # fmt: skip
                ticket.handles[handle] = place
                self._tickets[handle] = ticket
        except Exception as error:
            self._drop(ticket)
            self._send([(ticket, error)], 0)
        else:
            self._send([(ticket, None)], 0)

    def _drop(self, ticket: Ticket) -> None:
        """Remove what is left of it, whoever asks, once."""
        for handle in ticket.handles:
            if self._tickets.get(handle) is ticket:  # after a failure, handles count from 0 again
                del self._tickets[handle]
                self._machine.remove(handle)
        gone, ticket.left = ticket.left, 0
        self._send([], gone)

    def _hand_over(self, events: Sequence[Event]) -> None:
        """Give the events to their tickets: those of streams now, others when all is there."""
        news: dict[Ticket, None] = {}
        gone = 0
        for event in events:
            ticket = self._tickets[event.handle]
            ticket.made.append((ticket.handles[event.handle], event))
            if event.ended:
                del self._tickets[event.handle]
                ticket.left -= 1
                gone += 1
            if ticket.at_once or not ticket.left:
                news[ticket] = None
        if news:
            letters: list[tuple[Ticket, list[tuple[int, Event]] | Exception | None]] = []
            for ticket in news:
                letters.append((ticket, ticket.made))
                ticket.made = []
            self._send(letters, gone)
        elif gone:
            self._send([], gone)

    def _fail(self, error: Exception) -> None:
        """All texts end with this error."""
        tickets = dict.fromkeys(self._tickets.values())
        gone = sum(ticket.left for ticket in tickets)
        for ticket in tickets:
            ticket.left = 0
        self._tickets.clear()
        self._send([(ticket, error) for ticket in tickets], gone)

    def _send(self, letters: Sequence[tuple[Ticket, list[tuple[int, Event]] | Exception | None]], gone: int) -> None:
        """Wake the event loop once for all that a step brought."""

        def arrive() -> None:
            self.count -= gone
            self._ends.extend([time.monotonic()] * gone)
            for ticket, letter in letters:
                ticket.arrived.put_nowait(letter)

        try:
            self._loop.call_soon_threadsafe(arrive)
        except RuntimeError:  # the loop has ended before us: nobody is there to be told
            self._closed = True


def fitting_rows(model: GPT | Decoder[Any]) -> int:
    """How many texts to decode together: as many as have a gigabyte for their keys and values, 1 to 64."""
    config, number = model.config, 4 if isinstance(model, GPT) else model.number_bytes
    row = 2 * number * config.n_layers * config.context_length * config.n_kv_heads * config.d_head
    return max(1, min(MOST_ROWS, CACHE_BYTES // row))
