"""How much there is, for the summary."""

from __future__ import annotations

from sqlalchemy import Connection, func, select

from market.service.store import schema


def message_counts(connection: Connection) -> dict[str, int]:
    """Accepted orders and readings, and awards sent."""
    tables = {"orders": schema.order, "readings": schema.reading, "awards": schema.award}
    return {
        name: connection.execute(select(func.count()).select_from(table)).scalar_one()
        for name, table in tables.items()
    }
