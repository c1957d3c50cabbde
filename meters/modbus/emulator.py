"""Serves any profile as a Modbus device, for trying things without hardware.

What it says follows from a :class:`Plant`; what is written to its control registers the plant obeys.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from fractions import Fraction
from typing import Any, Protocol

from pymodbus.constants import ExcCodes
from pymodbus.server import ModbusSerialServer, ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice
from sunspec2 import device as sunspec_device

from meters.modbus.decoding import decode, encode, spans
from meters.modbus.line import Place
from meters.modbus.plant import Measured, Plant
from meters.modbus.profile import Quantity, Register, RegisterProfile, Serial, SunSpecProfile, Value
from meters.source import SourceError

_BASE = 40000
_VOLTS, _HERTZ = 230.0, 50.0
_SERIAL_NUMBER = "EMULATED1"


class Image(Protocol):
    """The registers of a device."""

    words: dict[int, int]

    def show(self, measured: Measured) -> None:
        """Have the registers say it."""

    def told(self) -> tuple[float | None, float]:
        """What the control registers ask for: a power (None: nothing), and for how many seconds (0: ever)."""


class RegisterImage:
    """The registers of a profile; what lies between them reads 0."""

    def __init__(self, profile: RegisterProfile) -> None:
        self._profile = profile
        self.words: dict[int, int] = {}
        for span in spans(profile):
            self.words |= dict.fromkeys(range(span.address, span.address + span.words), 0)
        if profile.identity is not None:
            text = _SERIAL_NUMBER.encode().ljust(2 * profile.identity.words, b"\0")
            for word in range(profile.identity.words):
                self.words[profile.identity.address + word] = int.from_bytes(
                    text[2 * word : 2 * word + 2], "big"
                )
        control = profile.control
        if control is not None:
            self._put(control.setpoint, 0)
            if control.switch is not None:
                self._put(_switch(profile), control.switch.inactive)

    def show(self, measured: Measured) -> None:
        amperes = abs(measured.power_w) / _VOLTS
        values: dict[Quantity, float | None] = {
            "import_wh": measured.import_wh,
            "export_wh": measured.export_wh,
            "power_w": measured.power_w,
            "voltage_v": _VOLTS,
            "current_a": amperes,
            "frequency_hz": _HERTZ,
            "charge_percent": measured.charge_percent,
        }
        for name, register in self._profile.registers.items():
            value = values[name]
            if value is not None:
                sign = -1 if name == "power_w" and register.positive == "import" else 1
                told = Fraction(value)
                if name.endswith("_wh"):  # a counter counts what is whole
                    step = Fraction(1) if register.type.startswith("f") else register.factor
                    told = told // step * step
                self._put(register, sign * told)

    def told(self) -> tuple[float | None, float]:
        control = self._profile.control
        if control is None:
            return None, 0
        if control.switch is not None and self._get(_switch(self._profile)) != control.switch.active:
            return None, 0
        sign = 1 if control.setpoint.positive == "export" else -1
        return sign * float(self._get(control.setpoint)), 0

    def _put(self, value: Value, number: Fraction | int) -> None:
        for offset, word in enumerate(encode(value, self._profile.order_of(value), number)):
            self.words[value.address + offset] = word

    def _get(self, value: Value) -> Fraction:
        words = [self.words[value.address + offset] for offset in range(value.words)]
        number = decode(Register(**value.model_dump(), function=3), self._profile.order_of(value), words)
        assert number is not None
        return number.value


def _switch(profile: RegisterProfile) -> Value:
    assert profile.control is not None
    assert profile.control.switch is not None
    return Value(address=profile.control.switch.address, type=profile.control.switch.type, unit="W")


class SunSpecImage:
    """SunSpec models at 40000: the common one, the profile's first with a scale factor, and its control."""

    def __init__(self, profile: SunSpecProfile, rated_w: int) -> None:
        # A battery's has to count both ways, as 701 does.
        battery = profile.control == "battery"
        self._points = next((p for p in profile.points if battery == (701 in p.models)), profile.points[0])
        number = {101: 103, 201: 203}.get(self._points.models[0], self._points.models[0])
        self._rated_w = rated_w
        self._battery = battery
        models: list[Any] = [
            _model(1, Mn="Peergrid", Md="Emulated", Vr="1", SN=_SERIAL_NUMBER, DA=profile.unit)
        ]
        scales = {"A_SF": -2, "V_SF": -1, "Hz_SF": -2, "W_SF": 0, "WH_SF": 0, "TotWh_SF": 0}
        self._measuring = _model(number, **scales)
        models.append(self._measuring)
        self._control: Any = None
        if profile.control == "generator":
            models.append(_model(120, DERTyp=4, WRtg=rated_w, WRtg_SF=0))
            self._control = _model(
                123,
                WMaxLimPct=1000,
                WMaxLimPct_SF=-1,
                WMaxLim_Ena=0,
                WMaxLimPct_RvrtTms=0,
                WMaxLimPct_RmpTms=0,
            )
        elif profile.control == "battery":
            rates = {"InOutWRte_SF": -2, "OutWRte": 10000, "InWRte": 10000}
            timers = {"InOutWRte_RvrtTms": 0, "InOutWRte_RmpTms": 0}
            charge = {"ChaState": 0, "ChaState_SF": -1}
            self._control = _model(
                124, WChaMax=rated_w, WChaMax_SF=0, StorCtl_Mod=0, **rates, **timers, **charge
            )
        if self._control is not None:
            models.append(self._control)
        self._models = models
        self.words: dict[int, int] = {}
        self._at = {}
        address = _BASE + 2
        for model in models:
            self._at[id(model)] = address
            address += len(model.get_mb()) // 2
        self._end = address
        self._store()

    def show(self, measured: Measured) -> None:
        self._load()
        points, told = self._measuring.points, self._points
        sign = -1 if told.positive == "import" else 1
        values = {
            told.import_wh: int(measured.import_wh),
            told.export_wh: int(measured.export_wh),
            told.power_w: sign * measured.power_w,
            told.voltage_v: _VOLTS,
            told.current_a: abs(measured.power_w) / _VOLTS,
            told.frequency_hz: _HERTZ,
        }
        for name, value in values.items():
            if name is not None and name in points:
                points[name].cvalue = value
        if self._battery and measured.charge_percent is not None:
            self._control.points["ChaState"].cvalue = measured.charge_percent
        self._store()

    def told(self) -> tuple[float | None, float]:
        self._load()
        if self._control is None:
            return None, 0
        points = self._control.points
        if self._battery:
            rate = points["OutWRte"].cvalue if points["StorCtl_Mod"].value == 3 else None
            reverts = points["InOutWRte_RvrtTms"].value
        else:
            rate = points["WMaxLimPct"].cvalue if points["WMaxLim_Ena"].value == 1 else None
            reverts = points["WMaxLimPct_RvrtTms"].value
        return None if rate is None else rate * self._rated_w / 100, reverts or 0

    def _store(self) -> None:
        self._write(_BASE, b"SunS")
        for model in self._models:
            self._write(self._at[id(model)], model.get_mb())
        self._write(self._end, b"\xff\xff\x00\x00")

    def _load(self) -> None:
        """What a client wrote."""
        if self._control is None:
            return
        start = self._at[id(self._control)]
        length = len(self._control.get_mb()) // 2
        data = b"".join(self.words[start + offset].to_bytes(2, "big") for offset in range(length))
        self._control.set_mb(data)

    def _write(self, address: int, data: bytes) -> None:
        for offset in range(0, len(data), 2):
            self.words[address + offset // 2] = int.from_bytes(data[offset : offset + 2], "big")


def _model(number: int, **values: object) -> Any:
    model = sunspec_device.Model(number, data={"ID": number, **values})
    model.points["L"].value = len(model.get_mb()) // 2 - 2
    return model


def image_of(profile: RegisterProfile | SunSpecProfile, rated_w: int) -> Image:
    if isinstance(profile, SunSpecProfile):
        return SunSpecImage(profile, rated_w)
    return RegisterImage(profile)


class Emulator:
    """A unit that says what its plant measures whenever it is asked."""

    def __init__(self, image: Image, plant: Plant, unit: int, now: Callable[[], float]) -> None:
        self.image = image
        self._plant = plant
        self._now = now
        blocks = [
            SimData(start, values=[0] * length, datatype=DataType.REGISTERS)
            for start, length in _runs(image.words)
        ]
        self.device = SimDevice(unit, simdata=blocks, action=self._on_request)

    async def _on_request(
        self,
        function: int,
        start: int,
        address: int,
        count: int,
        registers: list[int],
        written: list[int] | list[bool] | None,
    ) -> ExcCodes | None:
        image, now = self.image, self._now()
        if written is not None:
            for offset, word in enumerate(written):
                image.words[address + offset] = int(word)
            power_w, reverts_s = image.told()
            self._plant.obey(power_w, now, reverts_s)  # the same again starts the timer anew
        image.show(await self._plant.at(now))
        for offset in range(len(registers)):
            registers[offset] = image.words.get(start + offset, 0)
        return None


def _runs(words: dict[int, int]) -> list[tuple[int, int]]:
    """Neighbouring addresses as (start, length)."""
    runs: list[tuple[int, int]] = []
    for address in sorted(words):
        if runs and address == sum(runs[-1]):
            runs[-1] = (runs[-1][0], runs[-1][1] + 1)
        else:
            runs.append((address, 1))
    return runs


@contextlib.asynccontextmanager
async def serving(
    emulators: list[Emulator], place: Place, serial: Serial | None = None
) -> AsyncIterator[Place]:
    """The units answer at ``place`` (port 0: any free one, the place yielded tells which).

    Raises :class:`SourceError` where that cannot be opened.
    """
    devices = [emulator.device for emulator in emulators]
    server: ModbusTcpServer | ModbusSerialServer
    if place.device:
        port = serial or Serial()
        server = ModbusSerialServer(
            devices,
            port=place.device,
            baudrate=port.baud,
            parity=port.parity,
            stopbits=port.stop_bits,
            ignore_missing_devices=True,
        )
    else:
        server = ModbusTcpServer(devices, address=(place.host, place.port), ignore_missing_devices=True)
    task = asyncio.create_task(server.serve_forever(background=True))
    try:
        await task
    except (OSError, RuntimeError) as error:
        raise SourceError(f"{place}: cannot be opened: {error}") from None
    try:
        listening = getattr(server.transport, "sockets", None)
        yield Place(place.host, listening[0].getsockname()[1]) if listening else place
    finally:
        await server.shutdown()  # type: ignore[no-untyped-call]
        await asyncio.sleep(0)  # connections end in the loop's next round
