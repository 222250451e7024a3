"""Who may ask, how much and how long: cross-site pages, wrong keys, and clients that are slow, huge, broken or gone."""

from __future__ import annotations

import base64
import http.client
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from pellucid.assistant.server.guard import HEADERS, Guard, Limits
from pellucid.assistant.server.patience import PatientProtocol
from tests.assistant.server.conftest import Serve

ASKED = json.dumps({"model": "base", "prompt": "The fox", "temperature": 0, "max_tokens": 4})
JSON = {"Content-Type": "application/json"}
KEY = "a-long-and-random-word"
LONG = {"max_tokens": 4096, "temperature": 0}
"""The most probable tokens of this random model never end a text: none is over before the test looks."""


def ask(url: str, method: str = "GET", path: str = "/healthz", body: Any = None, **headers: str) -> Any:
    """(status, headers, content) of one request."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=30)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        connection.request(method, path, body, {**JSON, **named})
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()


def raw(url: str) -> socket.socket:
    """A connection to write anything into."""
    parts = urlsplit(url)
    return socket.create_connection((parts.hostname or "", parts.port or 0), timeout=30)


def all_of(connection: socket.socket) -> bytes:
    """What comes until the server closes, however it does."""
    pieces = []
    try:
        while piece := connection.recv(65536):
            pieces.append(piece)
    except ConnectionError:
        pass
    return b"".join(pieces)


def completes(url: str) -> bool:
    """Whether others are served."""
    status, _, content = ask(url, "POST", "/v1/completions", ASKED)
    return status == 200 and json.loads(content)["object"] == "text_completion"


BAD_HOSTS = ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "", "a b", "[::1"]


@pytest.mark.parametrize("host", BAD_HOSTS)
def test_a_rebound_name_is_refused(url: str, host: str) -> None:
    status, headers, content = ask(url, Host=host)
    assert status in (400, 403)
    if status == 403:
        assert json.loads(content)["error"]["code"] == "host"
        assert dict(headers.items()).items() >= {name.lower(): value for name, value in HEADERS.items()}.items()


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8000", "127.0.0.1:1", "127.8.8.8", "[::1]:8000"])
def test_its_own_names_are_known(url: str, host: str) -> None:
    assert ask(url, Host=host)[0] == 200


def test_pages_of_other_sites_cannot_ask(url: str) -> None:
    own = urlsplit(url).netloc
    for headers in (
        {"Origin": "http://evil.example"}, {"Origin": "null"}, {"Origin": "http://localhost:1"},
        {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "no-cors"},
    ):  # fmt: skip
        status, _, content = ask(url, "POST", "/v1/completions", ASKED, **headers)
        assert (status, json.loads(content)["error"]["code"]) == (403, "origin")
    assert ask(url, "POST", "/v1/completions", ASKED, Origin=f"http://{own}", Sec_Fetch_Site="same-origin")[0] == 200
    assert ask(url, Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="navigate")[0] == 200  # a link to it
    form = "model=base&prompt=x"
    status, _, _ = ask(url, "POST", "/v1/completions", form, Content_Type="application/x-www-form-urlencoded")
    assert status == 400  # what a form of another site could send without being asked for leave


def test_each_answer_tells_the_browser_to_load_and_run_nothing_else(url: str) -> None:
    for path, status in (("/healthz", 200), ("/v1/models", 200), ("/nowhere", 404), ("/v1/completions", 405)):
        found, headers, _ = ask(url, path=path)
        assert found == status
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff" and headers["Cache-Control"] == "no-store"


def test_pages_that_cli_hands_over_are_guarded_too(serve: Serve, folders: list[Path]) -> None:
    from starlette.requests import Request
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route

    from pellucid.opened import Runs
    from pellucid.text.tokenizer import Tokenizer

    def pages(runs: Runs) -> list[Route]:
        async def page(request: Request) -> PlainTextResponse:
            name = request.query_params["run"]
            tokenizer = await runs.aside(runs.load, name, Tokenizer.load)
            return PlainTextResponse(str(tokenizer.vocab_size))

        return [Route("/size", page)]

    with serve(folders[:1], pages=pages, key=KEY) as url:
        assert ask(url, path="/size?run=base")[0] == 401
        key = f"Bearer {KEY}"
        status, headers, content = ask(url, path="/size?run=base", Authorization=key)
        assert (status, content) == (200, b"300") or content.isdigit()
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert ask(url, path="/size?run=base", Authorization=key, Host="evil.example")[0] == 403
        status, _, content = ask(url, path="/size?run=../../etc/passwd", Authorization=key)
        assert status == 404 and json.loads(content)["error"]["code"] == "model_not_found"


def test_the_key_opens_as_a_bearer_or_as_a_browsers_password(serve: Serve, folders: list[Path]) -> None:
    with serve(folders[:1], key=KEY) as url:
        password = base64.b64encode(f"anyone:{KEY}".encode()).decode()
        for right in (f"Bearer {KEY}", f"bearer {KEY}", f"Basic {password}"):
            assert ask(url, path="/v1/models", Authorization=right)[0] == 200
        nearly = base64.b64encode(f"{KEY}:".encode()).decode()
        for wrong in (
            "",
            "Bearer",
            "Bearer ",
            f"Bearer {KEY}x",
            f"Bearer {KEY[:-1]}",
            f"Basic {nearly}",
            "Basic !",
            KEY,
        ):
            status, headers, content = ask(url, path="/v1/models", Authorization=wrong)
            assert (status, json.loads(content)["error"]["code"]) == (401, "invalid_api_key")
            assert headers["WWW-Authenticate"].startswith("Basic")
        assert ask(url)[0] == 200  # /healthz says nothing, to anybody


def test_beyond_loopback_addresses_and_given_names_are_known() -> None:
    guard = Guard(lambda *_: None, "192.168.1.5", KEY, ["models.example"])  # type: ignore[arg-type, return-value]
    assert all(map(guard.knows, ("192.168.1.5:8000", "10.0.0.1", "models.example", "localhost", "[fe80::1]:80")))
    assert not any(map(guard.knows, ("evil.example", "models.example.evil", "")))


@pytest.mark.parametrize("length", ["100000000", "99999999999999999999"])
def test_a_huge_body_is_refused_before_it_is_read(url: str, length: str) -> None:
    with raw(url) as connection:
        head = f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n"
        connection.sendall(head.encode())
        answer = all_of(connection)
    assert answer.startswith(b"HTTP/1.1 413") and b"more than 1,048,576 bytes" in answer
    assert completes(url)


def test_a_huge_body_in_chunks_is_cut_off(url: str) -> None:
    with raw(url) as connection:
        connection.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
        piece = b"10000\r\n" + b"x" * 65536 + b"\r\n"
        try:
            for _ in range(1600):  # 100 MB
                connection.sendall(piece)
        except ConnectionError:
            sent_all = False
        else:
            sent_all = True
        answer = all_of(connection)
    assert not sent_all
    assert answer == b"" or answer.startswith(b"HTTP/1.1 413")
    assert completes(url)


@pytest.mark.parametrize(
    "body",
    [b"\xff\xfe{", b'{"model": "base", "prompt": "\xff"}', b"[" * 100_000, b"1" * 10_000, b"", b"null", b"[]",
     b'{"model": "base", "prompt": "\\ud800"}', b'{"model": NaN}', b'{"model": "base", "temperature": 1e999}'],
)  # fmt: skip
def test_a_body_that_is_no_request_is_refused_as_such(url: str, body: bytes) -> None:
    status, _, content = ask(url, "POST", "/v1/completions", body)
    assert status == 400
    assert json.loads(content)["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    "head",
    [b"GET / HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", b"\x00\x01\x02\r\n\r\n",
     b"GET\r\n\r\n",
     b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n", b"GET / HTTP/1.1\r\nX: " + b"x" * 200_000,
     b"GET /\xff HTTP/1.1\r\nHost: localhost\r\n\r\n"],
)  # fmt: skip
def test_what_is_no_http_is_refused_or_let_go(url: str, head: bytes) -> None:
    with raw(url) as connection:
        try:
            connection.sendall(head)
            connection.shutdown(socket.SHUT_WR)
        except OSError:
            pass
        answer = all_of(connection)
    assert answer == b"" or answer.startswith((b"HTTP/1.1 400", b"HTTP/1.1 431")), answer
    assert completes(url)


@pytest.fixture
def impatient(serve: Serve, folders: list[Path], monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A server that waits for a tenth of a second."""
    monkeypatch.setattr(PatientProtocol, "header_seconds", 0.3)
    with serve(folders[:1], limits=Limits(body_bytes=10_000, body_seconds=0.3)) as address:
        yield address


