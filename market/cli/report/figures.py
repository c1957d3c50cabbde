"""The figures of one day: which interval is shown where, and in which words."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

import numpy as np

from grid.errors import PowerFlowError
from grid.feeder import Feeder
from grid.limits import network_limits
from market.auction.book import Book
from market.auction.clearing import clear_book, power_flow
from market.auction.record import ClearingRecord
from market.cli.day import Day, DayInterval
from market.cli.physics import injections_of
from market.cli.report.curves import Curves, Step, curve_figure, price_interval
from market.cli.report.energy import Layer, balance_figure
from market.cli.report.feeder_map import State, Topology, feeder_figure
from market.cli.report.limits import loading_figure, voltage_figure
from market.cli.report.page import Figure, Key
from market.cli.report.plot import Size
from market.cli.report.prices import PriceBand, price_figure
from market.cli.summarise import consumption_by_price, neighbours_wh
from market.cli.summary import Summary
from market.cli.units import ct_per_kwh, kwh

WIDE_PX, NARROW_PX = 858, 334
CHART = (Size(WIDE_PX, 300), Size(NARROW_PX, 250))
SMALL_CHART = (Size(WIDE_PX, 230), Size(NARROW_PX, 210))
MAP = (Size(WIDE_PX, 400), Size(NARROW_PX, 480))


@dataclass(frozen=True)
class Story:
    """A day with what is needed to draw it; ``bus_of`` and ``households`` are connection points."""

    day: Day
    summary: Summary
    feeder: Feeder
    bus_of: Mapping[str, int]
    households: frozenset[str]

    @property
    def interval_hours(self) -> float:
        return self.day.intervals[0].book.interval.hours

    @property
    def start_hour(self) -> float:
        return self.day.intervals[0].start % 86_400 / 3600


MAP_LEGEND = (
    Key("l3 round", "voltage near the lower limit"),
    Key("v0 round", "in the middle"),
    Key("h3 round", "near the upper limit"),
    Key("full stroke", "branch at its limit"),
    Key("over stroke", "beyond a limit"),
)


def day_figures(story: Story) -> list[Figure]:
    """All figures in the order of the page."""
    return [_prices(story), _balance(story), _curves(story), *_maps(story), *_limits(story)]


def _two(sizes: tuple[Size, Size], draw: Callable[[Size], str]) -> tuple[str, str]:
    return draw(sizes[0]), draw(sizes[1])


def _clock(start: int) -> str:
    return f"{datetime.fromtimestamp(start, UTC):%H:%M}"


def _mean_price(story: Story, interval: DayInterval) -> float:
    """The bus price weighted by consumption; the plain mean where nobody consumes."""
    pairs = list(consumption_by_price(interval, story.bus_of))
    energy_wh = sum(wh for _, wh in pairs)
    if energy_wh:
        return sum(price * wh for price, wh in pairs) / energy_wh
    prices = [node.price for node in interval.record.prices]
    return sum(prices) / len(prices)


def _band(story: Story, interval: DayInterval) -> PriceBand | None:
    if interval.record.status != "cleared":
        return None
    prices = [node.price for node in interval.record.prices]
    return PriceBand(min(prices), _mean_price(story, interval), max(prices))


def _prices(story: Story) -> Figure:
    bands = [_band(story, interval) for interval in story.day.intervals]
    tariff = story.day.intervals[0].tariff
    wide, narrow = _two(
        CHART,
        lambda size: price_figure(
            size, story.start_hour, story.interval_hours, bands, tariff.import_price, tariff.export_price
        ),
    )
    return Figure(
        "Prices over the day",
        "Every bus has its own price. Where the band opens, a limit keeps energy from flowing to where it is "
        "wanted: cheaper behind it at noon, dearer in the evening. Buyers pay a local fee of "
        f"{ct_per_kwh(tariff.local_fee)} on top, in place of the retailer's fees of "
        f"{ct_per_kwh(tariff.import_fees)}.",
        [
            Key("band", "from the lowest to the highest bus price"),
            Key("mean stroke", "mean paid by consumption"),
            Key("tariff dash", "retail tariffs"),
        ],
        wide,
        narrow,
    )


def _balance(story: Story) -> Figure:
    rows = [_energy(story, interval) for interval in story.day.intervals]
    hours = story.interval_hours

    def layer(name: str, css: str, column: int) -> Layer:
        return Layer(name, css, [row[column] / 1000 / hours for row in rows])

    sources = [layer("fed in by households", "sun", 0), layer("import", "import", 1)]
    sinks = [
        layer("drawn by households", "use", 2),
        layer("losses", "losses", 3),
        layer("export", "export", 4),
    ]
    wide, narrow = _two(CHART, lambda size: balance_figure(size, story.start_hour, hours, sources, sinks))
    return Figure(
        "Energy balance",
        "What flowed through the meters. Solar power that a household uses itself does not pass its meter.",
        [Key(part.css, part.name) for part in (*sources, *sinks)],
        wide,
        narrow,
    )


def _energy(story: Story, interval: DayInterval) -> tuple[float, float, float, float, float]:
    """Fed in, imported, drawn, lost, exported: Wh, as metered where meters tell."""
    metered = [energy for energy in interval.metered.values() if energy is not None]
    others_wh = [
        firm.p_w * interval.book.interval.hours
        for firm in interval.book.firm or ()
        if firm.connection_point not in story.households
    ]
    fed_in_wh = sum(energy.export_wh for energy in metered) + sum(wh for wh in others_wh if wh > 0)
    drawn_wh = sum(energy.import_wh for energy in metered) - sum(wh for wh in others_wh if wh < 0)
    import_wh = interval.delivered.get("import_wh", 0)
    export_wh = interval.delivered.get("export_wh", 0)
    losses_wh = max(0.0, fed_in_wh + import_wh - drawn_wh - export_wh)
    return fed_in_wh, import_wh, drawn_wh, losses_wh, export_wh


def curves_of(story: Story, interval: DayInterval) -> Curves:
    """The merit orders of an interval, bids net of the local fee."""
    book, record, tariff = interval.book, interval.record, interval.tariff
    hours = book.interval.hours
    demand = [Step(round(-firm.p_w * hours), None) for firm in book.firm or () if firm.p_w < 0]
    supply = [Step(round(firm.p_w * hours), None) for firm in book.firm or () if firm.p_w > 0]
    sides = {}
    for order in book.orders:
        sides[order.id] = order.side
        if order.side == "bid":
            demand.append(Step(order.energy_wh, order.limit_price - tariff.local_fee))
        else:
            supply.append(Step(order.energy_wh, order.limit_price))
    filled = {"bid": 0, "ask": 0}
    for fill in record.fills:
        filled[sides[fill.order_id]] += fill.energy_wh
    band = _band(story, interval)
    assert band is not None
    return Curves(
        demand=demand,
        supply=supply,
        demand_wh=filled["bid"] + sum(step.energy_wh for step in demand if step.price is None),
        supply_wh=filled["ask"] + sum(step.energy_wh for step in supply if step.price is None),
        low=band.low,
        mean=band.mean,
        high=band.high,
        import_price=tariff.import_price - tariff.local_fee,
        export_price=tariff.export_price,
    )


def _curves(story: Story) -> Figure:
    """The interval in which neighbours traded most."""
    cleared = [interval for interval in story.day.intervals if interval.record.status == "cleared"]
    if not cleared:
        return Figure("Supply and demand", "No interval of the day was cleared.", [], "", "")
    chosen = max(cleared, key=lambda interval: (neighbours_wh(interval), -interval.start))
    curves = curves_of(story, chosen)
    low, high = price_interval(curves)
    balanced = ct_per_kwh(low) if low == high else f"any price from {ct_per_kwh(low)} to {ct_per_kwh(high)}"
    wide, narrow = _two(CHART, lambda size: curve_figure(size, curves))
    return Figure(
        f"Supply and demand at {_clock(chosen.start)}",
        f"The interval in which neighbours traded most: {kwh(neighbours_wh(chosen), 1)}. Without limits "
        f"and losses {balanced} would have balanced it. Firm demand and urgent charging buy at any price "
        "and lie beyond the top. Bids are shown net of the local fee.",
        [
            Key("demand stroke", "demand"),
            Key("supply stroke", "supply"),
            Key("band", "bus prices"),
            Key("tariff dash", "the retailer's prices"),
        ],
        wide,
        narrow,
    )


def _topology(feeder: Feeder) -> Topology:
    names = [""] * feeder.node_count
    for bus, node in zip(feeder.bus_index.tolist(), feeder.bus_node.tolist(), strict=True):
        names[node] = names[node] or f"bus:{bus}"
    return Topology(
        node_count=feeder.node_count,
        roots=feeder.slack.tolist(),
        branches=list(
            zip(feeder.line_from.tolist(), feeder.line_to.tolist(), feeder.line_name.tolist(), strict=True)
        ),
        node_names=names,
    )


def grid_state(feeder: Feeder, book: Book, record: ClearingRecord) -> State | None:
    """The AC power flow of a clearing's schedule; None where it has no solution."""
    p_w, q_var = np.zeros(feeder.node_count), np.zeros(feeder.node_count)
    for point, (active, reactive) in injections_of(book, record).items():
        node = feeder.node_of(point)
        assert node is not None, point
        p_w[node] += active
        q_var[node] += reactive
    flow = power_flow(feeder)
    try:
        point_found = flow.solve(p_w, q_var)
    except PowerFlowError:
        return None
    limits = network_limits(feeder, **book.limits.model_dump())
    loading: dict[str, float] = {}
    for name, share, limit in zip(feeder.branch.tolist(), point_found.loading, limits.loading, strict=True):
        loading[name] = max(loading.get(name, 0.0), float(100 * share / limit))
    return State(
        v_pu=point_found.v_pu.tolist(),
        v_min_pu=limits.v_min_pu.tolist(),
        v_max_pu=limits.v_max_pu.tolist(),
        loading_percent=loading,
    )


