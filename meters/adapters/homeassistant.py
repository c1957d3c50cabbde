"""Home Assistant's MQTT discovery: the device itself says where its counters stand.

``import``, ``export`` and ``power`` name configuration topics (``homeassistant/sensor/…/config``), which are
retained. Each tells a state topic, a unit and a template; short keys and ``~`` are understood. Templates come
from whoever may publish there, so only expressions run: no loops, no calls, no arithmetic with text. A value
that is missing is an error, never the template's default: a zero that nobody measured would be a reset.
Source: home-assistant.io/integrations/mqtt, sections discovery and value templates.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Any, Literal, cast

import jinja2
from jinja2 import nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment
from pydantic import Field

from meters.adapters.interface import (
    ENERGY_UNITS,
    POWER_UNITS,
    Adapter,
    Counter,
    Heard,
    PayloadError,
    Reader,
    Topic,
    energy_wh,
    json_of,
    number,
    object_of,
    power_w,
    shown,
    text_of,
)
from meters.mqtt import Message

_TEMPLATE_CHARS_MAX = 1_000
_SHORT = {
    "stat_t": "state_topic",
    "val_tpl": "value_template",
    "dev_cla": "device_class",
    "stat_cla": "state_class",
    "unit_of_meas": "unit_of_measurement",
}
_ALLOWED = (
    nodes.Template,
    nodes.Output,
    nodes.TemplateData,
    nodes.Name,
    nodes.Const,
    nodes.Getattr,
    nodes.Getitem,
    nodes.Filter,
    nodes.CondExpr,
    nodes.Compare,
    nodes.Operand,
    nodes.Add,
    nodes.Sub,
    nodes.Mul,
    nodes.Div,
    nodes.Neg,
    nodes.Pos,
)

Quantity = Literal["import", "export", "power"]


class HomeAssistant(Adapter):
    """Configuration topics of the counters, and of the power where one is announced."""

    adapter: Literal["homeassistant"]
    import_: Annotated[Topic | None, Field(alias="import")] = None
    export: Topic | None = None
    power: Topic | None = None

    @property
    def counts(self) -> bool:
        return self.import_ is not None or self.export is not None

    def reader(self) -> Reader:
        return Discovered(self)

    def topics(self) -> tuple[str, ...]:
        return tuple(topic for topic in (self.import_, self.export, self.power) if topic is not None)


@dataclass(frozen=True)
class _Sensor:
    """What a configuration announced."""

    topic: str
    unit: str
    template: jinja2.Template | None

    def value(self, payload: bytes) -> object:
        if self.template is None:
            return text_of(payload).strip()
        try:
            said = json_of(payload)
        except PayloadError:
            said = None
        try:
            return self.template.render(value=text_of(payload), value_json=said).strip()
        except (jinja2.TemplateError, ArithmeticError, TypeError, ValueError, RecursionError) as error:
            raise PayloadError(f"its template fails: {shown(str(error))}") from None


class Discovered:
    """A reader that learns from the configurations it hears where to listen, and how to read."""

    def __init__(self, settings: HomeAssistant) -> None:
        self._wanted: dict[str, Quantity] = {}
        for quantity, topic in (
            ("import", settings.import_),
            ("export", settings.export),
            ("power", settings.power),
        ):
            if topic is not None:
                self._wanted[topic] = cast("Quantity", quantity)
        self._sensors: dict[Quantity, _Sensor] = {}

    def topics(self) -> tuple[str, ...]:
        states = (sensor.topic for sensor in self._sensors.values())
        return tuple(dict.fromkeys((*self._wanted, *states)))

    def question(self) -> tuple[Message, ...]:
        return ()

    def hear(self, topic: str, payload: bytes) -> Heard:
        if (quantity := self._wanted.get(topic)) is not None:
            self._sensors[quantity] = _announced(quantity, object_of(payload))
            return Heard()
        counters: dict[Counter, Decimal] = {}
        powers: dict[str, Decimal] = {}
        for quantity, sensor in self._sensors.items():
            if sensor.topic != topic:
                continue
            value = sensor.value(payload)
            if quantity == "power":
                powers["1"] = power_w(value, sensor.unit, quantity)
            else:
                counters[quantity, "1"] = energy_wh(value, sensor.unit, quantity)
        return Heard(counters=counters, powers=powers)

    def registers(self, counters: Mapping[Counter, Decimal]) -> tuple[Decimal, Decimal] | None:
        for quantity in self._wanted.values():
            if quantity != "power" and (quantity, "1") not in counters:
                return None
        drawn = counters.get(("import", "1"), Decimal(0))
        return drawn, counters.get(("export", "1"), Decimal(0))


def _announced(quantity: Quantity, config: dict[str, Any]) -> _Sensor:
    """The sensor of a discovery configuration, when it is one that can be trusted with ``quantity``."""
    config = {_SHORT.get(key, key): value for key, value in config.items()}
    units = POWER_UNITS if quantity == "power" else ENERGY_UNITS
    unit = config.get("unit_of_measurement")
    if not isinstance(unit, str) or unit not in units:
        raise PayloadError(f"unit_of_measurement: {shown(unit)} is none of {', '.join(units)}")
    if quantity != "power" and config.get("device_class") != "energy":
        raise PayloadError(f"device_class: {shown(config.get('device_class'))} is not 'energy'")
    if quantity != "power" and config.get("state_class") not in ("total_increasing", "total"):
        raise PayloadError(f"state_class: {shown(config.get('state_class'))} is not 'total_increasing'")
    topic = config.get("state_topic")
    if not isinstance(topic, str):
        raise PayloadError(f"state_topic: {shown(topic)} is no topic")
    base = config.get("~")
    if isinstance(base, str):
        topic = base + topic[1:] if topic.startswith("~") else topic
        topic = topic[:-1] + base if topic.endswith("~") else topic
    if not topic or any(sign in topic for sign in "+#\0") or len(topic) > 200:
        raise PayloadError(f"state_topic: {shown(topic)} is no topic")
    return _Sensor(topic, unit, _template(config.get("value_template")))


def _template(text: object) -> jinja2.Template | None:
    """The template, where it is of the simple kind: one expression of values, numbers and filters."""
    if text is None:
        return None
    if not isinstance(text, str) or len(text) > _TEMPLATE_CHARS_MAX:
        raise PayloadError(f"value_template: {shown(text)} is no template")
    try:
        tree = _ENVIRONMENT.parse(text)
        for node in tree.find_all(nodes.Node):
            if not isinstance(node, _ALLOWED):
                raise PayloadError(f"value_template: {type(node).__name__} is not read, only expressions are")
            if isinstance(node, nodes.Name) and node.name not in ("value", "value_json"):
                raise PayloadError(f"value_template: {node.name!r} is not known here")
        return _ENVIRONMENT.from_string(tree)
    except (jinja2.TemplateError, RecursionError) as error:
        raise PayloadError(f"value_template: {shown(str(error))}") from None


class _Expressions(ImmutableSandboxedEnvironment):
    """Arithmetic of numbers only, in exact decimals."""

    intercepted_binops = frozenset("+-*/")
    intercepted_unops = frozenset("+-")

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        return super().call_binop(context, operator, _exact(left), _exact(right))

    def call_unop(self, context: Any, operator: str, arg: Any) -> Any:
        return super().call_unop(context, operator, _exact(arg))


def _exact(value: object, default: object = None) -> Decimal:
    """The filter ``float``; what it may default to is not taken."""
    if isinstance(value, jinja2.Undefined):
        raise jinja2.UndefinedError("a value is missing")
    if isinstance(value, float):
        value = Decimal(repr(value))
    return number(value, "value")


def _whole(value: object, default: object = None) -> Decimal:
    return _exact(value).to_integral_value(rounding="ROUND_DOWN")


def _rounded(value: object, digits: object = 0, method: object = "common") -> Decimal:
    if not isinstance(digits, int) or not 0 <= digits <= 9 or method != "common":
        raise PayloadError("round: not understood")
    return _exact(value).quantize(Decimal(1).scaleb(-digits))


def _given(value: object, default: object = None, boolean: object = False) -> object:
    """The filters ``default`` and ``is_defined``: what is missing stays missing."""
    if isinstance(value, jinja2.Undefined):
        raise jinja2.UndefinedError("a value is missing")
    return value


_ENVIRONMENT = _Expressions(undefined=jinja2.StrictUndefined)
_ENVIRONMENT.filters = {
    "float": _exact,
    "int": _whole,
    "round": _rounded,
    "abs": lambda value: abs(_exact(value)),
    "default": _given,
    "d": _given,
    "is_defined": _given,
}
_ENVIRONMENT.globals = {}
