"""The bus prices of the day between the retailer's two tariffs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from market.drawing.plot import Size, day_plot

CT = 1 / 10_000  # of 1 µEUR/kWh


@dataclass(frozen=True)
class PriceBand:
    """Lowest, mean (weighted by consumption) and highest DLMP of one interval, µEUR/kWh."""

    low: int
    mean: float
    high: int


def price_figure(
    size: Size,
    start_hour: float,
    interval_hours: float,
    bands: Sequence[PriceBand | None],
    import_price: int,
    export_price: int,
) -> str:
    """The band from lowest to highest price with the mean in it; None stands for a suspended interval."""
    known = [band for band in bands if band is not None]
    low = min([band.low for band in known] + [export_price]) * CT
    high = max([band.high for band in known] + [import_price]) * CT
    margin = 0.06 * (high - low) + 0.5
    plot = day_plot(
        size,
        start_hour,
        len(bands) * interval_hours,
        (low - margin, high + margin),
        title="Prices over the day",
        y_label="ct/kWh",
    )
    for run in _runs(bands):
        left = [(index * interval_hours, band) for index, band in run]
        upper, lower, middle = [], [], []
        for hour, prices in left:
            end = hour + interval_hours
            upper += [(hour, prices.high * CT), (end, prices.high * CT)]
            lower += [(hour, prices.low * CT), (end, prices.low * CT)]
            middle += [(hour, prices.mean * CT), (end, prices.mean * CT)]
        plot.area([*upper, *reversed(lower)], "band")
        plot.line(middle, "mean")
    for index, band in enumerate(bands):
        if band is None:
            left_hour = index * interval_hours
            plot.box(
                left_hour, left_hour + interval_hours, low - margin, high + margin, "suspended", "suspended"
            )
    plot.level(import_price * CT, "tariff", "retailer sells", at_right=False)
    plot.level(export_price * CT, "tariff", "retailer buys", at_right=False)
    return plot.svg()


def _runs(bands: Sequence[PriceBand | None]) -> list[list[tuple[int, PriceBand]]]:
    """Stretches of intervals that follow each other and have prices."""
    runs: list[list[tuple[int, PriceBand]]] = [[]]
    for index, band in enumerate(bands):
        if band is None:
            runs.append([])
        else:
            runs[-1].append((index, band))
    return [run for run in runs if run]