def _maps(story: Story) -> list[Figure]:
    """The interval in which ignoring the network would have broken most: as cleared, and as ignored."""
    worst = max(
        story.day.intervals,
        key=lambda interval: (
            interval.without_network.get("ac", {}).get("violations", 0),
            interval.record.ac.loading_max_percent or 0.0,
            -interval.start,
        ),
    )
    topology = _topology(story.feeder)
    ignored = clear_book(worst.book, story.feeder, network=False)
    figures = []
    for record, title, text in (
        (
            worst.record,
            f"The feeder at {_clock(worst.start)}, its worst interval",
            "As cleared: lines as wide as they are loaded, buses coloured by voltage. The square is the grid "
            "above.",
        ),
        (
            ignored,
            "The same interval, had the network been ignored",
            f"{worst.without_network.get('ac', {}).get('violations', 0)} limits would have been broken.",
        ),
    ):
        state = grid_state(story.feeder, worst.book, record)
        if state is None:
            continue
        wide, narrow = _two(MAP, partial(feeder_figure, topology=topology, state=state, title=title))
        figures.append(Figure(title, text, MAP_LEGEND, wide, narrow))
    return figures


def _limits(story: Story) -> list[Figure]:
    intervals = story.day.intervals
    schedule = [interval.record.ac.model_dump() for interval in intervals]
    ignored = [interval.without_network.get("ac", {}) for interval in intervals]
    metered = [interval.delivered for interval in intervals]
    hours, start = story.interval_hours, story.start_hour

    def loading(checks: Sequence[Mapping[str, float]]) -> list[float | None]:
        return [check.get("loading_max_percent") for check in checks]

    def voltages(checks: Sequence[Mapping[str, float]]) -> list[tuple[float, float] | None]:
        return [
            (check["v_min_pu"], check["v_max_pu"]) if check.get("v_min_pu") is not None else None
            for check in checks
        ]

    legend = [
        Key("with stroke", "as cleared"),
        Key("delivered stroke", "as metered"),
        Key("without stroke", "had the network been ignored"),
        Key("limit dash", "limit"),
    ]
    network = story.summary.network
    figures = []
    wide, narrow = _two(
        SMALL_CHART,
        lambda size: loading_figure(
            size, start, hours, loading(schedule), loading(ignored), loading(metered)
        ),
    )
    text = (
        f"The most loaded line or transformer. The schedule breaks {network.schedule.count} limits of "
        f"voltage and current, the metered energy {network.metered.count} in {network.metered.intervals} "
        f"intervals, the same orders cleared without the network {network.ignored.count} in "
        f"{network.ignored.intervals}."
    )
    figures.append(Figure("Loading, with and without the network", text, legend, wide, narrow))
    limits = network_limits(story.feeder, **intervals[0].book.limits.model_dump())
    finite = limits.v_max_pu[np.isfinite(limits.v_max_pu)]
    if len(finite):
        band = (float(limits.v_min_pu[limits.v_min_pu > 0].max()), float(finite.min()))
        wide, narrow = _two(
            SMALL_CHART,
            lambda size: voltage_figure(
                size, start, hours, voltages(schedule), voltages(ignored), voltages(metered), band
            ),
        )
        text = "The lowest and the highest voltage of any bus."
        figures.append(Figure("Voltages, with and without the network", text, legend, wide, narrow))
    return figures
