"""A meter type as data: which registers tell what, and what their bits mean.

A profile is a YAML file. Those in ``meters/profiles`` come with the product; a user's own file has the same
form and is named by its path. The form is published as JSON Schema (``peergrid meter profiles --schema``).
"""

from __future__ import annotations

from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from grid.errors import InputError, Problem

FOLDER = Path(__file__).parents[1] / "profiles"

Quantity = Literal[
    "import_wh", "export_wh", "power_w", "voltage_v", "current_a", "frequency_hz", "charge_percent"
]
"""What a profile can tell. Volts and amperes are those of L1: they serve to see whether all is plausible."""
QUANTITIES: tuple[Quantity, ...] = get_args(Quantity)

RegisterType = Literal["u16", "i16", "u32", "i32", "u64", "i64", "f32", "f64"]
WordOrder = Literal["big", "little"]
Direction = Literal["import", "export"]

_UNIT_FACTORS: dict[str, Fraction] = {
    "Wh": Fraction(1),
    "kWh": Fraction(1000),
    "MWh": Fraction(10**6),
    "W": Fraction(1),
    "kW": Fraction(1000),
    "V": Fraction(1),
    "A": Fraction(1),
    "Hz": Fraction(1),
    "%": Fraction(1),
}


class Part(BaseModel):
    model_config = ConfigDict(
        strict=True, frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True
    )


class Value(Part):
    """A number in one or more registers."""

    address: Annotated[int, Field(ge=0, le=65535)]
    """On the wire, counted from 0: neither 30001 nor 40001 is added."""
    type: RegisterType
    word_order: WordOrder | None = None
    """``big``: the first register holds the high word; ``little``: the low word. Default: the profile's."""
    scale: Annotated[int | float, Field(gt=0)] = 1
    """What is in the registers, times this, is in ``unit``."""
    unit: Literal["Wh", "kWh", "MWh", "W", "kW", "V", "A", "Hz", "%"]
    positive: Direction = "import"
    """Of powers: what a positive number means."""

    @property
    def words(self) -> int:
        """How many registers it takes."""
        return int(self.type[1:]) // 16

    @cached_property
    def factor(self) -> Fraction:
        """Raw value × factor is in Wh, W, V, A, Hz or %."""
        return Fraction(str(self.scale)) * _UNIT_FACTORS[self.unit]


class Register(Value):
    """A register that is read."""

    function: Literal[3, 4]
    """3 reads holding registers, 4 input registers."""
    undefined: tuple[Annotated[str, Field(pattern=r"^[0-9A-Fx]+$")], ...] = ()
    """Raw values that mean "not there": hexadecimal, high word first, ``x`` for any digit."""
    rolls_over_at: Annotated[int, Field(gt=0)] | None = None
    """Raw value at which a counter starts again from 0. Default: where its type ends; floats do not."""
    optional: bool = False
    """Some devices of this type do not have it."""

    @property
    def modulus(self) -> int | None:
        if self.rolls_over_at is not None:
            return self.rolls_over_at
        if self.type.startswith("f"):
            return None
        sign_bit = 1 if self.type.startswith("i") else 0
        return 1 << (int(self.type[1:]) - sign_bit)


class Identity(Part):
    """Registers that tell one device from another: a replaced meter is seen at once."""

    function: Literal[3, 4]
    address: Annotated[int, Field(ge=0, le=65535)]
    words: Annotated[int, Field(ge=1, le=32)]


class Switch(Part):
    """A register that turns the setpoint on and off."""

    address: Annotated[int, Field(ge=0, le=65535)]
    type: Literal["u16", "u32"]
    active: Annotated[int, Field(ge=0)]
    inactive: Annotated[int, Field(ge=0)]


class Control(Part):
    """How a device is told what to do; its registers are read back with function 3."""

    device: Literal["generator", "battery"]
    """A generator's setpoint is the most it may give; a battery's is what it gives, or takes below 0."""
    function: Literal[6, 16] = 16
    """16 writes several registers, 6 a single one."""
    setpoint: Value
    switch: Switch | None = None


