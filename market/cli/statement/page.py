"""A statement as one HTML document, to be read and printed."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.resources import files

from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup

from market.cli.statement.leaflet import Bar, Leaflet
from market.drawing.units import plain

_WIDTH, _HEIGHT = 680, 96
_LABEL = 32
"""Half of the widest label."""
_BARS_MIN = 12


def render(leaflet: Leaflet) -> str:
    return _template().render(leaf=leaflet, bars=_drawing(leaflet.bars))


@cache
def _template() -> Template:
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"eur": _eur, "kwh": _kwh, "ct": _ct, "hours": _hours}
    text = (files("market.cli.statement") / "statement.html").read_text(encoding="utf-8")
    return environment.from_string(text)


def _eur(amount_neur: int, decimals: int = 4) -> str:
    if not amount_neur:
        return "–" if decimals > 2 else plain(0, decimals)
    text = plain(amount_neur / 1_000_000_000, decimals)
    return f"+{text}" if amount_neur > 0 else text


def _kwh(energy_wh: int) -> str:
    return plain(abs(energy_wh) / 1000, 3)


def _ct(price: int) -> str:
    """To two decimals, or as many as there are."""
    decimals = 2 if price % 100 == 0 else 4
    return plain(price / 10_000, decimals)


def _hours(minutes: int) -> str:
    hours, rest = divmod(minutes, 60)
    return " ".join(f"{number} {unit}" for number, unit in ((hours, "h"), (rest, "min")) if number)


def _drawing(bars: Sequence[Bar]) -> Markup:
    """Energy sold above the line and bought below it, to one scale."""
    top = max((bar.sold_wh for bar in bars), default=0)
    bottom = -min((bar.bought_wh for bar in bars), default=0)
    if not top + bottom:
        return Markup("")
    step = _WIDTH / max(_BARS_MIN, len(bars))
    zero = _HEIGHT * top / (top + bottom)
    shapes = []
    for index, bar in enumerate(bars):
        x, width = index * step + 0.15 * step, 0.7 * step
        for css, energy_wh in (("sold", bar.sold_wh), ("bought", bar.bought_wh)):
            height = abs(energy_wh) * _HEIGHT / (top + bottom)
            y = zero - height if energy_wh > 0 else zero
            shapes.append(
                f'<rect class="{css}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"/>'
            )
    every = max(1, len(bars) // 8)
    labels = "".join(
        f'<text x="{_within((index + 0.5) * step):.1f}" y="{_HEIGHT + 17}">{bar.name}</text>'
        for index, bar in enumerate(bars)
        if index % every == 0
    )
    return Markup(  # noqa: S704  our own numbers
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT + 22}" role="img" aria-label="Energy over the period">'
        f'<line x1="0" x2="{_WIDTH}" y1="{zero:.1f}" y2="{zero:.1f}"/>{"".join(shapes)}{labels}</svg>'
    )


def _within(x: float) -> float:
    """Where a label's middle is, so that all of it can be read."""
    return min(max(_LABEL, x), _WIDTH - _LABEL)
