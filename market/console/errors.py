"""The one shape of an error (RFC 9457 problem details), for the API as JSON and for pages as a page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel
from sqlalchemy.exc import OperationalError
from starlette.exceptions import HTTPException

from grid.errors import InputError, PeergridError
from market.console.rendering import page

MEDIA_TYPE = "application/problem+json"
TITLES = {
    400: "Bad request",
    401: "Sign in first",
    403: "Not allowed",
    404: "Not found",
    405: "Method not allowed",
    409: "Conflict",
    413: "Too large",
    422: "Bad input",
    429: "Too many requests",
    500: "Internal error",
    503: "Not ready",
}


class FieldProblem(BaseModel):
    """One thing that is wrong with the input."""

    field: str
    reason: str


class Problem(BaseModel):
    """What every error answer looks like."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    errors: list[FieldProblem] = []


RESPONSES: dict[int | str, dict[str, Any]] = {
    code: {"model": Problem, "description": TITLES[code], "content": {MEDIA_TYPE: {}}}
    for code in (400, 401, 403, 404, 422, 429)
}


def problem_response(
    request: Request,
    status: int,
    detail: str,
    errors: list[FieldProblem] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """The error as the asker reads it."""
    problem = Problem(title=TITLES.get(status, "Error"), status=status, detail=detail, errors=errors or [])
    if request.url.path.startswith("/api/") or "text/html" not in request.headers.get("accept", ""):
        return JSONResponse(problem.model_dump(), status, dict(headers or {}), media_type=MEDIA_TYPE)
    return page(request, "error.html", status=status, headers=headers, problem=problem)


def install(app: FastAPI) -> None:
    """Gives every error of ``app`` the one shape."""

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> Response:
        return problem_response(request, error.status_code, str(error.detail), headers=error.headers)

    @app.exception_handler(RequestValidationError)
    async def _validation(request: Request, error: RequestValidationError) -> Response:
        found = [
            FieldProblem(field=".".join(str(part) for part in item["loc"]), reason=item["msg"])
            for item in error.errors()
        ]
        detail = "; ".join(f"{item.field}: {item.reason}" for item in found)
        return problem_response(request, 422, detail, found)

    @app.exception_handler(InputError)
    async def _input(request: Request, error: InputError) -> Response:
        found = [FieldProblem(field=p.field or p.source, reason=str(p)) for p in error.problems]
        return problem_response(request, 422, str(error), found)

    @app.exception_handler(PeergridError)
    async def _own(request: Request, error: PeergridError) -> Response:
        return problem_response(request, 503, " ".join(str(error).split()))

    @app.exception_handler(OperationalError)
    async def _away(request: Request, error: OperationalError) -> Response:
        return problem_response(request, 503, f"the database: {' '.join(str(error.orig).split())}")

    @app.exception_handler(Exception)
    async def _any(request: Request, error: Exception) -> Response:
        return problem_response(request, 500, f"{type(error).__name__}; the server's log says more")
