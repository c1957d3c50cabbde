"""Rendering pages: Jinja with the console's words for numbers and times."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext, suppress
from datetime import UTC, datetime
from functools import cache
from hashlib import sha256
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any

from fastapi import HTTPException, Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from market.drawing import units

_STATIC = files("market.console") / "static"
_SHARED = {"figures.css": files("market.drawing") / "figures.css"}


def when(moment: int | None, shape: str = "time") -> Markup:
    """A moment, local in the browser with UTC on hover; ``shape`` is time, full or day."""
    if moment is None:
        return Markup("–")
    at = datetime.fromtimestamp(moment, UTC)
    text = {"time": f"{at:%H:%M}", "full": f"{at:%Y-%m-%d %H:%M}", "day": f"{at:%Y-%m-%d}"}[shape]
    return Markup('<time datetime="{}" title="{} UTC" data-shape="{}">{}</time>').format(
        f"{at:%Y-%m-%dT%H:%M:%SZ}", f"{at:%Y-%m-%d %H:%M:%S}", shape, text
    )


def clock(moment: int) -> str:
    """A moment in UTC, where no element can stand for it."""
    return f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%d %H:%M}"


def signed_eur(amount_neur: int, decimals: int = 2) -> str:
    """Money with its sign, EUR."""
    text = units.eur(amount_neur, decimals)
    return f"+{text}" if amount_neur > 0 and any(digit in text for digit in "123456789") else text


def ueur(amount_ueur: int) -> str:
    """Chain money, EUR."""
    return units.eur(1000 * amount_ueur)


def short(address: str) -> Markup:
    """A long hex number, its middle left out; whole on hover."""
    if len(address) <= 14:
        return escape(address)
    return Markup('<span class="hex" title="{}">{}…{}</span>').format(address, address[:8], address[-4:])


def countdown(ends_at: int, now: int, simulated: bool) -> Markup:
    """Minutes and seconds until a moment; a browser counts on unless the clock is simulated."""
    left = max(0, ends_at - now)
    live = Markup("") if simulated else Markup(' data-ends="{}"').format(ends_at)
    return Markup("<span{}>{}</span>").format(live, f"{left // 60}:{left % 60:02d}")


def hours(seconds: int) -> str:
    return f"{units.plain(seconds / 3600, 2)} h"


def static_file(name: str) -> Traversable:
    """A static file by name: the console's own, or the figures' colours that the report has as well."""
    return _SHARED.get(name, _STATIC / name)


@cache
def asset(name: str) -> str:
    """The address of a static file; it changes with the content, so browsers may keep it for good."""
    digest = sha256(static_file(name).read_bytes()).hexdigest()[:12]
    return f"/static/{name}?v={digest}"


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("market.console", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        when=when,
        clock=clock,
        kwh=units.kwh,
        ct=units.ct_per_kwh,
        eur=units.eur,
        signed_eur=signed_eur,
        ueur=ueur,
        count=units.count,
        percent=units.percent,
        plain=units.plain,
        shadow=units.shadow_price,
        short=short,
        hours=hours,
        countdown=countdown,
    )
    environment.globals.update(asset=asset)
    return environment


def page(
    request: Request,
    template: str,
    *,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
    **context: Any,
) -> HTMLResponse:
    """A page as the visitor may see it."""
    app = request.app
    visitor = None
    with suppress(HTTPException) if "problem" in context else nullcontext():
        visitor = app.state.guard.visitor(request)
    text = (
        _environment()
        .get_template(template)
        .render(
            feeders=list(app.state.markets) if visitor is None or visitor.role else [],
            visitor=visitor,
            has_tokens=app.state.guard.has_tokens,
            path=request.url.path,
            **{"market": None, "title": "", **context},
        )
    )
    return HTMLResponse(text, status, {"Cache-Control": "no-store", **(headers or {})})
