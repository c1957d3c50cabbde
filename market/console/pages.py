"""The pages. Every page can be asked for a ``fragment`` of itself: that is how it is brought up to date."""

from __future__ import annotations

import time
from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Query, Request
from fastapi.responses import RedirectResponse, Response

from market.console import actions, alarms, disputes, household, interval_page, network, trading
from market.console.api import MOMENT_MAX, Feeder, Moment, market_of
from market.console.feeder_drawing import drawing, has_places
from market.console.market import DAY_S, Market
from market.console.rendering import page
from market.console.security import Viewer
from market.drawing.durations import duration_figure
from market.drawing.plot import Size
from market.service.store import alarms as raised
from market.service.store import batch_views, meter_views, views
from market.service.store.tables import TABLES

router = APIRouter(include_in_schema=False)
Day = Annotated[int | None, Query(ge=0, le=MOMENT_MAX)]
Address = Annotated[str, Query()]
WIDE, NARROW = Size(1040, 300), Size(340, 250)
ROLE_NAMES = {"retailer": "Retailer", "network": "Network", "imbalance": "Imbalance", "rounding": "Rounding"}
SIMULATED_S = 2 * DAY_S
"""A market whose clock is so far behind the machine's, or ahead of it at all, has a clock of its own."""
AHEAD_S = 120
ADJUSTED_S = 31 * DAY_S
BATCHES_MAX = 200


def frame_of(market: Market, connection: Any, moment: int | None) -> dict[str, Any]:
    """What every page of a market knows: its clock, its days, and how old the data is."""
    now = views.market_now(connection)
    span = views.span(connection)
    day = market.day(connection, moment)
    wall = time.time()
    simulated = now is not None and not now - AHEAD_S < wall < now + SIMULATED_S
    days = list(range(span[0] - span[0] % DAY_S, span[1] + 1, DAY_S)) if span else []
    return {
        "market": market.name,
        "net": market.stored.feeder_name,
        "now": now if simulated else int(wall),
        "simulated": simulated,
        "age_s": max(0, round(wall - market.stored.written_at())),
        "span": span,
        "day": day,
        "newest_day": days[-1] if days else None,
        "day_before": day[0] - DAY_S if day and days and day[0] > days[0] else None,
        "day_after": day[1] if day and days and day[0] < days[-1] else None,
    }


@router.get("/")
def start(request: Request, _: Viewer) -> Response:
    """The only market, or the list of them."""
    markets = request.app.state.markets
    if len(markets) == 1:
        return RedirectResponse(f"/f/{next(iter(markets))}", 307)
    rows = []
    for market in markets.values():
        with market.stored.reading() as connection:
            known = frame_of(market, connection, None)
            lines = market.lines(connection, *known["day"]) if known["day"] else []
            open_alarms = _unseen(request, market, connection, known["day"])
        rows.append({**known, "line": lines[-1] if lines else None, "alarms": open_alarms})
    return page(request, "markets.html", title="Markets", rows=rows)


def _unseen(
    request: Request, market: Market, connection: Any, day: tuple[int, int] | None
) -> list[alarms.Alarm]:
    seen = request.app.state.audit.acknowledged(market.name)
    found = alarms.alarms_of(market, connection, seen, day)
    return [alarm for alarm in found if alarm.seen is None]


