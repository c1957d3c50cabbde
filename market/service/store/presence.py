"""What meters say of themselves, and how often somebody else spoke on their topics."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from sqlalchemy import Connection

from market.messages.models import Status


def keep(tx: Connection, at: int, statuses: Iterable[Status], forged: Mapping[str, int]) -> None:
    """Keeps the last status of each meter, and adds to its messages without a signature of its own."""
    said = [(status.meter, int(status.online), status.since, status.software, at) for status in statuses]
    if said:
        tx.exec_driver_sql(
            "INSERT INTO meter_presence (meter, online, since, software, heard_at, forged)"
            " VALUES (?, ?, ?, ?, ?, 0) ON CONFLICT (meter) DO UPDATE SET online = excluded.online,"
            " since = excluded.since, software = excluded.software, heard_at = excluded.heard_at",
            said,
        )
    if forged:
        tx.exec_driver_sql(
            "INSERT INTO meter_presence (meter, forged, forged_at) VALUES (?, ?, ?) ON CONFLICT (meter)"
            " DO UPDATE SET forged = meter_presence.forged + excluded.forged, forged_at = excluded.forged_at",
            [(meter, count, at) for meter, count in forged.items()],
        )
