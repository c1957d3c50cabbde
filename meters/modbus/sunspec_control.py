"""What a SunSpec device is told: a power limit (models 704, 123) or a battery's power (704, 124).

Every write is read back. Reversion timers are set: the device frees itself when nobody speaks any more.
"""

from __future__ import annotations

from typing import Any

from meters.modbus.rates import Actuator

_ON, _OFF = 1, 0
_CHARGE_AND_DISCHARGE = 3
_WSET_WATTS = 1  # of WSetMod: WSet counts, in watts, not WSetPct
_SECONDS_MAX = 65534

Model = Any
"""pysunspec2 has no types."""


class ControlError(Exception):
    """The device has no model to be set by, or did not take what was written."""


def control(device: Any, power_w: int | None, actuator: Actuator) -> None:
    """Has a scanned device give ``power_w`` (None: releases it), by the first model it has for that.

    Blocks. Raises :class:`ControlError`.
    """
    if 704 in device.models:
        _by_704(device, power_w, actuator)
    elif actuator.device == "generator" and 123 in device.models:
        _by_123(device, power_w, actuator)
    elif actuator.device == "battery" and 124 in device.models:
        _by_124(device, power_w, actuator)
    else:
        wanted = "704 or 123" if actuator.device == "generator" else "704 or 124"
        raise ControlError(f"it has no model {wanted} to set its power by")


def _rated_w(device: Any, actuator: Actuator) -> float:
    """What percentages refer to: the setting, else the nameplate, else what the user said."""
    for number, name in ((702, "WMax"), (702, "WMaxRtg"), (121, "WMax"), (120, "WRtg")):
        if number in device.models:
            model = device.models[number][0]
            model.read()
            if model.points[name].cvalue:
                return float(model.points[name].cvalue)
    return float(actuator.rated_w)


def _set(model: Model, values: dict[str, float | int | None]) -> None:
    """Writes scaled values in the order given and reads them back; None, or not implemented: left out."""
    wanted = {}
    for name, value in values.items():
        point = model.points[name]
        if value is None or point.value is None:
            continue
        point.cvalue = value
        wanted[name] = point.value
        point.write()
    model.read()
    for name, value in wanted.items():
        held = model.points[name].value
        if held != value:
            raise ControlError(f"model {model.model_id}: {name} holds {held}, not the {value} written")


def _by_704(device: Any, power_w: int | None, actuator: Actuator) -> None:
    """Model 704: a limit in percent for a generator, an active power for a battery."""
    model = device.models[704][0]
    model.read()
    if actuator.device == "battery":
        if power_w is None:
            _force(model, "WSetEna", _OFF)
            return
        _force(model, "WSetMod", _WSET_WATTS)
        _force(model, "WSet", power_w)
        _set(model, {"WSetEnaRvrt": _OFF, "WSetRvrtTms": actuator.reverts_s})
        _force(model, "WSetEna", _ON)
        return
    if power_w is None:
        _force(model, "WMaxLimPctEna", _OFF)
        return
    _force(model, "WMaxLimPct", 100 * power_w / _rated_w(device, actuator))
    _set(model, {"WMaxLimPctEnaRvrt": _OFF, "WMaxLimPctRvrtTms": actuator.reverts_s})
    _force(model, "WMaxLimPctEna", _ON)


def _force(model: Model, name: str, value: float | int) -> None:
    """Like :func:`_set`, also where the device has not set it yet (it reads as not implemented)."""
    if model.points[name].value is None:
        model.points[name].value = 0
    _set(model, {name: value})


def _by_123(device: Any, power_w: int | None, actuator: Actuator) -> None:
    """Model 123: the power limit of an inverter, percent of its rating."""
    model = device.models[123][0]
    model.read()
    if power_w is None:
        _force(model, "WMaxLim_Ena", _OFF)
        return
    _set(
        model,
        {
            "WMaxLimPct_RvrtTms": min(actuator.reverts_s, _SECONDS_MAX),
            "WMaxLimPct_RmpTms": min(1, actuator.ramp_s),
        },
    )
    _force(model, "WMaxLimPct", 100 * power_w / _rated_w(device, actuator))
    _force(model, "WMaxLim_Ena", _ON)


def _by_124(device: Any, power_w: int | None, actuator: Actuator) -> None:
    """Model 124: a charge rate c and a discharge rate −c leave the battery one power only."""
    model = device.models[124][0]
    model.read()
    if power_w is None:
        _force(model, "StorCtl_Mod", _OFF)
        return
    most_w = model.points["WChaMax"].cvalue or actuator.rated_w
    percent = max(-100.0, min(100.0, 100 * power_w / float(most_w)))
    _set(
        model,
        {
            "InOutWRte_RvrtTms": min(actuator.reverts_s, _SECONDS_MAX),
            "InOutWRte_RmpTms": min(1, actuator.ramp_s),
        },
    )
    _force(model, "OutWRte", percent)
    _force(model, "InWRte", -percent)
    _force(model, "StorCtl_Mod", _CHARGE_AND_DISCHARGE)
