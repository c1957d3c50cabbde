"""Any topic: a payload that is a number, or a JSON path (RFC 9535) to one, with a unit and a scale."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Literal

import jsonpath_rfc9535
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from meters.adapters.interface import (
    POWER_UNITS,
    Counter,
    Heard,
    PayloadError,
    Plain,
    Topic,
    energy_wh,
    json_of,
    number,
    text_of,
)
from meters.mqtt import Message


@functools.cache
def _compiled(path: str) -> jsonpath_rfc9535.JSONPathQuery:
    return jsonpath_rfc9535.compile(path)


def _is_path(path: str) -> str:
    try:
        _compiled(path)
    except jsonpath_rfc9535.JSONPathError as error:
        raise ValueError(f"is no JSON path: {str(error).splitlines()[0]}") from None
    return path


class _Value(BaseModel):
    """Where a number stands. ``scale`` multiplies it, for transformers of current and the like."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)

    topic: Topic
    path: Annotated[str, Field(max_length=500), AfterValidator(_is_path)] | None = None
    scale: Annotated[float, Field(gt=0)] = 1.0

    def read(self, payload: bytes) -> Decimal:
        if self.path is None:
            found: object = text_of(payload).strip()
        else:
            nodes = _compiled(self.path).find(json_of(payload))
            if len(nodes) != 1:
                raise PayloadError(f"{self.path} finds {len(nodes)} values, not 1")
            found = nodes[0].value
        return number(found, self.path or self.topic) * Decimal(str(self.scale))


class EnergyValue(_Value):
    """A counter that only rises."""

    unit: Literal["Wh", "kWh", "MWh"] = "kWh"

    def wh(self, payload: bytes) -> Decimal:
        return energy_wh(self.read(payload), self.unit, self.path or self.topic)


class PowerValue(_Value):
    """A power; ``positive`` says which way a positive number flows."""

    unit: Literal["W", "kW"] = "W"
    positive: Literal["import", "export"] = "import"

    def watts(self, payload: bytes) -> Decimal:
        return self.read(payload) * POWER_UNITS[self.unit] * (1 if self.positive == "import" else -1)


class Generic(Plain):
    """Counters and power, each with its own topic and path; ``ask`` is published to make the device tell."""

    adapter: Literal["generic"]
    import_: Annotated[EnergyValue | None, Field(alias="import")] = None
    export: EnergyValue | None = None
    power: PowerValue | None = None
    ask_topic: Topic | None = None
    ask_payload: str = ""

    @property
    def counts(self) -> bool:
        return self.import_ is not None or self.export is not None

    def topics(self) -> tuple[str, ...]:
        values = (self.import_, self.export, self.power)
        return tuple(dict.fromkeys(value.topic for value in values if value is not None))

    def question(self) -> tuple[Message, ...]:
        return () if self.ask_topic is None else (Message(self.ask_topic, self.ask_payload.encode()),)

    def hear(self, topic: str, payload: bytes) -> Heard:
        counters: dict[Counter, Decimal] = {}
        powers: dict[str, Decimal] = {}
        if self.import_ is not None and self.import_.topic == topic:
            counters["import", "1"] = self.import_.wh(payload)
        if self.export is not None and self.export.topic == topic:
            counters["export", "1"] = self.export.wh(payload)
        if self.power is not None and self.power.topic == topic:
            powers["1"] = self.power.watts(payload)
        return Heard(counters=counters, powers=powers)

    def registers(self, counters: Mapping[Counter, Decimal]) -> tuple[Decimal, Decimal] | None:
        missing_import = self.import_ is not None and ("import", "1") not in counters
        missing_export = self.export is not None and ("export", "1") not in counters
        return None if missing_import or missing_export else super().registers(counters)
