"""What a sequence of payloads comes to: the sample that stands for the device at a moment. Pure.

Payloads tell parts (Shelly: what changed; one topic a field), come late, or tell power only. A sample is as
old as the oldest counter in it, and there is none until every counter has been heard. Where a device counts
nothing, its power can be integrated: an estimate, and marked as one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal

from meters.adapters.interface import Clock, Counter, Flow, Heard, Reader
from meters.modbus.energy import RawRegister, Sample

HOLD_S_MAX = 300
"""How long a power is taken to have lasted; where nothing was heard for longer, nothing is counted."""
DRIFT_S_MAX = 30
"""Beyond it the device's clock is told to be wrong, and what it stored by that clock is not used."""
_ZONE_S = 900  # time zones differ by whole quarters of an hour


@dataclass(frozen=True)
class Value:
    """A number, and when it was heard (Unix s, this machine's clock)."""

    value: Decimal
    at: float


@dataclass(frozen=True)
class Integral:
    """Energy that follows from powers, Wh, up to ``at``."""

    import_wh: float = 0.0
    export_wh: float = 0.0
    at: float | None = None


@dataclass(frozen=True)
class Known:
    """All that a device has said. ``steps_wh`` is the resolution of each counter, the finest seen;
    ``drift_s`` how far its clock is ahead of ours, None where it tells none.
    """

    counters: Mapping[Counter, Value] = field(default_factory=dict)
    powers: Mapping[str, Value] = field(default_factory=dict)
    steps_wh: Mapping[Counter, float] = field(default_factory=dict)
    drift_s: float | None = None
    integral: Integral = Integral()


def learn(known: Known, heard: Heard, at: float, period_s: int = 0) -> Known:
    """What is known after ``heard`` at ``at``; counters stand still between multiples of ``period_s``."""
    told_at = at - at % period_s if period_s else at
    counters = {name: Value(value, told_at) for name, value in heard.counters.items()}
    steps = dict(known.steps_wh)
    for name, value in heard.counters.items():
        steps[name] = min(steps.get(name, math.inf), _step_wh(value))
    return replace(
        known,
        counters=counters if heard.whole else {**known.counters, **counters},
        powers={**known.powers, **{name: Value(value, at) for name, value in heard.powers.items()}},
        steps_wh=steps,
        drift_s=known.drift_s if heard.clock is None else _drift_s(heard.clock, at),
        integral=_integrated(known, at) if heard.powers else known.integral,
    )


def counted(known: Known, reader: Reader, invert: bool) -> Sample | None:
    """The sample of the device's own counters; None while it has not told them all.

    With ``invert`` the device stands the other way round: what it counts as drawn is fed in.
    """
    registers = reader.registers({name: value.value for name, value in known.counters.items()})
    if registers is None or not known.counters:
        return None
    imported = RawRegister(math.floor(registers[0]), _whole_step(known, "import"))
    exported = RawRegister(math.floor(registers[1]), _whole_step(known, "export"))
    taken_at = int(min(value.at for value in known.counters.values()))
    return _directed(taken_at, imported, exported, invert)


def estimated(known: Known, invert: bool) -> Sample | None:
    """The sample of what the powers come to; None while no power was heard."""
    if known.integral.at is None:
        return None
    imported = RawRegister(math.floor(known.integral.import_wh))
    exported = RawRegister(math.floor(known.integral.export_wh))
    return _directed(int(known.integral.at), imported, exported, invert)


def export_w(known: Known, invert: bool) -> int:
    """Power into the grid, W: the sum of what was last heard, 0 where none was."""
    consumed = round(sum((value.value for value in known.powers.values()), Decimal(0)))
    return consumed if invert else -consumed


def _directed(taken_at: int, imported: RawRegister, exported: RawRegister, invert: bool) -> Sample:
    if invert:
        imported, exported = exported, imported
    return Sample(taken_at, imported, exported)


def _whole_step(known: Known, flow: Flow) -> int:
    steps = [known.steps_wh[name] for name in known.counters if name[0] == flow]
    return max(1, math.ceil(max(steps, default=1)))


def _step_wh(value: Decimal) -> float:
    exponent = value.as_tuple().exponent
    assert isinstance(exponent, int)
    return float(10.0**exponent)


def _drift_s(clock: Clock, at: float) -> float:
    """Without a zone only the difference within a quarter of an hour is known."""
    ahead_s = clock.unix_s - at
    return ahead_s if clock.zone_known else (ahead_s + _ZONE_S / 2) % _ZONE_S - _ZONE_S / 2


def _integrated(known: Known, at: float) -> Integral:
    """The powers heard before, held until now."""
    before = known.integral
    if before.at is None or not before.at <= at <= before.at + HOLD_S_MAX:
        return replace(before, at=at)
    net_w = float(sum((value.value for value in known.powers.values()), Decimal(0)))
    net_wh = net_w * (at - before.at) / 3600
    return Integral(before.import_wh + max(0.0, net_wh), before.export_wh + max(0.0, -net_wh), at)
