"""Checks of what each order got: format, limits, prices of fills, and sharing among equal orders."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator

from market.auction.record import sha256_of
from market.verify.case import Case, Entry
from market.verify.network import State
from market.verify.report import Check


def _worst(findings: list[str], fine: str) -> str:
    """The first finding and how many more there are, or that all is well."""
    if not findings:
        return fine
    more = f", and {len(findings) - 1} more like it" if len(findings) > 1 else ""
    return f"{findings[0]}{more}."


def _count(name: str, findings: list[str], fine: str) -> Check:
    return Check("format", name, len(findings), 0, "findings", _worst(findings, fine))


def format_checks(case: Case, feeder_sha256: str) -> Iterator[Check]:
    """Ids, whole fills, minimum fills, and that the record is about this book on this feeder."""
    record, book = case.record, case.book
    strange = [f"fill of {f.order_id!r}, which the book does not have" for f in record.fills
               if f.order_id not in case.entry_of]  # fmt: skip
    times = Counter(fill.order_id for fill in record.fills)
    strange += [f"order {order_id!r} is filled {n} times" for order_id, n in times.items() if n > 1]
    strange += [f"fill of {f.order_id!r} has {f.energy_wh} Wh" for f in record.fills if f.energy_wh <= 0]
    yield _count("known orders", strange, "Every fill is of one order of the book, once.")
    over = [f"order {e.order.id!r} got {e.fill_wh} Wh of {e.order.energy_wh} Wh" for e in case.entries
            if e.fill_wh > e.order.energy_wh]  # fmt: skip
    yield _count("fills within orders", over, "No order got more than it offered.")
    short = [
        f"order {e.order.id!r} got {e.fill_wh} Wh, but takes nothing below "
        f"{e.order.min_fill_percent} % of {e.order.energy_wh} Wh"
        for e in case.entries
        if e.fill_wh > 0 and 100 * e.fill_wh < e.order.min_fill_percent * e.order.energy_wh
    ]
    yield _count("minimum fills", short, "No order got less than its minimum fill, unless it got nothing.")
    other = [] if record.interval == book.interval else [
        f"the record is of {record.interval.start}, the book of {book.interval.start}"
    ]  # fmt: skip
    yield _count("interval", other, "Record and book are of the same interval.")
    certificate = record.certificate
    if certificate is None:
        if record.status == "cleared":
            yield _count("certificate", ["the record has no certificate"], "")
        return
    wrong = [] if certificate.book_sha256 == book_sha256(case) else ["the record was made for another book"]
    yield _count("book hash", wrong, "The record was made for this very book.")
    wrong = [] if certificate.feeder_sha256 == feeder_sha256 else ["the record was made for another feeder"]
    yield _count("feeder hash", wrong, "The record was made for this very feeder.")


def book_sha256(case: Case) -> str:
    """sha256 of the book's canonical JSON; the feeder has its own hash."""
    return sha256_of(case.book.model_dump(mode="json", exclude={"feeder"}))


def limits_hash(case: Case, state: State) -> Check:
    certificate = case.record.certificate
    right = certificate is not None and certificate.limits_sha256 == sha256_of(state.limits_document())
    wrong = [] if right else ["the record was made under other limits than the net and the book have"]
    return _count("limits hash", wrong, "The limits are those of the net and the book.")


def limit_prices(case: Case) -> Check:
    """No buyer pays above its limit, no seller gets below its own."""
    worst, says = 0, "No buyer pays above its limit, and no seller gets below its own."
    for fill, entry in case.known_fills():
        beyond = entry.sign * (entry.order.limit_price - fill.price)
        if beyond > worst:
            worst = beyond
            verb = "pays" if entry.sign < 0 else "gets"
            says = f"Order {fill.order_id!r} {verb} {fill.price}, its limit is {entry.order.limit_price}."
    return Check("order limits", "limit prices", worst, 0, "µEUR/kWh", says)


def fill_prices(case: Case) -> Check:
    """A fill has the price of its bus, a bid's with the local fee, and the limit where that is better."""
    fee = case.book.tariff.local_fee
    worst, tolerance = 0, 0
    says = "Every fill has the price of its bus (bids with the local fee), or its limit where that is better."
    for fill, entry in case.known_fills():
        at_bus = case.price_at.get(entry.bus)
        if at_bus is None:
            continue  # told by the check of prices
        at_point = at_bus.price + round(entry.order.tan_phi * at_bus.price_q)
        limit = entry.order.limit_price
        right = min(at_point + fee, limit) if entry.sign < 0 else max(at_point, limit)
        if abs(fill.price - right) > worst:
            worst = abs(fill.price - right)
            says = f"Order {fill.order_id!r} has the price {fill.price}; its bus makes it {right}."
    return Check("prices", "prices of fills", worst, tolerance, "µEUR/kWh", says)


def _tie_key(interval_start: str, order_id: str) -> bytes:
    return hashlib.sha256(f"{interval_start}|{order_id}".encode()).digest()


def fair_shares(offered_wh: dict[str, int], total_wh: int, interval_start: str) -> dict[str, int]:
    """``total_wh`` shared pro rata to what each order offers: largest remainders, then by hash (rule 7)."""
    all_wh = sum(offered_wh.values())
    exact = {order_id: divmod(total_wh * wh, all_wh) for order_id, wh in offered_wh.items()}
    left = total_wh - sum(quotient for quotient, _ in exact.values())
    ranked = sorted(exact, key=lambda order_id: (-exact[order_id][1], _tie_key(interval_start, order_id)))
    return {order_id: exact[order_id][0] + (order_id in ranked[:left]) for order_id in exact}


def tie_groups(case: Case, state: State) -> list[list[Entry]]:
    """Orders that must be treated alike: same node, side, limit price and tan φ.

    An order with a minimum fill is no part of a tie: it cannot be shared to the Wh.
    """
    groups: dict[object, list[Entry]] = {}
    for entry in case.entries:
        order = entry.order
        key: object = (state.node_of_bus[entry.bus], order.side, order.limit_price, order.tan_phi)
        if order.min_fill_percent:
            key = order.id
        groups.setdefault(key, []).append(entry)
    return list(groups.values())


def ties(case: Case, state: State) -> Check:
    """Equal orders share what they got together as rule 7 says, to the Wh."""
    worst, says, tied = 0, "", 0
    for group in tie_groups(case, state):
        if len(group) == 1:
            continue
        tied += 1
        offered = {entry.order.id: entry.order.energy_wh for entry in group}
        total = sum(entry.fill_wh for entry in group)
        shares = fair_shares(offered, total, case.book.interval.start)
        for entry in group:
            right = shares[entry.order.id]
            if abs(entry.fill_wh - right) > worst:
                worst = abs(entry.fill_wh - right)
                says = (
                    f"Order {entry.order.id!r} got {entry.fill_wh} Wh; its share of the {total} Wh for "
                    f"{len(group)} equal orders is {right} Wh."
                )
    fine = f"{tied} groups of equal orders share pro rata, by largest remainder, then by hash."
    return Check("ties", "pro rata", worst, 0, "Wh", says or fine)
