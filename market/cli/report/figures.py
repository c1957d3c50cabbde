"""The figures of one day: which interval is shown where, and in which words."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

import numpy as np

from grid.feeder import Feeder
from grid.limits import network_limits
from market.auction.clearing import clear_book
from market.cli.day import Day, DayInterval
from market.cli.report.page import Figure, Key
from market.cli.summary import Summary
from market.drawing.curves import curve_figure, price_interval
from market.drawing.energy import Layer, balance_figure
from market.drawing.feeder_map import feeder_figure
from market.drawing.interval import curves_of, grid_state, neighbours_wh, price_band, topology_of
from market.drawing.limits import loading_figure, voltage_figure
from market.drawing.plot import Size
from market.drawing.prices import price_figure
from market.drawing.units import ct_per_kwh, kwh

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


def _prices(story: Story) -> Figure:
    bands = [price_band(interval.book, interval.record, story.bus_of) for interval in story.day.intervals]
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
        "wanted: cheaper where there is too much of it, dearer where too little. Buyers pay a local fee of "
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


def _curves(story: Story) -> Figure:
    """The interval in which neighbours traded most."""
    cleared = [interval for interval in story.day.intervals if interval.record.status == "cleared"]
    if not cleared:
        return Figure("Supply and demand", "No interval of the day was cleared.", [], "", "")
    traded_wh = {interval.start: neighbours_wh(interval.book, interval.record) for interval in cleared}
    chosen = max(cleared, key=lambda interval: (traded_wh[interval.start], -interval.start))
    band = price_band(chosen.book, chosen.record, story.bus_of)
    assert band is not None
    curves = curves_of(chosen.book, chosen.record, band)
    low, high = price_interval(curves)
    balanced = ct_per_kwh(low) if low == high else f"any price from {ct_per_kwh(low)} to {ct_per_kwh(high)}"
    wide, narrow = _two(CHART, lambda size: curve_figure(size, curves))
    return Figure(
        f"Supply and demand at {_clock(chosen.start)}",
        f"The interval in which neighbours traded most: {kwh(traded_wh[chosen.start], 1)}. Without limits "
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
    topology = topology_of(story.feeder)
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
