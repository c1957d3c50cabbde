"""What meters say of themselves, and how often somebody else spoke on their topics.

A meter that stays offline is an alarm until it is back: silence in the readings is known only when they are
due, and a gateway that died in the night should be told of before that matters.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from sqlalchemy import Connection, select

from market.messages.models import Status
from market.service.clock import utc
from market.service.store import alarms
from market.service.store.schema import meter_presence


def keep(tx: Connection, at: int, statuses: Sequence[Status], forged: Mapping[str, int]) -> None:
    """Keeps the last status of each meter, and adds to its messages without a signature of its own.

    An offline status that is told again (it is retained) stands since it was heard first. Who is online again
    has no alarm any more.
    """
    said = [(status.meter, int(status.online), status.since, status.software, at) for status in statuses]
    if said:
        tx.exec_driver_sql(
            "INSERT INTO meter_presence (meter, online, since, software, heard_at, forged)"
            " VALUES (?, ?, ?, ?, ?, 0) ON CONFLICT (meter) DO UPDATE SET online = excluded.online,"
            " since = excluded.since, software = excluded.software,"
            " heard_at = CASE WHEN meter_presence.online = 0 AND excluded.online = 0"
            " THEN meter_presence.heard_at ELSE excluded.heard_at END",
            said,
        )
    for status in statuses:
        if status.online:
            alarms.clear(tx, "offline", status.meter)
    if forged:
        tx.exec_driver_sql(
            "INSERT INTO meter_presence (meter, forged, forged_at) VALUES (?, ?, ?) ON CONFLICT (meter)"
            " DO UPDATE SET forged = meter_presence.forged + excluded.forged, forged_at = excluded.forged_at",
            [(meter, count, at) for meter, count in forged.items()],
        )


def raise_absent(tx: Connection, at: int, patience_s: int, meters: Collection[str]) -> None:
    """Raises the alarm, once for each absence, for those of ``meters`` that are offline for longer than
    ``patience_s`` on the market's clock.
    """
    told = meter_presence.c
    rows = tx.execute(
        select(told.meter, told.heard_at).where(told.online == 0, told.heard_at < at - patience_s)
    )
    known = alarms.standing(tx, "offline")
    for meter, heard_at in rows:
        if meter in meters and meter not in known:
            words = f"is offline since {utc(heard_at)}, as it said itself or its last will did"
            alarms.raise_alarm(tx, at, "offline", meter, words)
