"""A plot with two linear axes as SVG text.

Colours are CSS classes of the page, so that one drawing serves light and dark. Every figure is drawn once
for a wide page and once for a narrow one instead of being scaled: letters keep their size.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from market.drawing.units import plain

Point = tuple[float, float]


def ticks(low: float, high: float, count_max: int) -> list[float]:
    """Round numbers from ``low`` to ``high``, at most ``count_max`` of them."""
    span = high - low
    if span <= 0:
        return [low]
    step = 10 ** math.floor(math.log10(span / count_max))
    for factor in (1, 2, 5, 10, 20):
        if span / (step * factor) <= count_max - 1:
            step *= factor
            break
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


def number(value: float) -> str:
    """A coordinate with no more digits than a screen shows."""
    return f"{value:.1f}".rstrip("0").rstrip(".")


@dataclass(frozen=True)
class Size:
    """A figure's outer size in px."""

    width: int
    height: int

    @property
    def is_narrow(self) -> bool:
        return self.width < 560


def document(size: Size, title: str, marks: Iterable[str]) -> str:
    """An SVG element of its own; ``title`` is what is read aloud of it."""
    width, height = size.width, size.height
    return (
        f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" '
        f'aria-label="{escape(title, quote=True)}">' + "".join(marks) + "</svg>"
    )


def shape_path(points: Iterable[Point], close: bool = False) -> str:
    """The ``d`` of a path through points in px."""
    return "M" + "L".join(f"{number(x)} {number(y)}" for x, y in points) + ("Z" if close else "")


