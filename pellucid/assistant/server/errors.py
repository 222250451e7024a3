"""Errors as OpenAI's clients expect them: `{"error": {"message", "type", "param", "code"}}`, whatever went wrong."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse

from pellucid.assistant.server.protocol import ErrorBody
from pellucid.opened import BusyError, UnknownRunError
from pellucid.runtime import PellucidError, inform, shown

KINDS = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}
UNEXPECTED = "something went wrong in the server; its terminal says what."

EVENT = {"type": "object", "properties": {"data": {"type": "string"}}, "required": ["data"]}  # of a stream


class RefusedError(PellucidError):
    """A request that cannot be answered, in OpenAI's words for it."""

    def __init__(self, message: str, status: int = 400, code: str | None = None, param: str | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.param = status, code, param


def described(answer: type[BaseModel], stream: bool = False) -> dict[int | str, dict[str, Any]]:
    """What a route answers, for the OpenAPI description."""
    good: dict[str, Any] = {"model": answer}
    if stream:
        good["content"] = {"text/event-stream": {"schema": EVENT}}
    return {200: good, "4XX": {"model": ErrorBody}, "5XX": {"model": ErrorBody}}


def refuse(
    status: int,
    message: str,
    code: str | None = None,
    param: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    """An error as a response."""
    kind = KINDS.get(status, "invalid_request_error" if status < 500 else "server_error")
    content = {"error": {"message": message, "type": kind, "param": param, "code": code}}
    return JSONResponse(content, status, headers)


def answer_errors(app: FastAPI) -> None:
    """Let every exception of every route become such a response."""
    app.add_exception_handler(PellucidError, _ours)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _unexpected)


def of_error(error: Exception) -> JSONResponse:
    """The response for any exception; one of ours says what to mend, another is told to whoever runs the server."""
    if isinstance(error, BusyError):
        return refuse(429, str(error), "busy", headers={"Retry-After": str(error.seconds)})
    if isinstance(error, UnknownRunError):
        return refuse(404, str(error), "model_not_found", "model")
    if isinstance(error, RefusedError):
        return refuse(error.status, str(error), error.code, error.param)
    if isinstance(error, PellucidError):
        return refuse(400, str(error))
    inform("".join(traceback.format_exception(error)))
    return refuse(500, UNEXPECTED)


async def _ours(_: Request, error: Exception) -> JSONResponse:
    return of_error(error)


async def _unexpected(_: Request, __: Exception) -> JSONResponse:
    """Starlette answers with this and raises the error on: the guard is who tells it."""
    return refuse(500, UNEXPECTED)


async def _http(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    return refuse(error.status_code, str(error.detail), headers=error.headers)


async def _invalid(_: Request, error: Exception) -> JSONResponse:
    """The first thing that is wrong with a request, by the name of its place."""
    assert isinstance(error, RequestValidationError)
    errors = error.errors()  # of a field that may be several things, one for each: the likeliest is not "another type"
    first = next((one for one in errors if not one["type"].endswith("_type")), errors[0])
    parts = [str(part) for part in first["loc"][1:]]  # fields, places, and what pydantic calls types
    place = ".".join(part for part in parts if part.isdecimal() or (part.isidentifier() and part not in ("str", "int")))
    message = f"{place or 'body'}: {first['msg']}"
    if place and first["type"] not in ("missing", "extra_forbidden"):
        message += f" (found {shown(repr(first['input']))})"
    return refuse(400, _harmless(message), param=_harmless(place) or None)


def _harmless(text: str) -> str:
    """`text` without lone surrogates, which JSON's UTF-8 has no bytes for."""
    return text.encode(sys.getdefaultencoding(), "backslashreplace").decode()
