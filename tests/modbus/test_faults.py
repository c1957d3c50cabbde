"""What goes wrong on the wire is told within bounds; no energy comes of it, and no other meter notices."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from market.messages.models import Quality
from meters.modbus.line import Line
from meters.modbus.source import ModbusSource, ModbusSourceSettings
from meters.source import RegisterReading, SourceError, Surroundings
from tests.modbus.faulty import Answer, Device, Request, serving
from tests.modbus.servers import BAUD, Bus, cases, modbus_tk_rtu, write_image

ANSWER_S = 5.0
SILENCE_S = 0.2
BOUND_S = 5.0
NOW = 1_763_800_000


class Clock:
    """Wall clock and monotonic clock of a test."""

    def __init__(self) -> None:
        self.wall = float(NOW)
        self.elapsed = 0.0

    def __call__(self) -> float:
        return self.wall

    def pass_(self, seconds: float) -> None:
        self.wall += seconds
        self.elapsed += seconds


def sdm630(*, import_kwh: float = 1234.5, export_kwh: float = 7.25, power_w: float = 500.0) -> Device:
    device = Device()
    tell(device, import_kwh, export_kwh, power_w)
    device.put(0x00, "f", 230.0)
    device.put(0x06, "f", 2.5)
    device.put(0x46, "f", 50.0)
    serial(device, 4711)
    return device


def tell(device: Device, import_kwh: float, export_kwh: float = 7.25, power_w: float = 500.0) -> None:
    device.put(0x48, "f", import_kwh)
    device.put(0x4A, "f", export_kwh)
    device.put(0x34, "f", power_w)


def serial(device: Device, number: int) -> None:
    device.put(0xFC00, "I", number)


class Meter:
    """A source on a faulty device, and the time that goes by for it."""

    def __init__(self, device: Device, source: ModbusSource, line: Line, clock: Clock) -> None:
        self.device, self.source, self.line, self.clock = device, source, line, clock

    async def read(self, after_s: float = 900) -> RegisterReading:
        self.clock.pass_(after_s)
        return await self.source.read(int(self.clock.wall))

    async def fails(self, after_s: float = 900, *, silent: bool = False) -> str:
        """``silent``: what it says is no answer, and is not waited for."""
        began = time.monotonic()
        patience_s = self.line._timeout_s
        self.line._timeout_s = SILENCE_S if silent else patience_s
        with pytest.raises(SourceError) as told:
            await self.read(after_s)
        self.line._timeout_s = patience_s
        assert time.monotonic() - began < BOUND_S
        assert "\n" not in str(told.value)
        return str(told.value)


@contextlib.asynccontextmanager
async def meter(
    device: Device, clock: Clock | None = None, timeout_s: float = ANSWER_S
) -> AsyncIterator[Meter]:
    clock = clock or Clock()
    async with serving(device) as url, contextlib.AsyncExitStack() as stack:
        settings = ModbusSourceSettings(kind="modbus", url=url, profile="eastron-sdm630", timeout_s=timeout_s)
        around = Surroundings(clock, 900, Path(), stack)
        source = await settings.open(around)
        assert isinstance(source, ModbusSource)
        source._monotonic = lambda: clock.elapsed
        (line,) = around.shared.values()
        assert isinstance(line, Line)
        yield Meter(device, source, line, clock)


@pytest_asyncio.fixture
async def sound() -> AsyncIterator[Meter]:
    """A meter that has been read once."""
    async with meter(sdm630()) as one:
        first = await one.read(0)
        assert (first.import_wh, first.export_wh, first.power_w) == (1_234_500, 7250, -500)
        assert (first.taken_at, first.quality, first.epoch) == (NOW, Quality.MEASURED, 0)
        yield one


@contextlib.contextmanager
def disturbed(device: Device, answer: Answer, *, hang_up: bool = False) -> Iterator[None]:
    device.answer, device.hang_up = answer, hang_up
    try:
        yield
    finally:
        device.answer, device.hang_up = None, False


@pytest.mark.parametrize("code", [1, 2, 3, 4, 6, 11])
async def test_an_exception_code_is_told_and_costs_no_energy(sound: Meter, code: int) -> None:
    with disturbed(sound.device, lambda request: request.exception(code)):
        assert f"exception code {code} " in await sound.fails()
    tell(sound.device, 1235.75)
    assert (await sound.read()).import_wh == 1_235_750


async def test_a_busy_device_is_asked_again(sound: Meter) -> None:
    busy = [True]

    def once(request: Request) -> bytes:
        return request.exception(6) if busy and busy.pop() else request.success(sound.device.read(request))

    with disturbed(sound.device, once):
        assert (await sound.read()).import_wh == 1_234_500


def cut(length: int) -> Answer:
    """A success that ends after ``length`` bytes."""
    return lambda request: request.success([0x4396, 0] * (request.words // 2))[:length]


def strange() -> dict[str, Answer]:
    """Answers that are none."""
    return {
        "empty success": lambda request: request.success([]),
        "fewer registers": lambda request: request.success([0] * (request.words - 1)),
        "more registers": lambda request: request.success([0] * (request.words + 1)),
        "short frame": cut(11),
        "count beyond the frame": lambda request: request.frame(bytes([request.function, 12, 0, 0])),
        "odd count": lambda request: request.frame(bytes([request.function, 3, 1, 2, 3])),
        "wrong unit": lambda request: request.success([0] * request.words, unit=9),
        "wrong function": lambda request: request.frame(
            bytes([3, 2 * request.words]) + bytes(2 * request.words)
        ),
        "wrong transaction": lambda request: request.success([0] * request.words, transaction=0x7777),
        "another protocol": lambda request: b"HTTP/1.1 400 Bad Request\r\n\r\n",
        "silence": lambda request: None,
    }


@pytest.mark.parametrize("name", strange())
async def test_an_answer_that_is_none_is_told_and_costs_no_energy(sound: Meter, name: str) -> None:
    with disturbed(sound.device, strange()[name]):
        assert sound.source.name.split(" ")[0] in await sound.fails(silent=True)
    tell(sound.device, 1235.75)
    reading = await sound.read()
    assert (reading.import_wh, reading.epoch) == (1_235_750, 0)


@pytest.mark.parametrize("length", range(21))
async def test_a_connection_that_ends_within_a_frame(sound: Meter, length: int) -> None:
    """The answer to the first request has 21 bytes; here the connection ends after 0 to 20 of them."""
    with disturbed(sound.device, cut(length), hang_up=True):
        await sound.fails(silent=True)
    tell(sound.device, 1235.75)
    assert (await sound.read()).import_wh == 1_235_750


async def test_a_device_that_does_not_answer_is_left_in_peace_for_longer_and_longer(sound: Meter) -> None:
    with disturbed(sound.device, lambda request: None):
        await sound.fails(silent=True)
        before = sound.device.requests
        assert "asked again in" in await sound.fails(0.5)
        assert sound.device.requests == before
        await sound.fails(1, silent=True)
        assert sound.device.requests > before
        before = sound.device.requests
        assert "asked again in" in await sound.fails(1)
        assert sound.device.requests == before


async def test_swapped_words_are_named(sound: Meter) -> None:
    for address, value in (
        (0x48, 1234.5),
        (0x4A, 7.25),
        (0x34, 500.0),
        (0x00, 230.0),
        (0x06, 2.5),
        (0x46, 50.0),
    ):
        sound.device.put(address, "f", value, swapped=True)
    assert "the words look swapped" in await sound.fails()


async def test_a_register_that_was_reset_waits_to_be_believed(sound: Meter) -> None:
    tell(sound.device, 0.5, 0.25)
    assert "1234500 → 500 Wh" in await sound.fails()
    await sound.fails(40)
    reading = await sound.read(40)
    assert (reading.epoch, reading.import_wh, reading.export_wh) == (1, 500, 250)


async def test_a_meter_that_was_replaced_starts_an_epoch(sound: Meter) -> None:
    with disturbed(sound.device, lambda request: None):
        await sound.fails(silent=True)  # it was off for a while
    serial(sound.device, 4712)
    tell(sound.device, 3.0, 0.0)
    reading = await sound.read()
    assert (reading.epoch, reading.import_wh, reading.export_wh) == (1, 3000, 0)


async def test_a_jump_of_the_clock_marks_the_reading(sound: Meter) -> None:
    sound.clock.wall -= 7200
    tell(sound.device, 1234.75)
    reading = await sound.read()
    assert (reading.import_wh, reading.quality) == (1_234_750, Quality.ESTIMATED)
    assert (await sound.read()).quality == Quality.MEASURED


async def test_a_float_that_has_lost_whole_wh_marks_the_reading() -> None:
    async with meter(sdm630(import_kwh=20_000.0)) as one:
        assert (await one.read()).quality == Quality.ESTIMATED


async def test_what_was_counted_goes_on_after_a_restart(sound: Meter) -> None:
    memory = (await sound.read()).memory
    async with meter(sdm630(import_kwh=1240.0), sound.clock) as again:
        again.source.restore(memory)
        assert (await again.read()).import_wh == 1_240_000
    async with meter(sdm630(import_kwh=1.0), sound.clock) as again:
        again.source.restore(memory)
        assert "1234500 → 1000 Wh" in await again.fails()


async def test_a_read_that_is_cancelled_leaves_the_meter_usable(sound: Meter) -> None:
    with disturbed(sound.device, lambda request: None), pytest.raises(TimeoutError):
        async with asyncio.timeout(SILENCE_S):
            await sound.read()
    assert (await sound.read()).import_wh == 1_234_500


async def test_a_meter_that_hangs_delays_no_other() -> None:
    async with contextlib.AsyncExitStack() as stack:
        hanging = await stack.enter_async_context(meter(sdm630()))
        others = [await stack.enter_async_context(meter(sdm630())) for _ in range(5)]
        with disturbed(hanging.device, lambda request: None):
            stuck = asyncio.ensure_future(hanging.read(0))
            await asyncio.gather(*(one.read(0) for one in others))
            assert not stuck.done()
            stuck.cancel()
            with pytest.raises(asyncio.CancelledError):
                await stuck


async def test_a_dead_unit_on_a_serial_line_costs_the_others_its_timeout_only(tmp_path: Path) -> None:
    case = next(case for case in cases() if case.profile == "eastron-sdm630")
    image = write_image(tmp_path / "image", {7: case.registers})
    timeout_s = 1.0

    def settings(unit: int) -> ModbusSourceSettings:
        return ModbusSourceSettings(
            kind="modbus",
            url=bus.client,
            profile="eastron-sdm630",
            unit=unit,
            baud=BAUD,
            timeout_s=timeout_s,
        )

    with Bus(units=1) as bus, modbus_tk_rtu(image, bus.units[0]):
        async with contextlib.AsyncExitStack() as stack:
            around = Surroundings(lambda: NOW, 900, Path(), stack)
            dead, alive = [await settings(unit).open(around) for unit in (6, 7)]
            assert len(around.shared) == 1
            began = time.monotonic()
            stuck = asyncio.ensure_future(dead.read(NOW))
            await asyncio.sleep(0)
            assert (await alive.read(NOW)).import_wh == case.expected["import_wh"]
            assert timeout_s < time.monotonic() - began < 10 * timeout_s
            with pytest.raises(SourceError, match="unit 6"):
                await stuck
