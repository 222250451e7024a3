"""The server as an application: which routes there are, and what stands before them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fastapi import FastAPI
from starlette.routing import BaseRoute
from starlette.types import ASGIApp

from pellucid.assistant.server.errors import answer_errors
from pellucid.assistant.server.guard import Guard, Limits
from pellucid.opened import Runs
from pellucid.version import __version__

Pages = Callable[[Runs], Sequence[BaseRoute]]
"""How pages come in: a function of the opened runs that gives Starlette routes (Route, Mount). `cli.py` hands it over.

The routes come after the server's own (`/v1/…`, `/healthz`, `/metrics`, `/openapi.json`); `/` is theirs. `Runs` says
how they get a model, and work off the event loop. The guard stands before them, too: they get a body of at most a
megabyte, whole; a response that takes longer than `Limits.seconds` is cut off, so live views ask again and again; the
Content-Security-Policy allows scripts and styles from files of this server alone (no `<script>…</script>`, no
`onclick=`, no `style=` in markup), and images from `data:` and `blob:`, too.
"""


def build(runs: Runs, host: str = "127.0.0.1", key: str = "", pages: Pages | None = None) -> ASGIApp:
    """The application that serves `runs`."""
    app = FastAPI(title="Pellucid", version=__version__, docs_url=None, redoc_url=None)
    answer_errors(app)

    @app.get("/healthz")
    async def health() -> dict[str, str]:
        """Whether the server is there."""
        return {"status": "ok"}

    @app.get("/v1/models")
    async def models() -> dict[str, object]:
        """The runs that are open."""
        return {"object": "list", "data": [{"id": name, "object": "model", "owned_by": "pellucid"} for name in runs]}

    if pages is not None:
        app.router.routes.extend(pages(runs))
    return Guard(app, host, key, Limits())