@router.get("/f/{feeder}")
def overview(request: Request, feeder: Feeder, _: Viewer, day: Day = None) -> Response:
    market = market_of(request, feeder)
    with market.stored.reading() as connection:
        known = frame_of(market, connection, day)
        lines = market.lines(connection, *known["day"]) if known["day"] else []
        open_alarms = _unseen(request, market, connection, known["day"])
        batches = batch_views.batch_counts(connection)
        stand = trading.trading(connection)
    cleared = [line for line in lines if line.digest]
    priced = [line for line in cleared if line.digest and line.digest.price_low is not None]
    gate = next((line for line in reversed(lines) if line.state == "OPEN"), None)
    chart = {
        "starts": [line.start for line in lines],
        "low": [line.digest.price_low if line.digest else None for line in lines],
        "mean": [line.digest.price_mean if line.digest else None for line in lines],
        "high": [line.digest.price_high if line.digest else None for line in lines],
        "traded": [line.digest.traded_wh if line.digest else None for line in lines],
        "imported": [line.digest.import_wh if line.digest else None for line in lines],
        "exported": [line.digest.export_wh if line.digest else None for line in lines],
        "minutes": lines[0].minutes if lines else 15,
    }
    return page(
        request,
        "overview.html",
        title=market.name,
        section="overview",
        lines=lines,
        newest=priced[-1] if priced else None,
        gate=gate,
        chart=chart,
        traded_wh=sum(line.digest.traded_wh for line in cleared if line.digest),
        suspended=sum(line.digest.status == "suspended" for line in cleared if line.digest),
        bound=sum(line.digest.bound > 0 for line in cleared if line.digest),
        alarms=open_alarms,
        urgent=[alarm for alarm in open_alarms if alarm.severity == "alarm"],
        pending=batches.get("PENDING", 0),
        stand=stand,
        **known,
    )


@router.get("/f/{feeder}/intervals")
def newest_interval(request: Request, feeder: Feeder, _: Viewer) -> Response:
    """The newest interval that is cleared, or the newest at all."""
    market = market_of(request, feeder)
    with market.stored.reading() as connection:
        day = market.day(connection)
        lines = market.lines(connection, *day) if day else []
    if not lines:
        raise HTTPException(404, "no gate has opened yet")
    chosen = next((line for line in reversed(lines) if line.digest), lines[-1])
    return RedirectResponse(f"/f/{market.name}/intervals/{chosen.start}", 307)


@router.get("/f/{feeder}/intervals/{start}")
def interval(request: Request, feeder: Feeder, start: Moment, _: Viewer, verify: bool = False) -> Response:
    market = market_of(request, feeder)
    with market.stored.reading() as connection:
        content = interval_page.content(market, connection, start)
        known = frame_of(market, connection, start)
    report = market.verified(content["clearing"]) if verify and content["clearing"] else None
    return page(
        request, "interval.html", title="Interval", section="interval", report=report, **content, **known
    )


@router.get("/f/{feeder}/network")
def feeder_map(
    request: Request, feeder: Feeder, _: Viewer, day: Day = None, layout: str = "places"
) -> Response:
    market = market_of(request, feeder)
    with market.stored.reading() as connection:
        known = frame_of(market, connection, day)
        shown = network.shown_network(market, connection, day)
        versions = market.versions(connection, *known["day"]) if known["day"] else []
    net = market.feeder(shown.name if shown else None)
    places = layout != "line" and has_places(net)
    return page(
        request,
        "network.html",
        title="Feeder",
        section="network",
        drawing=drawing(net, places),
        has_places=has_places(net),
        places=places,
        shown=shown,
        versions=versions,
        **known,
    )


@router.get("/f/{feeder}/congestion")
def congestion(request: Request, feeder: Feeder, _: Viewer, day: Day = None) -> Response:
    market = market_of(request, feeder)
    with market.stored.reading() as connection:
        known = frame_of(market, connection, day)
        span = known["day"] or (0, 0)
        limits = network.felt_limits(market, connection, *span)
        branches = [limit.element for limit in limits if limit.kind == "current"][:4]
        curves = network.duration_curves(market, connection, span[0], span[1], branches)
        lines = market.lines(connection, *span)
    figure = (duration_figure(WIDE, curves), duration_figure(NARROW, curves)) if curves else None
    return page(
        request,
        "congestion.html",
        title="Congestion",
        section="congestion",
        limits=limits,
        figure=figure,
        curves=curves,
        lines=[line for line in lines if line.digest and line.digest.bound],
        **known,
    )


