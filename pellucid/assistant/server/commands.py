"""`pellucid serve`: opens runs, listens, and answers until Ctrl-C."""

from __future__ import annotations

import signal
import socket
from typing import Any

import uvicorn

from pellucid.assistant.server.app import Pages, build
from pellucid.assistant.server.guard import is_loopback
from pellucid.model.formats.folder import read_settings
from pellucid.opened import Runs
from pellucid.options import Serve
from pellucid.runtime import ConfigError, inform, problem
from pellucid.text.documents import read_text

SHORTEST_KEY = 16


def serve(options: Serve, pages: Pages | None = None) -> tuple[dict[str, Any], str]:
    """`pellucid serve`; `pages` makes the workbench's routes of the opened runs."""
    key = read_key(options)
    for run in options.runs:
        read_settings(run)
    runs = Runs(options.runs)
    app = build(runs, options.host, key, pages)
    listener = listen(options.host, options.port)
    host = f"[{options.host}]" if ":" in options.host else options.host
    url = f"http://{host}:{listener.getsockname()[1]}"
    config = uvicorn.Config(
        app, ws="none", http="h11", log_config=None, access_log=False, server_header=False, timeout_graceful_shutdown=3
    )
    inform(f"{', '.join(runs)} at {url} (OpenAI's protocol at {url}/v1; Ctrl-C ends it)")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C
    try:
        uvicorn.Server(config).run([listener])
    except KeyboardInterrupt:
        inform("stopped.")
    finally:
        runs.close()
    return {"url": url, "models": list(runs)}, ""


def read_key(options: Serve) -> str:
    """The key of --api-key-file, "" without one; ConfigError where one is needed, or this is none."""
    if options.api_key_file is None:
        if is_loopback(options.host):
            return ""
        advice = "Write a long random word into a file: python -c 'import secrets; print(secrets.token_urlsafe())'"
        raise ConfigError(problem("--host", f"{options.host} and no --api-key-file", "both or neither", advice))
    key = read_text(options.api_key_file).strip()
    if len(key) < SHORTEST_KEY or not key.isascii() or not key.isprintable() or " " in key:
        found = "no key" if not key else "a short or strange key"
        expected = f"one line of at least {SHORTEST_KEY} letters and digits"
        raise ConfigError(problem(options.api_key_file, found, expected, "python's secrets.token_urlsafe() makes one."))
    return key


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens there; ConfigError where that cannot be."""
    try:
        if not 0 <= port <= 65535:  # getaddrinfo takes what is left of it by 65,536
            raise OverflowError("0 to 65,535 can be")
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(1024)
    except (OSError, OverflowError) as error:
        found = f"{host}, port {port}: {error}"
        raise ConfigError(problem("--host and --port", found, "a free port here", "--port 0 finds one.")) from error
    return listener
