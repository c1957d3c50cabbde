"""``peergrid member``: who has part in a market, and from which interval on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from grid.errors import InputError
from market.cli.messages import say
from market.cli.operate import ask, first_at, start_of
from market.cli.status import database_at, looked_into

_place = click.argument("place")
_meter = click.argument("meter")
_reason = click.option("--reason", required=True, help="Kept for good, and told.")
_wait = click.option("--wait-s", type=float, default=10.0, show_default=True, help="For the market's answer.")
_from = click.option(
    "--from",
    "first",
    metavar="TIME",
    help="The first interval; by default the next whose gate has not opened.",
)
_feeder = click.option("--feeder", help="Which market, where the configuration has several.")


_KEPT = {
    "meter": "registrations",
    "order": "orders",
    "reading": "readings",
    "reading_refused": "refused readings",
    "award": "awards",
    "metered": "intervals with its energy",
    "dispute": "disputes",
    "member_change": "changes of membership",
    "meter_presence": "what it said of itself",
    "evidence": "refused messages",
    "alarm": "alarms",
    "notice": "notices to operators",
    "account": "accounts",
    "posting": "postings",
    "position": "amounts on the chain",
    "balance": "balances",
}
"""What an export's parts are, for people."""


@click.group("member")
def command() -> None:
    """Members of the market of PLACE join, leave, move, get another meter or wallet.

    Each change counts from an interval on, and stands in the journal. Of whom something was changed, the
    configuration's members.csv has no more say.
    """


@command.command("list")
@_place
@_feeder
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def show(place: str, feeder: str | None, as_json: bool) -> None:
    """Show who is a member, and all changes."""
    from market.service.roster import Roster
    from market.service.store import input_journal, membership

    with looked_into(database_at(place, feeder)) as connection:
        roster = Roster(membership.founders(connection).values())
        roster.load(connection)
        changes = membership.changes(connection)
        members = roster.at(input_journal.last_at(connection) or 0)
    if as_json:
        document = {
            "members": [member.model_dump(mode="json") for member in members.values()],
            "changes": [
                {
                    "first_start": change.first_start,
                    "meter": change.meter,
                    "member": change.member.model_dump(mode="json") if change.member else None,
                }
                for change in changes
            ],
        }
        click.echo(json.dumps(document))
        return
    for member in members.values():
        click.echo(f"{member.meter}  {member.connection_point:<12} {member.owner}  {member.fuse_w} W")
    for change in changes:
        words = f"at {change.member.connection_point}" if change.member else "no member"
        click.echo(f"from {_utc(change.first_start)}: {change.meter} {words}")


@command.command("join")
@_place
@_meter
@click.option("--owner", required=True, help="Address of the household's wallet; it may have several meters.")
@click.option("--connection-point", required=True, help="Such as load:7 or bus:12.")
@click.option("--fuse-w", type=int, required=True)
@click.option(
    "--tan-phi-ppm", type=int, default=0, show_default=True, help="Of flexible energy, in millionths."
)
@_from
@_reason
@_feeder
@_wait
def join(
    place: str,
    meter: str,
    owner: str,
    connection_point: str,
    fuse_w: int,
    tan_phi_ppm: int,
    first: str | None,
    reason: str,
    feeder: str | None,
    wait_s: float,
) -> None:
    """METER stands at a connection point from an interval on."""
    from market.service.settings import Member
    from meters.configuration import parsed

    document = {
        "meter": meter.lower(),
        "owner": owner.lower(),
        "connection_point": connection_point,
        "fuse_w": fuse_w,
        "tan_phi_ppm": tan_phi_ppm,
    }
    parsed("the command line", Member, document | {"bus": 0, "deposit_ueur": 0})
    _ask(place, feeder, {"change": "join", "member": document}, first, reason, wait_s)


@command.command("leave")
@_place
@_meter
@_from
@_reason
@_feeder
@_wait
def leave(place: str, meter: str, first: str | None, reason: str, feeder: str | None, wait_s: float) -> None:
    """METER has no part any more from an interval on; what came before is still settled."""
    _ask(place, feeder, {"change": "leave", "meter": meter.lower()}, first, reason, wait_s)


@command.command("move")
@_place
@_meter
@click.option("--connection-point", required=True, help="Such as load:7 or bus:12.")
@_from
@_reason
@_feeder
@_wait
def move(
    place: str,
    meter: str,
    connection_point: str,
    first: str | None,
    reason: str,
    feeder: str | None,
    wait_s: float,
) -> None:
    """METER stands at another connection point from an interval on."""
    body = {"change": "move", "meter": meter.lower(), "connection_point": connection_point}
    _ask(place, feeder, body, first, reason, wait_s)


@command.command("replace")
@_place
@_meter
@click.option("--by", required=True, help="The new meter's address.")
@_from
@_reason
@_feeder
@_wait
def replace(
    place: str, meter: str, by: str, first: str | None, reason: str, feeder: str | None, wait_s: float
) -> None:
    """Another meter takes METER's place, owner and fuse from an interval on.

    The new one's first reading is to be at that interval's start. On the chain's registry the replacement is
    brought with the owner's and the device's signatures.
    """
    _ask(
        place, feeder, {"change": "replace", "meter": meter.lower(), "by": by.lower()}, first, reason, wait_s
    )


@command.command("owner")
@_place
@_meter
@click.option("--owner", required=True, help="Address of the new wallet.")
@_from
@_reason
@_feeder
@_wait
def owner(
    place: str, meter: str, owner: str, first: str | None, reason: str, feeder: str | None, wait_s: float
) -> None:
    """The wallet that owns METER, and all other meters of it, is another one from an interval on.

    On the chain it has to have taken the old one's place before (`peergrid chain owner`). Batches go to the
    wallet that a member has when they are made; what comes to the old one later follows it to the new one.
    """
    from market.cli.chain_commands import address

    body = {"change": "owner", "meter": meter.lower(), "owner": address(owner, "--owner")}
    _ask(place, feeder, body, first, reason, wait_s)


@command.command("erase")
@_place
@_meter
@_reason
@_feeder
@_wait
def erase(place: str, meter: str, reason: str, feeder: str | None, wait_s: float) -> None:
    """Forget of a METER that has left what is not accounting: what it said of itself, alarms, notices and
    refused messages. Orders, readings and postings are what the ledger and its proofs rest on, and stay.
    """
    _ask(place, feeder, {"change": "erase", "meter": meter.lower()}, None, reason, wait_s)


@command.command("export")
@_place
@_meter
@_feeder
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="By default METER.json.")
def export(place: str, meter: str, feeder: str | None, out: Path | None) -> None:
    """Write all that is kept of METER and its household as one JSON document, for the household."""
    from market.service.store import membership

    with looked_into(database_at(place, feeder)) as connection:
        found = membership.everything_of(connection, meter.lower())
    if not found["meter"]:
        raise InputError.single("METER", "", meter, "is and was no meter of this market")
    file = out or Path(f"{meter.lower()}.json")
    try:
        file.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise InputError.single("--out", "", str(file), f"cannot be written: {error.strerror}") from None
    say(", ".join(f"{_KEPT.get(name, name)}: {len(rows)}" for name, rows in found.items() if rows))
    click.echo(str(file))


def _ask(
    place: str, feeder: str | None, body: dict[str, Any], first: str | None, reason: str, wait_s: float
) -> None:
    body = body | {"first_start": start_of(first)}
    ask(place, feeder, "member", body, reason, wait_s, first_at(first))


def _utc(moment: int) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%MZ")
