"""What the console asks of a market's database, beyond whole tables."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

Rows = list[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Transition:
    interval_start: int
    number: int
    state: str
    at: int
    reason: str


def _rows(connection: Connection, query: str, parameters: tuple[Any, ...] = ()) -> Rows:
    return [dict(row) for row in connection.exec_driver_sql(query, parameters).mappings()]


def span(connection: Connection) -> tuple[int, int] | None:
    """The first and the last interval's start; None before the first gate."""
    row = connection.exec_driver_sql("SELECT MIN(interval_start), MAX(interval_start) FROM interval").one()
    return None if row[0] is None else (row[0], row[1])


def market_now(connection: Connection) -> int | None:
    """The market's clock when it last wrote a change of state."""
    moment: int | None = connection.exec_driver_sql(
        "SELECT MAX(at) FROM transition WHERE interval_start >="
        " (SELECT MAX(interval_start) FROM interval) - 4 * 3600"
    ).scalar()
    return moment


def intervals_between(connection: Connection, since: int, until: int) -> Rows:
    """Intervals with their state and what the AC check of the metered energy said (null before it)."""
    return _rows(
        connection,
        "SELECT interval_start, minutes, opens_at, closes_at, state, tariff, incomplete, revision,"
        " clearing.interval_start IS NOT NULL AS cleared, delivered"
        " FROM interval LEFT JOIN clearing USING (interval_start)"
        " WHERE interval_start >= ? AND interval_start < ? ORDER BY interval_start",
        (since, until),
    )


def neighbours_of(connection: Connection, start: int) -> tuple[int | None, int | None]:
    """The intervals before and after one."""
    before = "SELECT MAX(interval_start) FROM interval WHERE interval_start < ?"
    after = "SELECT MIN(interval_start) FROM interval WHERE interval_start > ?"
    return (
        connection.exec_driver_sql(before, (start,)).scalar(),
        connection.exec_driver_sql(after, (start,)).scalar(),
    )


def clearing_texts(connection: Connection, starts: Sequence[int]) -> dict[int, tuple[str, str, str]]:
    """Book, record (JSON) and root by interval, where there is a clearing."""
    marks = ",".join("?" * len(starts))
    rows = connection.exec_driver_sql(
        f"SELECT interval_start, book, record, root FROM clearing WHERE interval_start IN ({marks})",  # noqa: S608
        tuple(starts),
    )
    return {row[0]: (row[1], row[2], row[3]) for row in rows}


def transitions_of(connection: Connection, start: int) -> list[Transition]:
    rows = connection.exec_driver_sql(
        "SELECT interval_start, number, state, at, reason FROM transition WHERE interval_start = ?"
        " ORDER BY number",
        (start,),
    )
    return [Transition(*row) for row in rows]


def transitions_from(connection: Connection, at: int, since: int, rows_max: int) -> list[Transition]:
    """Changes of state at ``at`` or later, of intervals from ``since`` on, in the order of the clock."""
    rows = connection.exec_driver_sql(
        "SELECT interval_start, number, state, at, reason FROM transition"
        " WHERE interval_start >= ? AND at >= ? ORDER BY at, interval_start, number LIMIT ?",
        (since, at, rows_max),
    )
    return [Transition(*row) for row in rows]


def batches_of_interval(connection: Connection, start: int) -> list[int]:
    rows = connection.exec_driver_sql(
        "SELECT DISTINCT batch FROM posting WHERE interval_start = ? ORDER BY batch", (start,)
    )
    return list(rows.scalars())


def batch(connection: Connection, sequence: int) -> Mapping[str, Any] | None:
    """A batch with the transactions that carried it."""
    found = _rows(connection, "SELECT * FROM batch WHERE sequence = ?", (sequence,))
    return found[0] if found else None


def attempts(connection: Connection, tx_hash: str) -> Rows:
    """All transactions on the nonce of one: what was signed and what was mined."""
    return _rows(
        connection,
        "SELECT number, batch_id, sender, nonce, hash, block, gas_used, succeeded FROM chain_transaction"
        " WHERE (sender, nonce) = (SELECT sender, nonce FROM chain_transaction WHERE hash = ?)"
        " ORDER BY number",
        (tx_hash,),
    )


