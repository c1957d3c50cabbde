"""Shelly Gen2 and later: ``<device>/events/rpc`` and answers to questions by RPC over MQTT.

A NotifyStatus carries only what changed. Energy is in Wh: ``emdata:N`` (three phases: ``total_act``,
``total_act_ret``) and ``em1data:N`` (one channel) once a minute, ``switch:N`` and ``pm1:N`` in ``aenergy``
and ``ret_aenergy``. There ``aenergy`` holds returned energy too (evcc pull request 31878, home-assistant/core
issue 146911), so what was drawn is the difference. The data components keep a record of every minute for at
least ten days, which answers for boundaries that nobody was there to read.
Source: shelly-api-docs.shelly.cloud, gen2, components EM, EMData, EM1, EM1Data, PM1, Switch, and Mqtt.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import Field

from meters.adapters.interface import (
    Clock,
    Counter,
    Flow,
    Heard,
    PayloadError,
    Plain,
    Stretch,
    Topic,
    energy_wh,
    object_of,
    power_w,
    shown,
    unix_clock,
)
from meters.mqtt import Message

MINUTE_S = 60
_RECORDS_MAX = 10_000
_ROLLS_S = 2
"""The counters of a minute come about a second after its end (the log of ioBroker.shelly issue 787)."""
_PHASES = "abc"

Component = Annotated[str, Field(pattern=r"^(em|em1|switch|pm1):\d{1,3}$")]


class Shelly(Plain):
    """``device`` is the prefix of its topics (its MQTT settings), ``components`` those that make up the
    meter: ``em:0`` for three phases in one, ``em1:0``, ``em1:1``, … for channels of their own.
    """

    adapter: Literal["shelly"]
    device: Topic
    components: Annotated[tuple[Component, ...], Field(min_length=1, max_length=16, strict=False)] = ("em:0",)

    @property
    def source(self) -> str:
        """How this gateway calls itself in questions to the device; answers come to ``<source>/rpc``."""
        return f"peergrid-gateway/{self.device}"

    @property
    def period_s(self) -> int:
        return MINUTE_S if all(_has_data_component(component) for component in self.components) else 0

    def topics(self) -> tuple[str, ...]:
        return (f"{self.device}/events/rpc", f"{self.source}/rpc")

    def question(self) -> tuple[Message, ...]:
        return (self.request(0, "Shelly.GetStatus", {}),)

    def request(self, number: int, method: str, params: dict[str, Any]) -> Message:
        """A call of the device's ``method``; the answer carries ``number``."""
        body = {"id": number, "src": self.source, "method": method, "params": params}
        return Message(f"{self.device}/rpc", json.dumps(body).encode())

    def hear(self, topic: str, payload: bytes) -> Heard:
        found = object_of(payload)
        if found.get("method") in ("NotifyStatus", "NotifyFullStatus"):
            return self._status(found.get("params"))
        if "result" in found:
            heard = self._status(found["result"])
            # At the beginning of a minute an answer may still hold the counters of the one before.
            early = heard.clock is not None and heard.clock.unix_s % MINUTE_S < _ROLLS_S
            return replace(heard, counters={}) if early and self.period_s else heard
        if "error" in found:
            raise PayloadError(f"the device refused a question: {shown(found['error'])}")
        return Heard()  # NotifyEvent and the like

    def registers(self, counters: Mapping[Counter, Decimal]) -> tuple[Decimal, Decimal] | None:
        drawn, returned = Decimal(0), Decimal(0)
        for component in self.components:
            both = _has_data_component(component)
            gives = counters.get(("import", component))
            takes = counters.get(("export", component), None if both else Decimal(0))
            if gives is None or takes is None:
                return None
            drawn += gives if both else max(Decimal(0), gives - takes)
            returned += takes
        return drawn, returned

    def _status(self, status: object) -> Heard:
        if not isinstance(status, dict):
            raise PayloadError(f"{shown(status)} is not a status")
        counters: dict[Counter, Decimal] = {}
        powers: dict[str, Decimal] = {}
        for component in self.components:
            if _has_data_component(component):
                _take_data(component, status, counters)
                power = "total_act_power" if component.startswith("em:") else "act_power"
            else:
                _take_energy(component, status, counters)
                power = "apower"
            value = _part(status, component).get(power)
            if value is not None:
                powers[component] = power_w(value, "W", f"{component}.{power}")
        return Heard(counters=counters, powers=powers, clock=_clock(status))

    # What the device stored

    def history_request(self, component: str, start: int, end: int) -> Message:
        """Asks for what a data component stored in ``[start, end)``, Unix s."""
        name = "EM1Data" if component.startswith("em1:") else "EMData"
        params = {"id": int(component.split(":")[1]), "ts": start, "end_ts": end - 1}
        return self.request(self.components.index(component) + 1, f"{name}.GetData", params)

    def history(self, payload: bytes) -> tuple[str, list[Stretch], int | None] | None:
        """The component, its stored stretches and where the next page starts; None: no such answer."""
        found = object_of(payload)
        result, index = found.get("result"), found.get("id")
        if not isinstance(result, dict) or "data" not in result or "keys" not in result:
            return None
        if isinstance(index, bool) or not isinstance(index, int) or not 1 <= index <= len(self.components):
            return None
        component = self.components[index - 1]
        following = result.get("next_record_ts")
        page = int(following.unix_s) if (following := unix_clock(following)) else None
        return component, _stretches(component, result), page


