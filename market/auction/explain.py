"""Why an order got what it got, in words: from the book, its clearing record and the feeder alone.

An order's limit stands against the price at its bus.  That price has parts: energy at the connection to the
grid above, losses on the way, and for each limit that binds, how much one more kWh fed in at this bus would
use of it (the limit's slope there times its shadow price).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from grid.errors import InputError
from grid.feeder import Feeder
from market.auction.book import UEUR_PER_EUR, Book, BookOrder
from market.auction.record import BindingLimit, ClearingRecord, MinimumFills, NodePrice
from market.auction.rows import LimitKey, tangents
from market.auction.schedule import Schedule, schedule_of

SMALL_UEUR = 1
"""Parts of a price up to this are rounding."""
FIRM = "firm:"
MENTIONED_UEUR = 100
"""A limit is named from this effect on the price on: 0.01 ct/kWh."""


def explain(book: Book, record: ClearingRecord, feeder: Feeder, order_id: str) -> tuple[str, ...]:
    """Sentences about an order, or about firm energy named ``firm:<connection point>``.

    Raises :class:`InputError` where the book has no such order.
    """
    if order_id.startswith(FIRM):
        return tuple(_about_firm(book, record, feeder, order_id.removeprefix(FIRM)))
    order = next((order for order in book.orders if order.id == order_id), None)
    if order is None:
        raise InputError.single("book", "orders", order_id, "is the id of no order in it")
    return tuple(_about_order(book, record, feeder, order))


def _about_order(book: Book, record: ClearingRecord, feeder: Feeder, order: BookOrder) -> Iterator[str]:
    bid = order.side == "bid"
    wants = "buys up to" if bid else "sells up to"
    bound = "at most" if bid else "at least"
    yield (
        f"{order.id} {wants} {_wh(order.energy_wh)} at {order.connection_point} "
        f"for {bound} {_ct(order.limit_price)}."
    )
    if record.status == "suspended":
        yield from _suspended(record, order)
        return
    row = _price_row(record, feeder, order.connection_point)
    reactive = round(order.tan_phi * row.price_q)
    fee = book.tariff.local_fee if bid else 0
    at = row.price + reactive + fee
    fill = next((fill for fill in record.fills if fill.order_id == order.id), None)
    got_wh = fill.energy_wh if fill else 0
    yield _result(order, got_wh, fill.price if fill else None)
    yield _comparison(order, row, reactive, fee)
    yield from _reason(book, record, order, at, got_wh)
    if order.min_fill_percent and record.minimum_fills:
        yield choice_words(record.minimum_fills)
    if fill and fill.price != at:
        beyond = (
            "pays its own limit, as nobody pays more" if bid else "earns its own limit, as nobody gets less"
        )
        yield f"Rounding and averages set aside, it {beyond}."
    yield from _parts(book, record, row)
    yield from _limits(schedule_of(book, record, feeder), record, feeder, order.connection_point)
    if fill:
        yield _partners(record, order.id, bid)


def _suspended(record: ClearingRecord, order: BookOrder) -> Iterator[str]:
    yield f"The interval was suspended: {record.reason}."
    yield "So there are no trades, and energy is settled with the retailer at its tariffs."
    setpoint = next((item for item in record.setpoints if item.order_id == order.id), None)
    if setpoint:
        verb = "draw" if order.side == "bid" else "feed in"
        yield f"To relieve the feeder it is asked to {verb} {_wh(setpoint.energy_wh)}."
    elif record.setpoints:
        verb = "drawing" if order.side == "bid" else "feeding in"
        yield f"Its {verb} anything would not relieve the feeder, so it is asked for nothing."


def _result(order: BookOrder, got_wh: int, price: int | None) -> str:
    verb = "bought" if order.side == "bid" else "sold"
    if price is None:
        return f"Nothing was {verb}."
    share = "All of it was" if got_wh == order.energy_wh else f"{_wh(got_wh)} of {_wh(order.energy_wh)} were"
    return f"{share} {verb}, for {_ct(price)}."


def _comparison(order: BookOrder, row: NodePrice, reactive: int, fee: int) -> str:
    sentence = f"The price at its bus is {_ct(row.price)}"
    if abs(reactive) >= MENTIONED_UEUR:
        sentence += f", its reactive power (tan φ {order.tan_phi:g}) counts for {_signed(reactive)}"
    if fee:
        sentence += f", the local network fee adds {_ct(fee)}"
    return sentence + (
        f": {_ct(row.price + reactive + fee)} in all." if abs(reactive) >= MENTIONED_UEUR or fee else "."
    )


def _reason(book: Book, record: ClearingRecord, order: BookOrder, at: int, got_wh: int) -> Iterator[str]:
    """How the limit stands to the price, and what that means."""
    gain = (order.limit_price - at) * (1 if order.side == "bid" else -1)
    side = "above" if order.limit_price > at else "below"
    minimum = order.min_fill_percent
    share = "whole" if minimum == 100 else f"to {minimum} % at least"
    if order.id in record.paradoxically_rejected:
        yield (
            f"Its limit is {_ct(abs(gain))} {side} that, so the price alone would have taken it. But it is "
            f"to be filled {share} or not at all, and taking so much would have moved the "
            "price against it or broken a limit."
        )
    elif got_wh == order.energy_wh:
        if gain > SMALL_UEUR:
            yield f"Its limit is {_ct(gain)} {side} that, so it is taken in full."
        else:
            yield "Its limit is just what the price is, and there was room for all of it."
    elif gain < -SMALL_UEUR and got_wh == 0:
        yield f"Its limit is {_ct(-gain)} {side} that, so it is left out."
    else:
        yield "Its limit is just what the price is: it is the marginal order here and sets the price."
        yield from _tie(book, record, order)


def choice_words(known: MinimumFills) -> str:
    """How good the choice of orders with a minimum fill is known to be."""
    if known.proven:
        return "No other choice of orders with a minimum fill would have been worth more without a loser."
    ended = "The search for the best choice of orders with a minimum fill ended before it had looked at all"
    if known.missed_eur is None:
        return f"{ended}."
    return f"{ended}: another one might be worth {known.missed_eur:.4f} EUR more, but not more than that."


def _tie(book: Book, record: ClearingRecord, order: BookOrder) -> Iterator[str]:
    """Orders that the market must treat alike, and what they share."""
    alike = [
        other
        for other in book.orders
        if (other.connection_point, other.side, other.limit_price, other.tan_phi)
        == (order.connection_point, order.side, order.limit_price, order.tan_phi)
        and not other.min_fill_percent
    ]
    if len(alike) < 2 or order.min_fill_percent:
        return
    filled = {fill.order_id: fill.energy_wh for fill in record.fills}
    offered_wh = sum(other.energy_wh for other in alike)
    shared_wh = sum(filled.get(other.id, 0) for other in alike)
    share = 100 * order.energy_wh / offered_wh
    others = "1 other order" if len(alike) == 2 else f"{len(alike) - 1} other orders"
    yield (
        f"It shares {_wh(shared_wh)} with {others} alike, pro rata: it offers "
        f"{share:.1f} % of their {_wh(offered_wh)}. What does not divide into whole Wh goes by largest "
        "remainder."
    )


def _parts(book: Book, record: ClearingRecord, row: NodePrice) -> Iterator[str]:
    """The price's parts, and where the energy price comes from."""
    tariff = book.tariff
    if abs(row.energy - (tariff.import_price - tariff.local_fee)) <= SMALL_UEUR:
        source = "the retailer's import tariff" + (", less the local fee" if tariff.local_fee else "")
    elif abs(row.energy - tariff.export_price) <= SMALL_UEUR:
        source = "the retailer's export tariff"
    else:
        source = "set by orders of the feeder, between the retailer's two tariffs"
    named = (
        (row.losses, "losses"),
        (row.congestion, "line and transformer limits"),
        (row.voltage, "voltage"),
    )
    rest = [f"{_signed(part)} for {words}" for part, words in named if abs(part) >= MENTIONED_UEUR]
    yield (
        f"That price is {_ct(row.energy)} for energy ({source})" + "".join(f", {part}" for part in rest) + "."
    )