def newest_block(connection: Connection) -> int | None:
    block: int | None = connection.exec_driver_sql("SELECT MAX(block) FROM chain_transaction").scalar()
    return block


def positions(connection: Connection, sequence: int) -> Rows:
    return _rows(
        connection,
        "SELECT account, address, amount_ueur FROM position JOIN account USING (account)"
        " WHERE sequence = ? ORDER BY amount_ueur, account",
        (sequence,),
    )


def recent_batches(connection: Connection, rows_max: int) -> list[dict[str, Any]]:
    """The newest batches with what they move and the block that holds them."""
    rows = connection.exec_driver_sql(
        "WITH newest AS (SELECT * FROM batch ORDER BY sequence DESC LIMIT ?)"
        " SELECT sequence, state, made_at, root, tx_hash, gas, COUNT(account) AS positions,"
        " COALESCE(SUM(MAX(amount_ueur, 0)), 0) AS volume_ueur,"
        " (SELECT block FROM chain_transaction WHERE hash = tx_hash) AS block"
        " FROM newest LEFT JOIN position USING (sequence) GROUP BY sequence ORDER BY sequence DESC",
        (rows_max,),
    )
    return [dict(row) for row in rows.mappings()]


def batches_waiting(connection: Connection, made_before: int) -> list[tuple[int, int]]:
    """Batches that are not final: sequence and when they were made."""
    rows = connection.exec_driver_sql(
        "SELECT sequence, made_at FROM batch WHERE state = 'PENDING' AND made_at < ? ORDER BY sequence",
        (made_before,),
    )
    return [(row[0], row[1]) for row in rows]


def gas_total(connection: Connection) -> int:
    """Gas of all batches."""
    gas: int = connection.exec_driver_sql("SELECT COALESCE(SUM(gas), 0) FROM batch").scalar_one()
    return gas


def batch_counts(connection: Connection) -> dict[str, int]:
    rows = connection.exec_driver_sql("SELECT state, COUNT(*) FROM batch GROUP BY state")
    return {row[0]: row[1] for row in rows}


def awards_of_interval(connection: Connection, start: int) -> Rows:
    return _rows(
        connection,
        "SELECT award.meter, connection_point, bus, net_wh, amount_neur, import_wh, export_wh, flag"
        " FROM award JOIN meter ON meter.meter = award.meter LEFT JOIN metered"
        " ON metered.interval_start = award.interval_start"
        " AND metered.meter = award.meter AND metered.revision ="
        " (SELECT MAX(revision) FROM metered WHERE interval_start = award.interval_start)"
        " WHERE award.interval_start = ? ORDER BY connection_point",
        (start,),
    )


def suspensions(connection: Connection, since: int, until: int) -> Rows:
    """Where operators suspended trading, as far as it touches ``[since, until)``."""
    return _rows(
        connection,
        "SELECT first_start, until_start, reason FROM suspension WHERE first_start < ?"
        " AND (until_start IS NULL OR until_start > ?) ORDER BY first_start",
        (until, since),
    )


def instructions(connection: Connection, rows_max: int) -> Rows:
    """What operators asked of the market, the newest first; ``refusal`` is None until it was looked at."""
    return _rows(
        connection,
        "SELECT id, given_at, actor, kind, reason, done_at, refusal,"
        " json_extract(body, '$.first_start') AS first_start FROM instruction ORDER BY id DESC LIMIT ?",
        (rows_max,),
    )


def instructions_seen(connection: Connection) -> tuple[int, int]:
    """How many there are, and how many of them the market has answered."""
    row = connection.exec_driver_sql("SELECT COUNT(*), COUNT(done_at) FROM instruction").one()
    return row[0], row[1]


