"""The book and the record side by side: what each order is, and what it got.

Energies are Wh, prices µEUR/kWh, injections positive into the grid.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from grid.errors import InputError, Problem
from market.auction.book import Book, BookOrder
from market.auction.record import ClearingRecord, Fill, NodePrice
from market.verify.network import Network, State


@dataclass(frozen=True)
class Entry:
    """An order, where it is, and what the record gives it."""

    order: BookOrder
    bus: int
    fill_wh: int

    @property
    def sign(self) -> int:
        """+1 for asks, which inject, −1 for bids."""
        return 1 if self.order.side == "ask" else -1

    @property
    def whole(self) -> bool:
        return self.fill_wh >= self.order.energy_wh


@dataclass(frozen=True)
class FirmEnergy:
    """A firm injection of the interval, under the name that trades call it by."""

    name: str
    bus: int
    p_w: float
    q_var: float
    energy_wh: int


@dataclass(frozen=True, eq=False)
class Case:
    """A record to be judged, the book it answers, and the net it is about."""

    record: ClearingRecord
    book: Book
    network: Network

    def __post_init__(self) -> None:
        """Raises :class:`InputError` where the book names points that the net does not have."""
        named = [(f"orders[{index}]", order.connection_point) for index, order in enumerate(self.book.orders)]
        named += [(f"firm[{i}]", firm.connection_point) for i, firm in enumerate(self.book.firm or ())]
        reason = "is no connection point of the feeder in service"
        problems = [
            Problem("book", f"{place}.connection_point", point, reason)
            for place, point in named
            if self.network.bus_of(point) is None
        ]
        if problems:
            raise InputError(problems)

    def _bus(self, connection_point: str) -> int:
        bus = self.network.bus_of(connection_point)
        assert bus is not None
        return bus

    @cached_property
    def entries(self) -> tuple[Entry, ...]:
        """The book's orders; what the record gives to an id that is not in the book is not among them."""
        filled: dict[str, int] = {}
        for fill in self.record.fills:
            filled[fill.order_id] = filled.get(fill.order_id, 0) + fill.energy_wh
        return tuple(
            Entry(order, self._bus(order.connection_point), filled.get(order.id, 0))
            for order in self.book.orders
        )

    @cached_property
    def entry_of(self) -> dict[str, Entry]:
        return {entry.order.id: entry for entry in self.entries}

    def known_fills(self) -> Iterator[tuple[Fill, Entry]]:
        for fill in self.record.fills:
            if fill.order_id in self.entry_of:
                yield fill, self.entry_of[fill.order_id]

    @cached_property
    def firm(self) -> tuple[FirmEnergy, ...]:
        """The book's firm injections, or where it has none the net's own."""
        hours = self.book.interval.hours
        if self.book.firm is None:
            return tuple(
                FirmEnergy(name, at.bus, at.p_w, at.q_var, round(float(at.p_w) * hours))
                for name, at in self.network.elements.items()
            )
        return tuple(
            FirmEnergy(
                firm.connection_point,
                self._bus(firm.connection_point),
                firm.p_w,
                firm.q_var,
                round(firm.p_w * hours),
            )
            for firm in self.book.firm
        )

    def injections(self, order_wh: dict[str, int]) -> dict[int, tuple[float, float]]:
        """Injections in W and var by bus: firm energy, and orders moving these energies."""
        at: dict[int, tuple[float, float]] = {}

        def add(bus: int, p_w: float, q_var: float) -> None:
            before = at.get(bus, (0.0, 0.0))
            at[bus] = before[0] + p_w, before[1] + q_var

        for firm in self.firm:
            add(firm.bus, firm.p_w, firm.q_var)
        for entry in self.entries:
            p_w = entry.sign * order_wh.get(entry.order.id, 0) / self.book.interval.hours
            if p_w:
                add(entry.bus, p_w, entry.order.tan_phi * p_w)
        return at

    def solve(self, order_wh: dict[str, int]) -> State:
        """pandapower's power flow when the orders move these energies."""
        return self.network.solve(self.injections(order_wh), self.book.limits)

    @cached_property
    def price_at(self) -> dict[int, NodePrice]:
        return {price.bus: price for price in self.record.prices}

    def point_price(self, entry: Entry) -> float | None:
        """What the published prices make of a kWh injected by this order, with its reactive part."""
        price = self.price_at.get(entry.bus)
        return None if price is None else price.price + entry.order.tan_phi * price.price_q

    def net_limit(self, entry: Entry) -> int:
        """The limit price inside the auction: a bid's is net of the local fee."""
        return entry.order.limit_price - (self.book.tariff.local_fee if entry.sign < 0 else 0)

    def rent(self, entry: Entry) -> float | None:
        """What a kWh of this order gains at the published prices, in µEUR; < 0 what it would lose."""
        price = self.point_price(entry)
        return None if price is None else entry.sign * (price - self.net_limit(entry))