def _has_data_component(component: str) -> bool:
    return component.startswith("em")


def _part(status: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = status.get(name, {})
    if not isinstance(part, dict):
        raise PayloadError(f"{name}: {shown(part)} is not an object")
    return part


def _take_data(component: str, status: Mapping[str, Any], counters: dict[Counter, Decimal]) -> None:
    kind, number = component.split(":")
    name = f"{kind}data:{number}"
    part = _part(status, name)
    pairs: tuple[tuple[Flow, str], ...] = (
        (("import", "total_act"), ("export", "total_act_ret"))
        if kind == "em"
        else (("import", "total_act_energy"), ("export", "total_act_ret_energy"))
    )
    for flow, key in pairs:
        if part.get(key) is not None:
            counters[flow, component] = energy_wh(part[key], "Wh", f"{name}.{key}")


def _take_energy(component: str, status: Mapping[str, Any], counters: dict[Counter, Decimal]) -> None:
    part = _part(status, component)
    pairs: tuple[tuple[Flow, str], ...] = (("import", "aenergy"), ("export", "ret_aenergy"))
    for flow, key in pairs:
        total = _part(part, key).get("total")
        if total is not None:
            counters[flow, component] = energy_wh(total, "Wh", f"{component}.{key}.total")


def _clock(status: Mapping[str, Any]) -> Clock | None:
    return unix_clock(status.get("ts", _part(status, "sys").get("unixtime")))


def _stretches(component: str, result: Mapping[str, Any]) -> list[Stretch]:
    keys, blocks = result["keys"], result["data"]
    if not isinstance(keys, list) or not isinstance(blocks, list):
        raise PayloadError(f"{component}: stored records of another form")
    names = {f"{phase}_" for phase in _PHASES} if component.startswith("em:") else {""}
    try:
        drawn = [keys.index(f"{name}total_act_energy") for name in names]
        returned = [keys.index(f"{name}total_act_ret_energy") for name in names]
    except ValueError:
        raise PayloadError(f"{component}: stored records without total_act_energy") from None
    found: list[Stretch] = []
    for block in blocks:
        start, period, rows = _block(component, block)
        for row in rows:
            if not isinstance(row, list) or len(row) != len(keys) or len(found) >= _RECORDS_MAX:
                raise PayloadError(f"{component}: a stored record of another form: {shown(row)}")
            gives = sum((energy_wh(row[i], "Wh", component) for i in drawn), Decimal(0))
            takes = sum((energy_wh(row[i], "Wh", component) for i in returned), Decimal(0))
            found.append(Stretch(start, start + period, gives, takes))
            start += period
    return found


def _block(component: str, block: object) -> tuple[int, int, list[Any]]:
    if isinstance(block, dict) and isinstance(rows := block.get("values"), list):
        start, period = unix_clock(block.get("ts")), unix_clock(_whole(block.get("period")))
        if start is not None and period is not None:
            return int(start.unix_s), int(period.unix_s), rows
    raise PayloadError(f"{component}: stored records of another form: {shown(block)}")


def _whole(value: object) -> object:
    """The documentation types ``period`` as a string, devices send a number."""
    return int(value) if isinstance(value, str) and value.isascii() and value.isdigit() else value
