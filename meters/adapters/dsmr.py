"""Smart meters in OBIS terms: P1 telegrams, dsmr-reader, the Nordic HAN port through an AMS reader.

``1-0:1.8.x`` is drawn, ``1-0:2.8.x`` delivered; x = 0 is the total, 1 to 4 are tariffs. Where the total is
told, tariffs are not added to it. The form is found by looking: a raw telegram, JSON with the names of
dsmr-reader, JSON with OBIS codes, the JSON of an AMS reader, or one topic a field (``dsmr/reading/+``).
Sources: DSMR P1 companion standard 5.0.2, dsmr-reader's documentation, UtilitechAS/amsreader-firmware.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Literal

from meters.adapters.interface import (
    ENERGY_UNITS,
    POWER_UNITS,
    Clock,
    Counter,
    Flow,
    Heard,
    PayloadError,
    Plain,
    TopicFilter,
    clock_of,
    energy_wh,
    object_of,
    power_w,
    shown,
    text_of,
    unix_clock,
)

_LINE = re.compile(r"(?:\d+-\d+:)?([12])\.([78])\.([0-4])(?:\*255)?\(([^*()]{1,24})\*(k?Wh?)\)", re.ASCII)
_CODE = re.compile(r"(?:\d+-\d+:)?([12])\.([78])\.([0-4])(?:[.*]255)?\Z", re.ASCII)
_VALUE = re.compile(r"([^*]{1,24})\*(k?Wh?)\Z", re.ASCII)
_CHECKSUM = re.compile(r"!([0-9A-Fa-f]{1,4})\s*\Z", re.ASCII)
_MOMENT = re.compile(r"0-0:1\.0\.0\((\d{12})([SW])\)", re.ASCII)
_CRC_POLYNOMIAL = 0xA001
_CET_S = {"W": 3600, "S": 7200}

_READER_FIELDS: dict[str, Counter] = {
    "electricity_delivered_1": ("import", "1"),
    "electricity_delivered_2": ("import", "2"),
    "electricity_returned_1": ("export", "1"),
    "electricity_returned_2": ("export", "2"),
}
_READER_POWERS = {"electricity_currently_delivered": 1, "electricity_currently_returned": -1}
_FLOWS: dict[str, Flow] = {"1": "import", "2": "export"}

Told = tuple[str, str, str, object, str]
"""Of an OBIS code: direction (1, 2), kind (8 energy, 7 power), tariff, value and its unit."""


class Dsmr(Plain):
    """``topic`` holds the telegram, the JSON or, ending in ``/+``, one topic a field; ``unit`` is that of
    counters which tell none.
    """

    adapter: Literal["dsmr"]
    topic: TopicFilter
    unit: Literal["Wh", "kWh"] = "kWh"

    def topics(self) -> tuple[str, ...]:
        return (self.topic,)

    def hear(self, topic: str, payload: bytes) -> Heard:
        if "+" in self.topic:
            return self._field(topic.rsplit("/", 1)[-1], payload)
        if payload.lstrip().startswith(b"/"):
            return _telegram(text_of(payload))
        found = object_of(payload)
        if "electricity_delivered_1" in found:
            return _from_reader(found)
        if isinstance(found.get("data"), dict) and "P" in found["data"]:
            return _from_ams_reader(found["data"])
        return self._from_codes(found)

    def registers(self, counters: Mapping[Counter, Decimal]) -> tuple[Decimal, Decimal] | None:
        if "+" in self.topic and not counters.keys() >= set(_READER_FIELDS.values()):
            return None  # tariff by tariff: half a sum would look like a jump
        return super().registers(counters)

    def _field(self, name: str, payload: bytes) -> Heard:
        text = text_of(payload)
        if (counter := _READER_FIELDS.get(name)) is not None:
            return Heard(counters={counter: energy_wh(text, "kWh", name)})
        if (sign := _READER_POWERS.get(name)) is not None:
            return Heard(powers={name: sign * power_w(text, "kW", name)})
        return Heard()

    def _from_codes(self, found: Mapping[str, Any]) -> Heard:
        told: list[Told] = []
        for key, value in found.items():
            if (match := _CODE.match(key)) is not None:
                number, unit = _value_and_unit(value)
                told.append(
                    (match[1], match[2], match[3], number, unit or (self.unit if match[2] == "8" else "W"))
                )
        return _heard(told)


def _telegram(text: str) -> Heard:
    text = text.strip()
    _verify_checksum(text)
    moment = _MOMENT.search(text)
    lines = (match for line in text.splitlines() if (match := _LINE.match(line)))
    told: list[Told] = [(line[1], line[2], line[3], line[4], line[5]) for line in lines]
    return _heard(told, _cet(moment[1], moment[2]) if moment else None)


def _heard(told: Iterable[Told], clock: Clock | None = None) -> Heard:
    counters: dict[Counter, Decimal] = {}
    powers: dict[str, Decimal] = {}
    for direction, kind, tariff, value, unit in told:
        code = f"1-0:{direction}.{kind}.{tariff}"
        if kind == "8" and unit in ENERGY_UNITS:
            counters[_FLOWS[direction], tariff] = energy_wh(value, unit, code)
        elif kind == "7" and tariff == "0" and unit in POWER_UNITS:
            powers[code] = power_w(value, unit, code) * (1 if direction == "1" else -1)
        elif kind == "8":
            raise PayloadError(f"{code}: {shown(unit)} is no unit of energy")
    for flow in _FLOWS.values():
        if (flow, "0") in counters:
            for tariff in "1234":
                counters.pop((flow, tariff), None)
    if not any(flow == "import" for flow, _ in counters) and not powers:
        raise PayloadError("no 1-0:1.8.x in it")
    return Heard(counters=counters, powers=powers, clock=clock, whole=bool(counters))


def _from_reader(found: Mapping[str, Any]) -> Heard:
    return Heard(
        counters={
            counter: energy_wh(found[name], "kWh", name)
            for name, counter in _READER_FIELDS.items()
            if found.get(name) is not None
        },
        powers={
            name: sign * power_w(found[name], "kW", name)
            for name, sign in _READER_POWERS.items()
            if found.get(name) is not None
        },
        clock=clock_of(found.get("timestamp")),
        whole=True,
    )


def _from_ams_reader(data: Mapping[str, Any]) -> Heard:
    """Power every few seconds; counters (tPI, tPO in kWh) with the meter's hourly list."""
    names: dict[str, Flow] = {"tPI": "import", "tPO": "export"}
    return Heard(
        counters={
            (flow, "0"): energy_wh(data[name], "kWh", name)
            for name, flow in names.items()
            if data.get(name) is not None
        },
        powers={
            name: sign * power_w(data[name], "W", name)
            for name, sign in {"P": 1, "PO": -1}.items()
            if data.get(name) is not None
        },
        clock=unix_clock(data.get("rtc")),
    )


