"""``peergrid meter emulate``: a Modbus device of any type, for trying things without hardware."""

from __future__ import annotations

import asyncio
import contextlib
import math
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from market.cli.messages import say

if TYPE_CHECKING:
    from meters.modbus.plant import Plant
    from meters.modbus.profile import RegisterProfile, SunSpecProfile

_FEEDER = "simbench:1-LV-rural1--0-sw"
_HOUSEHOLD_STEP_S = 10
_SUNRISE_H, _SUNSET_H = 6, 20


@click.command("emulate")
@click.option("--profile", required=True, metavar="NAME", help="The meter type, or a YAML file of your own.")
@click.option("--url", default="tcp://127.0.0.1:5020", show_default=True, help="Or rtu:///dev/name.")
@click.option("--unit", type=click.IntRange(0, 255), help="Unit id; default: the profile's.")
@click.option("--power", "power_w", type=float,
              help="Measure a constant power, W, > 0 into the grid, not a household's.")  # fmt: skip
@click.option("--feeder", default=_FEEDER, show_default=True, help="Where the household comes from.")
@click.option("--load", default="load:1", show_default=True, help="Which of the feeder's households.")
@click.option("--rated", "rated_w", type=click.IntRange(1), default=5000, show_default=True,
              help="Rated power of an emulated inverter, W.")  # fmt: skip
def emulate(
    profile: str,
    url: str,
    unit: int | None,
    power_w: float | None,
    feeder: str,
    load: str,
    rated_w: int,
) -> int:
    """Serve a Modbus device of the given type until Ctrl-C.

    A meter measures a simulated household, an inverter gives what the sun would; both follow the clock. What
    is written to an inverter's control registers is obeyed.
    """
    from meters.modbus.line import parse_place
    from meters.modbus.profile import find_profile

    kind = find_profile(profile)
    place = parse_place(url)

    async def run() -> None:
        from meters.modbus.emulator import Emulator, image_of, serving

        stop = asyncio.Event()
        for name in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(name, stop.set)
        async with contextlib.AsyncExitStack() as stack:
            plant = await _plant(kind, power_w, feeder, load, rated_w, stack)
            number = kind.unit if unit is None else unit
            emulator = Emulator(image_of(kind, rated_w), plant, number, time.time)
            where = await stack.enter_async_context(serving([emulator], place, kind.serial))
            say(f"{profile} answers at {where} as unit {number}; Ctrl-C ends it")
            await stop.wait()

    asyncio.run(run())
    return 0


async def _plant(
    profile: RegisterProfile | SunSpecProfile,
    power_w: float | None,
    feeder: str,
    load: str,
    rated_w: int,
    stack: contextlib.AsyncExitStack,
) -> Plant:
    from meters.modbus.plant import DevicePlant, HouseholdPlant
    from meters.simulated import HouseholdSourceSettings
    from meters.source import Surroundings

    control: Any = profile.control
    obeys = control if control is None or isinstance(control, str) else control.device
    if power_w is None and obeys is None:
        say(f"loading {load} of {feeder}")
        settings = HouseholdSourceSettings(kind="household", feeder_name=feeder, load=load)
        around = Surroundings(time.time, _HOUSEHOLD_STEP_S, Path(), stack)
        return HouseholdPlant(await settings.open(around))
    free_w: Callable[[float], float]
    if power_w is not None:
        free_w = _constant(power_w)
    else:
        free_w = _constant(0) if obeys == "battery" else _sun(rated_w)
    return DevicePlant(free_w, time.time(), capacity_wh=2.0 * rated_w if obeys == "battery" else None)


def _constant(power_w: float) -> Callable[[float], float]:
    return lambda _: power_w


def _sun(rated_w: int) -> Callable[[float], float]:
    """Half a sine between sunrise and sunset, UTC."""

    def power_w(now: float) -> float:
        hour = now / 3600 % 24
        return rated_w * max(0.0, math.sin(math.pi * (hour - _SUNRISE_H) / (_SUNSET_H - _SUNRISE_H)))

    return power_w
