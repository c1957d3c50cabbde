"""The console as an ASGI application: it mounts under any server that has stored markets to show."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path

from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse, Response
from starlette.middleware.gzip import GZipMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware

from grid.errors import InputError
from market.console import api, errors, forms, pages
from market.console.events import Feed
from market.console.market import Market
from market.console.metrics import exposition
from market.console.readiness import readiness
from market.console.rendering import static_file
from market.console.security import Grants, Guard, Protected, Viewer
from market.service.store.audit import AuditLog

AUDIT = "console.sqlite"
LOOPBACK_HOSTS = ("localhost", "127.0.0.1", "[::1]", "testserver")
TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}


def create_app(
    shown: Sequence[Market],
    grants: Grants | None = None,
    *,
    open_reading: bool = True,
    secure: bool = False,
    hosts: Sequence[str] = LOOPBACK_HOSTS,
    audit: Path | None = None,
) -> FastAPI:
    """The console over stored markets, one for each feeder.

    ``open_reading`` lets everybody read: only where nobody else can reach the server. ``secure`` is set where
    browsers come by TLS, ``hosts`` are the names they may use. What is done goes to ``audit``, by default
    beside the first database. The markets are closed when the application ends.

    Raises :class:`InputError` where two have one name.
    """
    markets: dict[str, Market] = {}
    for market in shown:
        if market.name in markets:
            raise InputError.single(
                market.stored.title, "feeder", market.name, "is another database's as well"
            )
        markets[market.name] = market
    first = shown[0].stored.place

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        for market in markets.values():
            market.close()
        app.state.audit.close()

    app = FastAPI(
        title="Peergrid",
        version=version("peergrid"),
        summary="A local energy market's intervals, prices, settlement and network, read-only.",
        docs_url=None,
        redoc_url=None,
        openapi_url="/api/v1/openapi.json",
        lifespan=lifespan,
    )
    app.state.markets = markets
    app.state.feeds = {name: Feed(market) for name, market in markets.items()}
    app.state.guard = Guard(grants or Grants(), open_reading=open_reading, secure=secure)
    app.state.audit = AuditLog(audit or (first.with_name(AUDIT) if isinstance(first, Path) else Path(AUDIT)))
    app.include_router(api.router)
    app.include_router(pages.router)
    app.include_router(forms.router)
    errors.install(app)

    @app.get("/static/{name:path}", include_in_schema=False)
    def static(request: Request, name: str) -> Response:
        suffix = Path(name).suffix
        known = suffix in TYPES and not Path(name).is_absolute() and ".." not in Path(name).parts
        found = static_file(name)
        if not known or not found.is_file():
            raise HTTPException(404, "there is no such file")
        # The address changes with the content (see rendering.asset).
        kept = "public, max-age=31536000, immutable" if "v" in request.query_params else "no-cache"
        return Response(found.read_bytes(), media_type=TYPES[suffix], headers={"Cache-Control": kept})

    @app.get("/metrics", include_in_schema=False)
    def metrics(_: Viewer) -> Response:
        return Response(exposition(markets.values()), media_type="text/plain; version=0.0.4")

    @app.get("/healthz", include_in_schema=False)
    def healthy() -> Response:
        """This process answers."""
        return JSONResponse({"status": "ok"})

    @app.get("/readyz", include_in_schema=False)
    def ready() -> Response:
        """The markets run and have what they need. It is for everybody, so it tells no more than that."""
        now = time.time()
        found = {name: readiness(market, now) for name, market in markets.items()}
        running = {name: state for name, state in found.items() if state is not None}
        all_ready = all(state.ready for state in running.values())
        content = {
            "status": "ready" if all_ready else "not ready",
            "markets": {name: {c.name: c.ok for c in state.checks} for name, state in running.items()},
        }
        return JSONResponse(content, 200 if all_ready else 503, headers={"Cache-Control": "no-store"})

    def refuse(request: Request, wait_s: float) -> Response:
        after = {"Retry-After": str(int(wait_s) + 1)}
        return errors.problem_response(request, 429, "too many requests at once", headers=after)

    app.add_middleware(GZipMiddleware, minimum_size=800, compresslevel=6)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(hosts), www_redirect=False)
    app.add_middleware(Protected, guard=app.state.guard, refuse=refuse)
    return app
