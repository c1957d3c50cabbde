"""A relay in front of a generator: an award becomes on or off, read back. Pure.

A relay knows no half: below ``threshold_percent`` of what was offered it switches off, else on. What it then
gives beyond the award is metered like everything else.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from meters.adapters.interface import PayloadError, object_of
from meters.adapters.shelly import Shelly
from meters.adapters.tasmota import Tasmota
from meters.household.devices import Pv
from meters.mqtt import Message
from meters.source import Setpoint

_STATES = {"ON": True, "OFF": False}


class Relay(BaseModel):
    """The relay of a Tasmota (``output`` 1, 2, …) or a Shelly (0, 1, …) and the generator behind it.

    ``rated_w`` is the most the generator gives, ``price`` (µEUR/kWh) what producing costs its owner.
    ``released`` is where the relay goes when nobody asks for anything.
    """

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)

    rated_w: Annotated[int, Field(gt=0)]
    price: Annotated[int, Field(ge=0)] = 0
    output: Annotated[int, Field(ge=0, le=31)] | None = None
    kind: Literal["switch", "light"] = "switch"
    threshold_percent: Annotated[int, Field(ge=1, le=100)] = 50
    released: Literal["on", "off"] = "on"

    @property
    def generator(self) -> Pv:
        return Pv(rated_w=float(self.rated_w), price=self.price)

    def wanted(self, setpoint: Setpoint | None) -> bool:
        """Whether the relay is to be on."""
        if setpoint is None:
            return self.released == "on"
        if setpoint.flexible_w >= setpoint.offered_w:
            return True
        return setpoint.flexible_w * 100 >= self.threshold_percent * setpoint.offered_w


def topics(device: Tasmota | Shelly) -> tuple[str, ...]:
    """Where the relay's state is told, besides the device's own topics."""
    return (device.at("stat", "RESULT"),) if isinstance(device, Tasmota) else ()


def switch(relay: Relay, device: Tasmota | Shelly, on: bool, hold_s: int | None) -> tuple[Message, ...]:
    """What switches it, and asks for its state. A Shelly goes back by itself after ``hold_s``: it does so too
    when nobody is left to release it.
    """
    if isinstance(device, Tasmota):
        return (Message(device.at("cmnd", _power(relay)), b"ON" if on else b"OFF"),)
    params: dict[str, object] = {"id": relay.output or 0, "on": on}
    if hold_s is not None:
        params["toggle_after"] = hold_s
    return (device.request(0, f"{relay.kind.title()}.Set", params), *device.question())


def state(relay: Relay, device: Tasmota | Shelly, payload: bytes) -> bool | None:
    """Whether a payload says that the relay is on; None where it says nothing of it."""
    try:
        found = object_of(payload)
    except PayloadError:
        return None
    if isinstance(device, Tasmota):
        names = (_power(relay), "POWER") if relay.output in (None, 1) else (_power(relay),)
        told = next((found[name] for name in names if name in found), None)
        return _STATES.get(told) if isinstance(told, str) else None
    status = found.get("params", found.get("result"))
    part = status.get(f"{relay.kind}:{relay.output or 0}") if isinstance(status, dict) else None
    output = part.get("output") if isinstance(part, dict) else None
    return output if isinstance(output, bool) else None


def _power(relay: Relay) -> str:
    return "POWER" if relay.output is None else f"POWER{relay.output}"