def _value_and_unit(value: object) -> tuple[object, str | None]:
    """``123.4``, ``"000123.4*kWh"``, ``["000123.4*kWh"]`` or ``{"value": 123.4, "unit": "kWh"}``."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, dict):
        unit = value.get("unit")
        return value.get("value"), unit if isinstance(unit, str) else None
    if isinstance(value, str) and (match := _VALUE.match(value.strip())):
        return match[1], match[2]
    return value, None


def _verify_checksum(text: str) -> None:
    """Telegrams since DSMR 4 end in a CRC-16 of all that stands before it; older ones have none."""
    match = _CHECKSUM.search(text)
    if match is None:
        if not any(line.strip() == "!" for line in text.splitlines()):
            raise PayloadError("the telegram has no end")
        return
    body = text[: match.start() + 1]
    as_sent = "\r\n".join(body.splitlines())
    told = int(match[1], 16)
    if told not in (_crc(body), _crc(as_sent)):
        raise PayloadError(f"the telegram's checksum is {told:04X}, its content has {_crc(as_sent):04X}")


def _crc(text: str) -> int:
    """CRC-16/ARC: polynomial x¹⁶ + x¹⁵ + x² + 1, least significant bit first, no start value."""
    crc = 0
    for byte in text.encode("utf-8", errors="replace"):
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (_CRC_POLYNOMIAL if crc & 1 else 0)
    return crc


def _cet(digits: str, season: str) -> Clock | None:
    """The telegram's time: YYMMDDhhmmss in Central European time, S in summer, W in winter."""
    try:
        local = datetime.strptime(digits, "%y%m%d%H%M%S").replace(tzinfo=UTC)
    except ValueError:
        return None
    return Clock(local.timestamp() - _CET_S[season], zone_known=True)
