"""Tasmota: ``tele/<topic>/SENSOR``, its energy monitors and its smart meter readers (SML, OBIS, D0).

An energy monitor reports a group ``ENERGY`` with ``Total`` in kWh, a list where it has several channels. A
smart meter script names group and values as its author liked: ``group``, ``import_key``, ``export_key`` and
``power_key`` say them. Sources: tasmota.github.io/docs (Sonoff-Pow, Smart-Meter-Interface, MQTT).
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import Field

from meters.adapters.interface import (
    Counter,
    Heard,
    PayloadError,
    Plain,
    Topic,
    clock_of,
    energy_wh,
    object_of,
    power_w,
    shown,
)
from meters.mqtt import Message

_ENERGY = "ENERGY"


class Tasmota(Plain):
    """``topic`` is the device's %topic%; ``channels`` are those to add up, 1 the first (none named: all)."""

    adapter: Literal["tasmota"]
    topic: Topic
    full_topic: Annotated[str, Field(pattern=r"^[^+#\x00]*%prefix%[^+#\x00]*$", max_length=200)] = (
        "%prefix%/%topic%/"
    )
    group: str = _ENERGY
    import_key: str = "Total"
    export_key: str | None = None
    power_key: str | None = "Power"
    channels: Annotated[tuple[Annotated[int, Field(ge=1, le=16)], ...], Field(strict=False)] = ()

    def topics(self) -> tuple[str, ...]:
        return (self.at("tele", "SENSOR"), self.at("stat", "STATUS8"), self.at("stat", "STATUS10"))

    def question(self) -> tuple[Message, ...]:
        return (Message(self.at("cmnd", "STATUS"), b"10"),)

    def at(self, prefix: str, leaf: str) -> str:
        """A topic of this device."""
        folder = self.full_topic.replace("%prefix%", prefix).replace("%topic%", self.topic)
        return f"{folder.rstrip('/')}/{leaf}"

    def hear(self, topic: str, payload: bytes) -> Heard:
        found = object_of(payload)
        report = found.get("StatusSNS", found)
        if not isinstance(report, dict):
            raise PayloadError(f"StatusSNS: {shown(report)} is not an object")
        group = report.get(self.group)
        if not isinstance(group, dict):
            there = ", ".join(repr(name) for name, value in report.items() if isinstance(value, dict))
            raise PayloadError(f"no group {self.group!r}; there is {shown(there) if there else 'none'}")
        counters = self._counters("import", group, self.import_key)
        if self.export_key is not None:
            counters |= self._counters("export", group, self.export_key)
        powers = {} if self.power_key is None else self._values(group, self.power_key)
        if not counters and not powers:
            raise PayloadError(f"{self.group}: no {self.import_key!r}; there is {shown(', '.join(group))}")
        return Heard(
            counters=counters,
            powers={name: power_w(value, "W", self._path(self.power_key)) for name, value in powers.items()},
            clock=clock_of(report.get("Time")),
        )

    def registers(self, counters: Mapping[Counter, Decimal]) -> tuple[Decimal, Decimal] | None:
        flows = {flow for flow, _ in counters}
        needed = {"import"} if self.export_key is None else {"import", "export"}
        return super().registers(counters) if flows >= needed else None

    def _counters(
        self, flow: Literal["import", "export"], group: dict[str, Any], key: str
    ) -> dict[Counter, Decimal]:
        counters: dict[Counter, Decimal] = {}
        for name, value in self._values(group, key).items():
            wh = energy_wh(value, "kWh", self._path(key))
            if wh == 0 and flow == "import" and self.group != _ENERGY:
                # A reader reports zeros after its start, until its meter has spoken (Tasmota issue 17260).
                raise PayloadError(f"{self._path(key)}: 0, as a reader says before it has heard its meter")
            counters[flow, name] = wh
        return counters

    def _values(self, group: dict[str, Any], key: str) -> dict[str, Any]:
        """The value of each channel, by its number or name."""
        value = group.get(key)
        if value is None:
            return {}
        if isinstance(value, dict):
            return value
        channels = dict(enumerate(value if isinstance(value, list) else [value], start=1))
        chosen = self.channels or channels
        for channel in chosen:
            if channel not in channels:
                raise PayloadError(f"{self._path(key)}: no channel {channel} of {len(channels)}")
        return {str(channel): channels[channel] for channel in chosen}

    def _path(self, key: str | None) -> str:
        return f"{self.group}.{key}"