def test_half_a_header_and_half_a_body_are_waited_for_no_longer_than_is_said(impatient: str) -> None:
    for half in (b"", b"GET / HT", b"POST /v1/completions HTTP/1.1\r\nHost: local"):
        with raw(impatient) as connection:
            connection.sendall(half)
            assert all_of(connection) == b""
    with raw(impatient) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\nGET /healthz HT")  # a whole one before
        assert all_of(connection).startswith(b"HTTP/1.1 200")
    with raw(impatient) as connection:
        connection.sendall(b'POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50\r\n\r\n{"mod')
        assert all_of(connection).startswith(b"HTTP/1.1 408")
    assert completes(impatient)


def test_what_takes_too_long_is_cut_off(serve: Serve, folders: list[Path]) -> None:
    import asyncio

    from starlette.requests import Request
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route

    async def page(_: Request) -> PlainTextResponse:
        await asyncio.sleep(60)
        return PlainTextResponse("late")

    with serve(folders[:1], pages=lambda _: [Route("/slow", page)], limits=Limits(seconds=0.2)) as url:
        status, _, content = ask(url, path="/slow")
        assert (status, json.loads(content)["error"]["code"]) == (504, "timeout")


def test_what_nobody_expected_is_told_once_to_whoever_serves_and_is_json(
    serve: Serve, folders: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route

    async def page(_: Request) -> Response:
        raise KeyError("a bug")

    with serve(folders[:1], pages=lambda _: [Route("/broken", page)]) as url:
        status, headers, content = ask(url, path="/broken")
    assert status == 500 and headers["X-Content-Type-Options"] == "nosniff"
    assert json.loads(content)["error"]["type"] == "server_error"
    assert capsys.readouterr().err.count("KeyError: 'a bug'") == 1


def texts_on_their_way(url: str) -> float:
    """What /metrics says."""
    page = ask(url, path="/metrics")[2].decode()
    rows = [line for line in page.splitlines() if line.startswith("pellucid_texts{")]
    return sum(float(row.rsplit(" ", 1)[1]) for row in rows)


@pytest.mark.parametrize("stream", [False, True])
def test_when_the_client_leaves_its_texts_are_decoded_no_further(url: str, stream: bool) -> None:
    asked = {"model": "base", "prompt": "The", **LONG, "n": 64, "stream": stream}  # for 40 s
    body = json.dumps(asked).encode()
    with raw(url) as connection:
        head = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: "
        connection.sendall(f"{head}{len(body)}\r\n\r\n".encode() + body)
        until = time.monotonic() + 20
        while texts_on_their_way(url) < 64 and time.monotonic() < until:
            time.sleep(0.01)
        assert texts_on_their_way(url) == 64
    until = time.monotonic() + 20
    while texts_on_their_way(url) and time.monotonic() < until:
        time.sleep(0.02)
    assert texts_on_their_way(url) == 0
    assert completes(url)


def test_more_than_can_wait_is_told_when_to_come_again(serve: Serve, folders: list[Path]) -> None:
    long = {"model": "base", "prompt": "The", **LONG, "n": 4, "stream": True}
    with serve(folders[:1], rows=2, waiting=2) as url, raw(url) as connection:
        body = json.dumps(long).encode()
        head = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: "
        connection.sendall(f"{head}{len(body)}\r\n\r\n".encode() + body)
        assert connection.recv(1000).startswith(b"HTTP/1.1 200")
        status, headers, content = ask(url, "POST", "/v1/completions", ASKED)
        assert (status, json.loads(content)["error"]["type"]) == (429, "rate_limit_error")
        assert 1 <= int(headers["Retry-After"]) <= 60
        many = json.dumps({"model": "base", "prompt": "The", "n": 5})
        assert ask(url, "POST", "/v1/completions", many)[0] == 400  # these never fit


def test_the_metrics_count_requests_tokens_and_memory(url: str) -> None:
    assert completes(url)
    page = ask(url, path="/metrics")[2].decode()
    assert 'pellucid_requests_total{route="/v1/completions",status="200"}' in page
    assert 'pellucid_tokens_total{kind="made",model="base"}' in page
    assert "process_resident_memory_bytes" in page