class Plot:
    """Collects marks in data coordinates and returns the SVG.

    ``x_range`` and ``y_range`` are what the axes span; marks outside are clipped.
    """

    def __init__(
        self,
        size: Size,
        x_range: tuple[float, float],
        y_range: tuple[float, float],
        *,
        title: str,
        y_label: str,
        x_label: str = "",
    ) -> None:
        self.size = size
        self.x_range, self.y_range = x_range, y_range
        self.title = title
        self.left, self.right, self.top = 46, 12, 24
        self.bottom = 40 if x_label else 24
        self.x_label, self.y_label = x_label, y_label
        self._axes: list[str] = []
        self._marks: list[str] = []
        self._notes: list[str] = []

    def x(self, value: float) -> float:
        low, high = self.x_range
        return self.left + (value - low) / (high - low) * (self.size.width - self.left - self.right)

    def y(self, value: float) -> float:
        low, high = self.y_range
        span = self.size.height - self.top - self.bottom
        return self.size.height - self.bottom - (value - low) / (high - low) * span

    def x_axis(self, values: Sequence[tuple[float, str]]) -> None:
        """Ticks of the x axis with what stands under them."""
        base = self.size.height - self.bottom
        for value, text in values:
            at_end = self.x(value) > self.size.width - self.right - 12
            anchor = "end" if at_end else "middle"
            place = number(self.x(value))
            self._axes.append(f'<path class="tick" d="M{place} {base}v4"/>')
            words = escape(text)
            self._axes.append(f'<text class="label {anchor}" x="{place}" y="{base + 16}">{words}</text>')
        if self.x_label:
            x, y = number((self.left + self.size.width - self.right) / 2), self.size.height - 6
            words = escape(self.x_label)
            self._axes.append(f'<text class="label middle" x="{x}" y="{y}">{words}</text>')

    def y_axis(self, values: Sequence[float], decimals: int = 0) -> None:
        """Grid lines with their values on the left, the unit on top."""
        for value in values:
            place = number(self.y(value))
            css = "zero" if value == 0 else "grid"
            end = self.size.width - self.right
            self._axes.append(f'<path class="{css}" d="M{self.left} {place}H{end}"/>')
            text = plain(value, decimals)
            self._axes.append(
                f'<text class="label end" x="{self.left - 6}" y="{number(self.y(value) + 4)}">{text}</text>'
            )
        self._axes.append(f'<text class="label" x="0" y="11">{escape(self.y_label)}</text>')

    def line(self, points: Iterable[Point], css: str) -> None:
        path = shape_path([(self.x(x), self.y(y)) for x, y in points])
        self._marks.append(f'<path class="line {css}" d="{path}"/>')

    def area(self, points: Iterable[Point], css: str) -> None:
        path = shape_path([(self.x(x), self.y(y)) for x, y in points], close=True)
        self._marks.append(f'<path class="area {css}" d="{path}"/>')

    def box(self, left: float, right: float, low: float, high: float, css: str, tip: str = "") -> None:
        """A rectangle; ``tip`` is what a pointer or a reader hears about it."""
        x, y = self.x(left), self.y(high)
        width, height = self.x(right) - x, self.y(low) - y
        inner = f"<title>{escape(tip)}</title>" if tip else ""
        self._marks.append(
            f'<rect class="{css}" x="{number(x)}" y="{number(y)}" width="{number(max(width, 0.6))}" '
            f'height="{number(max(height, 0.6))}">{inner}</rect>'
        )

    def level(self, value: float, css: str, text: str = "", *, at_right: bool = True) -> None:
        """A horizontal line with its name on it."""
        place = self.y(value)
        end = self.size.width - self.right
        self._marks.append(f'<path class="line {css}" d="M{self.left} {number(place)}H{end}"/>')
        if text:
            x = end - 2 if at_right else self.left + 4
            self.note_px(x, place - 5, text, "end" if at_right else "start")

    def dot(self, x: float, y: float, css: str, tip: str = "", radius_px: float = 4) -> None:
        inner = f"<title>{escape(tip)}</title>" if tip else ""
        self._notes.append(
            f'<circle class="{css}" cx="{number(self.x(x))}" cy="{number(self.y(y))}" r="{radius_px}">'
            f"{inner}</circle>"
        )

    def note(self, x: float, y: float, text: str, anchor: str = "start") -> None:
        self.note_px(self.x(x), self.y(y), text, anchor)

    def note_px(self, x: float, y: float, text: str, anchor: str = "start") -> None:
        css = {"start": "note", "end": "note end", "middle": "note middle"}[anchor]
        self._notes.append(f'<text class="{css}" x="{number(x)}" y="{number(y)}">{escape(text)}</text>')

    def svg(self) -> str:
        clip = f"clip{zlib.crc32(f'{self.title} {self.size}'.encode()):08x}"
        inner_width = self.size.width - self.left - self.right
        inner_height = self.size.height - self.top - self.bottom
        marks = [
            f'<clipPath id="{clip}"><rect x="{self.left}" y="{self.top - 2}" width="{inner_width}" '
            f'height="{inner_height + 4}"/></clipPath>',
            *self._axes,
            f'<g clip-path="url(#{clip})">',
            *self._marks,
            "</g>",
            *self._notes,
        ]
        return document(self.size, self.title, marks)


def day_plot(
    size: Size, start_hour: float, hours: float, y_range: tuple[float, float], *, title: str, y_label: str
) -> Plot:
    """A plot over ``hours`` hours that begin at ``start_hour`` of the day, UTC."""
    plot = Plot(size, (0, hours), y_range, title=title, y_label=y_label)
    marks = ticks(start_hour, start_hour + hours, 5 if size.is_narrow else 9) if hours < 12 else None
    if marks is None:
        step = 6 if size.is_narrow else 3
        first = -(-start_hour // step) * step
        marks = [first + index * step for index in range(int((start_hour + hours - first) // step) + 1)]
    plot.x_axis([(mark - start_hour, clock_time(mark)) for mark in marks])
    plot.y_axis(ticks(*y_range, 6), decimals=decimals_of(y_range))
    return plot


def clock_time(hours: float) -> str:
    """Hours since midnight as a time of day; the end of the day is 24:00."""
    minutes = round(hours * 60)
    if minutes != 24 * 60:
        minutes %= 24 * 60
    return f"{minutes // 60:02d}:{minutes % 60:02d}"


def decimals_of(values: tuple[float, float]) -> int:
    """Decimals that tell a few round numbers between two values apart."""
    span = values[1] - values[0]
    return 0 if span >= 4 else 1 if span >= 0.4 else 2 if span >= 0.04 else 3
