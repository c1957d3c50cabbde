"""Intervals: what was ordered, cleared and awarded in them, at which prices."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Select, select

from market.service.store import schema
from market.service.store.dialects import document, in_bytes, items_of, number_of, text_of, whole_of
from market.service.store.tables.table import METER, START, Table, number, text, whole

_TARIFF = ("import_price", "export_price", "local_fee", "import_fees", "floor", "cap")
_PRICES = {"import": "import_price", "export": "export_price", "local": "local_fee"}
_PARTS = ("energy", "network", "levies", "vat")
_interval = schema.interval.c
_clearing = schema.clearing.c
_transition = schema.transition.c
_order = schema.order.c
_award = schema.award.c
_record = document(_clearing.record)
_delivered = document(_clearing.delivered)
_tariff = document(_interval.tariff)


def _in_record(member: str, *fields: tuple[str, Any]) -> Select[Any]:
    """Rows of a list inside the clearing record: the members of its items, each with how it is read."""
    item = items_of(_clearing.record, member)
    read = [how(item.c.value, name) for name, how in fields]
    return select(_clearing.interval_start, *read).order_by(_clearing.interval_start, item.c.id)


TABLES = (
    Table(
        "intervals",
        "Intervals with their state and what they came to.",
        (
            START,
            whole("minutes", "length, minutes"),
            whole("opens_at", "gate opening, Unix seconds"),
            whole("closes_at", "gate closure, Unix seconds"),
            text("state", "OPEN, CLOSED, CLEARED, SUSPENDED, METERED, SETTLED, FINAL or DISPUTED"),
            whole("incomplete", "meters without readings yet"),
            whole("revision", "adjustments so far"),
            number("welfare_eur", "welfare of the clearing, EUR", True),
            whole("import_wh", "bought from the retailer, Wh", True),
            whole("export_wh", "sold to the retailer, Wh", True),
            whole("losses_wh", "losses, Wh", True),
            whole("violations", "limits that the schedule breaks", True),
            whole("metered_violations", "limits that the metered energy broke", True),
            text("root", "hash of the record, hex", True),
        ),
        select(
            _interval.interval_start,
            _interval.minutes,
            _interval.opens_at,
            _interval.closes_at,
            _interval.state,
            _interval.incomplete,
            _interval.revision,
            number_of(_record, "welfare_eur"),
            whole_of(_record, "import_wh"),
            whole_of(_record, "export_wh"),
            whole_of(_record, "losses_wh"),
            whole_of(_record, "ac", "violations"),
            whole_of(_delivered, "violations"),
            _clearing.root,
        )
        .join_from(schema.interval, schema.clearing, isouter=True)
        .order_by(_interval.interval_start),
        _interval.interval_start,
    ),
    Table(
        "transitions",
        "Every change of state of every interval.",
        (
            START,
            whole("number", "0 for the first"),
            text("state", "the new state"),
            whole("at", "on the market's clock, Unix seconds"),
            text("reason", "why, where there is something to say"),
        ),
        select(
            _transition.interval_start,
            _transition.number,
            _transition.state,
            _transition.at,
            _transition.reason,
        ).order_by(_transition.interval_start, _transition.number),
        _transition.interval_start,
    ),
    Table(
        "fills",
        "What orders got.",
        (
            START,
            text("order_id", "the meter and the step's index"),
            whole("energy_wh", "Wh"),
            whole("price", "paid or earned, fees included, µEUR/kWh"),
        ),
        _in_record("fills", ("order_id", text_of), ("energy_wh", whole_of), ("price", whole_of)),
        _clearing.interval_start,
    ),
    Table(
        "trades",
        "Energy from sellers to buyers.",
        (
            START,
            text("buy", "buyer: order, firm:<connection point>, retailer or network"),
            text("sell", "seller, named likewise"),
            whole("energy_wh", "Wh"),
            whole("buy_price", "µEUR/kWh"),
            whole("sell_price", "µEUR/kWh"),
        ),
        _in_record(
            "trades",
            ("buy", text_of),
            ("sell", text_of),
            ("energy_wh", whole_of),
            ("buy_price", whole_of),
            ("sell_price", whole_of),
        ),
        _clearing.interval_start,
    ),
    Table(
        "prices",
        "The price of every bus (DLMP) and its parts, which add up to it.",
        (
            START,
            whole("bus", "index of the bus"),
            whole("price", "µEUR/kWh"),
            whole("energy", "µEUR/kWh"),
            whole("losses", "µEUR/kWh"),
            whole("congestion", "µEUR/kWh"),
            whole("voltage", "µEUR/kWh"),
            whole("price_q", "of reactive energy, µEUR/kvarh"),
        ),
        _in_record(
            "prices",
            *(
                (name, whole_of)
                for name in ("bus", "price", "energy", "losses", "congestion", "voltage", "price_q")
            ),
        ),
        _clearing.interval_start,
    ),
    Table(
        "binding",
        "Limits that bound, with their shadow prices.",
        (
            START,
            text("element", "line, transformer or bus"),
            text("side", "end of a branch", True),
            text("kind", "current, v_min or v_max"),
            number("loading_percent", "of a current", True),
            number("v_pu", "of a voltage", True),
            number("shadow_price", "EUR/MWh of rated power; EUR/h per 0.01 pu of voltage"),
        ),
        _in_record(
            "binding",
            ("element", text_of),
            ("side", text_of),
            ("kind", text_of),
            ("loading_percent", number_of),
            ("v_pu", number_of),
            ("shadow_price_eur_per_mwh", number_of),
        ),
        _clearing.interval_start,
    ),
    Table(
        "orders",
        "Accepted versions of orders, as signed.",
        (
            START,
            METER,
            whole("version", "the highest one counts"),
            whole("received_at", "on the market's clock, Unix seconds"),
            text("body", "the signed message, JSON"),
        ),
        select(_order.interval_start, _order.meter, _order.version, _order.received_at, _order.body).order_by(
            _order.interval_start, in_bytes(_order.meter), _order.version
        ),
        _order.interval_start,
    ),
    Table(
        "awards",
        "What each meter was awarded.",
        (
            START,
            METER,
            whole("net_wh", "into the grid, Wh"),
            whole("amount_neur", "earned, nEUR"),
            text("body", "the signed message, JSON"),
        ),
        select(_award.interval_start, _award.meter, _award.net_wh, _award.amount_neur, _award.body).order_by(
            _award.interval_start, in_bytes(_award.meter)
        ),
        _award.interval_start,
    ),
    Table(
        "tariffs",
        "The prices of every interval, and what they are made of where the tariff says.",
        (
            START,
            whole("import_price", "what the retailer charges, all in, µEUR/kWh"),
            whole("export_price", "what the retailer pays, µEUR/kWh"),
            whole("local_fee", "for the network, on energy from inside the feeder, µEUR/kWh"),
            whole("import_fees", "network charges and levies inside import_price, µEUR/kWh"),
            whole("floor", "no limit price may be below, µEUR/kWh"),
            whole("cap", "no limit price may be above, µEUR/kWh"),
            *(
                whole(f"{price}_{part}", f"{part} in {name}, µEUR/kWh", True)
                for price, name in _PRICES.items()
                for part in _PARTS
            ),
        ),
        select(
            _interval.interval_start,
            *(whole_of(_tariff, name) for name in _TARIFF),
            *(whole_of(_tariff, f"{price}_parts", part) for price in _PRICES for part in _PARTS),
        ).order_by(_interval.interval_start),
        _interval.interval_start,
    ),
)