def is_going_on(connection: Connection) -> bool:
    """Whether some interval still waits for something that the market does."""
    waiting = "'OPEN', 'CLOSED', 'CLEARED', 'SUSPENDED', 'METERED', 'SETTLED'"
    found = connection.exec_driver_sql(
        f"SELECT EXISTS (SELECT 1 FROM interval WHERE state IN ({waiting}))"  # noqa: S608
    ).scalar()
    return bool(found)


def disputes(connection: Connection, meter: str | None = None, start: int | None = None) -> Rows:
    """Contested intervals, open ones first; of one meter or one interval where that is given."""
    return _rows(
        connection,
        "SELECT dispute.*, connection_point FROM dispute JOIN meter USING (meter)"
        " WHERE (?1 IS NULL OR dispute.meter = ?1) AND (?2 IS NULL OR interval_start = ?2)"
        " ORDER BY closed_at IS NOT NULL, id DESC LIMIT 200",
        (meter, start),
    )


def adjustments(connection: Connection, since: int) -> Rows:
    """Settlements that readings or decisions changed later, the newest first."""
    return _rows(
        connection,
        "SELECT interval_start, posting.revision, COUNT(DISTINCT account) AS accounts,"
        " SUM(MAX(amount_neur, 0)) AS moved_neur, MIN(batch) AS batch FROM interval"
        " JOIN posting USING (interval_start) WHERE interval.revision > 0 AND interval_start >= ?"
        " AND posting.revision > 0 GROUP BY 1, 2 ORDER BY 1 DESC, 2 DESC LIMIT 200",
        (since,),
    )


def adjustments_of(connection: Connection, start: int) -> Rows:
    """The postings of an interval beyond its settlement."""
    return _rows(
        connection,
        "SELECT revision, account, kind, amount_neur, energy_wh, batch, connection_point FROM posting"
        " LEFT JOIN meter ON account = 'household:' || meter.meter"
        " WHERE interval_start = ? AND revision > 0 ORDER BY revision, account, kind",
        (start,),
    )


def chain_books(connection: Connection) -> Mapping[str, Any] | None:
    """What the market's contracts held when it last looked, with the meters of those who owe or withdraw."""
    found = _rows(connection, "SELECT * FROM chain_books ORDER BY at DESC LIMIT 1")
    if not found:
        return None
    meters = {
        row["owner"]: row for row in _rows(connection, "SELECT owner, meter, connection_point FROM meter")
    }
    accounts = [
        {"address": address, "debt_ueur": 0, "withdrawal_ueur": 0, "due_at": None}
        | {"meter": None, "connection_point": None}
        | dict(meters.get(address, {}))
        | held
        for address, held in json.loads(found[0]["accounts"]).items()
    ]
    return {**found[0], "accounts": accounts}


