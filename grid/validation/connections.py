"""Where meters sit: a list of meters with their buses, put onto the connection points of a net.

A meter gets a load of its own as connection point: the next free one at its bus, or a new one of 0 W. So two
meters at one bus stay apart, and what the net says of a load stays the forecast for it.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grid.errors import InputError, Problem
from grid.validation.finding import Finding

FUSE_W_DEFAULT = 43_500
"""Three phases of 63 A at 400 V."""
_COLUMNS = ("meter", "bus")
_OPTIONAL = ("owner", "fuse_a", "fuse_w", "tan_phi_ppm")
_HIGHEST_KV = 1.0
ON_METERS = frozenset({"meters", "meters on unknown buses"})
"""Checks whose errors are the list's, not the net's."""


@dataclass(frozen=True)
class MeterRow:
    """A line of the list. ``bus`` is an index, ``bus:12`` or a bus's name; ``fuse_a`` is that of each
    of three phases.
    """

    line: int
    meter: str
    bus: str
    owner: str = ""
    fuse_a: float | None = None
    fuse_w: int | None = None
    tan_phi_ppm: int = 0


@dataclass(frozen=True)
class Connected:
    """A meter at its connection point."""

    meter: str
    owner: str
    connection_point: str
    bus: int
    fuse_w: int
    tan_phi_ppm: int


def read_meters(path: Path) -> list[MeterRow]:
    """The list in a CSV file. Raises :class:`InputError` with everything that cannot be read."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError.single(str(path), "", str(error), "so it cannot be read") from None
    rows = csv.DictReader(io.StringIO(text))
    header = tuple(rows.fieldnames or ())
    if not set(_COLUMNS) <= set(header) or not set(header) <= {*_COLUMNS, *_OPTIONAL}:
        wanted = f"is not {','.join(_COLUMNS)}, and optionally {','.join(_OPTIONAL)}"
        raise InputError.single(str(path), "header", ",".join(header), wanted)
    problems: list[Problem] = []
    found = [_row(f"{path}:{rows.line_num}", rows.line_num, row, problems) for row in rows]
    if problems:
        raise InputError(problems)
    return found


def _row(source: str, line: int, row: Mapping[str, str | None], problems: list[Problem]) -> MeterRow:
    texts = {name: (text or "").strip() for name, text in row.items() if isinstance(name, str)}
    if any(not isinstance(name, str) for name in row):
        problems.append(Problem(source, "", "…", "has more columns than the header"))
    problems += [Problem(source, name, "", "is missing") for name in _COLUMNS if not texts[name]]

    def number(name: str, least: float) -> float | None:
        text = texts.get(name, "")
        if not text:
            return None
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not least <= value < 1e7:
            problems.append(Problem(source, name, text, "is no possible number"))
            return None
        return value

    fuse_a, fuse_w, tan_phi = number("fuse_a", 1), number("fuse_w", 1), number("tan_phi_ppm", -1e7)
    if fuse_a is not None and fuse_w is not None:
        problems.append(Problem(source, "fuse_w", texts["fuse_w"], "stands beside fuse_a: give one of them"))
    return MeterRow(
        line=line,
        meter=texts["meter"],
        bus=texts["bus"],
        owner=texts.get("owner", ""),
        fuse_a=fuse_a,
        fuse_w=None if fuse_w is None else int(fuse_w),
        tan_phi_ppm=int(tan_phi or 0),
    )


def bus_finder(net: Any) -> Mapping[str, int]:
    """Buses by index, ``bus:12`` and name; a name that several have is none."""
    found: dict[str, int] = {}
    if "name" in net.bus:
        names = net.bus.name[net.bus.name.notna()].astype(str)
        found |= {name: int(bus) for bus, name in names[~names.duplicated(keep=False)].items()}
    for bus in net.bus.index:
        found |= {str(bus): int(bus), f"bus:{bus}": int(bus)}
    return found


def check_meters(net: Any, rows: Sequence[MeterRow]) -> Iterator[Finding]:
    """Meters without a place, at a place where there can be none, or named twice."""
    buses = bus_finder(net)
    seen: dict[str, int] = {}
    twice = [row.meter for row in rows if seen.setdefault(row.meter, row.line) != row.line]
    yield from _told("error", "meters", "stands in the list more than once", twice)
    unknown = [f"{row.meter} ({row.bus})" for row in rows if row.bus not in buses]
    yield from _told(
        "error", "meters on unknown buses", "no bus has that index or name, or several have it", unknown
    )
    known = [(row, buses[row.bus]) for row in rows if row.bus in buses]
    off = [f"{row.meter} (bus:{bus})" for row, bus in known if not net.bus.in_service.at[bus]]
    yield from _told("error", "meters", "its bus is out of service", off)
    supplies = set(net.ext_grid.bus[net.ext_grid.in_service.astype(bool)])
    fed = [f"{row.meter} (bus:{bus})" for row, bus in known if bus in supplies]
    yield from _told("warning", "meters", "sits at the supply itself: no limit concerns it", fed)
    high = [f"{row.meter} (bus:{bus})" for row, bus in known if net.bus.vn_kv.at[bus] > _HIGHEST_KV]
    yield from _told("note", "meters", "is connected above 1 kV", high)
    bare = sum(row.fuse_a is None and row.fuse_w is None for row in rows)
    if bare:
        yield Finding("note", "fuses", f"{bare} meters without one: {FUSE_W_DEFAULT} W (3 × 63 A) counts")
    ownerless = sum(not row.owner for row in rows)
    if ownerless:
        words = f"{ownerless} meters have no owner's wallet yet: members.csv needs one before the market runs"
        yield Finding("note", "members", words)


def _told(severity: Any, check: str, text: str, elements: Sequence[str]) -> list[Finding]:
    return [Finding(severity, check, text, tuple(elements))] if elements else []


def connect(net: Any, rows: Sequence[MeterRow]) -> list[Connected]:
    """Gives every meter its connection point; ``net`` gets loads of 0 W where there are not enough.

    The rows were checked (:func:`check_meters` has no error).
    """
    import pandapower

    buses = bus_finder(net)
    free: dict[int, list[int]] = {}
    for index, bus in net.load.bus[net.load.in_service.astype(bool)].sort_index(ascending=False).items():
        free.setdefault(int(bus), []).append(int(index))
    found = []
    for row in rows:
        bus = buses[row.bus]
        at_bus = free.get(bus)
        load = at_bus.pop() if at_bus else int(pandapower.create_load(net, bus, p_mw=0.0, name=row.meter))
        fuse_w = row.fuse_w or FUSE_W_DEFAULT
        if row.fuse_a is not None:
            fuse_w = round(math.sqrt(3) * float(net.bus.vn_kv.at[bus]) * 1000 * row.fuse_a)
        found.append(Connected(row.meter, row.owner, f"load:{load}", bus, fuse_w, row.tan_phi_ppm))
    return found
