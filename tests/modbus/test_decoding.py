"""Registers and numbers, requests and their limits."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meters.modbus.decoding import decode, encode, spans
from meters.modbus.profile import Register, RegisterProfile, shipped


def register(**more: object) -> Register:
    return Register.model_validate({"function": 3, "address": 0, "type": "u16", "unit": "Wh", **more})


@given(st.integers(0, 2**64 - 1), st.sampled_from(["big", "little"]))
def test_an_integer_register_holds_every_wh(wh: int, order: str) -> None:
    wide = register(type="u64")
    number = decode(wide, order, encode(wide, order, wh))  # type: ignore[arg-type]
    assert number is not None
    assert (number.value, number.step, number.floating) == (wh, 1, False)


def test_scales_are_exact() -> None:
    """A float of 0.1 is not a tenth."""
    tenths = register(type="i32", scale=0.1, unit="kWh")
    number = decode(tenths, "big", [0x0001, 0x86A1])
    assert number is not None
    assert (number.value, number.step) == (10_000_100, 100)


@pytest.mark.parametrize(
    ("kwh", "step_wh"),
    [(8191.0, Fraction(125, 256)), (16383.0, Fraction(125, 128)), (16385.0, Fraction(125, 64))],
)
def test_a_float_tells_when_it_has_lost_whole_wh(kwh: float, step_wh: Fraction) -> None:
    floating = register(type="f32", unit="kWh")
    number = decode(floating, "big", encode(floating, "big", Fraction(kwh) * 1000))
    assert number is not None
    assert number.floating
    assert number.step == step_wh


@pytest.mark.parametrize("words", [[0x7FC0, 0], [0x7F80, 0], [0xFF80, 0]])
def test_a_float_that_is_no_number_is_undefined(words: list[int]) -> None:
    assert decode(register(type="f32"), "big", words) is None


def test_undefined_values_may_leave_digits_open() -> None:
    overflow = register(type="i32", undefined=("7FFFxxxx",))
    assert decode(overflow, "little", [0x1234, 0x7FFF]) is None
    assert decode(overflow, "little", [0x7FFF, 0x0000]) is not None


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(OverflowError, match="70000 does not fit into u16"):
        encode(register(), "big", 70_000)


@pytest.mark.parametrize("name", [name for name, one in shipped().items() if one.protocol == "registers"])
def test_requests_cover_all_registers_within_the_device_s_limits(name: str) -> None:
    profile = shipped()[name]
    assert isinstance(profile, RegisterProfile)
    plan = spans(profile)
    assert sorted(quantity for span in plan for quantity in span.quantities) == sorted(profile.registers)
    for span in plan:
        assert 1 <= span.words <= profile.words_max
        for quantity in span.quantities:
            one = profile.registers[quantity]
            assert one.function == span.function
            assert span.address <= one.address
            assert one.address + one.words <= span.address + span.words
        if span.optional:
            assert len(span.quantities) == 1


def test_neighbours_share_a_request_and_import_and_export_are_of_one_moment() -> None:
    for name in ("eastron-sdm630", "abb-b23", "janitza-umg", "shelly-pro-3em", "schneider-iem3155"):
        profile = shipped()[name]
        assert isinstance(profile, RegisterProfile)
        first = spans(profile)[0]
        assert {"import_wh", "export_wh"} <= set(first.quantities), name
