"""What the console asks of a market's database, beyond whole tables."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, and_, case, exists, func, or_, select

from market.service.store import schema
from market.service.store.dialects import (
    document,
    number_of,
    text_of,
    whole_of,
)

Rows = list[Mapping[str, Any]]
CLOCK_BACK_S = 4 * 3600
"""The newest change of state is one of an interval that began this long before the newest one, or later."""
_ROWS_MAX = 200

_interval, _transition, _clearing = schema.interval.c, schema.transition.c, schema.clearing.c
_meter, _instruction, _suspension = schema.meter.c, schema.instruction.c, schema.suspension.c
_dispute = schema.dispute.c


@dataclass(frozen=True, slots=True)
class Transition:
    interval_start: int
    number: int
    state: str
    at: int
    reason: str


def rows_of(connection: Connection, query: Select[Any]) -> Rows:
    """The rows of a query, each by its columns' names."""
    return [dict(row) for row in connection.execute(query).mappings()]


def first(connection: Connection, query: Select[Any]) -> Mapping[str, Any] | None:
    """The first row of a query; None where there is none."""
    found = connection.execute(query.limit(1)).mappings().first()
    return None if found is None else dict(found)


def between(moment: ColumnElement[int], since: int, until: int) -> ColumnElement[bool]:
    """Whether a moment lies in ``[since, until)``."""
    return and_(moment >= since, moment < until)


# Intervals


def span(connection: Connection) -> tuple[int, int] | None:
    """The first and the last interval's start; None before the first gate."""
    first, last = connection.execute(
        select(
            select(func.min(_interval.interval_start)).scalar_subquery(),
            select(func.max(_interval.interval_start)).scalar_subquery(),
        )
    ).one()
    return None if first is None else (first, last)


def market_now(connection: Connection) -> int | None:
    """The market's clock when it last wrote a change of state."""
    newest = select(func.max(_interval.interval_start)).scalar_subquery()
    moment: int | None = connection.execute(
        select(func.max(_transition.at)).where(_transition.interval_start >= newest - CLOCK_BACK_S)
    ).scalar()
    return moment


def intervals_between(connection: Connection, since: int, until: int) -> Rows:
    """Intervals with their state and what the AC check of the metered energy said (null before it)."""
    return rows_of(
        connection,
        select(
            _interval.interval_start,
            _interval.minutes,
            _interval.opens_at,
            _interval.closes_at,
            _interval.state,
            _interval.tariff,
            _interval.incomplete,
            _interval.revision,
            _clearing.interval_start.is_not(None).label("cleared"),
            _clearing.delivered,
        )
        .join_from(schema.interval, schema.clearing, isouter=True)
        .where(between(_interval.interval_start, since, until))
        .order_by(_interval.interval_start),
    )


def neighbours_of(connection: Connection, start: int) -> tuple[int | None, int | None]:
    """The intervals before and after one."""
    moment = _interval.interval_start
    before: int | None = connection.execute(select(func.max(moment)).where(moment < start)).scalar()
    after: int | None = connection.execute(select(func.min(moment)).where(moment > start)).scalar()
    return before, after


def clearing_texts(connection: Connection, starts: Sequence[int]) -> dict[int, tuple[str, str, str]]:
    """Book, record (JSON) and root by interval, where there is a clearing."""
    rows = connection.execute(
        select(_clearing.interval_start, _clearing.book, _clearing.record, _clearing.root).where(
            _clearing.interval_start.in_(starts)
        )
    )
    return {row[0]: (row[1], row[2], row[3]) for row in rows}


def _transitions(connection: Connection, query: Select[Any]) -> list[Transition]:
    return [Transition(*row) for row in connection.execute(query)]


_CHANGES = select(
    _transition.interval_start, _transition.number, _transition.state, _transition.at, _transition.reason
)


def transitions_of(connection: Connection, start: int) -> list[Transition]:
    return _transitions(
        connection, _CHANGES.where(_transition.interval_start == start).order_by(_transition.number)
    )


def transitions_from(connection: Connection, at: int, since: int, rows_max: int) -> list[Transition]:
    """Changes of state at ``at`` or later, of intervals from ``since`` on, in the order of the clock."""
    return _transitions(
        connection,
        _CHANGES.where(_transition.interval_start >= since, _transition.at >= at)
        .order_by(_transition.at, _transition.interval_start, _transition.number)
        .limit(rows_max),
    )


