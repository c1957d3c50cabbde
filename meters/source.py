"""Where a meter's registers come from: the one interface between an agent and what it reads.

A source is a simulated household, a Modbus meter, a payload on a home broker. The agent calls
:meth:`Source.read` at every interval boundary, signs what it gets and keeps it until the market's receipt
covers it. Its conventions are the wire's: whole Wh in registers that only rise, W with export positive, Unix
seconds.

A kind of source is a pydantic model (:class:`SourceSettings`) that :data:`SOURCES` names: its fields are what
a user writes under ``[meters.source]``, its ``open`` makes the source. Nothing else has to change.
"""

from __future__ import annotations

import contextlib
import time
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field

from grid.errors import PeergridError
from market.messages.models import Quality
from meters.household.devices import Pv
from meters.strategies.interface import BatteryNow

TOLERANCE_S = 30
"""A reading counts for an interval boundary when it was taken within so much of it (design, rule 9)."""

READ_TIMEOUT_S = 20.0
"""The agent cancels a read that takes longer; a source bounds its own waiting well below."""

SOURCES = {
    "household": "meters.simulated:HouseholdSourceSettings",
    "modbus": "meters.modbus.source:ModbusSourceSettings",
    "mqtt": "meters.adapters.source:MqttSourceSettings",
}
"""Kinds of sources (``kind = "…"`` in a configuration) and their settings, imported when used."""

_VOLTS = 230


class SourceError(PeergridError):
    """The device did not tell its registers: no answer, an exception code, nonsense.

    The message is one line for the log, and names device and reason. The agent tries again within the
    tolerance, then at the next boundary; other meters never wait for it.
    """


@dataclass(frozen=True, slots=True)
class RegisterReading:
    """The registers at ``taken_at`` (Unix s, when they were really read, not when they were asked for).

    ``import_wh`` and ``export_wh`` never fall within an ``epoch``. The source extends a register that rolls
    over; where it was reset or the meter replaced, it counts one epoch up and starts from what the new
    register says. ``power_w`` is the power at that moment, > 0 into the grid (0 where the device does not
    tell). ``memory`` is what the source wants to be told by :meth:`Source.restore` after a restart (its last
    raw registers, say): the agent stores it in one transaction with the reading.
    """

    taken_at: int
    import_wh: int
    export_wh: int
    power_w: int
    quality: Quality = Quality.MEASURED
    epoch: int = 0
    memory: str = ""


@dataclass(frozen=True, slots=True)
class Setpoint:
    """What an award asks of the device from ``start`` to ``end`` (Unix s); powers in W, > 0 into the grid.

    ``net_w`` is what the connection point is to hold (the award's ``setpoint_w``), ``flexible_w`` the part of
    it that the device was awarded, ``offered_w`` what had been offered of it. Where all was awarded
    (``flexible_w == offered_w``) a generator need not be limited: what it gives beyond the forecast may flow.
    """

    start: int
    end: int
    net_w: int
    flexible_w: int
    offered_w: int


class Source(Protocol):
    """One meter's registers, and the device behind it where that obeys. Used by one task at a time."""

    @property
    def name(self) -> str:
        """What log lines call it, such as ``tcp://192.0.2.7:502 unit 1 (SDM630)``."""

    def restore(self, memory: str) -> None:
        """Called once before the first read, with the last stored ``memory``, if there is one."""

    async def read(self, at: int) -> RegisterReading:
        """The registers for the boundary ``at`` (Unix s), which has just passed, or passed while the agent
        was away.

        A device without a memory is read at once whatever ``at`` is, and ``taken_at`` says so; one that keeps
        records (or a simulation) answers for ``at``. Boundaries come in ascending order. Raises
        :class:`SourceError`; may be cancelled at any await, and has to work again after that.
        """

    def device(self) -> Pv | BatteryNow | None:
        """The device that obeys :meth:`apply`: a generator that can be curtailed, or a battery and what is in
        it.

        None: nothing can be set, and the meter sends firm energy only. Does no I/O: it tells what was last
        read.
        """

    async def apply(self, setpoint: Setpoint | None) -> None:
        """Have the device follow ``setpoint``; None releases it to its own devices.

        Called at an interval's start with its award, and with None when the market has been silent for two
        intervals and when the agent ends. Limits, ramps and reading back are the source's. Raises
        :class:`SourceError`; never called where :meth:`device` is None.
        """


@dataclass
class Surroundings:
    """What a source may use of the process that it lives in.

    ``now`` is the wall clock (Unix s), ``interval_s`` the market's interval, ``base`` where relative paths
    start. What is entered on ``stack`` ends with the process. ``shared`` holds what several sources have in
    common (a serial line, a connection to a home broker) under a key of their own making.
    """

    now: Callable[[], float]
    interval_s: int
    base: Path
    stack: contextlib.AsyncExitStack
    shared: dict[Any, Any] = field(default_factory=dict)

    @property
    def monotonic(self) -> Callable[[], float]:
        """A clock that nobody sets, in s; where time is not the wall's, ``now`` is one."""
        return time.monotonic if self.now is time.time else self.now


class SourceSettings(BaseModel):
    """What a user says about a source; the models that :data:`SOURCES` names narrow ``kind`` to a Literal."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)

    kind: str
    fuse_a: Annotated[float, Field(gt=0, le=6300)] = 63
    """The main fuse, A for each phase: no more energy than it lets through is believed, or ordered."""
    phases: Literal[1, 3] = 3

    @property
    def fuse_w(self) -> int:
        return round(self.fuse_a * _VOLTS * self.phases)

    @abstractmethod
    async def open(self, around: Surroundings) -> Source:
        """The source. A device that does not answer is no error here (:meth:`Source.read` tells); settings
        that cannot work are (:class:`InputError`, naming the field).
        """
        raise NotImplementedError


def between(earlier: RegisterReading, later: RegisterReading, at: int) -> RegisterReading:
    """The registers at ``at``, shared by time in whole Wh, rounded down, and marked as estimated: the agent
    fills the boundaries that nobody read with it.

    Both are of one epoch and ``earlier.taken_at <= at <= later.taken_at``: the total stays exact.
    """
    assert earlier.epoch == later.epoch
    assert earlier.taken_at <= at <= later.taken_at
    span_s = max(1, later.taken_at - earlier.taken_at)
    part_s = at - earlier.taken_at
    import_wh = earlier.import_wh + (later.import_wh - earlier.import_wh) * part_s // span_s
    export_wh = earlier.export_wh + (later.export_wh - earlier.export_wh) * part_s // span_s
    net_wh = later.export_wh - earlier.export_wh - later.import_wh + earlier.import_wh
    return replace(
        later,
        taken_at=at,
        import_wh=import_wh,
        export_wh=export_wh,
        power_w=round(net_wh * 3600 / span_s),
        quality=Quality.ESTIMATED,
    )
