"""A SunSpec device: its models are found by a scan, read and set through pysunspec2.

pysunspec2 blocks, so it runs in a thread; what it puts on the wire goes through the :class:`Line` all the
same, with its limits and its turns.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from typing import Any

from sunspec2.device import ModelError
from sunspec2.modbus.client import SunSpecModbusClientDevice, SunSpecModbusClientError

from meters.modbus.decoding import Number, float_step
from meters.modbus.line import Line
from meters.modbus.profile import Points, Quantity, SunSpecProfile
from meters.modbus.rates import Actuator
from meters.modbus.sunspec_control import ControlError, control
from meters.modbus.unit import Poll
from meters.source import SourceError

_NAMES: tuple[Quantity, ...] = (
    "import_wh",
    "export_wh",
    "power_w",
    "voltage_v",
    "current_a",
    "frequency_hz",
)
_MODULI = {"acc32": 2**32, "acc64": 2**64, "uint32": 2**32, "uint64": 2**64}
_WORDS_WRITTEN_MAX = 100

Model = Any
"""pysunspec2 has no types."""


class _Device(SunSpecModbusClientDevice):  # type: ignore[misc]
    """pysunspec2's client on a line of ours; its methods run in a worker thread."""

    def __init__(self, line: Line, unit: int, words_max: int) -> None:
        super().__init__()
        self.abandoned = False
        self._line = line
        self._unit = unit
        self._words_max = words_max
        self._loop = asyncio.get_running_loop()

    def read(self, addr: int, count: int) -> bytes:
        words: list[int] = []
        while len(words) < count:
            part = min(self._words_max, int(count) - len(words))
            words += self._wait(self._line.read(self._unit, 3, int(addr) + len(words), part))
        return b"".join(word.to_bytes(2, "big") for word in words)

    def write(self, addr: int, data: bytes) -> None:
        words = [int.from_bytes(data[at : at + 2], "big") for at in range(0, len(data), 2)]
        for start in range(0, len(words), _WORDS_WRITTEN_MAX):
            part = words[start : start + _WORDS_WRITTEN_MAX]
            self._wait(self._line.write(self._unit, addr + start, part))

    def _wait(self, call: Coroutine[Any, Any, Any]) -> Any:
        if self.abandoned:
            call.close()
            raise SourceError("nobody waits for it any more")
        return asyncio.run_coroutine_threadsafe(call, self._loop).result()


class SunSpecUnit:
    """A unit whose models are found on first use, and again after every failure."""

    def __init__(
        self,
        line: Line,
        profile: SunSpecProfile,
        unit: int,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.name = f"{line.place} unit {unit}"
        self.profile = profile
        self._line = line
        self._unit = unit
        self._now = now
        self._device: _Device | None = None
        self._thread = ThreadPoolExecutor(1)  # its own: those of devices that hang must not be missing here

    async def poll(self) -> Poll:
        device = await self._scanned()
        points, model = self._measuring(device)
        await self._run(model.read)
        taken_at = int(self._now())
        charge = _charge_point(device)
        if charge is not None:
            await self._run(charge.model.read)
        found: dict[Quantity, Number | None] = {}
        moduli: dict[Quantity, int] = {}
        for name in _NAMES:
            point_name = getattr(points, name)
            if point_name is None or point_name not in model.points:
                continue
            number = point_number(model, point_name)
            if number is not None and name == "power_w" and points.positive == "import":
                number = Number(-number.value, number.step, number.floating)
            found[name] = number
            kind = model.points[point_name].pdef["type"]
            if name.endswith("_wh") and kind in _MODULI and number is not None:
                moduli[name] = round(_MODULI[kind] * number.step)
        if charge is not None and charge.cvalue is not None:
            found["charge_percent"] = Number(Fraction(charge.cvalue), Fraction(1))
        return Poll(taken_at, found, moduli, _identity(device))

    async def obey(self, power_w: int | None, actuator: Actuator) -> None:
        device = await self._scanned()
        try:
            await self._run(lambda: control(device, power_w, actuator))
        except (ControlError, ModelError) as error:
            raise SourceError(f"{self.name}: {error}") from None

    def _measuring(self, device: _Device) -> tuple[Points, Model]:
        for points in self.profile.points:
            for number in points.models:
                if number in device.models:
                    return points, device.models[number][0]
        wanted = ", ".join(str(number) for points in self.profile.points for number in points.models)
        found = ", ".join(str(key) for key in device.models if isinstance(key, int))
        raise SourceError(f"{self.name}: none of the models {wanted}; it has {found or 'none'}")

    async def _scanned(self) -> _Device:
        if self._device is None:
            device = _Device(self._line, self._unit, self.profile.words_max)
            # What is not needed is not read: vendors' own models are long, and some cannot be read.
            await self._run(lambda: device.scan(full_model_read=False), device)
            if 1 in device.models:
                await self._run(device.models[1][0].read, device)
            self._device = device
        return self._device

    async def _run(self, call: Callable[[], object], device: _Device | None = None) -> None:
        device = device or self._device
        assert device is not None
        try:
            await asyncio.get_running_loop().run_in_executor(self._thread, call)
        except SunSpecModbusClientError as error:
            self._device = None
            raise SourceError(f"{self.name}: {' '.join(str(error).split())}") from None
        except BaseException:
            device.abandoned = True
            self._device = None
            self._thread.shutdown(wait=False)
            self._thread = ThreadPoolExecutor(1)
            raise


def point_number(model: Model, name: str) -> Number | None:
    """A point with its scale factor, exactly; None where the device does not implement it.

    An accumulator of 0 means "not implemented" as well as "nothing yet": it is taken as 0.
    """
    point = model.points[name]
    kind: str = point.pdef["type"]
    raw = point.value
    if raw is None:
        if not kind.startswith("acc"):
            return None
        raw = 0
    if kind.startswith("float"):
        return Number(Fraction(raw), float_step(raw, 23 if kind == "float32" else 52), floating=True)
    factor = point.pdef.get("sf")
    exponent = 0 if factor is None else factor if isinstance(factor, int) else model.points[factor].value
    if exponent is None:
        return None
    step = Fraction(10) ** int(exponent)
    return Number(raw * step, step)


def _charge_point(device: Any) -> Any:
    """Where models 802, 713 or 124 tell the state of charge; None where there is none of them."""
    for number, name in ((802, "SoC"), (713, "SoC"), (124, "ChaState")):
        if number in device.models:
            return device.models[number][0].points[name]
    return None


def _identity(device: Any) -> str:
    if 1 not in device.models:
        return ""
    common = device.models[1][0]
    told = (common.points[name].value for name in ("Mn", "Md", "SN"))
    return "/".join(str(text).strip("\0 ") for text in told if text)
