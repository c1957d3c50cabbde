"""From what a meter's energy registers say to registers that only rise. Pure.

A device's register rolls over, is reset, belongs to a device that was replaced, or is read wrongly. What goes
on to the market never falls within an epoch, and never rises by more than the fuse lets through in the time
that went by: an increase is measured or there is none.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from enum import Enum
from typing import Any

CONFIRM_S = 60
"""What looks like another register has to stay so long before it is believed."""
CONFIRM_SAMPLES = 3

_BOUND_MARGIN = 1.1
_BOUND_LEAST_WH = 10
_CLOCK_TOLERANCE_S = 5


@dataclass(frozen=True)
class RawRegister:
    """What a device's register says, Wh; ``step_wh`` is its resolution, at ``modulus_wh`` it rolls over."""

    wh: int
    step_wh: int = 1
    modulus_wh: int | None = None


@dataclass(frozen=True)
class Sample:
    """One poll: registers at ``taken_at`` (Unix s) and what tells this device from another, if known."""

    taken_at: int
    imported: RawRegister
    exported: RawRegister
    identity: str = ""


class Event(Enum):
    """What a sample turned out to be."""

    FIRST = "the first reading"
    MEASURED = "measured"
    ROLLED_OVER = "the register rolled over"
    NEW_EPOCH = "the register was reset or the meter replaced: a new epoch starts"
    SUSPECT = "not believed yet"


@dataclass(frozen=True)
class Counter:
    """One direction: the raw register last believed, and the register that goes on, Wh."""

    raw_wh: int
    total_wh: int


@dataclass(frozen=True)
class Suspect:
    """A register that does not continue the one before: since when, how often seen, and what it said last."""

    since: int
    samples: int
    taken_at: int
    import_raw_wh: int
    export_raw_wh: int


@dataclass(frozen=True)
class State:
    """What has to survive a restart."""

    epoch: int
    taken_at: int
    imported: Counter
    exported: Counter
    identity: str = ""
    suspect: Suspect | None = None

    def to_json(self) -> str:
        return json.dumps(asdict(self), separators=(",", ":"))

    @staticmethod
    def from_json(text: str) -> State:
        content: dict[str, Any] = json.loads(text)
        suspect = content.pop("suspect")
        imported, exported = Counter(**content.pop("imported")), Counter(**content.pop("exported"))
        return State(
            **content,
            imported=imported,
            exported=exported,
            suspect=Suspect(**suspect) if suspect else None,
        )


@dataclass(frozen=True)
class Outcome:
    """The state after a sample and what it was; ``clock_jumped`` where wall and elapsed time disagree."""

    state: State
    event: Event
    clock_jumped: bool = False
    reason: str = ""


def accumulate(state: State | None, sample: Sample, fuse_w: int, elapsed_s: float | None) -> Outcome:
    """The state after ``sample``.

    ``fuse_w`` is the most that can flow. ``elapsed_s`` is the time since the state's sample by a clock that
    nobody sets, None where there is none (after a restart): then the samples' own times have to do.
    """
    if state is None:
        return Outcome(_fresh(0, sample), Event.FIRST)
    by_clock_s = sample.taken_at - state.taken_at
    jumped = by_clock_s < 0 if elapsed_s is None else abs(by_clock_s - elapsed_s) > _CLOCK_TOLERANCE_S
    if sample.identity and state.identity and sample.identity != state.identity:
        reason = f"serial number {state.identity} became {sample.identity}"
        return Outcome(_fresh(state.epoch + 1, sample), Event.NEW_EPOCH, jumped, reason)

    seconds = max(0.0, float(by_clock_s) if elapsed_s is None else elapsed_s)
    imported = _follow(state.imported.raw_wh, sample.imported, fuse_w, seconds)
    exported = _follow(state.exported.raw_wh, sample.exported, fuse_w, seconds)
    if imported is None or exported is None:
        return _doubt(state, sample, fuse_w, jumped)
    after = replace(
        state,
        taken_at=sample.taken_at,
        imported=_advance(state.imported, sample.imported, imported),
        exported=_advance(state.exported, sample.exported, exported),
        identity=sample.identity or state.identity,
        suspect=None,
    )
    fell = (
        sample.imported.wh < state.imported.raw_wh and imported > 0,
        sample.exported.wh < state.exported.raw_wh and exported > 0,
    )
    return Outcome(after, Event.ROLLED_OVER if any(fell) else Event.MEASURED, jumped)


def bound_wh(fuse_w: int, seconds: float, step_wh: int) -> int:
    """The most a register can have risen."""
    return int(fuse_w * seconds / 3600 * _BOUND_MARGIN) + _BOUND_LEAST_WH + 2 * step_wh


def _follow(last_wh: int, raw: RawRegister, fuse_w: int, seconds: float) -> int | None:
    """By how much the register rose; None where it cannot be the one that stood at ``last_wh``."""
    most_wh = bound_wh(fuse_w, seconds, raw.step_wh)
    rise_wh = raw.wh - last_wh
    if -raw.step_wh <= rise_wh < 0:
        return 0  # a reading within its own resolution
    if rise_wh < 0 and raw.modulus_wh is not None:
        rise_wh += raw.modulus_wh
    return rise_wh if 0 <= rise_wh <= most_wh else None


def _advance(counter: Counter, raw: RawRegister, rise_wh: int) -> Counter:
    """Where nothing rose, the higher raw value stays: what fell and rises again is not counted twice."""
    return Counter(raw.wh if rise_wh else max(raw.wh, counter.raw_wh), counter.total_wh + rise_wh)


def _fresh(epoch: int, sample: Sample) -> State:
    return State(
        epoch=epoch,
        taken_at=sample.taken_at,
        imported=Counter(sample.imported.wh, sample.imported.wh),
        exported=Counter(sample.exported.wh, sample.exported.wh),
        identity=sample.identity,
    )


def _doubt(state: State, sample: Sample, fuse_w: int, jumped: bool) -> Outcome:
    """A sample that does not continue the register: believed only when others go on from it."""
    suspect = state.suspect
    reason = (
        f"import {state.imported.raw_wh} → {sample.imported.wh} Wh, "
        f"export {state.exported.raw_wh} → {sample.exported.wh} Wh in {sample.taken_at - state.taken_at} s"
    )
    if suspect is not None:
        seconds = max(0, sample.taken_at - suspect.taken_at)
        goes_on = (
            _follow(suspect.import_raw_wh, sample.imported, fuse_w, seconds) is not None
            and _follow(suspect.export_raw_wh, sample.exported, fuse_w, seconds) is not None
        )
        if goes_on:
            samples = suspect.samples + 1
            if samples >= CONFIRM_SAMPLES and sample.taken_at - suspect.since >= CONFIRM_S:
                return Outcome(_fresh(state.epoch + 1, sample), Event.NEW_EPOCH, jumped, reason)
            suspect = replace(suspect, samples=samples)
        else:
            suspect = None
    if suspect is None:
        suspect = Suspect(sample.taken_at, 1, 0, 0, 0)
    suspect = replace(
        suspect,
        taken_at=sample.taken_at,
        import_raw_wh=sample.imported.wh,
        export_raw_wh=sample.exported.wh,
    )
    return Outcome(replace(state, suspect=suspect), Event.SUSPECT, jumped, reason)