def meters_over(connection: Connection, since: int, until: int) -> Rows:
    """Every meter with what was heard of it in a period: readings, flags, deviation of metered from award."""
    return _rows(
        connection,
        "WITH newest AS (SELECT interval_start, MAX(revision) AS revision FROM metered"
        "  WHERE interval_start >= :since AND interval_start < :until GROUP BY interval_start),"
        " energy AS (SELECT metered.meter, COUNT(*) AS intervals,"
        "  SUM(flag = 'missing') AS missing, SUM(flag IN ('estimated', 'interpolated')) AS estimated,"
        "  SUM(import_wh) AS import_wh, SUM(export_wh) AS export_wh,"
        "  SUM(ABS(export_wh - import_wh - net_wh)) AS deviation_wh, SUM(ABS(net_wh)) AS awarded_wh"
        "  FROM newest JOIN metered USING (interval_start, revision)"
        "  LEFT JOIN award ON award.interval_start = metered.interval_start AND award.meter = metered.meter"
        "  GROUP BY metered.meter),"
        " by_epoch AS (SELECT meter, epoch, COUNT(*) AS readings, MAX(taken_at) AS last_taken_at,"
        "  MAX(received_at) AS last_seen_at, SUM(quality > 0) AS flagged,"
        "  MAX(seq) - MIN(seq) + 1 - COUNT(*) AS gaps FROM reading"
        "  WHERE taken_at >= :since AND taken_at < :until GROUP BY meter, epoch),"
        " heard AS (SELECT meter, SUM(readings) AS readings, MAX(last_taken_at) AS last_taken_at,"
        "  MAX(last_seen_at) AS last_seen_at, MAX(epoch) AS epoch, SUM(flagged) AS flagged,"
        "  SUM(gaps) AS gaps FROM by_epoch GROUP BY meter),"
        " gap AS (SELECT meter, COUNT(*) AS refused FROM reading_refused GROUP BY meter),"
        " bad AS (SELECT subject AS meter, SUM(count) AS alarms FROM alarm GROUP BY subject)"
        " SELECT meter.meter, connection_point, bus, fuse_w, intervals, missing, estimated, import_wh,"
        " export_wh, deviation_wh, awarded_wh, readings, last_taken_at, last_seen_at, epoch, flagged, gaps,"
        " online, presence.since AS online_since, software, COALESCE(forged, 0) AS forged, forged_at,"
        " COALESCE(refused, 0) AS refused, COALESCE(alarms, 0) AS alarms FROM meter LEFT JOIN energy USING"
        " (meter) LEFT JOIN heard USING (meter) LEFT JOIN gap USING (meter) LEFT JOIN bad USING (meter)"
        " LEFT JOIN meter_presence AS presence USING (meter)"
        " ORDER BY connection_point",
        {"since": since, "until": until},  # type: ignore[arg-type]
    )


def meter(connection: Connection, address: str) -> Mapping[str, Any] | None:
    found = _rows(connection, "SELECT * FROM meter WHERE meter = ?", (address,))
    return found[0] if found else None


def presence(connection: Connection, address: str) -> Mapping[str, Any] | None:
    """What a meter last said of itself; None before that."""
    found = _rows(connection, "SELECT * FROM meter_presence WHERE meter = ?", (address,))
    return found[0] if found else None


def meter_day(connection: Connection, address: str, since: int, until: int) -> Rows:
    """One meter interval by interval: order, award, metered energy and what they came to."""
    return _rows(
        connection,
        "SELECT interval.interval_start, interval.state, interval.revision, tariff, award.net_wh,"
        " award.amount_neur,"
        " award.body AS award, orders.body AS order_body, metered.import_wh, metered.export_wh,"
        " metered.flag, (SELECT SUM(posting.amount_neur) FROM posting WHERE"
        "  posting.interval_start = interval.interval_start AND account = 'household:' || ?1) AS posted_neur"
        " FROM interval"
        " LEFT JOIN award ON award.interval_start = interval.interval_start AND award.meter = ?1"
        " LEFT JOIN orders ON orders.interval_start = interval.interval_start AND orders.meter = ?1"
        "  AND version = (SELECT MAX(version) FROM orders AS other WHERE other.meter = ?1"
        "   AND other.interval_start = interval.interval_start)"
        " LEFT JOIN metered ON metered.interval_start = interval.interval_start AND metered.meter = ?1"
        "  AND metered.revision = (SELECT MAX(revision) FROM metered AS other WHERE"
        "   other.interval_start = interval.interval_start AND other.meter = ?1)"
        " WHERE interval.interval_start >= ?2 AND interval.interval_start < ?3 ORDER BY 1",
        (address, since, until),
    )


def readings_of(connection: Connection, address: str, since: int, until: int) -> Rows:
    return _rows(
        connection,
        "SELECT epoch, seq, taken_at, import_wh, export_wh, power_w, quality, received_at FROM reading"
        " WHERE meter = ? AND taken_at >= ? AND taken_at < ? ORDER BY epoch, seq",
        (address, since, until),
    )


