"""Faults on a serial line, where an answer has a checksum but no number of its own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import struct
import tty
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from meters.modbus.line import Line, LineError, parse_place

WORDS = [0x4396, 0x0000]
ANSWER_S = 10.0
SILENCE_S = 0.3


def crc(data: bytes) -> bytes:
    """CRC-16/MODBUS, by its definition: polynomial 0xA001, first 0xFFFF, low byte first."""
    value = 0xFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (0xA001 if value & 1 else 0)
    return struct.pack("<H", value)


def frame(unit: int, words: list[int], function: int = 4) -> bytes:
    data = bytes([unit, function, 2 * len(words)]) + b"".join(word.to_bytes(2, "big") for word in words)
    return data + crc(data)


def exception(unit: int, code: int) -> bytes:
    data = bytes([unit, 0x84, code])
    return data + crc(data)


Answer = Callable[[bytes], bytes]


@contextlib.contextmanager
def serial_device(answer: Answer) -> Iterator[str]:
    """Its name; ``answer`` is given each request of eight bytes."""
    master, slave = os.openpty()
    tty.setraw(slave)
    loop = asyncio.get_running_loop()
    heard = bytearray()

    def hear() -> None:
        heard.extend(os.read(master, 256))
        while len(heard) >= 8:
            request = bytes(heard[:8])
            del heard[:8]
            os.write(master, answer(request))

    loop.add_reader(master, hear)
    try:
        yield os.ttyname(slave)
    finally:
        loop.remove_reader(master)
        os.close(master)
        os.close(slave)


def broken(good: bytes) -> dict[str, bytes]:
    return {
        "a wrong checksum": good[:-1] + bytes([good[-1] ^ 1]),
        "a bit that fell over": good[:4] + bytes([good[4] ^ 8]) + good[5:],
        "a frame cut short": good[:-3],
        "another unit": frame(8, WORDS),
        "another function": frame(7, WORDS, function=3),
        "fewer registers": frame(7, WORDS[:1]),
        "more registers": frame(7, [*WORDS, 0]),
        "no registers": frame(7, []),
        "noise": b"\x00\xff\x00\x55\xaa",
        "silence": b"",
    }


@pytest.mark.parametrize("name", broken(frame(7, WORDS)))
async def test_what_is_no_answer_is_refused_in_time_and_the_line_goes_on(name: str) -> None:
    replies = [broken(frame(7, WORDS))[name]]

    def answer(request: bytes) -> bytes:
        assert request == bytes([7, 4, 0, 0x48, 0, 2]) + crc(bytes([7, 4, 0, 0x48, 0, 2]))
        return replies.pop(0) if replies else frame(7, WORDS)

    with serial_device(answer) as device, closing(Line(parse_place(device), timeout_s=SILENCE_S)) as line:
        async with asyncio.timeout(5):
            with pytest.raises(LineError, match=f"{device} unit 7: read of 2 at 0x0048"):
                await line.read(7, 4, 0x48, 2)
        line._timeout_s = ANSWER_S
        assert await line.read(7, 4, 0x48, 2) == WORDS


@pytest.mark.parametrize("code", [1, 2, 3, 4, 6, 11])
async def test_an_exception_code(code: int) -> None:
    with (
        serial_device(lambda _: exception(7, code)) as device,
        closing(Line(parse_place(device), timeout_s=ANSWER_S)) as line,
        pytest.raises(LineError, match=f"exception code {code} "),
    ):
        await line.read(7, 4, 0x48, 2)


async def test_another_unit_s_late_answer_is_not_taken_for_this_one_s() -> None:
    """Unit 6 is silent when it is asked, and speaks when unit 7 is asked."""
    late = frame(6, [0xDEAD, 0xBEEF])

    def answer(request: bytes) -> bytes:
        return b"" if request[0] == 6 else late + frame(7, WORDS)

    with serial_device(answer) as device, closing(Line(parse_place(device), timeout_s=SILENCE_S)) as line:
        with pytest.raises(LineError):
            await line.read(6, 4, 0x48, 2)
        try:
            registers = await line.read(7, 4, 0x48, 2)
        except LineError:
            return  # nothing rather than the wrong thing
        assert registers == WORDS


async def test_a_line_that_disappears_is_told() -> None:
    with serial_device(lambda _: frame(7, WORDS)) as device:
        line = Line(parse_place(device), timeout_s=ANSWER_S)
        assert await line.read(7, 4, 0x48, 2) == WORDS
    line._timeout_s = SILENCE_S
    async with asyncio.timeout(5):
        with pytest.raises(LineError):
            await line.read(7, 4, 0x48, 2)
    line.close()
