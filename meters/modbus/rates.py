"""What a device is told to do, from what the market awarded. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from meters.source import Setpoint

SILENT_INTERVALS = 2
RAMP_S_MAX = 15


@dataclass(frozen=True)
class Actuator:
    """The device that obeys: a generator gives 0 to ``rated_w``, a battery also takes as much.

    A change takes ``ramp_s``. ``reverts_s`` is when a device that can release itself does, s from now.
    """

    device: Literal["generator", "battery"]
    rated_w: int
    ramp_s: int = 0
    reverts_s: int = 0

    def limited(self, power_w: int) -> int:
        least_w = 0 if self.device == "generator" else -self.rated_w
        return min(max(power_w, least_w), self.rated_w)


def wanted_w(setpoint: Setpoint | None, actuator: Actuator) -> int | None:
    """What the device is to give, W; None where it is free.

    A generator that was awarded all that it offered is free: what it gives beyond the forecast may flow.
    """
    if setpoint is None:
        return None
    if actuator.device == "generator" and setpoint.flexible_w >= setpoint.offered_w:
        return None
    return actuator.limited(setpoint.flexible_w)


def reverts_s(setpoint: Setpoint, now: float) -> int:
    """When the device is to release itself, should nobody tell it anything any more: two intervals after
    the award's, as the agent would. At least 1 s (0 would mean never).
    """
    interval_s = setpoint.end - setpoint.start
    return max(1, round(setpoint.end + SILENT_INTERVALS * interval_s - now))


def ramp(from_w: int, to_w: int, steps: int) -> list[int]:
    """The powers on the way, in equal steps, the last one ``to_w``."""
    if steps <= 1 or from_w == to_w:
        return [to_w]
    return [from_w + (to_w - from_w) * step // steps for step in range(1, steps)] + [to_w]
