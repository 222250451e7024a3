"""The workbench: pages that `pellucid serve` shows in a browser."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import BaseRoute, Route

from pellucid.opened import Runs


def routes(runs: Runs) -> Sequence[BaseRoute]:
    """The routes of the pages, for the runs that are open."""

    async def first_page(_: Request) -> PlainTextResponse:
        return PlainTextResponse("\n".join(["Pellucid. Open here:", *runs, "", "`pellucid see RUN` looks inside one."]))

    return [Route("/", first_page)]