def households(connection: Connection, since: int, until: int) -> Rows:
    """Every household with what was posted for a period, its balance and what its meter says that it is."""
    return _rows(
        connection,
        "WITH earned AS (SELECT account, SUM(amount_neur) AS total_neur FROM posting"
        "  WHERE interval_start >= ? AND interval_start < ? GROUP BY account),"
        " contested AS (SELECT meter, COUNT(*) AS disputes FROM dispute WHERE closed_at IS NULL"
        "  GROUP BY meter)"
        " SELECT meter, owner, connection_point, software, COALESCE(total_neur, 0) AS total_neur,"
        " 1000 * account.deposit_ueur + COALESCE(ledger_neur, 0) AS balance_neur,"
        " COALESCE(disputes, 0) AS disputes FROM meter JOIN account ON account = 'household:' || meter"
        " LEFT JOIN balance USING (account) LEFT JOIN earned USING (account)"
        " LEFT JOIN contested USING (meter) LEFT JOIN meter_presence USING (meter)"
        " ORDER BY connection_point",
        (since, until),
    )


def metered_between(connection: Connection, since: int, until: int) -> list[tuple[int, str, str, int, int]]:
    """Interval, its tariff (JSON), meter, import and export in Wh, where the registers tell."""
    rows = connection.exec_driver_sql(
        "SELECT interval_start, tariff, meter, import_wh, export_wh FROM interval"
        " JOIN metered USING (interval_start) WHERE interval_start >= ? AND interval_start < ?"
        " AND import_wh IS NOT NULL AND metered.revision = (SELECT MAX(revision) FROM metered AS other"
        "  WHERE other.interval_start = interval.interval_start)",
        (since, until),
    )
    return [(row[0], row[1], row[2], row[3], row[4]) for row in rows]


def account_batches(connection: Connection, account: str, since: int, until: int) -> list[int]:
    rows = connection.exec_driver_sql(
        "SELECT DISTINCT batch FROM posting WHERE account = ? AND interval_start >= ? AND interval_start < ?"
        " ORDER BY batch",
        (account, since, until),
    )
    return list(rows.scalars())


def drawn_by_interval(connection: Connection, since: int, until: int) -> dict[int, tuple[int, int]]:
    """Energy that households drew together, as metered, and what the schedule imported, by interval."""
    rows = connection.exec_driver_sql(
        "SELECT interval_start, SUM(MAX(0, metered.import_wh - metered.export_wh)),"
        " json_extract(record, '$.import_wh') FROM metered JOIN clearing USING (interval_start)"
        " WHERE interval_start >= ? AND interval_start < ? AND revision ="
        " (SELECT MAX(revision) FROM metered AS other WHERE other.interval_start = metered.interval_start)"
        " GROUP BY interval_start",
        (since, until),
    )
    return {row[0]: (row[1] or 0, row[2]) for row in rows}


def troubles(connection: Connection, since: int, until: int) -> Rows:
    """Intervals that are not as they should be: suspended, disputed, incomplete, limits broken."""
    return _rows(
        connection,
        "SELECT interval_start, state, incomplete, clearing.status,"
        " json_extract(record, '$.reason') AS reason,"
        " COALESCE(json_extract(record, '$.ac.violations'), 0) AS scheduled_violations,"
        " COALESCE(json_extract(delivered, '$.violations'), 0) AS metered_violations,"
        " json_extract(delivered, '$.loading_max_percent') AS loading_max_percent,"
        " json_extract(delivered, '$.v_min_pu') AS v_min_pu,"
        " json_extract(delivered, '$.v_max_pu') AS v_max_pu"
        " FROM interval LEFT JOIN clearing USING (interval_start)"
        " WHERE interval_start >= ? AND interval_start < ? AND (state = 'DISPUTED' OR incomplete > 0"
        " OR clearing.status = 'SUSPENDED' OR json_extract(record, '$.ac.violations') > 0"
        " OR json_extract(delivered, '$.violations') > 0) ORDER BY interval_start",
        (since, until),
    )


def evidence(connection: Connection, rows_max: int) -> Rows:
    return _rows(
        connection,
        "SELECT id, received_at, meter, topic, reason FROM evidence ORDER BY id DESC LIMIT ?",
        (rows_max,),
    )


def decoded(text: str | None) -> dict[str, Any]:
    """A JSON document of the database; empty where there is none."""
    return json.loads(text) if text else {}
