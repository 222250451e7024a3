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
from base64 import b64decode
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
    """An ASGI app around `app`. `host` is where the server listens; without a `key` none is asked for."""

    def __init__(self, app: ASGIApp, host: str, key: str = "", limits: Limits | None = None) -> None:
        self.app, self.limits = app, limits or Limits()
        self.local = is_loopback(host)
        self.names = {"localhost"} if self.local else {"localhost", host.lower(), socket.gethostname().lower()}
        self.digest = _digest(key.encode()) if key else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        started = False

        async def send_on(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            async with asyncio.timeout(self.limits.seconds):
                body = self.refusal(scope) or await self._body(receive)
                if isinstance(body, Response):
                    await body(scope, receive, send_on)
                else:
                    await self.app(scope, _replay(body, receive), send_on)
        except TimeoutError:
            if not started:
                await refuse(504, f"this took longer than {self.limits.seconds:g} s.", "timeout")(
                    scope, receive, send_on
                )
        except Exception as error:
            answer = of_error(error)
            if not started:
                await answer(scope, receive, send_on)

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
            return not self.local or ipaddress.ip_address(name).is_loopback
        except ValueError:
            pass
        return name in self.names

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
                        return Response(status_code=400)  # the client has left: nobody reads this
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


def _replay(body: bytes, receive: Receive) -> Receive:
    """The body that was read, once; then what else comes (that the client has left)."""
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again