@router.get("/f/{feeder}/meters")
def meters(request: Request, feeder: Feeder, _: Viewer, day: Day = None) -> Response:
    market = market_of(request, feeder)
    with market.stored.reading() as connection:
        known = frame_of(market, connection, day)
        rows = meter_views.meters_over(connection, *(known["day"] or (0, 0)))
    return page(request, "meters.html", title="Meters", section="meters", rows=rows, **known)


@router.get("/f/{feeder}/meters/{meter}")
def meter(request: Request, feeder: Feeder, meter: str, _: Viewer, day: Day = None) -> Response:
    market = market_of(request, feeder)
    with market.stored.reading() as connection:
        about = _meter(connection, meter)
        known = frame_of(market, connection, day)
        span = known["day"] or (0, 0)
        rows = meter_views.meter_day(connection, meter, *span)
        readings = meter_views.readings_of(connection, meter, *span)
        own = next(row for row in meter_views.meters_over(connection, *span) if row["meter"] == meter)
    return page(
        request,
        "meter.html",
        title=f"Meter at {about['connection_point']}",
        section="meters",
        about=about,
        own=own,
        rows=rows,
        readings=readings,
        figures=household.energy_figures(rows, known["day"]),
        **known,
    )


def _meter(connection: Any, address: str) -> Any:
    about = meter_views.meter(connection, address)
    if about is None:
        raise HTTPException(404, f"there is no meter {address!r}")
    return about


@router.get("/f/{feeder}/households")
def households(request: Request, feeder: Feeder, _: Viewer, day: Day = None) -> Response:
    market = market_of(request, feeder)
    with market.stored.reading() as connection:
        known = frame_of(market, connection, day)
        lines = household.everyone(connection, *(known["day"] or (0, 0)))
        books = batch_views.chain_books(connection)
    debts = {one["address"]: one["debt_ueur"] for one in books["accounts"]} if books else {}
    return page(
        request,
        "households.html",
        title="Households",
        section="households",
        lines=lines,
        kinds=household.by_kind(lines),
        debts=debts,
        saved_neur=sum(line.saved_neur for line in lines),
        better=sum(line.saved_neur > 0 for line in lines),
        **known,
    )


@router.get("/f/{feeder}/households/{meter}")
def household_page(
    request: Request,
    feeder: Feeder,
    meter: str,
    _: Viewer,
    day: Day = None,
    month: bool = False,
    why: Day = None,
) -> Response:
    market = market_of(request, feeder)
    with market.stored.reading() as connection:
        about = _meter(connection, meter)
        known = frame_of(market, connection, day)
        span = known["day"] or (0, 0)
        period = household.month_of(span[0]) if month else span
        statement = household.statement(connection, meter, *period)
        rows = meter_views.meter_day(connection, meter, *span)
        reasons = household.reasons(market, connection, about, why) if why is not None else None
        presence = meter_views.presence(connection, meter)
        contested = views.disputes(connection, meter)
        going_on = views.is_going_on(connection)
        books = batch_views.chain_books(connection)
        low = raised.standing(connection, "balance").get(about["owner"])
    return page(
        request,
        "household.html",
        title=f"Household at {about['connection_point']}",
        section="households",
        about=about,
        statement=statement,
        presence=presence,
        disputes=contested,
        going_on=going_on,
        low=low,
        on_chain=next((one for one in books["accounts"] if one["meter"] == meter), None) if books else None,
        period=period,
        month=month,
        rows=rows,
        why=why,
        reasons=reasons,
        **known,
    )