def _limits(
    schedule: Schedule, record: ClearingRecord, feeder: Feeder, connection_point: str
) -> Iterator[str]:
    """What each limit that binds does to the price at this point; the largest first."""
    if not record.binding:
        yield "No limit of the feeder binds."
        return
    node = feeder.node_of(connection_point)
    assert node is not None
    keys = [_key_of(feeder, limit) for limit in record.binding]
    rows = {row.key: row for row in tangents(schedule.columns, schedule.point, schedule.check, keys)}
    effects = []
    for key, limit in zip(keys, record.binding, strict=True):
        slope_per_kw = float(rows[key].by_p[node])
        effects.append((-_dual(feeder, key, limit) * slope_per_kw * UEUR_PER_EUR, slope_per_kw, limit))
    effects.sort(key=lambda effect: (-abs(effect[0]), effect[2].element))
    named = [effect for effect in effects if abs(effect[0]) >= MENTIONED_UEUR]
    for effect_ueur, slope_per_kw, limit in named:
        yield _limit_words(limit, slope_per_kw, effect_ueur)
    if rest := len(effects) - len(named):
        one = "limit binds" if rest == 1 else "limits bind"
        yield f"{rest} {'more ' if named else ''}{one} elsewhere, at less than 0.01 ct/kWh each for this bus."


