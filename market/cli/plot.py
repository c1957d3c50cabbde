"""``peergrid clear --plot FILE``: an interval on one sheet.

Supply and demand as the slack sees them, and the feeder twice: by voltage and loading, and by price.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from grid.errors import InputError
from grid.feeder import Feeder
from market.auction.book import Book
from market.auction.record import ClearingRecord
from market.auction.schedule import schedule_of
from market.cli.plot_canvas import SUFFIXES, write_drawing
from market.cli.plot_curves import curves_at_slack
from market.cli.plot_style import page_style, with_style
from market.cli.report.page import Key
from market.drawing.curves import curve_figure
from market.drawing.feeder_map import State, Topology, feeder_figure, loading_class, voltage_class
from market.drawing.interval import grid_state, topology_of
from market.drawing.plot import Size, document, number
from market.drawing.units import ct_per_kwh, kwh

WIDTH_PX, MARGIN_PX = 900, 21
CURVES = Size(WIDTH_PX - 2 * MARGIN_PX, 320)
MAP = Size(WIDTH_PX - 2 * MARGIN_PX, 400)
NARROW_LETTERS, NARROW_PX, LETTER_PX = frozenset("fijlrt' "), 4.0, 6.6
"""About the widths of letters of a legend."""
LISTED_MAX = 4

CURVE_KEYS = (
    Key("demand stroke", "demand"),
    Key("supply stroke", "supply"),
    Key("demand left stroke", "left out"),
    Key("with stroke", "energy price"),
    Key("band", "every price that would clear it without limits"),
    Key("tariff dash", "the retailer's prices"),
)
VOLTAGE_KEYS = (
    Key("bus l3 round", "voltage near the lower limit"),
    Key("bus v0 round", "in the middle"),
    Key("bus h3 round", "near the upper limit"),
    Key("branch full stroke", "branch at its limit"),
    Key("branch over stroke", "beyond a limit"),
)
PRICE_KEYS = (
    Key("bus l3 round", "cheapest"),
    Key("bus l1 round", "a little cheaper"),
    Key("bus v0 round", "as at the grid connection"),
    Key("bus h1 round", "a little dearer"),
    Key("bus h3 round", "dearest"),
)


def check_plot_path(path: Path) -> None:
    """Raises :class:`InputError` for a suffix that names no kind of picture, before any work is done."""
    if path.suffix not in SUFFIXES:
        raise InputError.single("--plot", "", str(path), "must end in .svg, .png or .pdf")
    if not path.parent.is_dir():
        raise InputError.single("--plot", "", str(path), "is in a folder that does not exist")


def write_plot(path: Path, book: Book, record: ClearingRecord, feeder: Feeder) -> None:
    """Draws the clearing of a book into a file, SVG, PNG or PDF by its suffix."""
    write_drawing(path, with_style(sheet(book, record, feeder), page_style()))


class _Sheet:
    """Parts of a page, one under the other."""

    def __init__(self) -> None:
        self._marks: list[str] = []
        self._y = float(MARGIN_PX)

    def words(self, text: str, *, size_px: int = 11, bold: bool = False) -> None:
        self._y += size_px * 1.5
        weight = ' font-weight="700"' if bold else ""
        colour = ' fill="#1d2329"' if bold else ""
        self._marks.append(
            f'<text x="{MARGIN_PX}" y="{number(self._y)}" font-size="{size_px}"{weight}{colour}>'
            f"{escape(text)}</text>"
        )

    def keys(self, keys: Sequence[Key]) -> None:
        """A legend in one row."""
        self._y += 18
        x = float(MARGIN_PX)
        for key in keys:
            self._marks.append(_key_mark(key, x, self._y - 4))
            self._marks.append(f'<text x="{number(x + 22)}" y="{number(self._y)}">{escape(key.name)}</text>')
            x += 22 + sum(NARROW_PX if c in NARROW_LETTERS else LETTER_PX for c in key.name) + 18
        self._y += 8

    def drawing(self, svg: str, size: Size) -> None:
        self._marks.append(f'<g transform="translate({MARGIN_PX} {number(self._y)})">{svg}</g>')
        self._y += size.height + 10

    def gap(self) -> None:
        self._y += 14

    def svg(self, title: str) -> str:
        height = round(self._y + MARGIN_PX)
        page = f'<rect x="0" y="0" width="{WIDTH_PX}" height="{height}" fill="#ffffff"/>'
        return document(Size(WIDTH_PX, height), title, [page, *self._marks])


def _key_mark(key: Key, x: float, y: float) -> str:
    css, _, form = key.css.rpartition(" ")
    if form == "round":
        return f'<circle class="{css}" cx="{number(x + 8)}" cy="{number(y)}" r="4"/>'
    if form in ("stroke", "dash"):
        line = css if css.startswith("branch") else f"line {css}"
        width = ' stroke-width="3.5"' if css.startswith("branch") else ""
        return f'<path class="{line}"{width} d="M{number(x)} {number(y)}H{number(x + 16)}"/>'
    return f'<rect class="{key.css}" x="{number(x)}" y="{number(y - 5)}" width="16" height="10"/>'


def sheet(book: Book, record: ClearingRecord, feeder: Feeder) -> str:
    """The sheet as SVG with the classes of the page's style."""
    page = _Sheet()
    start = record.interval.start.replace("T", " ").replace(":00Z", " UTC")
    title = f"{record.feeder} · {start} · {record.status}"
    page.words(title, size_px=17, bold=True)
    if record.reason:
        page.words(record.reason[0].upper() + record.reason[1:] + ".")
    if record.status == "cleared":
        _add_curves(page, book, record, feeder)
    _add_maps(page, book, record, feeder)
    return page.svg(title)