class Serial(Part):
    """The factory settings of the serial port, 8 data bits."""

    baud: Annotated[int, Field(ge=300, le=1_000_000)] = 9600
    parity: Literal["N", "E", "O"] = "N"
    stop_bits: Literal[1, 2] = 1


class Type(Part):
    """What all profiles say of a meter type."""

    maker: str
    model: str
    sources: Annotated[tuple[str, ...], Field(min_length=1)]
    """Documents that the registers were taken from."""
    disputes: tuple[str, ...] = ()
    """Where sources or devices differ, and what this profile does."""
    notes: tuple[str, ...] = ()
    verified: bool
    """A register image by the maker's definition was read back through an independent server."""
    unit: Annotated[int, Field(ge=0, le=255)] = 1
    """The unit id that the device is delivered with."""
    transports: Annotated[tuple[Literal["tcp", "rtu"], ...], Field(min_length=1)]
    serial: Serial = Serial()
    words_max: Annotated[int, Field(ge=1, le=125)] = 125
    """Registers that the device gives at most in one answer."""


class RegisterProfile(Type):
    """A device with registers of its own."""

    protocol: Literal["registers"]
    word_order: WordOrder = "big"
    gap_max: Annotated[int, Field(ge=0, le=100)] = 8
    """Registers between two wanted ones that may be read along, so that one request does for both."""
    registers: dict[Quantity, Register]
    identity: Identity | None = None
    control: Control | None = None

    def order_of(self, value: Value) -> WordOrder:
        return value.word_order or self.word_order


class Points(Part):
    """SunSpec models that tell the same, and the names of their points."""

    models: Annotated[tuple[int, ...], Field(min_length=1)]
    import_wh: str | None = None
    export_wh: str | None = None
    power_w: str
    positive: Direction
    voltage_v: str | None = None
    current_a: str | None = None
    frequency_hz: str | None = None


class SunSpecProfile(Type):
    """A device whose models are found by a scan."""

    protocol: Literal["sunspec"]
    points: Annotated[tuple[Points, ...], Field(min_length=1)]
    """The first that the device has is used."""
    control: Literal["generator", "battery"] | None = None
    """What the device obeys: a power limit (models 704, 123) or storage control (704, 124)."""


Profile = Annotated[RegisterProfile | SunSpecProfile, Field(discriminator="protocol")]
_ADAPTER: TypeAdapter[RegisterProfile | SunSpecProfile] = TypeAdapter(Profile)


def shipped() -> dict[str, RegisterProfile | SunSpecProfile]:
    """All profiles of the product by name, in alphabetical order."""
    return {path.stem: read_profile(path) for path in sorted(FOLDER.glob("*.yaml"))}


def find_profile(name: str, base: Path = Path()) -> RegisterProfile | SunSpecProfile:
    """The shipped profile of that name, or the user's file at that path (relative to ``base``).

    Raises :class:`InputError`.
    """
    if name.endswith((".yaml", ".yml")):
        return read_profile(base / name)
    path = FOLDER / f"{name}.yaml"
    names = sorted(path.stem for path in FOLDER.glob("*.yaml"))
    if name not in names:
        raise InputError.single("profile", "", name, f"is no YAML file, and none of {', '.join(names)}")
    return read_profile(path)


def read_profile(path: Path) -> RegisterProfile | SunSpecProfile:
    """Raises :class:`InputError`, one problem for each thing that is wrong with the file."""
    try:
        content: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError.single(str(path), "", error.strerror, "so it cannot be read") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError.single(str(path), "", " ".join(str(error).split()), "so it is not YAML") from None
    try:
        return _ADAPTER.validate_python(_tuples(content))
    except ValidationError as error:
        raise InputError(
            Problem(str(path), ".".join(map(str, item["loc"][1:])), item["input"], item["msg"])
            for item in error.errors(include_url=False)
        ) from None


def json_schema() -> dict[str, Any]:
    """The form of a profile, for editors and other programs."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Peergrid meter profile",
        **_ADAPTER.json_schema(),
    }


def _tuples(content: Any) -> Any:
    """YAML has lists only; the models are immutable."""
    if isinstance(content, dict):
        return {key: _tuples(value) for key, value in content.items()}
    if isinstance(content, list):
        return tuple(_tuples(value) for value in content)
    return content
