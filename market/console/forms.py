"""What is sent from the pages: decisions of operators, signing in and out. Each leads on to a page."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Form, Request
from fastapi.responses import RedirectResponse, Response

from market.console import actions, disputes, trading
from market.console.api import MOMENT_MAX, Feeder, market_of
from market.console.rendering import page
from market.console.security import Operator, Viewer, check_csrf, guard_of

router = APIRouter(include_in_schema=False)
WHOLE_OR_NOTHING = r"^(\d{1,12})?$"


@router.post("/f/{feeder}/alarms")
def acknowledge(
    request: Request,
    feeder: Feeder,
    visitor: Operator,
    subject: Annotated[str, Form(max_length=200)],
    reason: Annotated[str, Form(min_length=3, max_length=500)],
    csrf: Annotated[str, Form(max_length=100)] = "",
) -> Response:
    check_csrf(visitor, csrf)
    market = market_of(request, feeder)
    actions.acknowledge(request.app.state.audit, market, visitor, subject, reason)
    return RedirectResponse(f"/f/{market.name}/alarms", 303)


@router.post("/f/{feeder}/trading")
def instruct(
    request: Request,
    feeder: Feeder,
    visitor: Operator,
    kind: Annotated[trading.Kind, Form()],
    reason: Annotated[str, Form(min_length=3, max_length=500)],
    first_start: Annotated[str, Form(pattern=WHOLE_OR_NOTHING)] = "",
    csrf: Annotated[str, Form(max_length=100)] = "",
) -> Response:
    check_csrf(visitor, csrf)
    market, audit = market_of(request, feeder), request.app.state.audit
    start = int(first_start) if first_start else None
    actions.ask(audit, market, visitor, kind, {"first_start": start}, reason)
    return RedirectResponse(f"/f/{market.name}/alarms", 303)


@router.post("/f/{feeder}/disputes")
def contest(
    request: Request,
    feeder: Feeder,
    visitor: Operator,
    meter: Annotated[str, Form(max_length=100)],
    interval_start: Annotated[int, Form(ge=0, le=MOMENT_MAX)],
    reason: Annotated[str, Form(min_length=3, max_length=500)],
    csrf: Annotated[str, Form(max_length=100)] = "",
) -> Response:
    check_csrf(visitor, csrf)
    market = market_of(request, feeder)
    disputes.contest(request.app.state.audit, market, visitor, meter, interval_start, reason)
    return RedirectResponse(f"/f/{market.name}/alarms#live-disputes", 303)


@router.post("/f/{feeder}/disputes/{number}")
def decide(
    request: Request,
    feeder: Feeder,
    number: int,
    visitor: Operator,
    decision: Annotated[disputes.Decision, Form()],
    reason: Annotated[str, Form(min_length=3, max_length=500)],
    import_wh: Annotated[str, Form(pattern=WHOLE_OR_NOTHING)] = "",
    export_wh: Annotated[str, Form(pattern=WHOLE_OR_NOTHING)] = "",
    csrf: Annotated[str, Form(max_length=100)] = "",
) -> Response:
    check_csrf(visitor, csrf)
    market = market_of(request, feeder)
    # What was typed before it was dismissed does not count.
    energy = (int(import_wh), int(export_wh)) if decision == "upheld" and import_wh and export_wh else None
    disputes.decide(request.app.state.audit, market, visitor, number, decision, energy, reason)
    return RedirectResponse(f"/f/{market.name}/alarms#live-disputes", 303)


@router.get("/sign-in")
def sign_in_form(request: Request) -> Response:
    return page(request, "sign_in.html", title="Sign in", failed=False)


@router.post("/sign-in")
def sign_in(request: Request, token: Annotated[str, Form(max_length=200)]) -> Response:
    guard = guard_of(request)
    key = guard.sign_in(request, token.strip())
    if key is None:
        return page(request, "sign_in.html", status=401, title="Sign in", failed=True)
    response = RedirectResponse("/", 303)
    guard.set_cookie(response, key)
    return response


@router.post("/sign-out")
def sign_out(request: Request, visitor: Viewer, csrf: Annotated[str, Form(max_length=100)] = "") -> Response:
    check_csrf(visitor, csrf)
    guard = guard_of(request)
    guard.sign_out(request)
    response = RedirectResponse("/", 303)
    response.delete_cookie(guard.cookie, path="/")
    return response
