"""One market as the console sees it: its database read-only, its feeder, and what they come to by interval.

A clearing never changes, so what follows from it is computed once and kept, the latest used ones.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Lock
from typing import Any, Generic, TypeVar

from sqlalchemy import Connection

from grid.catalogue import open_feeder, open_net
from grid.feeder import Feeder
from market.auction.book import Book
from market.auction.record import ClearingRecord
from market.drawing.feeder_map import State
from market.drawing.interval import grid_state, neighbours_wh, price_band
from market.service.store import terms, views
from market.service.store.readonly import StoredMarket
from market.verify.report import Report
from market.verify.verify import verify

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

DAY_S = 86_400
_DIGESTS, _CLEARINGS, _STATES, _FEEDERS = 3000, 24, 400, 4


class Kept(Generic[K, V]):
    """Values by key, the latest used ones; safe to use from several threads."""

    def __init__(self, values_max: int) -> None:
        self._values: OrderedDict[K, V] = OrderedDict()
        self._max = values_max
        self._lock = Lock()

    def get(self, key: K) -> V | None:
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
            return self._values.get(key)

    def put(self, key: K, value: V) -> V:
        with self._lock:
            self._values[key] = value
            while len(self._values) > self._max:
                self._values.popitem(last=False)
        return value

    def made(self, key: K, make: Callable[[], V]) -> V:
        found = self.get(key)
        return self.put(key, make()) if found is None else found


@dataclass(frozen=True)
class Clearing:
    """An interval's book, record and the hash that the chain commits to."""

    start: int
    book: Book
    record: ClearingRecord
    root: str


@dataclass(frozen=True)
class Digest:
    """What a clearing came to. Prices are µEUR/kWh (None of a suspended interval), energies Wh."""

    start: int
    status: str
    traded_wh: int
    price_low: int | None
    price_mean: float | None
    price_high: int | None
    import_wh: int
    export_wh: int
    losses_wh: int
    bound: int
    loading_max_percent: float | None
    v_min_pu: float | None
    v_max_pu: float | None
    violations: int


@dataclass(frozen=True)
class IntervalLine:
    """An interval in a list: its state, and its digest once it is cleared."""

    start: int
    minutes: int
    opens_at: int
    closes_at: int
    state: str
    incomplete: int
    revision: int
    metered_violations: int
    digest: Digest | None

    def document(self) -> dict[str, Any]:
        """As JSON values, the digest's beside the interval's own."""
        own = {key: value for key, value in asdict(self).items() if key != "digest"}
        return own | (asdict(self.digest) if self.digest else {})


