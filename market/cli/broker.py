"""``peergrid broker``: the configuration of a secure mosquitto."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import click

from market.cli.messages import say
from meters import secure_broker


@click.group("broker")
def command() -> None:
    """Set up an MQTT broker that knows everybody by certificate."""


@command.command("config")
@click.option("--feeder", required=True, help="The market's id, as in the topics.")
@click.option(
    "--out",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for the authority, certificates, access list and mosquitto.conf.",
)
@click.option(
    "--host",
    "hosts",
    multiple=True,
    default=("localhost", "127.0.0.1"),
    show_default=True,
    help="Name or address that clients reach the broker under (may be repeated).",
)
@click.option("--address", default="0.0.0.0", show_default=True, help="Address to listen on.")  # noqa: S104
@click.option("--port", default=8883, show_default=True, type=click.IntRange(1, 65535))
def config(feeder: str, out: Path, hosts: tuple[str, ...], address: str, port: int) -> None:
    """Write a mosquitto configuration: TLS, client certificates, access list, persistence, limits.

    Start the broker with ``mosquitto -c OUT/mosquitto.conf``. OUT/authority signs the meters' certificates
    (``peergrid meter enroll``): keep it off the broker's machine once the configuration is made.
    """
    path = secure_broker.write(out, feeder, hosts, address, port, dt.datetime.now(dt.UTC))
    say(f"authority, certificates and access list are in {out}")
    click.echo(str(path))
