"""``peergrid bench``: how fast the parts are, as ratios measured in one run on one machine.

Every figure stands beside a yardstick that ran in turn with it: for books a merge-sort auction in numpy that
knows no network, and Pyomo's persistent interface to the same solver; for a year of intervals single Z-bus
power flows.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

import click
import numpy as np

from grid.catalogue import open_feeder, year_profiles
from grid.feeder import Feeder, Floats, Ints
from grid.limits import NetworkLimits, network_limits
from grid.powerflow import PowerFlow
from market.auction.book import Book, BookOrder, Interval, Limits
from market.auction.certificate import objectives
from market.auction.columns import Columns, arrange
from market.auction.dispatch import Dispatch, dispatch
from market.auction.prices import Prices, price
from market.auction.record import ClearingRecord
from market.auction.recording import record_of
from market.auction.whole import whole_awards
from market.cli.bench_pyomo import PersistentReference
from market.cli.ingest.command import ingest
from market.cli.messages import say
from market.messages.models import Tariff

FEEDER = "simbench:1-LV-rural3--2-sw"
IMPORT_PRICE, EXPORT_PRICE = 300_000, 80_000
FLOOR, CAP = -500_000, 2_000_000
HOURS = 0.25
INTERVALS_PER_YEAR = 35_136
BOOK_KWH = 400.0
BINDING_LOADING_PERCENT = 8.0
PERSISTENT_ORDERS, PERSISTENT_ROUNDS = 10_000, 3


@dataclass(frozen=True)
class Measurement:
    """One figure: median milliseconds of the subject and its yardstick, and their ratio."""

    name: str
    subject_ms: float
    yardstick: str
    yardstick_ms: float
    ratio: float
    detail: str


@click.group("bench")
def command() -> None:
    """Measure how fast the parts are."""


command.add_command(ingest)


@command.command("clear")
@click.option("--rounds", default=11, show_default=True, help="Runs of each book; medians are reported.")
@click.option("--year", is_flag=True, help="Also clear a year of two feeders, every interval (minutes).")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as one JSON document.")
def bench_clear(rounds: int, year: bool, as_json: bool) -> None:
    """Clearing against a numpy merge-sort auction, and a year against single power flows."""
    found = list(_books(rounds))
    if year:
        found.append(_year("1-LV-rural1--2-sw", "a year of rural1", pv_scale=1.0, vehicle_share=0.0))
        found.append(
            _year("1-LV-rural3--2-sw", "a year of rural3, stressed", pv_scale=6.0, vehicle_share=0.3)
        )
    if as_json:
        click.echo(json.dumps([asdict(measurement) for measurement in found], ensure_ascii=False))
        return
    for item in found:
        click.echo(
            f"{item.name:44} {item.subject_ms:10.2f} ms  {item.ratio:6.2f} × {item.yardstick} "
            f"({item.yardstick_ms:.3f} ms)  {item.detail}"
        )


def _in_turn(rounds: int, *tasks: Callable[[], object]) -> list[float]:
    """Median CPU milliseconds of each task, run in turn (one thread each, so that neighbours count less)."""
    spent: list[list[float]] = [[] for _ in tasks]
    for _ in range(rounds):
        for task, times in zip(tasks, spent, strict=True):
            began = time.process_time()
            task()
            times.append((time.process_time() - began) * 1e3)
    return [float(np.median(times)) for times in spent]


@dataclass(frozen=True, eq=False)
class _Orders:
    node: Ints
    sign: Ints
    price: Ints
    wh: Ints

    def book(self, feeder: Feeder, loading_percent: float) -> Book:
        """The same orders as a book that was read and hashed, as any is before its interval is cleared."""
        bus_of = dict(zip(feeder.bus_node.tolist(), feeder.bus_index.tolist(), strict=True))
        book = Book(
            interval=Interval(start="2016-06-15T12:00:00Z", minutes=15),
            tariff=Tariff(import_price=IMPORT_PRICE, export_price=EXPORT_PRICE, floor=FLOOR, cap=CAP),
            limits=Limits(max_loading_percent=loading_percent),
            firm=(),
            orders=tuple(
                BookOrder(
                    id=f"o{index}",
                    connection_point=f"bus:{bus_of[node]}",
                    side="ask" if sign > 0 else "bid",
                    energy_wh=wh,
                    limit_price=price,
                )
                for index, (node, sign, price, wh) in enumerate(
                    zip(
                        self.node.tolist(),
                        self.sign.tolist(),
                        self.price.tolist(),
                        self.wh.tolist(),
                        strict=True,
                    )
                )
            ),
        )
        assert book.sha256 and len(book.by_id) == len(book.order_ids)
        return book

    def columns(
        self, flow: PowerFlow, limits: NetworkLimits, firm_p_w: Floats, firm_q_var: Floats
    ) -> Columns:
        return arrange(
            flow,
            limits,
            hours=HOURS,
            firm_p_w=firm_p_w,
            firm_q_var=firm_q_var,
            import_price=IMPORT_PRICE,
            export_price=EXPORT_PRICE,
            floor=FLOOR,
            cap=CAP,
            node=self.node,
            tan_phi=np.zeros(len(self.node)),
            sign=self.sign,
            price=self.price,
            wh=self.wh,
        )


def merge_auction(orders: _Orders) -> tuple[Floats, float]:
    """A double auction without a network: sort both sides, cross the curves, share nothing.

    Returns fills [o] in Wh and the price of the marginal bid.
    """
    bids, asks = np.flatnonzero(orders.sign < 0), np.flatnonzero(orders.sign > 0)
    bids = bids[np.argsort(-orders.price[bids], kind="stable")]
    asks = asks[np.argsort(orders.price[asks], kind="stable")]
    demand, supply = np.cumsum(orders.wh[bids]), np.cumsum(orders.wh[asks])
    # At each supplied quantity, the bid that is marginal there; supply is worth taking up to the crossing.
    marginal = np.searchsorted(demand, supply - orders.wh[asks], side="right")
    worth = (marginal < len(bids)) & (
        orders.price[bids[np.minimum(marginal, len(bids) - 1)]] >= orders.price[asks]
    )
    count = int(np.argmin(worth)) if not worth.all() else len(asks)
    traded = min(supply[count - 1] if count else 0, demand[-1])
    fills = np.zeros(len(orders.wh))
    fills[bids] = np.clip(traded - (demand - orders.wh[bids]), 0, orders.wh[bids])
    fills[asks] = np.clip(traded - (supply - orders.wh[asks]), 0, orders.wh[asks])
    return fills, float(orders.price[bids[min(np.searchsorted(demand, traded), len(bids) - 1)]])


def random_orders(feeder: Feeder, count: int, total_kwh: float, seed: int = 1) -> _Orders:
    """Bids and asks at random nodes, with fine price ticks between the tariffs.

    Half of the nodes offer three times what they ask for, the others the other way round, so that much
    energy makes limits bind.
    """
    random = np.random.default_rng(seed)
    largest = max(2, int(2 * total_kwh * 1e3 / count))
    place = random.integers(0, len(feeder.pq), count)
    asks = random.random(count) < np.where(place < len(feeder.pq) // 2, 0.75, 0.25)
    return _Orders(
        node=feeder.pq[place],
        sign=np.where(asks, 1, -1),
        price=random.integers(EXPORT_PRICE, IMPORT_PRICE, count),
        wh=random.integers(1, largest, count),
    )


def _books(rounds: int) -> Iterator[Measurement]:
    feeder = open_feeder(FEEDER)
    flow = PowerFlow(feeder)
    nothing = np.zeros(feeder.node_count)
    for count in (300, 10_000, 100_000):
        for label, loading_percent in (("no limit binds", 100.0), ("limits bind", BINDING_LOADING_PERCENT)):
            orders = random_orders(feeder, count, BOOK_KWH)
            limits = network_limits(feeder, max_loading_percent=loading_percent)
            say(f"bench: {count} orders, {label}")

            def real_valued(
                orders: _Orders = orders, limits: NetworkLimits = limits
            ) -> tuple[Columns, Dispatch, Prices]:
                columns = orders.columns(flow, limits, nothing, nothing)
                found = dispatch(columns)
                return columns, found, price(columns, found, found.point, found.check)

            columns, found, prices = real_valued()
            book = orders.book(feeder, loading_percent)

            def whole_record(
                book: Book = book, columns: Columns = columns, found: Dispatch = found
            ) -> ClearingRecord:
                return record_of(book, columns, found, whole_awards(columns, found))

            def looked_at(whole_record: Callable[[], ClearingRecord] = whole_record) -> None:
                record = whole_record()
                assert record.fills[0] and record.trades[0]

            def certify(columns: Columns = columns, found: Dispatch = found, prices: Prices = prices) -> None:
                objectives(columns, found.kw, found.point.slack_w / 1e3, prices)

            def merge(orders: _Orders = orders) -> None:
                merge_auction(orders)

            subject_ms, yardstick_ms, record_ms, looked_at_ms, certificate_ms = _in_turn(
                rounds, real_valued, merge, whole_record, looked_at, certify
            )
            detail = (
                f"{found.iterations} rounds, {len(found.binding)} limits bind, "
                f"{'settled' if found.settled else 'NOT SETTLED'}; rounding, trades and record "
                f"{record_ms / yardstick_ms:.2f} × (with each line as an object "
                f"{looked_at_ms / yardstick_ms:.2f} ×), certificate {certificate_ms / yardstick_ms:.2f} ×"
            )
            name = f"{count} orders, {label}"
            ratio = subject_ms / yardstick_ms
            yield Measurement(name, subject_ms, "numpy merge auction", yardstick_ms, ratio, detail)
            if count == PERSISTENT_ORDERS and found.binding:
                yield _against_pyomo(name, columns, real_valued, min(rounds, PERSISTENT_ROUNDS))


def _against_pyomo(
    name: str, columns: Columns, real_valued: Callable[[], object], rounds: int
) -> Measurement:
    """The whole search against one solution of its last rows by Pyomo, given new bounds and costs."""
    program = PersistentReference(columns)
    dispatch(columns, program=program.recorded)
    program.build()
    random = np.random.default_rng(2)

    def solve_again() -> None:
        # The next interval: every order has another price and another energy.
        program.solve_with(
            columns.group_price / 1e3 + random.uniform(-1.0, 1.0, len(columns.group_price)),
            columns.group_kw * random.uniform(0.9, 1.1, len(columns.group_kw)),
        )

    solve_again()
    subject_ms, yardstick_ms = _in_turn(rounds, real_valued, solve_again)
    return Measurement(
        name,
        subject_ms,
        "Pyomo persistent, one solution",
        yardstick_ms,
        subject_ms / yardstick_ms,
        f"{program.rows} rows that are there already; here all rounds, AC checks and prices",
    )


def _at_nodes(values: Floats, node: Ints, feeder: Feeder) -> Floats:
    """Sums of values by node [n]."""
    return np.bincount(node, values, feeder.node_count).astype(np.float64)


def _year(code: str, name: str, *, pv_scale: float, vehicle_share: float) -> Measurement:
    """Every interval of a year, every household: awards, prices, whole Wh, AC check."""
    feeder = open_feeder(f"simbench:{code}")
    profiles = year_profiles(f"simbench:{code}")
    flow, limits = PowerFlow(feeder), network_limits(feeder)
    node_of = {int(bus): feeder.node_of(f"bus:{bus}") or 0 for bus in feeder.bus_index}
    load_node = np.array([node_of[int(bus)] for bus in profiles.load_bus])
    sgen_node = np.array([node_of[int(bus)] for bus in profiles.sgen_bus])
    random = np.random.default_rng(7)
    flexible_price = random.integers(90_000, 290_000, len(load_node))
    solar_price = random.integers(10_000, 30_000, len(sgen_node))
    vehicle = np.flatnonzero(random.random(len(load_node)) < vehicle_share)
    vehicle_price = random.integers(120_000, 290_000, len(vehicle))
    began = time.process_time()
    spent = {"clearing": 0.0, "power flow": 0.0}
    bound = rounds = 0
    for step in range(INTERVALS_PER_YEAR):
        if step % 5_000 == 0:
            say(
                f"bench: {name}, interval {step} of {INTERVALS_PER_YEAR}, {time.process_time() - began:.0f} s"
            )
        firm_p_w: Floats = -0.7 * _at_nodes(profiles.load_p_w[step], load_node, feeder)
        firm_q_var: Floats = -_at_nodes(profiles.load_q_var[step], load_node, feeder)
        evening = 68 <= step % 96 <= 88
        wh = np.concatenate(
            [
                0.3 * profiles.load_p_w[step] * HOURS,
                pv_scale * profiles.sgen_p_w[step] * HOURS,
                np.full(len(vehicle), 11_000 * HOURS if evening else 0.0),
            ]
        ).astype(np.int64)
        node = np.concatenate([load_node, sgen_node, load_node[vehicle]])
        sign = np.repeat([-1, 1, -1], [len(load_node), len(sgen_node), len(vehicle)])
        limit = np.concatenate([flexible_price, solar_price, vehicle_price])
        kept = wh > 0
        orders = _Orders(node[kept], sign[kept], limit[kept], wh[kept])
        start = time.process_time()
        columns = orders.columns(flow, limits, firm_p_w, firm_q_var)
        found = dispatch(columns)
        awards = whole_awards(columns, found)
        price(columns, found, awards.point, awards.check)
        middle = time.process_time()
        flow.solve(awards.point.p_w, awards.point.q_var)
        spent["clearing"] += middle - start
        spent["power flow"] += time.process_time() - middle
        assert awards.check.violations == 0, f"{code}, interval {step}: a limit is violated"
        bound += bool(found.binding)
        rounds = max(rounds, found.iterations)
    each_ms = {part: seconds / INTERVALS_PER_YEAR * 1e3 for part, seconds in spent.items()}
    detail = (
        f"an interval; {spent['clearing']:.1f} s in all, limits bind in {bound} intervals, "
        f"at most {rounds} rounds, 0 violations"
    )
    ratio = each_ms["clearing"] / each_ms["power flow"]
    return Measurement(name, each_ms["clearing"], "Z-bus power flow", each_ms["power flow"], ratio, detail)
