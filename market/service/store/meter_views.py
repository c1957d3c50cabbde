"""What the console asks about meters and households: heard, metered, awarded, posted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, case, func, or_, select

from market.accounts.ledger import RETAILER, Kind, household
from market.service.store import schema
from market.service.store.dialects import count_if, in_bytes, positive, total
from market.service.store.views import Rows, account_of, between, first, rows_of

_interval, _posting, _metered, _award = (
    schema.interval.c,
    schema.posting.c,
    schema.metered.c,
    schema.award.c,
)
_meter, _presence, _reading = schema.meter.c, schema.meter_presence.c, schema.reading.c
_dispute, _account, _balance = schema.dispute.c, schema.account.c, schema.balance.c


def _newest_revisions(since: int, until: int) -> Any:
    """The revision that counts of every metered interval."""
    start = _metered.interval_start
    return (
        select(start, func.max(_metered.revision).label("revision"))
        .where(between(start, since, until))
        .group_by(start)
        .cte("newest")
    )


def _of(newest: Any) -> ColumnElement[bool]:
    return and_(_metered.interval_start == newest.c.interval_start, _metered.revision == newest.c.revision)


def meters_over(connection: Connection, since: int, until: int) -> Rows:
    """Every meter with what was heard of it in a period: readings, flags, deviation of metered from award."""
    newest = _newest_revisions(since, until)
    awarded = and_(_award.interval_start == _metered.interval_start, _award.meter == _metered.meter)
    off_wh = func.abs(_metered.export_wh - _metered.import_wh - _award.net_wh)
    energy = (
        select(
            _metered.meter,
            func.count().label("intervals"),
            count_if(_metered.flag == "missing").label("missing"),
            count_if(_metered.flag.in_(("estimated", "interpolated"))).label("estimated"),
            total(_metered.import_wh).label("import_wh"),
            total(_metered.export_wh).label("export_wh"),
            total(off_wh).label("deviation_wh"),
            total(func.abs(_award.net_wh)).label("awarded_wh"),
        )
        .select_from(newest.join(schema.metered, _of(newest)).outerjoin(schema.award, awarded))
        .group_by(_metered.meter)
        .cte("energy")
    )
    by_epoch = (
        select(
            _reading.meter,
            _reading.epoch,
            func.count().label("readings"),
            func.max(_reading.taken_at).label("last_taken_at"),
            func.max(_reading.received_at).label("last_seen_at"),
            count_if(_reading.quality > 0).label("flagged"),
            (func.max(_reading.seq) - func.min(_reading.seq) + 1 - func.count()).label("gaps"),
        )
        .where(between(_reading.taken_at, since, until))
        .group_by(_reading.meter, _reading.epoch)
        .cte("by_epoch")
    )
    each = by_epoch.c
    heard = (
        select(
            each.meter,
            total(each.readings).label("readings"),
            func.max(each.last_taken_at).label("last_taken_at"),
            func.max(each.last_seen_at).label("last_seen_at"),
            func.max(each.epoch).label("epoch"),
            total(each.flagged).label("flagged"),
            total(each.gaps).label("gaps"),
        )
        .group_by(each.meter)
        .cte("heard")
    )
    refused = schema.reading_refused.c
    gap = select(refused.meter, func.count().label("refused")).group_by(refused.meter).cte("gap")
    raised = schema.alarm.c
    bad = (
        select(raised.subject.label("meter"), total(raised["count"]).label("alarms"))
        .group_by(raised.subject)
        .cte("bad")
    )
    whole = schema.meter
    for part in (energy, heard, gap, bad, schema.meter_presence):
        whole = whole.outerjoin(part, part.c.meter == _meter.meter)  # type: ignore[assignment]
    return rows_of(
        connection,
        select(
            _meter.meter,
            _meter.connection_point,
            _meter.bus,
            _meter.fuse_w,
            *(column for column in energy.c if column.name != "meter"),
            *(column for column in heard.c if column.name != "meter"),
            _presence.online,
            _presence.since.label("online_since"),
            _presence.software,
            func.coalesce(_presence.forged, 0).label("forged"),
            _presence.forged_at,
            func.coalesce(gap.c.refused, 0).label("refused"),
            func.coalesce(bad.c.alarms, 0).label("alarms"),
        )
        .select_from(whole)
        .order_by(in_bytes(_meter.connection_point), in_bytes(_meter.meter)),
    )


def meter(connection: Connection, address: str) -> Mapping[str, Any] | None:
    return first(connection, select(schema.meter).where(_meter.meter == address))


def presence(connection: Connection, address: str) -> Mapping[str, Any] | None:
    """What a meter last said of itself; None before that."""
    return first(connection, select(schema.meter_presence).where(_presence.meter == address))


def meter_day(connection: Connection, address: str, since: int, until: int) -> Rows:
    """One meter interval by interval: award, metered energy and what they came to."""
    newest = _newest_revisions(since, until)
    start = _interval.interval_start
    posted = (
        select(total(_posting.amount_neur))
        .where(_posting.interval_start == start, _posting.account == household(address))
        .scalar_subquery()
    )
    return rows_of(
        connection,
        select(
            start,
            _interval.state,
            _interval.revision,
            _award.net_wh,
            _award.amount_neur,
            _metered.import_wh,
            _metered.export_wh,
            _metered.flag,
            posted.label("posted_neur"),
        )
        .select_from(
            schema.interval.outerjoin(
                schema.award, and_(_award.interval_start == start, _award.meter == address)
            )
            .outerjoin(newest, newest.c.interval_start == start)
            .outerjoin(schema.metered, and_(_of(newest), _metered.meter == address))
        )
        .where(between(start, since, until))
        .order_by(start),
    )


@dataclass(frozen=True, slots=True)
class Drawn:
    """A meter's interval beside what all households drew in it, Wh; ``flag`` is None before it was metered,
    both energies None where no reading tells.
    """

    interval_start: int
    import_wh: int | None
    export_wh: int | None
    flag: str | None
    all_drawn_wh: int


def drawn(connection: Connection, address: str, since: int, until: int) -> list[Drawn]:
    """A meter's metered intervals of a period, in one walk over all meters' ones."""
    own, start = _metered.meter == address, _metered.interval_start
    rows = connection.execute(
        select(
            start,
            func.max(case((own, _metered.import_wh))),
            func.max(case((own, _metered.export_wh))),
            func.max(case((own, _metered.flag))),
            func.coalesce(total(positive(_metered.import_wh - _metered.export_wh)), 0),
        )
        .where(between(start, since, until))
        .group_by(start, _metered.revision)
        .order_by(start, _metered.revision)
    )
    return list({row[0]: Drawn(*row) for row in rows}.values())


def tariff_texts(connection: Connection, since: int, until: int) -> dict[int, str]:
    """The tariff (JSON) of every interval of a period."""
    start = _interval.interval_start
    rows = connection.execute(select(start, _interval.tariff).where(between(start, since, until)))
    return {row[0]: row[1] for row in rows}


@dataclass(frozen=True, slots=True)
class Posted:
    """What was posted for an interval to an account under one kind, adjustments included."""

    interval_start: int
    account: str
    kind: str
    amount_neur: int
    energy_wh: int


def posted(connection: Connection, account: str, since: int, until: int) -> list[Posted]:
    """An account's postings of a period, and the retailer's supply beside them: what came from outside."""
    start = _posting.interval_start
    rows = connection.execute(
        select(start, _posting.account, _posting.kind, total(_posting.amount_neur), total(_posting.energy_wh))
        .where(
            between(start, since, until),
            or_(
                _posting.account == account,
                and_(_posting.account == RETAILER, _posting.kind == Kind.SUPPLY.value),
            ),
        )
        .group_by(start, _posting.account, _posting.kind)
    )
    return [Posted(*row) for row in rows]


def balance_of(connection: Connection, account: str) -> tuple[int, int, int]:
    """An account's deposit (µEUR), its ledger without that (nEUR), and what went to the chain (µEUR)."""
    row = connection.execute(
        select(
            _account.deposit_ueur,
            func.coalesce(_balance.ledger_neur, 0),
            func.coalesce(_balance.settled_ueur, 0),
        )
        .join_from(schema.account, schema.balance, isouter=True)
        .where(_account.account == account)
    ).one()
    return row[0], row[1], row[2]