def troubles(connection: Connection, since: int, until: int) -> Rows:
    """Intervals that are not as they should be: suspended, disputed, incomplete, limits broken."""
    record, delivered = document(_clearing.record), document(_clearing.delivered)
    scheduled, metered = whole_of(record, "ac", "violations"), whole_of(delivered, "violations")
    return rows_of(
        connection,
        select(
            _interval.interval_start,
            _interval.state,
            _interval.incomplete,
            _clearing.status,
            text_of(record, "reason").label("reason"),
            func.coalesce(scheduled, 0).label("scheduled_violations"),
            func.coalesce(metered, 0).label("metered_violations"),
            number_of(delivered, "loading_max_percent").label("loading_max_percent"),
            number_of(delivered, "v_min_pu").label("v_min_pu"),
            number_of(delivered, "v_max_pu").label("v_max_pu"),
        )
        .join_from(schema.interval, schema.clearing, isouter=True)
        .where(
            between(_interval.interval_start, since, until),
            or_(
                _interval.state == "DISPUTED",
                _interval.incomplete > 0,
                _clearing.status == "SUSPENDED",
                scheduled > 0,
                metered > 0,
            ),
        )
        .order_by(_interval.interval_start),
    )


def networks(connection: Connection, since: int, until: int) -> list[tuple[int, str]]:
    """The networks by name that stood in ``[since, until)``, each with the first interval it was for. Before
    the first change there is the market's own.
    """
    changed, own = schema.grid_change.c, schema.run.c
    before = select(func.max(changed.first_start)).where(changed.first_start <= since).scalar_subquery()
    rows = connection.execute(
        select(changed.first_start, changed.feeder_name)
        .where(changed.first_start < until, changed.first_start >= func.coalesce(before, since))
        .order_by(changed.first_start)
    ).all()
    found = [(row[0], row[1]) for row in rows]
    if not found or found[0][0] > since:
        name: str = connection.execute(select(own.value).where(own.key == "feeder_name")).scalar_one()
        found.insert(0, (since, name))
    return found


# Settlement


def account_of(meter: ColumnElement[str]) -> ColumnElement[str]:
    """A household's account, as :func:`market.accounts.ledger.household` names it."""
    return "household:" + meter


# What operators asked, and households contest


def suspensions(connection: Connection, since: int, until: int) -> Rows:
    """Where operators suspended trading, as far as it touches ``[since, until)``."""
    ends = _suspension.until_start
    return rows_of(
        connection,
        select(_suspension.first_start, ends, _suspension.reason)
        .where(_suspension.first_start < until, or_(ends.is_(None), ends > since))
        .order_by(_suspension.first_start),
    )


def instructions(connection: Connection, rows_max: int) -> Rows:
    """What operators asked of the market, the newest first; ``refusal`` is None until it was looked at."""
    body = document(_instruction.body)
    return rows_of(
        connection,
        select(
            _instruction.id,
            _instruction.given_at,
            _instruction.actor,
            _instruction.kind,
            _instruction.reason,
            _instruction.done_at,
            _instruction.refusal,
            whole_of(body, "first_start").label("first_start"),
            whole_of(body, "dispute").label("dispute"),
        )
        .order_by(_instruction.id.desc())
        .limit(rows_max),
    )


def instructions_seen(connection: Connection) -> tuple[int, int]:
    """How many there are, and how many of them the market has answered."""
    row = connection.execute(
        select(func.count(), func.count(_instruction.done_at)).select_from(schema.instruction)
    ).one()
    return row[0], row[1]


def is_going_on(connection: Connection) -> bool:
    """Whether some interval still waits for something that the market does."""
    waiting = ("OPEN", "CLOSED", "CLEARED", "SUSPENDED", "METERED", "SETTLED")
    return bool(connection.execute(select(exists().where(_interval.state.in_(waiting)))).scalar())


def disputes(connection: Connection, meter: str | None = None, start: int | None = None) -> Rows:
    """Contested intervals, open ones first; of one meter or one interval where that is given."""
    query = select(schema.dispute, _meter.connection_point).join_from(schema.dispute, schema.meter)
    if meter is not None:
        query = query.where(_dispute.meter == meter)
    if start is not None:
        query = query.where(_dispute.interval_start == start)
    closed = case((_dispute.closed_at.is_(None), 0), else_=1)
    return rows_of(connection, query.order_by(closed, _dispute.id.desc()).limit(_ROWS_MAX))


def evidence(connection: Connection, rows_max: int) -> Rows:
    kept = schema.evidence.c
    return rows_of(
        connection,
        select(kept.id, kept.received_at, kept.meter, kept.topic, kept.reason)
        .order_by(kept.id.desc())
        .limit(rows_max),
    )


def decoded(text: str | None) -> dict[str, Any]:
    """A JSON document of the database; empty where there is none."""
    return json.loads(text) if text else {}