def _add_curves(page: _Sheet, book: Book, record: ClearingRecord, feeder: Feeder) -> None:
    curves = curves_at_slack(book, record, schedule_of(book, record, feeder))
    low, high = ct_per_kwh(curves.low), ct_per_kwh(curves.high)
    clears = f"{low} would clear it" if low == high else f"any price from {low} to {high} would clear it"
    net = (
        f"and bids less the local fee of {ct_per_kwh(book.tariff.local_fee)}" if book.tariff.local_fee else ""
    )
    page.gap()
    page.words("Supply and demand, as the grid connection sees them", size_px=13, bold=True)
    page.words(
        f"Orders less the losses on the way{' ' if net else ''}{net}. "
        f"Energy price {ct_per_kwh(curves.mean)}; without limits {clears}."
    )
    page.words(
        f"Imported {kwh(record.import_wh)}, exported {kwh(record.export_wh)}, lost {kwh(record.losses_wh)}. "
        "Firm energy lies beyond the top and the bottom. Pale parts were left out."
    )
    page.keys(CURVE_KEYS)
    page.drawing(curve_figure(CURVES, curves), CURVES)


def _add_maps(page: _Sheet, book: Book, record: ClearingRecord, feeder: Feeder) -> None:
    if record.status == "suspended":
        _add_what_breaks(page, book, record, feeder)
        return
    state, topology = grid_state(feeder, book, record), topology_of(feeder)
    assert state is not None, "a cleared interval has a power flow"
    page.gap()
    page.words("Voltage and loading", size_px=13, bold=True)
    page.words("Branches are as wide as they are loaded. The square is the grid above.")
    page.keys(VOLTAGE_KEYS)
    page.drawing(feeder_figure(MAP, topology, state, "Voltage and loading"), MAP)
    price_of_bus = {row.bus: row.price for row in record.prices}
    prices = [0.0] * feeder.node_count
    for bus, node in zip(feeder.bus_index.tolist(), feeder.bus_node.tolist(), strict=True):
        prices[node] = price_of_bus[bus] / 10_000
    low, high = min(price_of_bus.values()), max(price_of_bus.values())
    page.gap()
    page.words("The price at each bus", size_px=13, bold=True)
    page.words(
        f"From {ct_per_kwh(low)} to {ct_per_kwh(high)}, "
        f"{ct_per_kwh(prices[topology.roots[0]] * 10_000)} at the grid connection."
    )
    page.keys(PRICE_KEYS)
    page.drawing(feeder_figure(MAP, topology, state, "The price at each bus", prices), MAP)


def _add_what_breaks(page: _Sheet, book: Book, record: ClearingRecord, feeder: Feeder) -> None:
    """What firm energy alone does to the feeder, and what the relieving setpoints make of it."""
    topology = topology_of(feeder)
    page.gap()
    page.words("Firm energy alone", size_px=13, bold=True)
    alone = grid_state(feeder, book, record)
    if alone is None:
        page.words("It has no power flow, so there is nothing to show of the feeder.")
    else:
        page.words("It flows whatever the price. Branches are as wide as they are loaded.")
        page.words(_broken(topology, alone))
        page.keys(VOLTAGE_KEYS)
        page.drawing(feeder_figure(MAP, topology, alone, "Firm energy alone"), MAP)
    if not record.setpoints:
        return
    relieved = grid_state(feeder, book, record, with_setpoints=True)
    assert relieved is not None, "setpoints come from a power flow"
    sides = {order.id: order.side for order in book.orders}
    asked = [
        f"{item.order_id} {'draws' if sides[item.order_id] == 'bid' else 'feeds in'} {kwh(item.energy_wh)}"
        for item in sorted(record.setpoints, key=lambda item: -item.energy_wh)
    ]
    page.gap()
    page.words("With the relieving setpoints", size_px=13, bold=True)
    page.words(f"{_listed(asked)}.")
    page.words(_broken(topology, relieved))
    page.keys(VOLTAGE_KEYS)
    page.drawing(feeder_figure(MAP, topology, relieved, "With the relieving setpoints"), MAP)


def _broken(topology: Topology, state: State) -> str:
    """The limits that a state breaks, in a sentence; of the currents the worst first."""
    found = [
        f"{name} at {percent:.1f} %"
        for name, percent in sorted(state.loading_percent.items(), key=lambda item: -item[1])
        if loading_class(percent) == "over"
    ]
    found += [
        f"{topology.node_names[node]} at {volts:.4f} pu"
        for node, volts in enumerate(state.v_pu)
        if voltage_class(volts, state.v_min_pu[node], state.v_max_pu[node]) == "bad"
    ]
    return f"Beyond their limits: {_listed(found)}." if found else "Every limit is kept."


def _listed(items: Sequence[str]) -> str:
    rest = len(items) - LISTED_MAX
    return ", ".join(items[:LISTED_MAX]) + (f", and {rest} more" if rest > 0 else "")
