"""The REST API: every table by time with pages, exports of the same, one interval with its verification."""

from __future__ import annotations

import hashlib
import io
import time
from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

from fastapi import APIRouter, HTTPException, Path, Query, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field, create_model, model_validator

from market.console import actions, disputes, events, trading
from market.console.errors import MEDIA_TYPE, RESPONSES, Problem
from market.console.frames import Form, write
from market.console.market import Market
from market.console.metrics import exposition
from market.console.network import day_values
from market.console.readiness import readiness
from market.console.security import Operator, Viewer, check_csrf
from market.service.store import batch_views, views
from market.service.store.tables import TABLES, Table

PAGE_MAX = 1000
EXPORT_SPAN_MAX_S = 400 * 86_400
METER = r"^0x[0-9a-f]{40}$"
CONFLICT: dict[int | str, dict[str, Any]] = {409: {"model": Problem, "content": {MEDIA_TYPE: {}}}}
MOMENT_MAX = 2**40

router = APIRouter(prefix="/api/v1", responses=RESPONSES)
Feeder = Annotated[str, Path(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$", description="the market's id")]
Moment = Annotated[int, Path(ge=0, le=MOMENT_MAX, description="start of the interval, Unix seconds")]
Since = Annotated[int, Query(ge=0, le=MOMENT_MAX, description="from this time on, Unix seconds")]
Until = Annotated[int, Query(ge=0, le=MOMENT_MAX, description="before this time, Unix seconds")]
Limit = Annotated[int, Query(ge=1, le=PAGE_MAX)]
Offset = Annotated[int, Query(ge=0, le=2**31)]


class MarketInfo(BaseModel):
    """One market on one feeder."""

    name: str
    feeder: str
    first_interval_start: int | None
    last_interval_start: int | None
    market_now: int | None = Field(description="the market's clock when it last changed a state")
    written_at: float = Field(description="when the database last changed, by the machine's clock")


def market_of(request: Request, feeder: str) -> Market:
    """Raises 404 for a feeder that is none."""
    found = request.app.state.markets.get(feeder)
    if found is None:
        raise HTTPException(404, f"there is no feeder {feeder!r} here")
    assert isinstance(found, Market)
    return found


def tagged(request: Request, content: Any, media_type: str = "application/json") -> Response:
    """An answer with an ETag; 304 where the asker has it already."""
    response = JSONResponse(content) if not isinstance(content, bytes) else Response(content)
    response.headers["content-type"] = media_type
    tag = f'"{hashlib.sha256(bytes(response.body)).hexdigest()[:32]}"'
    headers = {"ETag": tag, "Cache-Control": "no-cache"}
    asked = [item.strip().removeprefix("W/") for item in request.headers.get("if-none-match", "").split(",")]
    if tag in asked or "*" in asked:
        return Response(status_code=304, headers=headers)
    response.headers.update(headers)
    return response


@router.get("/feeders", tags=["markets"])
def feeders(request: Request, _: Viewer) -> list[MarketInfo]:
    """The markets that this console shows."""
    return [_info(market) for market in request.app.state.markets.values()]


def _info(market: Market) -> MarketInfo:
    with market.stored.reading() as connection:
        span = views.span(connection) or (None, None)
        now = views.market_now(connection)
    return MarketInfo(
        name=market.name,
        feeder=market.stored.feeder_name,
        first_interval_start=span[0],
        last_interval_start=span[1],
        market_now=now,
        written_at=market.stored.written_at(),
    )


@router.get("/feeders/{feeder}/intervals/{start}", tags=["intervals"])
def interval(request: Request, feeder: Feeder, start: Moment, _: Viewer) -> Response:
    """One interval: its state and transitions, book and clearing record."""
    market = market_of(request, feeder)
    with market.stored.reading() as connection:
        lines = market.lines(connection, start, start + 1)
        if not lines:
            raise HTTPException(404, f"there is no interval that starts at {start}")
        clearing = market.clearing(connection, start)
        content = lines[0].document() | {
            "transitions": [
                {"state": item.state, "at": item.at, "reason": item.reason}
                for item in views.transitions_of(connection, start)
            ],
            "batches": batch_views.batches_of_interval(connection, start),
            "root": clearing.root if clearing else None,
            "record": clearing.record.json_document() if clearing else None,
            "book": clearing.book.model_dump(mode="json") if clearing else None,
        }
    return tagged(request, content)


@router.get("/feeders/{feeder}/intervals/{start}/verification", tags=["intervals"])
def verification(request: Request, feeder: Feeder, start: Moment, _: Viewer) -> Response:
    """Checks the interval's record against its book by pandapower, without the clearing's code."""
    market = market_of(request, feeder)
    with market.stored.reading() as connection:
        clearing = market.clearing(connection, start)
    if clearing is None:
        raise HTTPException(404, f"there is no clearing of an interval that starts at {start}")
    return tagged(request, market.verified(clearing).json_document())


@router.get("/feeders/{feeder}/network", tags=["network"])
def network(request: Request, feeder: Feeder, _: Viewer, day: Since = 0) -> Response:
    """Voltages, loadings, prices and net energy of all intervals of the UTC day that ``day`` lies in."""
    market = market_of(request, feeder)
    with market.stored.reading() as connection:
        return tagged(request, day_values(market, connection, day or None))


@router.get("/feeders/{feeder}/households/{meter}/proofs", tags=["settlement"])
def proofs(
    request: Request,
    feeder: Feeder,
    meter: Annotated[str, Path(pattern=METER)],
    _: Viewer,
    since: Since = 0,
    until: Until = MOMENT_MAX,
) -> Response:
    """A household's own records with the paths that lead to the roots on the chain."""
    market = market_of(request, feeder)
    with market.stored.reading() as connection:
        content = actions.proofs(connection, meter, since, until)
    if content is None:
        raise HTTPException(404, f"there is no meter {meter}")
    response = tagged(request, content)
    response.headers["Content-Disposition"] = f'attachment; filename="proofs-{meter}.json"'
    return response


class Acknowledgement(BaseModel):
    """Who acknowledges is the token's holder; the reason goes into the log."""

    model_config = ConfigDict(extra="forbid")

    subject: Annotated[str, Field(min_length=1, max_length=200)]
    reason: Annotated[str, Field(min_length=3, max_length=500)]


@router.post("/feeders/{feeder}/acknowledgements", tags=["alarms"], status_code=201)
def acknowledge(
    request: Request,
    feeder: Feeder,
    visitor: Operator,
    body: Acknowledgement,
) -> dict[str, str]:
    """Acknowledges an alarm. With a session's cookie, the header X-CSRF-Token must carry its token."""
    check_csrf(visitor, request.headers.get("x-csrf-token", ""))
    market = market_of(request, feeder)
    actions.acknowledge(request.app.state.audit, market, visitor, body.subject, body.reason)
    return {"subject": body.subject, "actor": visitor.name}


class Instruction(BaseModel):
    """Who asks is the token's holder. ``first_start`` is the first interval, or the first that can be."""

    model_config = ConfigDict(extra="forbid")

    kind: trading.Kind
    reason: Annotated[str, Field(min_length=3, max_length=500)]
    first_start: Annotated[int, Field(ge=0, le=MOMENT_MAX)] | None = None


class Asked(BaseModel):
    """The answer is in the table ``instructions``, under this number, once the market has looked at it."""

    number: int
    kind: trading.Kind | Literal["dispute", "resolve"]
    actor: str


@router.post(
    "/feeders/{feeder}/instructions",
    tags=["trading"],
    status_code=202,
    responses=CONFLICT,
)
def instruct(request: Request, feeder: Feeder, visitor: Operator, body: Instruction) -> Asked:
    """Asks the market to suspend trading or to resume it at an interval's boundary.

    With a session's cookie, the header X-CSRF-Token must carry its token.
    """
    check_csrf(visitor, request.headers.get("x-csrf-token", ""))
    market, audit = market_of(request, feeder), request.app.state.audit
    number = actions.ask(audit, market, visitor, body.kind, {"first_start": body.first_start}, body.reason)
    return Asked(number=number, kind=body.kind, actor=visitor.name)


class Contested(BaseModel):
    """An interval of a household, and what is wrong with it."""

    model_config = ConfigDict(extra="forbid")

    meter: Annotated[str, Field(pattern=METER)]
    interval_start: Annotated[int, Field(ge=0, le=MOMENT_MAX)]
    reason: Annotated[str, Field(min_length=3, max_length=500)]


@router.post("/feeders/{feeder}/disputes", tags=["settlement"], status_code=202, responses=CONFLICT)
def contest(request: Request, feeder: Feeder, visitor: Operator, body: Contested) -> Asked:
    """Asks the market to hold back what an interval came to for a household, until that is decided on.

    With a session's cookie, the header X-CSRF-Token must carry its token.
    """
    check_csrf(visitor, request.headers.get("x-csrf-token", ""))
    market, audit = market_of(request, feeder), request.app.state.audit
    number = disputes.contest(audit, market, visitor, body.meter, body.interval_start, body.reason)
    return Asked(number=number, kind="dispute", actor=visitor.name)


class Decided(BaseModel):
    """``upheld`` settles the interval anew on the energy that the meter should have said, Wh; ``dismissed``
    lets what was settled stand.
    """

    model_config = ConfigDict(extra="forbid")

    decision: disputes.Decision
    reason: Annotated[str, Field(min_length=3, max_length=500)]
    import_wh: Annotated[int, Field(ge=0, le=MOMENT_MAX)] | None = None
    export_wh: Annotated[int, Field(ge=0, le=MOMENT_MAX)] | None = None

    @model_validator(mode="after")
    def _energy(self) -> Self:
        if {self.import_wh is None, self.export_wh is None} != {self.decision == "dismissed"}:
            raise ValueError("upheld needs import_wh and export_wh, dismissed has neither")
        return self


@router.post(
    "/feeders/{feeder}/disputes/{number}/decision",
    tags=["settlement"],
    status_code=202,
    responses=CONFLICT,
)
def decide(
    request: Request,
    feeder: Feeder,
    number: Annotated[int, Path(ge=0, le=MOMENT_MAX)],
    visitor: Operator,
    body: Decided,
) -> Asked:
    """Asks the market to end an open dispute.

    With a session's cookie, the header X-CSRF-Token must carry its token.
    """
    check_csrf(visitor, request.headers.get("x-csrf-token", ""))
    market, audit = market_of(request, feeder), request.app.state.audit
    energy = None
    if body.import_wh is not None and body.export_wh is not None:
        energy = (body.import_wh, body.export_wh)
    asked = disputes.decide(audit, market, visitor, number, body.decision, energy, body.reason)
    return Asked(number=asked, kind="resolve", actor=visitor.name)


@router.get("/feeders/{feeder}/audit", tags=["alarms"])
def audit(request: Request, feeder: Feeder, _: Viewer) -> Response:
    """The append-only log of what was done here, the newest first."""
    market = market_of(request, feeder)
    return tagged(request, list(request.app.state.audit.lines(market.name)))


class PartHealth(BaseModel):
    """Something that a running market needs."""

    name: str
    ok: bool
    detail: str


class Health(BaseModel):
    """``running`` is false of a stored market that has no process of its own."""

    running: bool
    ready: bool
    clearing_age_s: int | None = Field(description="from the newest cleared interval to the market's clock")
    parts: list[PartHealth]


@router.get("/feeders/{feeder}/health", tags=["markets"])
def health(request: Request, feeder: Feeder, _: Viewer) -> Health:
    """What ``/readyz`` tells in short, with reasons."""
    found = readiness(market_of(request, feeder), time.time())
    if found is None:
        return Health(running=False, ready=False, clearing_age_s=None, parts=[])
    parts = [PartHealth(name=c.name, ok=c.ok, detail=c.detail) for c in found.checks]
    return Health(running=True, ready=found.ready, clearing_age_s=found.clearing_age_s, parts=parts)


@router.get("/feeders/{feeder}/events", tags=["live"], response_class=StreamingResponse)
def live(request: Request, feeder: Feeder, _: Viewer) -> StreamingResponse:
    """Server-sent events, one for each change of an interval's state; ``Last-Event-ID`` takes up again."""
    market_of(request, feeder)
    return events.respond(request.app.state.feeds[feeder], request)


@router.get("/metrics", tags=["live"], include_in_schema=False)
def metrics(request: Request, _: Viewer) -> Response:
    return Response(exposition(request.app.state.markets.values()), media_type="text/plain; version=0.0.4")


def _row_model(table: Table) -> type[BaseModel]:
    types = {"integer": int, "number": float, "text": str}
    fields: dict[str, Any] = {
        column.name: (
            types[column.type] | None if column.optional else types[column.type],
            Field(description=column.says),
        )
        for column in table.columns
    }
    row = create_model(f"{table.name.capitalize()}Row", **fields)
    return create_model(
        f"{table.name.capitalize()}Page",
        rows=(list[row], ...),  # type: ignore[valid-type]
        next=(str | None, Field(description="the address of the next page")),
    )


def _add_table(table: Table) -> None:
    def rows(
        request: Request,
        feeder: Feeder,
        _: Viewer,
        since: Since = 0,
        until: Until = MOMENT_MAX,
        limit: Limit = 200,
        offset: Offset = 0,
    ) -> Response:
        with market_of(request, feeder).stored.reading() as connection:
            found = table.rows(connection, since, until, limit + 1, offset)
        following = None
        if len(found) > limit:
            following = str(request.url.include_query_params(offset=offset + limit, limit=limit))
            following = following.removeprefix(str(request.base_url).rstrip("/"))
        return tagged(request, {"rows": _objects(table, found[:limit]), "next": following})

    def export(
        request: Request,
        feeder: Feeder,
        _: Viewer,
        form: Form,
        since: Since = 0,
        until: Until = MOMENT_MAX,
    ) -> Response:
        market = market_of(request, feeder)
        with market.stored.reading() as connection:
            span = views.span(connection) or (0, 0)
            if table.timed and min(until, span[1] + 86_400) - max(since, span[0]) > EXPORT_SPAN_MAX_S:
                raise HTTPException(422, "since, until: an export holds 400 days at most")
            buffer = io.BytesIO()
            write(connection, table, since, until, form, buffer)
        media_type = {"csv": "text/csv; charset=utf-8", "parquet": "application/vnd.apache.parquet"}[form]
        response = tagged(request, buffer.getvalue(), media_type)
        response.headers["Content-Disposition"] = f'attachment; filename="{market.name}-{table.name}.{form}"'
        return response

    router.add_api_route(
        f"/feeders/{{feeder}}/{table.name}",
        rows,
        tags=["tables"],
        summary=table.says,
        name=f"{table.name}_rows",
        response_model=_row_model(table),
    )
    router.add_api_route(
        f"/feeders/{{feeder}}/{table.name}.{{form}}",
        export,
        tags=["exports"],
        summary=f"{table.says} As CSV or Parquet.",
        name=f"{table.name}_export",
        response_class=Response,
    )


def _objects(table: Table, rows: Sequence[tuple[Any, ...]]) -> list[dict[str, Any]]:
    names = [column.name for column in table.columns]
    return [dict(zip(names, row, strict=True)) for row in rows]


for _table in TABLES.values():
    _add_table(_table)