def readings_of(connection: Connection, address: str, since: int, until: int) -> Rows:
    return rows_of(
        connection,
        select(
            _reading.epoch,
            _reading.seq,
            _reading.taken_at,
            _reading.import_wh,
            _reading.export_wh,
            _reading.power_w,
            _reading.quality,
            _reading.received_at,
        )
        .where(_reading.meter == address, between(_reading.taken_at, since, until))
        .order_by(_reading.epoch, _reading.seq),
    )


def households(connection: Connection, since: int, until: int) -> Rows:
    """Every household with what was posted for a period, its balance and what its meter says that it is."""
    earned = (
        select(_posting.account, total(_posting.amount_neur).label("total_neur"))
        .where(between(_posting.interval_start, since, until))
        .group_by(_posting.account)
        .cte("earned")
    )
    contested = (
        select(_dispute.meter, func.count().label("disputes"))
        .where(_dispute.closed_at.is_(None))
        .group_by(_dispute.meter)
        .cte("contested")
    )
    return rows_of(
        connection,
        select(
            _meter.meter,
            _meter.owner,
            _meter.connection_point,
            _presence.software,
            func.coalesce(earned.c.total_neur, 0).label("total_neur"),
            (1000 * _account.deposit_ueur + func.coalesce(_balance.ledger_neur, 0)).label("balance_neur"),
            func.coalesce(contested.c.disputes, 0).label("disputes"),
        )
        .select_from(
            schema.meter.join(schema.account, _account.account == account_of(_meter.meter))
            .outerjoin(schema.balance, _balance.account == _account.account)
            .outerjoin(earned, earned.c.account == _account.account)
            .outerjoin(contested, contested.c.meter == _meter.meter)
            .outerjoin(schema.meter_presence, _presence.meter == _meter.meter)
        )
        .order_by(in_bytes(_meter.connection_point), in_bytes(_meter.meter)),
    )


def metered_between(connection: Connection, since: int, until: int) -> list[tuple[int, str, int, int]]:
    """Interval, meter, import and export in Wh, where the registers tell."""
    newest = _newest_revisions(since, until)
    rows = connection.execute(
        select(_metered.interval_start, _metered.meter, _metered.import_wh, _metered.export_wh)
        .select_from(newest.join(schema.metered, _of(newest)))
        .where(_metered.import_wh.is_not(None))
    )
    return [(row[0], row[1], row[2], row[3]) for row in rows]


def awards_of_interval(connection: Connection, start: int) -> Rows:
    newest = _newest_revisions(start, start + 1)
    return rows_of(
        connection,
        select(
            _award.meter,
            _meter.connection_point,
            _meter.bus,
            _award.net_wh,
            _award.amount_neur,
            _metered.import_wh,
            _metered.export_wh,
            _metered.flag,
        )
        .select_from(
            schema.award.join(schema.meter, _meter.meter == _award.meter)
            .outerjoin(newest, newest.c.interval_start == _award.interval_start)
            .outerjoin(schema.metered, and_(_of(newest), _metered.meter == _award.meter))
        )
        .where(_award.interval_start == start)
        .order_by(in_bytes(_meter.connection_point), in_bytes(_meter.meter)),
    )
