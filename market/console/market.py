"""One market as the console sees it: its database read-only, its feeder, and what they come to by interval.

A clearing never changes, so what follows from it is computed once and kept, the latest used ones.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
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
from market.service.store import views
from market.service.store.readonly import StoredMarket
from market.verify.report import Report
from market.verify.verify import verify

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

DAY_S = 86_400
_DIGESTS, _CLEARINGS, _STATES, _FEEDERS = 3000, 24, 400, 4
_AT_ONCE = 50


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


@dataclass(frozen=True)
class NetworkVersion:
    """The network of the intervals of ``[since, until)``."""

    since: int
    until: int
    name: str


class Market:
    """A stored market, running or not. Raises :class:`StoreError` where the database cannot be read.

    ``place`` is a file or a URL; names of networks that are paths start at ``base``, by default where the
    process runs.
    """

    def __init__(self, place: Path | str, base: Path | None = None) -> None:
        self.stored = StoredMarket(place)
        self._base = base
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

    # Networks

    def versions(self, connection: Connection, since: int, until: int) -> list[NetworkVersion]:
        """The networks that stood in ``[since, until)``, one after the other. Another limit is none."""
        found: list[NetworkVersion] = []
        for first, name in views.networks(connection, since, until):
            if found and found[-1].name == name:
                continue
            if found:
                found[-1] = replace(found[-1], until=first)
            found.append(NetworkVersion(max(first, since), until, name))
        return found or [NetworkVersion(since, until, self.stored.feeder_name)]

    def version_at(self, connection: Connection, moment: int, since: int, until: int) -> NetworkVersion:
        """The one of ``[since, until)`` that stood at a moment, or the first or last of them."""
        found = self.versions(connection, since, until)
        return next((one for one in reversed(found) if one.since <= moment), found[0])

    def feeder_of(self, book: Book) -> Feeder:
        """The network that a book was cleared on."""
        return self.feeder(book.feeder)

    def feeder(self, name: str | None) -> Feeder:
        """A network by its name; the market's first one where there is none."""
        named = name or self.stored.feeder_name
        return self._feeders.made(named, lambda: open_feeder(named, self._base))

    def has_network(self, clearing: Clearing) -> bool:
        """Whether the net of that name is still what it was when this was cleared."""
        certificate = clearing.record.certificate
        return certificate is None or certificate.feeder_sha256 == self.feeder_of(clearing.book).sha256

    def buses_of(self, book: Book) -> dict[str, int]:
        """The bus of every connection point of a book: an element's, or as ``bus:12`` says itself."""
        feeder = self.feeder_of(book)
        return _Buses(zip(feeder.element.tolist(), feeder.element_bus.tolist(), strict=True))

    # Intervals

    def clearing(self, connection: Connection, start: int) -> Clearing | None:
        """An interval's clearing, None where there is none yet."""
        return next(self.clearings(connection, [start]), None)

    def clearings(self, connection: Connection, starts: Sequence[int]) -> Iterator[Clearing]:
        """The clearings of those intervals that have one, in order. One is read once for all that follows."""
        for place in range(0, len(starts), _AT_ONCE):
            some = sorted(starts[place : place + _AT_ONCE])
            known = {start: self._clearings.get(start) for start in some}
            texts = views.clearing_texts(connection, [start for start in some if known[start] is None])
            for start in some:
                found = known[start]
                if found is None and start in texts:
                    found = self._clearings.put(start, _clearing(start, texts[start]))
                    self._digests.made(start, partial(self._digest, found))
                if found is not None:
                    yield found

    def digests(self, connection: Connection, starts: Sequence[int]) -> dict[int, Digest]:
        """Digests of those intervals that have a clearing."""
        known = {start: self._digests.get(start) for start in starts}
        missing = [start for start, digest in known.items() if digest is None]
        for clearing in self.clearings(connection, missing):
            known[clearing.start] = self._digests.made(clearing.start, partial(self._digest, clearing))
        return {start: digest for start, digest in known.items() if digest is not None}

    def _digest(self, clearing: Clearing) -> Digest:
        book, record = clearing.book, clearing.record
        band = price_band(book, record, self.buses_of(book)) if self.has_network(clearing) else None
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

    def states(self, connection: Connection, starts: Sequence[int]) -> dict[int, State]:
        """Voltages and loadings of the schedules of those intervals that have a clearing and a power flow,
        each on its own network.
        """
        known = {start: self._states.get(start) for start in starts}
        missing = [start for start, state in known.items() if state is None]
        for clearing in self.clearings(connection, missing):
            known[clearing.start] = self.state_of(clearing)
        return {start: state for start, state in known.items() if state is not None}

    def state_of(self, clearing: Clearing) -> State | None:
        """The state of one clearing's schedule; None where there is no power flow, or its net was changed in
        place.
        """
        found = self._states.get(clearing.start)
        if found is None:
            if not self.has_network(clearing):
                return None
            found = grid_state(self.feeder_of(clearing.book), clearing.book, clearing.record)
            if found is not None:
                self._states.put(clearing.start, found)
        return found

    def verified(self, clearing: Clearing) -> Report:
        """Everything recomputed from pandapower, without the clearing's code."""
        with self._net_lock:  # a net is changed while it is solved
            feeder = self.feeder_of(clearing.book)
            net = open_net(clearing.book.feeder or self.stored.feeder_name, self._base)
            return verify(clearing.record, clearing.book, net, feeder.sha256)


class _Buses(dict[str, int]):
    def __missing__(self, point: str) -> int:
        return int(point.removeprefix("bus:"))


def _clearing(start: int, texts: tuple[str, str, str]) -> Clearing:
    book, record, root = texts
    return Clearing(start, Book.model_validate_json(book), ClearingRecord.model_validate_json(record), root)
