"""Registers to numbers and back, and which registers one request can fetch. Pure."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from meters.modbus.profile import Quantity, Register, RegisterProfile, RegisterType, Value, WordOrder

_FORMATS: dict[RegisterType, str] = {
    "u16": ">H",
    "i16": ">h",
    "u32": ">I",
    "i32": ">i",
    "u64": ">Q",
    "i64": ">q",
    "f32": ">f",
    "f64": ">d",
}
_MANTISSA_BITS = {"f32": 23, "f64": 52}


@dataclass(frozen=True)
class Span:
    """Registers that one request fetches, and what is in them."""

    function: int
    address: int
    words: int
    quantities: tuple[Quantity, ...]
    optional: bool


def spans(profile: RegisterProfile) -> tuple[Span, ...]:
    """The requests of one poll: neighbours share one, as far as the device's limits allow.

    What only some devices have is asked for alone, so that a refusal costs nothing else. Energy comes first.
    """
    found: list[Span] = []
    ordered = sorted(
        profile.registers.items(),
        key=lambda item: (item[1].optional, item[1].function, item[1].address),
    )
    for quantity, register in ordered:
        last = found[-1] if found else None
        end = register.address + register.words
        if (
            last is not None
            and not register.optional
            and last.function == register.function
            and register.address - (last.address + last.words) <= profile.gap_max
            and end - last.address <= profile.words_max
        ):
            words = max(last.words, end - last.address)
            found[-1] = Span(last.function, last.address, words, (*last.quantities, quantity), False)
        else:
            found.append(
                Span(register.function, register.address, register.words, (quantity,), register.optional)
            )
    return tuple(sorted(found, key=lambda span: (span.optional, "import_wh" not in span.quantities)))


@dataclass(frozen=True)
class Number:
    """A decoded register: its value in Wh, W, V, A, Hz or %, and the step to the next one it could hold.

    A ``floating`` one holds less the more it has counted: where its step is above 1 Wh, it has lost some.
    """

    value: Fraction
    step: Fraction
    floating: bool = False


def decode(register: Register, order: WordOrder, words: Sequence[int]) -> Number | None:
    """What ``words`` say; None where they mean "not there" (or no number)."""
    data = _bytes(words, order)
    if any(_matches(pattern, data) for pattern in register.undefined):
        return None
    (raw,) = struct.unpack(_FORMATS[register.type], data)
    if isinstance(raw, float):
        if not math.isfinite(raw):
            return None
        step = float_step(raw, _MANTISSA_BITS[register.type])
        return Number(Fraction(raw) * register.factor, step * register.factor, floating=True)
    return Number(raw * register.factor, register.factor)


def float_step(raw: float, mantissa_bits: int) -> Fraction:
    """The distance from ``raw`` to the next number that such a float can hold."""
    exponent = math.frexp(raw)[1] if raw else -125
    return Fraction(2) ** (exponent - 1 - mantissa_bits)


def encode(value: Value, order: WordOrder, number: Fraction | int) -> list[int]:
    """The registers that hold ``number`` (Wh, W, V, A, Hz, %), rounded to what they can hold.

    Raises :class:`OverflowError` where it does not fit.
    """
    raw = number / value.factor
    try:
        data = struct.pack(_FORMATS[value.type], float(raw) if value.type.startswith("f") else round(raw))
    except struct.error as error:
        raise OverflowError(f"{number} does not fit into {value.type} × {value.scale}: {error}") from None
    return _words(data, order)


def numbers(
    profile: RegisterProfile, fetched: Mapping[Span, Sequence[int] | None]
) -> dict[Quantity, Number | None]:
    """All quantities of the profile from the answers to its :func:`spans` (None: refused).

    Whatever the device's own sign, ``power_w`` > 0 flows into the grid.
    """
    found: dict[Quantity, Number | None] = {}
    for span, words in fetched.items():
        for quantity in span.quantities:
            found[quantity] = None
            if words is None:
                continue
            register = profile.registers[quantity]
            start = register.address - span.address
            number = decode(register, profile.order_of(register), words[start : start + register.words])
            if number is not None and quantity == "power_w" and register.positive == "import":
                number = replace(number, value=-number.value)
            found[quantity] = number
    return found


def _bytes(words: Iterable[int], order: WordOrder) -> bytes:
    ordered = list(words) if order == "big" else list(words)[::-1]
    return b"".join(word.to_bytes(2, "big") for word in ordered)


def _words(data: bytes, order: WordOrder) -> list[int]:
    words = [int.from_bytes(data[start : start + 2], "big") for start in range(0, len(data), 2)]
    return words if order == "big" else words[::-1]


def _matches(pattern: str, data: bytes) -> bool:
    digits = data.hex().upper()
    return len(pattern) == len(digits) and all(
        wanted in ("x", digit) for wanted, digit in zip(pattern, digits, strict=True)
    )
