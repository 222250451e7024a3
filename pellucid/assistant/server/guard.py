"""What stands before every route, the pages' too: who may ask, how much, how long; and what a browser may do with it.

Three attacks have no need of an open port, a page in the victim's own browser is enough: a name of the attacker's that
suddenly means 127.0.0.1 (DNS rebinding: the Host header gives it away), a post from another site (the Origin header
does), and text of a model that turns into markup (the Content-Security-Policy makes it harmless).
Written against ASGI itself: it sees each message of a stream, and when the client leaves.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
import re
import socket
import time
from base64 import b64decode
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pellucid.assistant.server.errors import of_error, refuse

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
        "font-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
HOST = re.compile(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(?::\d{1,5})?")
OPEN = "/healthz"  # needs no key: it says nothing


@dataclass(frozen=True)
class Limits:
    """What one request may take."""

    body_bytes: int = 1 << 20
    body_seconds: float = 30.0
    """For the whole body to arrive."""
    seconds: float = 150.0
    """For everything, to the last byte that the client takes."""


class Guard:
    """An ASGI app around `app`. `host` is where the server listens, `names` are other names that it has there.

    Without a `key` none is asked for. `observe` is told each request's route, status and seconds.
    """

    def __init__(
        self,
        app: ASGIApp,
        host: str,
        key: str = "",
        names: Sequence[str] = (),
        limits: Limits | None = None,
        observe: Callable[[str, int, float], None] = lambda *_: None,
    ) -> None:
        self.app, self.limits, self.observe = app, limits or Limits(), observe
        self.local = is_loopback(host)
        own = ["localhost"] if self.local else ["localhost", host, socket.gethostname()]
        self.names = {name.lower() for name in (*own, *names)}
        self.digest = _digest(key.encode()) if key else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        began, answer = time.monotonic(), _Answer(send)
        try:
            async with asyncio.timeout(self.limits.seconds):
                body = self.refusal(scope) or await self._body(receive)
                if isinstance(body, Response):
                    await body(scope, receive, answer.send)
                else:
                    await _while_there(self.app, scope, body, receive, answer)
        except _LeftError:
            pass
        except TimeoutError:
            late = refuse(504, f"this took longer than {self.limits.seconds:g} s.", "timeout")
            await answer.say_if_silent(late, scope, receive)
        except Exception as error:
            await answer.say_if_silent(of_error(error), scope, receive)
        route = getattr(scope.get("route"), "path", "other")
        self.observe(route, answer.status, time.monotonic() - began)

    def refusal(self, scope: Scope) -> Response | None:
        """Why this request is not even looked at, or None."""
        headers = Headers(scope=scope)
        host, origin = headers.get("host", ""), headers.get("origin")
        if not self.knows(host):
            return refuse(403, "the Host header is not a name of this server: ask for it as http://127.0.0.1.", "host")
        if origin is not None and origin.partition("://")[2].lower() != host.lower():
            return refuse(403, "a page of another site asked: that is not allowed.", "origin")
        if headers.get("sec-fetch-site") in ("cross-site", "same-site") and headers.get("sec-fetch-mode") != "navigate":
            return refuse(403, "a page of another site asked: that is not allowed.", "origin")
        if self.digest is not None and scope["path"] != OPEN and not self.opens(headers.get("authorization", "")):
            ask = {"WWW-Authenticate": 'Basic realm="pellucid: any name, the key as password", charset="UTF-8"'}
            return refuse(401, "no key, or another than that of --api-key-file.", "invalid_api_key", headers=ask)
        length = headers.get("content-length", "0")
        if not length.isdigit() or int(length[:20]) > self.limits.body_bytes:
            return self._too_large()
        return None

    def knows(self, host: str) -> bool:
        """Whether the Host header is a name of this server. An address is always: only a name can be rebound."""
        match = HOST.fullmatch(host)
        if match is None:
            return False
        name = match[1].strip("[]").lower()
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return name in self.names
        return not self.local or address.is_loopback

    def opens(self, authorization: str) -> bool:
        """Whether the header holds the key: as a bearer, or (browsers) as the password of any name."""
        kind, _, given = authorization.partition(" ")
        secret = given.strip().encode()
        if kind.lower() == "basic":
            try:
                secret = b64decode(secret, validate=True).partition(b":")[2]
            except ValueError:
                secret = b""
        elif kind.lower() != "bearer":
            secret = b""
        assert self.digest is not None
        return hmac.compare_digest(_digest(secret), self.digest)

    async def _body(self, receive: Receive) -> bytes | Response:
        """The whole body, or why it is refused."""
        body = bytearray()
        try:
            async with asyncio.timeout(self.limits.body_seconds):
                more = True
                while more:
                    message = await receive()
                    if message["type"] != "http.request":
                        raise _LeftError
                    body += message.get("body", b"")
                    more = message.get("more_body", False)
                    if len(body) > self.limits.body_bytes:
                        return self._too_large()
        except TimeoutError:
            message_ = f"the body did not arrive within {self.limits.body_seconds:g} s."
            return refuse(408, message_, "timeout", headers={"Connection": "close"})
        return bytes(body)

    def _too_large(self) -> Response:
        message = f"body: more than {self.limits.body_bytes:,} bytes. Send less at a time."
        return refuse(413, message, "too_large", headers={"Connection": "close"})


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a server that listens there."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _digest(secret: bytes) -> bytes:
    """Keys are compared by their hashes: in constant time, and whatever their lengths."""
    return hashlib.sha256(secret).digest()


class _LeftError(Exception):
    """The client has gone."""


class _Answer:
    """The way out: adds the headers, and knows how far the answer is."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.status = 499  # what is noted where nothing was said, because the client has left
        self.whole = False

    async def send(self, message: Message) -> None:
        """Send on."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers.setdefault(name, value)
        elif message["type"] == "http.response.body":
            self.whole = not message.get("more_body", False)
        await self._send(message)

    async def say_if_silent(self, response: Response, scope: Scope, receive: Receive) -> None:
        """Send this, where nothing was sent; else the server closes the connection, and the client knows."""
        if self.status == 499:
            await response(scope, receive, self.send)


async def _while_there(app: ASGIApp, scope: Scope, body: bytes, receive: Receive, answer: _Answer) -> None:
    """Let `app` answer, as long as the client is there: when it leaves, the work is cancelled."""
    left = asyncio.Event()
    given = False

    async def replay() -> Message:
        """The body that was read, once; then, when it happens, that the client has left."""
        nonlocal given
        if given:
            await left.wait()
            return {"type": "http.disconnect"}
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    async def watch() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        left.set()

    async def act() -> None:
        await app(scope, replay, answer.send)

    work, watching = asyncio.create_task(act()), asyncio.create_task(watch())
    try:
        await asyncio.wait((work, watching), return_when=asyncio.FIRST_COMPLETED)
        if not work.done() and not answer.whole:
            work.cancel()
            await asyncio.wait((work,))
            raise _LeftError
        await work
    finally:
        for task in (work, watching):
            task.cancel()
        await asyncio.gather(work, watching, return_exceptions=True)