@router.get("/f/{feeder}/settlement")
def settlement(request: Request, feeder: Feeder, _: Viewer) -> Response:
    market = market_of(request, feeder)
    with market.stored.reading() as connection:
        known = frame_of(market, connection, None)
        batches = batch_views.recent_batches(connection, BATCHES_MAX)
        counts, gas = batch_views.batch_counts(connection), batch_views.gas_total(connection)
        accounts = _named("accounts", connection)
        block = batch_views.newest_block(connection)
        books = batch_views.chain_books(connection)
        adjusted = batch_views.adjustments(connection, (known["span"] or (0, 0))[1] - ADJUSTED_S)
    for row in batches:
        mined = row["block"] is not None and block is not None
        row["confirmations"] = block - row["block"] + 1 if mined else None
    return page(
        request,
        "settlement.html",
        title="Settlement",
        section="settlement",
        batches=batches,
        count=sum(counts.values()),
        waiting=counts.get("PENDING", 0),
        gas=gas,
        own=[{**row, "name": ROLE_NAMES[row["account"]]} for row in accounts if row["account"] in ROLE_NAMES],
        households_neur=sum(row["ledger_neur"] for row in accounts if row["account"] not in ROLE_NAMES),
        households=sum(row["account"] not in ROLE_NAMES for row in accounts),
        ledger_sum_neur=sum(row["ledger_neur"] for row in accounts),
        settled_sum_ueur=sum(row["settled_ueur"] for row in accounts),
        deposits_ueur=sum(row["deposit_ueur"] for row in accounts),
        books=books,
        problems=alarms.chain_problems(books),
        adjusted=adjusted,
        **known,
    )


@router.get("/f/{feeder}/settlement/{sequence}")
def batch(request: Request, feeder: Feeder, sequence: int, _: Viewer) -> Response:
    market = market_of(request, feeder)
    with market.stored.reading() as connection:
        found = batch_views.batch(connection, sequence)
        if found is None:
            raise HTTPException(404, f"there is no batch {sequence}")
        known = frame_of(market, connection, None)
        positions = batch_views.positions(connection, sequence)
        attempts = batch_views.attempts(connection, found["tx_hash"]) if found["tx_hash"] else []
    return page(
        request,
        "batch.html",
        title=f"Batch {sequence}",
        section="settlement",
        batch=found,
        positions=positions,
        attempts=attempts,
        **known,
    )


def _named(table: str, connection: Any) -> list[dict[str, Any]]:
    names = [column.name for column in TABLES[table].columns]
    return [dict(zip(names, row, strict=True)) for row in TABLES[table].rows(connection, 0, 2**62)]


@router.get("/f/{feeder}/alarms")
def alarm_list(request: Request, feeder: Feeder, _: Viewer) -> Response:
    market = market_of(request, feeder)
    audit = request.app.state.audit
    with market.stored.reading() as connection:
        known = frame_of(market, connection, None)
        found = alarms.alarms_of(market, connection, audit.acknowledged(market.name))
        evidence = views.evidence(connection, 200)
        places = alarms.places_of(connection)
        stand = trading.trading(connection)
        asked = views.instructions(connection, 200)
        contested = views.disputes(connection)
        open_ones = disputes.open_ones(connection, contested, asked)
    return page(
        request,
        "alarms.html",
        title="Alarms and audit",
        section="alarms",
        alarms=found,
        log=[
            {**line, "subject": alarms.subject_in_words(line["subject"], places)}
            for line in audit.lines(market.name)
        ],
        places=places,
        evidence=evidence,
        stand=stand,
        asked=[
            {**row, "answer": trading.answer_of(row), "words": actions.WORDS.get(row["kind"], row["kind"])}
            for row in asked
        ],
        disputes=open_ones,
        decided=[row for row in contested if row["closed_at"] is not None],
        **known,
    )


@router.get("/f/{feeder}/data")
def data(request: Request, feeder: Feeder, _: Viewer, day: Day = None) -> Response:
    market = market_of(request, feeder)
    with market.stored.reading() as connection:
        known = frame_of(market, connection, day)
    return page(request, "data.html", title="Data", section="data", tables=TABLES.values(), **known)
