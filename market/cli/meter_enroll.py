"""``peergrid meter enroll``: a meter's key, certificate and registry entry."""

from __future__ import annotations

import datetime as dt
import re
from pathlib import Path

import click

from grid.errors import InputError
from market.cli.messages import say
from market.messages.signing import Domain
from meters.certificates import Period
from meters.enrol import REGISTRY_ENTRY, Enrolment, enrol

_ADDRESS = re.compile(r"0x[0-9a-f]{40}")


@click.command("enroll")
@click.option("--owner", required=True, help="Address of the wallet that its energy is settled with.")
@click.option("--connection-point", required=True, help="Where it stands, such as load:7; told to nobody.")
@click.option("--chain-id", required=True, type=click.IntRange(min=0), help="Chain of the meter registry.")
@click.option("--registry", required=True, help="Address of the meter registry.")
@click.option(
    "--fuse-w",
    default=43_500,
    show_default=True,
    type=click.IntRange(min=1),
    help="The main fuse that the market has on record (members.csv, member join), W.",
)
@click.option(
    "--authority",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="The market's authority, made by peergrid broker config.",
)
@click.option(
    "--out", required=True, type=click.Path(file_okay=False, path_type=Path), help="The meter's folder."
)
@click.option(
    "--days", default=365, show_default=True, type=click.IntRange(min=1), help="Life of its certificate."
)
@click.option(
    "--nonce", default=0, show_default=True, type=click.IntRange(min=0), help="Bindings it has made."
)
def enroll(
    owner: str,
    connection_point: str,
    chain_id: int,
    registry: str,
    fuse_w: int,
    authority: Path,
    out: Path,
    days: int,
    nonce: int,
) -> None:
    """Make a meter's key, let it sign whose it is, and certify it.

    Prints the meter's id. OUT goes onto the device; the market's registrar brings OUT/registry.json on the
    chain.
    """
    addresses = {"owner": owner.lower(), "registry": registry.lower()}
    for name, address in addresses.items():
        if _ADDRESS.fullmatch(address) is None:
            raise InputError.single(f"--{name}", "", address, "is no address of 0x and 40 hexadecimal digits")
    domain = Domain(chain_id, addresses["registry"])
    what = Enrolment(domain, addresses["owner"], connection_point, nonce, fuse_w)
    entry = enrol(out, authority, what, Period(dt.datetime.now(dt.UTC), days))
    say(f"key and certificate are in {out}; {out / REGISTRY_ENTRY} is for the market's registrar")
    click.echo(entry.meter)
