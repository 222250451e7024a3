"""`pellucid serve`: opens runs, listens, and answers until Ctrl-C."""

from __future__ import annotations

import os
import signal
import socket
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from pellucid.assistant.server.app import Pages, build
from pellucid.assistant.server.guard import is_loopback
from pellucid.assistant.server.models import OpenModels
from pellucid.assistant.server.patience import PatientProtocol
from pellucid.generation.compiled.model import check_threads
from pellucid.generation.decoder import device_for
from pellucid.opened import Runs, with_parts
from pellucid.options import Serve
from pellucid.runtime import ConfigError, inform, problem
from pellucid.text.documents import read_text

SHORTEST_KEY = 16


def serve(options: Serve, pages: Pages | None = None) -> tuple[dict[str, Any], str]:
    """`pellucid serve`; `pages` makes the workbench's routes of the opened runs."""
    key = read_key(options)
    for name, number, least in (("--batch", options.batch, 0), ("--queue", options.queue, 1)):
        if number < least:
            raise ConfigError(problem(name, str(number), f"{least} or more", "Leave it out for the usual."))
    check_threads(options.threads)
    device_for(options.dtype, options.device)  # one that is not there is said now
    runs = Runs(with_parts(options.runs))
    models = OpenModels(runs, options.batch, options.queue, options.device, options.dtype, options.threads)
    kinds = {name: models.kind(name) for name in runs}  # what cannot be opened is said now
    app = build(models, options.host, key, pages, options.host_names)
    listener = listen(options.host, options.port)
    host = f"[{options.host}]" if ":" in options.host else options.host
    url = f"http://{host}:{listener.getsockname()[1]}"
    opened = ", ".join(f"{name} ({kind})" for name, kind in kinds.items())
    try:
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C
        inform(f"{url} serves {opened}. Open it in a browser, or use {url}/v1 as OpenAI's base URL; Ctrl-C ends it.")
        uvicorn.Server(settings(app)).run([listener])
    except KeyboardInterrupt:
        inform("stopped.")
    finally:
        runs.close()
    return {"url": url, "models": list(runs)}, ""


def settings(app: ASGIApp) -> uvicorn.Config:
    """How uvicorn is to run: h11, which bounds what a header may hold, and no logs but ours."""
    return uvicorn.Config(
        app,
        http=PatientProtocol,
        ws="none",
        log_config=None,
        log_level="critical",
        access_log=False,
        server_header=False,
        h11_max_incomplete_event_size=1 << 15,
        limit_concurrency=800,
        timeout_graceful_shutdown=3,
    )


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
        if os.name != "nt":  # there it would let two servers listen at one port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(1024)
    except (OSError, OverflowError) as error:
        found = f"{host}, port {port}: {error}"
        raise ConfigError(problem("--host and --port", found, "a free port here", "--port 0 finds one.")) from error
    return listener
