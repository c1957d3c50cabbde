"""What the ledger says of accounts over a period, for their statements."""

from __future__ import annotations

from sqlalchemy import Connection

from market.accounts.ledger import Kind, household
from market.accounts.statement import Booked, Flows
from market.messages.models import Tariff


def of_account(connection: Connection, account: str, since: int, until: int) -> list[Booked]:
    """An account's postings for ``[since, until)``, by interval and kind."""
    rows = connection.exec_driver_sql(
        "SELECT interval_start, kind, CAST(SUM(amount_neur) AS BIGINT), CAST(SUM(energy_wh) AS BIGINT)"
        " FROM posting WHERE account = ? AND interval_start >= ? AND interval_start < ?"
        " GROUP BY interval_start, kind ORDER BY interval_start, kind",
        (account, since, until),
    )
    return [Booked(start, Kind(kind), neur, wh) for start, kind, neur, wh in rows]


def flows(connection: Connection, since: int, until: int) -> dict[int, Flows]:
    """What every interval of ``[since, until)`` with postings was like, from the same postings."""
    rows = connection.exec_driver_sql(
        "WITH sums AS (SELECT interval_start, account, kind, SUM(energy_wh) AS wh FROM posting"
        "  WHERE interval_start >= ? AND interval_start < ? GROUP BY interval_start, account, kind)"
        " SELECT interval_start, tariff,"
        " CAST(SUM(CASE WHEN kind IN ('award', 'firm') AND wh > 0 THEN wh ELSE 0 END) AS BIGINT),"
        " CAST(SUM(CASE WHEN kind = 'supply' AND account = 'retailer' THEN wh ELSE 0 END) AS BIGINT),"
        " CAST(SUM(CASE WHEN kind = 'retail' AND account <> 'retailer' AND wh < 0 THEN wh ELSE 0 END)"
        "  AS BIGINT),"
        " CAST(SUM(CASE WHEN kind = 'retail' AND account <> 'retailer' AND wh > 0 THEN wh ELSE 0 END)"
        "  AS BIGINT)"
        " FROM sums JOIN interval USING (interval_start) GROUP BY interval_start, tariff",
        (since, until),
    )
    tariffs: dict[str, Tariff] = {}
    found = {}
    for start, text, *energies in rows:
        if text not in tariffs:
            tariffs[text] = Tariff.model_validate_json(text)
        found[start] = Flows(tariffs[text], *energies)
    return found


def balances(connection: Connection, account: str, since: int, until: int) -> tuple[int, int, int]:
    """An account's postings before a period, its postings from its end on, and its running balance: nEUR."""
    before, after = connection.exec_driver_sql(
        "SELECT CAST(COALESCE(SUM(CASE WHEN interval_start < ? THEN amount_neur END), 0) AS BIGINT),"
        " CAST(COALESCE(SUM(CASE WHEN interval_start >= ? THEN amount_neur END), 0) AS BIGINT)"
        " FROM posting WHERE account = ?",
        (since, until, account),
    ).one()
    running = connection.exec_driver_sql(
        "SELECT ledger_neur FROM balance WHERE account = ?", (account,)
    ).scalar_one_or_none()
    return before, after, running or 0


def accounts(connection: Connection) -> list[str]:
    """All of them, by name."""
    return list(connection.exec_driver_sql("SELECT account FROM account ORDER BY account").scalars())


def households(connection: Connection) -> dict[str, tuple[str, str, str]]:
    """Meter, owner and connection point of every household's account."""
    rows = connection.exec_driver_sql("SELECT meter, owner, connection_point FROM meter ORDER BY meter")
    return {household(row[0]): (row[0], row[1], row[2]) for row in rows}


def places(connection: Connection) -> dict[str, str]:
    """Where every meter stands, as registered last."""
    return {meter: point for meter, _, point in households(connection).values()}


def interval_minutes(connection: Connection) -> int:
    """How long the market's intervals are; 0 before there is one."""
    found: int | None = connection.exec_driver_sql("SELECT minutes FROM interval LIMIT 1").scalar()
    return found or 0


def metered_of(
    connection: Connection, meter: str, since: int, until: int
) -> list[tuple[int, int | None, int | None]]:
    """What a meter's registers say of each settled interval: start, import and export in Wh; None where they
    have not told.
    """
    rows = connection.exec_driver_sql(
        "SELECT interval_start, import_wh, export_wh FROM metered WHERE meter = ? AND interval_start >= ?"
        " AND interval_start < ? AND revision = (SELECT MAX(revision) FROM metered AS other"
        "  WHERE other.interval_start = metered.interval_start AND other.meter = metered.meter)"
        " ORDER BY interval_start",
        (meter, since, until),
    )
    return [(row[0], row[1], row[2]) for row in rows]


def decided_of(connection: Connection, meter: str, since: int, until: int) -> set[int]:
    """The intervals whose energy an operator decided on, as the household had contested them."""
    rows = connection.exec_driver_sql(
        "SELECT interval_start FROM dispute WHERE meter = ? AND decision = 'upheld'"
        " AND interval_start >= ? AND interval_start < ?",
        (meter, since, until),
    )
    return set(rows.scalars())