class Market:
    """A stored market, running or not. Raises :class:`StoreError` where the database cannot be read."""

    def __init__(self, path: Path) -> None:
        self.stored = StoredMarket(path)
        self._clearings: Kept[int, Clearing] = Kept(_CLEARINGS)
        self._digests: Kept[int, Digest] = Kept(_DIGESTS)
        self._states: Kept[int, State] = Kept(_STATES)
        self._feeders: Kept[str, Feeder] = Kept(_FEEDERS)
        self._net_lock = Lock()

    @property
    def name(self) -> str:
        return self.stored.name

    def close(self) -> None:
        self.stored.close()

    @property
    def feeder(self) -> Feeder:
        """The network of the newest interval."""
        with self.stored.reading() as connection:
            span = views.span(connection)
            change = terms.grid_of(connection, span[1]) if span else None
        return self._feeder(change.feeder_name if change else None)

    def feeder_of(self, book: Book) -> Feeder:
        """The network that a book was cleared on."""
        return self._feeder(book.feeder)

    def _feeder(self, name: str | None) -> Feeder:
        named = name or self.stored.feeder_name
        return self._feeders.made(named, lambda: open_feeder(named))

    @property
    def buses(self) -> dict[str, int]:
        """The bus of every connection point: of an element of the feeder, or as ``bus:12`` says itself."""
        return _buses(self.feeder)

    # Intervals

    def clearing(self, connection: Connection, start: int) -> Clearing | None:
        """An interval's clearing, None where there is none yet."""
        found = self._clearings.get(start)
        if found is None:
            texts = views.clearing_texts(connection, [start])
            if start not in texts:
                return None
            found = self._clearings.put(start, _clearing(start, texts[start]))
        return found

    def digest(self, connection: Connection, start: int) -> Digest | None:
        return self.digests(connection, [start]).get(start)

    def digests(self, connection: Connection, starts: Sequence[int]) -> dict[int, Digest]:
        """Digests of those intervals that have a clearing."""
        known = {start: self._digests.get(start) for start in starts}
        missing = [start for start, digest in known.items() if digest is None]
        for place in range(0, len(missing), 50):
            for start, text in views.clearing_texts(connection, missing[place : place + 50]).items():
                known[start] = self._digests.put(start, self._digest(_clearing(start, text)))
        return {start: digest for start, digest in known.items() if digest is not None}

    def _digest(self, clearing: Clearing) -> Digest:
        book, record = clearing.book, clearing.record
        band = price_band(book, record, _buses(self.feeder_of(book)))
        return Digest(
            start=clearing.start,
            status=record.status,
            traded_wh=neighbours_wh(book, record) if record.status == "cleared" else 0,
            price_low=band.low if band else None,
            price_mean=round(band.mean, 1) if band else None,
            price_high=band.high if band else None,
            import_wh=record.import_wh,
            export_wh=record.export_wh,
            losses_wh=record.losses_wh,
            bound=len({(limit.element, limit.kind) for limit in record.binding}),
            loading_max_percent=record.ac.loading_max_percent,
            v_min_pu=record.ac.v_min_pu,
            v_max_pu=record.ac.v_max_pu,
            violations=record.ac.violations,
        )

    def lines(self, connection: Connection, since: int, until: int) -> list[IntervalLine]:
        """The intervals that start in ``[since, until)``, in order."""
        rows = views.intervals_between(connection, since, until)
        digests = self.digests(connection, [row["interval_start"] for row in rows if row["cleared"]])
        return [
            IntervalLine(
                start=row["interval_start"],
                minutes=row["minutes"],
                opens_at=row["opens_at"],
                closes_at=row["closes_at"],
                state=row["state"],
                incomplete=row["incomplete"],
                revision=row["revision"],
                metered_violations=views.decoded(row["delivered"]).get("violations") or 0,
                digest=digests.get(row["interval_start"]),
            )
            for row in rows
        ]

    def day(self, connection: Connection, moment: int | None = None) -> tuple[int, int] | None:
        """The UTC day of ``moment``, or of the newest interval; None before the first gate."""
        span = views.span(connection)
        if span is None:
            return None
        chosen = span[1] if moment is None else min(max(moment, span[0]), span[1])
        since = chosen - chosen % DAY_S
        return since, since + DAY_S

    # The network

    def state(self, connection: Connection, start: int) -> State | None:
        """Voltages and loadings of an interval's schedule; None without a clearing or a power flow."""
        found = self._states.get(start)
        if found is None:
            clearing = self.clearing(connection, start)
            if clearing is None:
                return None
            feeder = self.feeder_of(clearing.book)
            if feeder.sha256 != self.feeder.sha256:
                return None  # what is drawn is another network
            computed = grid_state(feeder, clearing.book, clearing.record)
            if computed is None:
                return None
            found = self._states.put(start, computed)
        return found

    def verified(self, clearing: Clearing) -> Report:
        """Everything recomputed from pandapower, without the clearing's code."""
        with self._net_lock:  # a net is changed while it is solved
            feeder = self.feeder_of(clearing.book)
            net = open_net(clearing.book.feeder or self.stored.feeder_name)
            return verify(clearing.record, clearing.book, net, feeder.sha256)


def _buses(feeder: Feeder) -> dict[str, int]:
    return _Buses(zip(feeder.element.tolist(), feeder.element_bus.tolist(), strict=True))


class _Buses(dict[str, int]):
    def __missing__(self, point: str) -> int:
        return int(point.removeprefix("bus:"))


def _clearing(start: int, texts: tuple[str, str, str]) -> Clearing:
    book, record, root = texts
    return Clearing(start, Book.model_validate_json(book), ClearingRecord.model_validate_json(record), root)
