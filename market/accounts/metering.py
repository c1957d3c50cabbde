"""From cumulative registers to the energy of an interval (rule 9 of design section 3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from market.messages.models import Quality

BOUNDARY_TOLERANCE_S = 30


@dataclass(frozen=True, slots=True)
class Registers:
    """A meter's cumulative registers, Wh, at ``taken_at`` (Unix seconds)."""

    epoch: int
    seq: int
    taken_at: int
    import_wh: int
    export_wh: int
    quality: int = Quality.MEASURED


class Flag(StrEnum):
    """How an interval's energy is known."""

    MEASURED = "measured"
    ESTIMATED = "estimated"  # the meter says so
    INTERPOLATED = "interpolated"  # the total is exact, the split between intervals is not
    MISSING = "missing"


@dataclass(frozen=True, slots=True)
class Metered:
    """The energy that a meter saw in an interval, Wh."""

    import_wh: int
    export_wh: int
    flag: Flag

    @property
    def net_wh(self) -> int:
        """Net energy into the grid."""
        return self.export_wh - self.import_wh


def registers_at(readings: Sequence[Registers], boundary: int) -> tuple[Registers, Flag] | None:
    """The registers at ``boundary``, or None where no reading tells them.

    A reading within ± 30 s counts as is, the nearest one first. Otherwise the registers lie on the straight
    line between the readings before and after it of one epoch, in whole Wh rounded down.
    """
    near = [r for r in readings if abs(r.taken_at - boundary) <= BOUNDARY_TOLERANCE_S]
    if near:
        best = min(near, key=lambda r: (abs(r.taken_at - boundary), -r.epoch, -r.seq))
        return best, Flag.MEASURED if best.quality == Quality.MEASURED else Flag.ESTIMATED
    before = max(
        (r for r in readings if r.taken_at < boundary),
        key=lambda r: (r.taken_at, r.epoch, r.seq),
        default=None,
    )
    after = min(
        (r for r in readings if r.taken_at > boundary),
        key=lambda r: (r.taken_at, r.epoch, r.seq),
        default=None,
    )
    if before is None or after is None or before.epoch != after.epoch:
        return None
    passed, whole = boundary - before.taken_at, after.taken_at - before.taken_at

    def between(first: int, last: int) -> int:
        return first + (last - first) * passed // whole

    registers = Registers(
        epoch=before.epoch,
        seq=before.seq,
        taken_at=boundary,
        import_wh=between(before.import_wh, after.import_wh),
        export_wh=between(before.export_wh, after.export_wh),
    )
    return registers, Flag.INTERPOLATED


def metered_energy(readings: Sequence[Registers], start: int, end: int) -> Metered | None:
    """The energy in ``[start, end)`` from one meter's readings around it.

    None where a boundary is unknown, where a new epoch begins in between, or where a register runs backwards:
    no number is better than a wrong one.
    """
    first, last = registers_at(readings, start), registers_at(readings, end)
    if first is None or last is None or first[0].epoch != last[0].epoch:
        return None
    import_wh = last[0].import_wh - first[0].import_wh
    export_wh = last[0].export_wh - first[0].export_wh
    if import_wh < 0 or export_wh < 0:
        return None
    flags = {first[1], last[1]}
    worst = next(f for f in (Flag.INTERPOLATED, Flag.ESTIMATED, Flag.MEASURED) if f in flags)
    return Metered(import_wh, export_wh, worst)
