"""``peergrid console``: the operator's console over stored or running markets."""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, asynccontextmanager, closing
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from grid.errors import InputError, StoreError
from market.cli.messages import say

if TYPE_CHECKING:
    from fastapi import FastAPI

    from market.console.security import Role
    from meters.lifeline import Child

PORT = 8440
STREAMS_END_S = 2
RETRY_S = 0.3
PATIENCE_S = 120.0
"""How long a console that a run brings along waits for the run's database."""


@click.command("console")
@click.option(
    "--db",
    "places",
    metavar="PLACE",
    multiple=True,
    help="A market's database: a file, a URL or a market.toml.",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Where to listen.")
@click.option("--port", type=click.IntRange(0, 65535), default=PORT, show_default=True)
@click.option("--tokens", type=click.Path(path_type=Path), help="The tokens file; actions need one.")
@click.option("--grant", "granted", metavar="NAME=ROLE", help="Add a viewer or operator to the tokens file.")
@click.option("--tls-cert", type=click.Path(path_type=Path), help="Certificate chain, PEM.")
@click.option("--tls-key", type=click.Path(path_type=Path), help="Its key, PEM.")
@click.option("--behind-proxy", is_flag=True, help="A proxy on this machine's network does TLS.")
@click.option("--name", "names", multiple=True, help="A host name by which browsers reach it.")
@click.option("--wait-s", type=float, default=0.0, help="Wait so long for databases that are not there yet.")
def command(
    places: tuple[str, ...],
    host: str,
    port: int,
    tokens: Path | None,
    granted: str | None,
    tls_cert: Path | None,
    tls_key: Path | None,
    behind_proxy: bool,
    names: tuple[str, ...],
    wait_s: float,
) -> None:
    """Serve the console over one database or several.

    On this machine alone anybody may read; actions need a token with the role operator. Anywhere else reading
    needs a token too, and TLS: by --tls-cert and --tls-key, or --behind-proxy.
    """
    if granted is not None:
        click.echo(add_grant(tokens, granted))
        return
    deadline = time.monotonic() + wait_s
    while True:
        try:
            app = build(places, host, tokens, tls_cert, tls_key, behind_proxy, names)
            break
        except StoreError:
            if time.monotonic() >= deadline:
                raise
            time.sleep(RETRY_S)
    serve(app, host, port, tls_cert, tls_key, behind_proxy)


def add_grant(tokens: Path | None, granted: str) -> str:
    """A new token for NAME=ROLE."""
    from market.console.security import grant

    name, _, role = granted.partition("=")
    if not name or role not in ("viewer", "operator"):
        raise InputError.single("--grant", "", granted, "is not NAME=viewer or NAME=operator")
    if tokens is None:
        raise InputError.single("--tokens", "", None, "is needed: the file that the token's hash goes into")
    chosen: Role = "operator" if role == "operator" else "viewer"
    return grant(tokens, name, chosen)


def build(
    places: tuple[str, ...],
    host: str,
    tokens: Path | None,
    tls_cert: Path | None,
    tls_key: Path | None,
    behind_proxy: bool,
    names: tuple[str, ...],
) -> FastAPI:
    """The application as it may be reached at ``host``. Raises :class:`InputError` where that is not safe."""
    from market.console.app import AUDIT, LOOPBACK_HOSTS, create_app
    from market.console.market import Market
    from market.console.security import is_loopback, read_grants

    if not places:
        raise InputError.single(
            "--db", "", "nothing", "a database is needed: market.sqlite in a run's folder"
        )
    if (tls_cert is None) != (tls_key is None):
        raise InputError.single("--tls-cert", "", str(tls_cert or tls_key), "certificate and key go together")
    alone = is_loopback(host) and not behind_proxy
    secure = tls_cert is not None or behind_proxy
    if not alone and not secure:
        reason = "is reached by others: --tls-cert and --tls-key are needed, or --behind-proxy"
        raise InputError.single("--host", "", host, reason)
    if not alone and tokens is None:
        raise InputError.single("--tokens", "", None, "is needed where others reach the console")
    hosts = [*LOOPBACK_HOSTS, *names, host]
    grants, found = read_grants(tokens), [one for place in places for one in markets_at(place)]
    with ExitStack() as unless_served:
        shown = [unless_served.enter_context(closing(Market(one.database, one.base))) for one in found]
        audit = found[0].folder / AUDIT
        app = create_app(shown, grants, open_reading=alone, secure=secure, hosts=hosts, audit=audit)
        unless_served.pop_all()
    return app


class Stored(NamedTuple):
    """Where a market is: its database, where names of networks that are paths start, and its folder."""

    database: Path | str
    base: Path | None
    folder: Path


def markets_at(place: str) -> list[Stored]:
    """The markets of a configuration, or the one that is named by its database's file or URL."""
    if "://" in place:
        return [Stored(place, None, Path())]
    if not place.endswith(".toml"):
        return [Stored(Path(place), None, Path(place).parent)]

    from market.cli.service_config import read_service

    config, base = read_service(Path(place)), Path(place).resolve().parent
    return [
        Stored(config.database_of(market, base), base, base / config.folder / market.name)
        for market in config.markets
    ]


def serve(
    app: FastAPI, host: str, port: int, tls_cert: Path | None, tls_key: Path | None, behind_proxy: bool
) -> None:
    """Serves until Ctrl-C; says where on standard error as soon as it listens."""
    import uvicorn

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if self.started:
                found = self.servers[0].sockets[0].getsockname()[1]
                say(f"console: http{'s' if tls_cert else ''}://{host}:{found}/")

    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        log_level="warning",
        access_log=False,
        ssl_certfile=tls_cert,
        ssl_keyfile=tls_key,
        proxy_headers=behind_proxy,
        server_header=False,
        timeout_graceful_shutdown=STREAMS_END_S,
    )
    Server(config).run()


@asynccontextmanager
async def beside(place: Path, log: Path, options: Sequence[str] = ()) -> AsyncIterator[Child]:
    """The console of a run as its child process, from before the databases are there until the block ends.

    ``place`` is a database's file or a configuration, so that no password is among the arguments, which
    everybody on the machine may read. ``log`` is the folder of its log. ``options`` are the command's;
    without a port it listens on this machine at one that is free.
    """
    from meters.lifeline import Child

    program = "from market.cli.main import main; main()"
    chosen = list(options)
    if "--port" not in chosen:
        chosen += ["--port", str(free_port())]
    waiting = ["--wait-s", str(PATIENCE_S), "--db", str(place)]
    command = [sys.executable, "-c", program, "console", *chosen, *waiting]
    child = await Child.start(command, log / "console.log")
    secure = "--tls-cert" in chosen
    host = chosen[chosen.index("--host") + 1] if "--host" in chosen else "127.0.0.1"
    say(f"console: http{'s' if secure else ''}://{host}:{chosen[chosen.index('--port') + 1]}/")
    try:
        yield child
    finally:
        await child.stop(2 * STREAMS_END_S)


def free_port() -> int:
    """The console's usual port, or any that is free."""
    for port in (PORT, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            found: int = probe.getsockname()[1]
            return found
    raise InputError.single("--port", "", PORT, "is taken, and so is every other")
