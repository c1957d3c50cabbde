"""What is wrong with a set of readings, in plain words. Pure.

A wrong word order, unit or profile gives numbers, not errors: only what is possible on a low-voltage
connection tells them from measurements.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction

from meters.modbus.decoding import Number, Span, numbers
from meters.modbus.profile import Quantity, RegisterProfile

Numbers = Mapping[Quantity, Number | None]

VOLTS = (80, 300)
HERTZ = (45, 65)
_AMPERES_MAX = 6300
_LIFE_H = 60 * 8766
_KW_RATIO = (Fraction(1, 5), 5)


def implausible(found: Numbers, fuse_w: int) -> list[str]:
    """One line for each number that cannot be; empty if all can.

    An inverter that sleeps tells 0 V and 0 Hz, so 0 is no error.
    """
    lines = []
    volts, hertz, amperes = (_value(found, name) for name in ("voltage_v", "frequency_hz", "current_a"))
    if volts and not VOLTS[0] <= volts <= VOLTS[1]:
        lines.append(f"voltage {_shown(volts)} V is not between {VOLTS[0]} and {VOLTS[1]} V")
    if hertz and not HERTZ[0] <= hertz <= HERTZ[1]:
        lines.append(f"frequency {_shown(hertz)} Hz is not between {HERTZ[0]} and {HERTZ[1]} Hz")
    if amperes is not None and abs(amperes) > _AMPERES_MAX:
        lines.append(f"current {_shown(amperes)} A is more than {_AMPERES_MAX} A")
    power = _value(found, "power_w")
    if power is not None and abs(power) > 2 * fuse_w:
        lines.append(f"power {_shown(power)} W is more than twice the fuse rating of {fuse_w} W")
    for name in ("import_wh", "export_wh"):
        energy = _value(found, name)
        if energy is not None and not 0 <= energy <= fuse_w * _LIFE_H:
            lines.append(f"{name} {_shown(energy)} Wh is not what a meter behind {fuse_w} W can have counted")
    return lines


def swapped(profile: RegisterProfile, fetched: Mapping[Span, Sequence[int] | None], fuse_w: int) -> bool:
    """Whether the other word order makes sense of what this one does not."""
    other = "little" if profile.word_order == "big" else "big"
    registers = {
        name: register.model_copy(update={"word_order": None}) for name, register in profile.registers.items()
    }
    turned = profile.model_copy(update={"word_order": other, "registers": registers})
    here, there = numbers(profile, fetched), numbers(turned, fetched)
    return (
        bool(implausible(here, fuse_w))
        and not implausible(there, fuse_w)
        and any(value is not None for value in there.values())
    )


def diagnose(
    profile: RegisterProfile,
    fetched: Mapping[Span, Sequence[int] | None],
    fuse_w: int,
    earlier: Numbers | None = None,
) -> list[str]:
    """What is likely wrong, for somebody in front of the meter; ``earlier`` is what it said some time ago."""
    found = numbers(profile, fetched)
    if swapped(profile, fetched, fuse_w):
        other = "little" if profile.word_order == "big" else "big"
        return [f"the words are swapped: set word_order to {other} in a copy of this profile"]
    lines = implausible(found, fuse_w)
    if lines and all(value is None or value.value == 0 for value in found.values()):
        lines.append("everything reads 0 or undefined: is this the right profile?")
    volts, amperes, power = (_value(found, name) for name in ("voltage_v", "current_a", "power_w"))
    if volts and amperes and power and abs(amperes) >= Fraction(1, 2):
        ratio = abs(power) * 1000 / abs(volts * amperes)
        if _KW_RATIO[0] <= ratio <= _KW_RATIO[1]:
            lines.append(
                f"power {_shown(power)} W is about a thousandth of {_shown(volts)} V × {_shown(amperes)} A: "
                "the register holds kW, set its unit to kW"
            )
    if earlier is not None:
        lines += direction(found, earlier)
    return lines


def direction(found: Numbers, earlier: Numbers) -> list[str]:
    """Whether the register grows that the sign of the power speaks against."""
    powers = [value for value in (_value(found, "power_w"), _value(earlier, "power_w")) if value is not None]
    rises = {}
    for name in ("import_wh", "export_wh"):
        now, then = _value(found, name), _value(earlier, name)
        rises[name] = now - then if now is not None and then is not None else Fraction(0)
    imports = all(power < 0 for power in powers) and rises["export_wh"] > rises["import_wh"] >= 0
    exports = all(power > 0 for power in powers) and rises["import_wh"] > rises["export_wh"] >= 0
    if powers and (imports or exports):
        grows = "export_wh" if imports else "import_wh"
        return [
            f"power says {'import' if imports else 'export'}, but {grows} grows: import and export are "
            "exchanged (set invert = true), or the sign of the power is"
        ]
    return []


def _value(found: Numbers, name: Quantity) -> Fraction | None:
    number = found.get(name)
    return None if number is None else number.value


def _shown(value: Fraction) -> str:
    return f"{float(value):.6g}"