def _limit_words(limit: BindingLimit, slope_per_kw: float, effect_ueur: float) -> str:
    moves = "raises" if effect_ueur > 0 else "lowers"
    if limit.kind == "current":
        name = f"{limit.element} ({limit.side})"
        state = f"{name} is at its limit of {limit.loading_percent:.1f} %"
        loads = "more" if slope_per_kw > 0 else "less"
        how = f"each kW fed in here loads it {abs(slope_per_kw) * 100:.3f} percentage points {loads}"
    else:
        which = "highest" if limit.kind == "v_max" else "lowest"
        state = f"{limit.element} is at the {which} voltage allowed, {limit.v_pu:.4f} pu"
        volts = slope_per_kw if limit.kind == "v_max" else -slope_per_kw
        how = f"each kW fed in here {'raises' if volts > 0 else 'lowers'} it by {abs(volts):.6f} pu"
    return f"{state}; {how}, which {moves} the price here by {_ct(abs(effect_ueur))}."


def _key_of(feeder: Feeder, limit: BindingLimit) -> LimitKey:
    if limit.kind == "current":
        found = np.flatnonzero((feeder.branch == limit.element) & (feeder.side == limit.side))
    else:
        found = np.flatnonzero(feeder.v_bus == int(limit.element.removeprefix("bus:")))
    return LimitKey(limit.kind, int(found[0]))


def _dual(feeder: Feeder, key: LimitKey, limit: BindingLimit) -> float:
    """The shadow price in EUR/h per pu of the limit."""
    if key.kind == "current":
        return limit.shadow_price_eur_per_mwh * float(feeder.rating_va[key.index]) / 1e6
    return limit.shadow_price_eur_per_mwh / 0.01


def _partners(record: ClearingRecord, party: str, bid: bool) -> str:
    """From whom the energy came, or to whom it went."""
    energy_wh: dict[str, int] = {}
    for trade in record.trades:
        if (trade.buy if bid else trade.sell) == party:
            other = trade.sell if bid else trade.buy
            energy_wh[other] = energy_wh.get(other, 0) + trade.energy_wh
    told = [f"{_wh(energy)} {'from' if bid else 'to'} {_party(name)}" for name, energy in energy_wh.items()]
    return f"In the trades that is {_listed(told)}."


def _party(name: str) -> str:
    if name == "network":
        return "the network (losses)"
    if name == "retailer":
        return "the retailer"
    return f"firm energy at {name.removeprefix(FIRM)}" if name.startswith(FIRM) else name


def _about_firm(book: Book, record: ClearingRecord, feeder: Feeder, point: str) -> Iterator[str]:
    p_w = _firm_at(book, feeder, point)
    energy_wh = round(abs(p_w) * book.interval.hours)
    draws = p_w <= 0
    yield (
        f"{_wh(energy_wh)} at {point} {'are drawn' if draws else 'are fed in'} as firm energy: "
        "they flow whatever the price."
    )
    if record.status == "suspended":
        yield f"The interval was suspended: {record.reason}."
        yield "So there are no trades, and energy is settled with the retailer at its tariffs."
        return
    row, tariff = _price_row(record, feeder, point), book.tariff
    yield f"The price at its bus is {_ct(row.price)}."
    if draws:
        due = row.price + tariff.local_fee
        with_fee = f" with the local fee of {_ct(tariff.local_fee)}" if tariff.local_fee else ""
        if due > tariff.import_price:
            yield (
                f"{_ct(due)}{with_fee} would be more than the import tariff; firm energy pays at most that: "
                f"{_ct(tariff.import_price)}. The network's account bears the difference."
            )
        else:
            yield f"It pays {_ct(due)}{with_fee}, not more than the import tariff."
    elif row.price < tariff.export_price:
        yield (
            f"Firm energy earns at least the export tariff: {_ct(tariff.export_price)}. "
            "The network's account bears the difference."
        )
    else:
        yield f"It earns {_ct(row.price)}, not less than the export tariff."
    yield from _parts(book, record, row)
    yield from _limits(schedule_of(book, record, feeder), record, feeder, point)


def _firm_at(book: Book, feeder: Feeder, point: str) -> float:
    """Firm injection at a connection point, W."""
    if book.firm is None:
        found = feeder.element_p_w[feeder.element == point].tolist()
    else:
        found = [firm.p_w for firm in book.firm if firm.connection_point == point]
    if not found:
        raise InputError.single("book", "firm", point, "has no firm energy")
    return float(sum(found))


def _price_row(record: ClearingRecord, feeder: Feeder, connection_point: str) -> NodePrice:
    node = feeder.node_of(connection_point)
    bus = int(feeder.bus_index[int(np.flatnonzero(feeder.bus_node == node)[0])])
    return next(row for row in record.prices if row.bus == bus)


def _wh(energy_wh: int) -> str:
    return f"{energy_wh:,} Wh".replace(",", "\u202f")


def _ct(price_ueur_per_kwh: float) -> str:
    return f"{price_ueur_per_kwh / 10_000:.2f} ct/kWh"


def _signed(price_ueur_per_kwh: float) -> str:
    sign = "−" if price_ueur_per_kwh < 0 else "+"
    return f"{sign}{abs(price_ueur_per_kwh) / 10_000:.2f} ct/kWh"


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + f" and {words[-1]}"
