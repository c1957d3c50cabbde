"""Changes of membership: one line for each meter and interval from which it has other terms, or none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, delete, insert, select

from market.accounts.ledger import household
from market.service.settings import Member
from market.service.store import input_journal, schema


@dataclass(frozen=True, slots=True)
class Change:
    """From ``first_start`` on, ``meter`` is registered as ``member``; None: no more."""

    first_start: int
    meter: str
    member: Member | None


def changes(connection: Connection) -> list[Change]:
    """In the order in which they take effect."""
    table = schema.member_change
    rows = connection.execute(select(table).order_by(table.c.first_start, table.c.meter))
    return [
        Change(
            row.first_start,
            row.meter,
            None if row.member is None else Member.model_validate_json(row.member),
        )
        for row in rows
    ]


def founders(connection: Connection) -> dict[str, Member]:
    """Those whom the configuration named when the journal last said how the market is set up."""
    entry = input_journal.newest(connection, "market")
    named = entry.document()["members"] if entry is not None else []
    return {document["meter"]: Member.model_validate(document) for document in named}


def add(tx: Connection, change: Change) -> None:
    """Enters the change and, where the meter is new here, its account; the meter's line says how it is
    registered from then on.
    """
    member = change.member
    if member is not None:
        document = member.model_dump(exclude={"deposit_ueur"})
        table = schema.meter
        if tx.execute(table.update().where(table.c.meter == member.meter).values(document)).rowcount == 0:
            tx.execute(insert(table), document)
            account = {"account": household(member.meter), "address": member.owner, "deposit_ueur": 0}
            tx.execute(insert(schema.account), account)
    row = {
        "first_start": change.first_start,
        "meter": change.meter,
        "member": None if member is None else member.model_dump_json(),
    }
    tx.execute(insert(schema.member_change), row)


Wallets = Mapping[str, list[tuple[int, str]]]
"""By account, from which time on batches go to which wallet."""


def wallets(connection: Connection) -> Wallets:
    """Where accounts whose members were changed have their money, in the order of time."""
    found: dict[str, list[tuple[int, str]]] = {}
    for change in changes(connection):
        if change.member is not None:
            found.setdefault(household(change.meter), []).append((change.first_start, change.member.owner))
    return found


def wallet_at(wallets: Wallets, account: str, first: str, at: int) -> str:
    """The wallet of an account in a batch that is made ``at``; ``first`` is the one that it began with."""
    return next((owner for start, owner in reversed(wallets.get(account, [])) if start <= at), first)


def owner_of(connection: Connection, meter: str) -> str | None:
    """The wallet of a meter that is or was registered here."""
    table = schema.meter
    owner: str | None = connection.execute(select(table.c.owner).where(table.c.meter == meter)).scalar()
    return owner


# What is kept of a meter that is no accounting: what it said of itself, alarms, messages that were refused.
_PERSONAL = (schema.meter_presence, schema.evidence)
_ABOUT = (schema.alarm, schema.notice)

_OF_METER = (
    schema.meter,
    schema.order,
    schema.reading,
    schema.reading_refused,
    schema.award,
    schema.metered,
    schema.dispute,
    schema.member_change,
    *_PERSONAL,
)


def erase(tx: Connection, meter: str) -> None:
    """Forgets of a meter what is not accounting."""
    told = select(schema.notice.c.id).where(
        schema.notice.c.subject.startswith(meter)
    )  # a dispute's has its interval besides
    tx.execute(delete(schema.delivery).where(schema.delivery.c.notice.in_(told)))
    for table in _ABOUT:
        tx.execute(delete(table).where(table.c.subject.startswith(meter)))
    for table in _PERSONAL:
        tx.execute(delete(table).where(table.c.meter == meter))


def everything_of(connection: Connection, meter: str) -> dict[str, list[dict[str, Any]]]:
    """All that is kept of a meter, by table, bytes as hex."""
    account = household(meter)
    queries = {table.name: select(table).where(table.c.meter == meter) for table in _OF_METER}
    queries |= {table.name: select(table).where(table.c.subject == meter) for table in _ABOUT}
    for table in (schema.account, schema.posting, schema.position, schema.balance):
        queries[table.name] = select(table).where(table.c.account == account)
    return {
        name: [
            {key: value.hex() if isinstance(value, bytes) else value for key, value in row.items()}
            for row in connection.execute(query).mappings()
        ]
        for name, query in queries.items()
    }
