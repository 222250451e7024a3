"""The server as an application: which routes there are, and what stands before them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from copy import deepcopy
from typing import Any

from fastapi import FastAPI
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from pellucid.assistant.server import classify, completions
from pellucid.assistant.server.errors import answer_errors, described
from pellucid.assistant.server.guard import Guard, Limits
from pellucid.assistant.server.metrics import Meter
from pellucid.assistant.server.models import OpenModels, created
from pellucid.assistant.server.protocol import Model, Models
from pellucid.opened import Runs
from pellucid.version import __version__

ASKED = {
    "CompletionRequest": ("language model", "assistant"),
    "ChatRequest": ("assistant",),
    "ClassifyRequest": ("classifier",),
}

Pages = Callable[[Runs], Sequence[BaseRoute]]
"""How pages come in: a function of the opened runs that gives Starlette routes (Route, Mount). `cli.py` hands it over.

The routes come after the server's own (`/v1/…`, `/healthz`, `/metrics`, `/openapi.json`); `/` is theirs. `Runs` says
how they get a model, and work off the event loop. The guard stands before them, too: they get a body of at most a
megabyte, whole; a response that takes longer than `Limits.seconds` is cut off, so live views ask again and again; the
Content-Security-Policy allows scripts and styles from files of this server alone (no `<script>…</script>`, no
`onclick=`, no `style=` in markup), and images from `data:` and `blob:`, too.
"""


def build(
    models: OpenModels,
    host: str = "127.0.0.1",
    key: str = "",
    pages: Pages | None = None,
    names: Sequence[str] = (),
    limits: Limits | None = None,
) -> ASGIApp:
    """The application that serves the runs of `models`, at `host` and under the other `names` of this machine."""
    meter = Meter(models)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        models.close()

    app = FastAPI(title="Pellucid", version=__version__, openapi_url=None, lifespan=lifespan)
    answer_errors(app)
    app.include_router(completions.routes(models, meter))
    app.include_router(classify.routes(models, meter))
    add_small_routes(app, models, meter)
    describe_models(app, models)
    if pages is not None:
        app.router.routes.extend(map(known, pages(models.runs)))
    return Guard(app, host, key, names, limits, observe=meter.observe)


def known(route: BaseRoute) -> BaseRoute:
    """A route of Starlette's that says which one it is, as FastAPI's do: requests are counted by route."""
    answer = route.handle

    async def handle(scope: Scope, receive: Receive, send: Send) -> None:
        scope["route"] = route
        await answer(scope, receive, send)

    route.handle = handle  # type: ignore[method-assign]
    return route


def add_small_routes(app: FastAPI, models: OpenModels, meter: Meter) -> None:
    """What is open, whether the server is there, and its numbers."""

    def entry(name: str) -> dict[str, object]:
        made = created(models.runs.folder(name))
        return {"id": name, "object": "model", "created": made, "owned_by": "pellucid", "kind": models.kind(name)}

    def entries() -> list[dict[str, object]]:
        return [entry(name) for name in models.runs]

    @app.get("/v1/models", response_model=None, responses=described(Models))
    async def list_models() -> Response:
        """The runs that are open."""
        return JSONResponse({"object": "list", "data": await models.runs.aside(entries)})

    @app.get("/v1/models/{model}", response_model=None, responses=described(Model))
    async def one_model(model: str) -> Response:
        """One of them."""
        return JSONResponse(await models.runs.aside(entry, model))

    @app.get("/healthz")
    async def health() -> dict[str, str]:
        """Whether the server is there."""
        return {"status": "ok"}

    text: dict[int | str, dict[str, Any]] = {200: {"content": {"text/plain": {"schema": {"type": "string"}}}}}

    @app.get("/metrics", response_class=Response, responses=text)
    async def metrics() -> Response:
        """Numbers for Prometheus."""
        return Response(meter.page(), media_type=CONTENT_TYPE_LATEST)


def describe_models(app: FastAPI, models: OpenModels) -> None:
    """The OpenAPI description, which names the runs that each request may ask for."""

    def described_now() -> Response:
        description = deepcopy(app.openapi())
        for schema, kinds in ASKED.items():
            names = [name for name in models.runs if models.kind(name) in kinds]
            if names:
                description["components"]["schemas"][schema]["properties"]["model"]["enum"] = names
        return JSONResponse(description)

    @app.get("/openapi.json", include_in_schema=False)
    async def openapi() -> Response:
        """Not made in the event loop: what a run is, its tokenizer tells, which may have to be loaded."""
        return await models.runs.aside(described_now)
