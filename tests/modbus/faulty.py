"""A Modbus TCP server that does what a test says, byte by byte."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

Answer = Callable[["Request"], bytes | None]
"""The bytes to send; None to say nothing. The connection ends after them if the server is told to."""


@dataclass(frozen=True)
class Request:
    transaction: int
    unit: int
    function: int
    address: int
    words: int

    @staticmethod
    def parse(frame: bytes) -> Request:
        transaction, _, _, unit, function, address, words = struct.unpack(">HHHBBHH", frame[:12])
        return Request(transaction, unit, function, address, words)

    def frame(self, pdu: bytes, *, unit: int | None = None, transaction: int | None = None) -> bytes:
        told_unit = self.unit if unit is None else unit
        told_transaction = self.transaction if transaction is None else transaction
        return struct.pack(">HHHB", told_transaction, 0, len(pdu) + 1, told_unit) + pdu

    def success(self, words: list[int], **changed: int) -> bytes:
        data = b"".join(word.to_bytes(2, "big") for word in words)
        return self.frame(bytes([self.function, len(data)]) + data, **changed)

    def exception(self, code: int) -> bytes:
        return self.frame(bytes([self.function | 0x80, code]))


@dataclass
class Device:
    """Its input registers (the same for all functions), and how it answers."""

    words: dict[int, int] = field(default_factory=dict)
    answer: Answer | None = None
    hang_up: bool = False
    requests: int = 0

    def read(self, request: Request) -> list[int]:
        addresses = range(request.address, request.address + request.words)
        return [self.words.get(address, 0) for address in addresses]

    def put(self, address: int, format_: str, value: float, *, swapped: bool = False) -> None:
        data = struct.pack(">" + format_, value)
        words = [int.from_bytes(data[at : at + 2], "big") for at in range(0, len(data), 2)]
        for offset, word in enumerate(words[::-1] if swapped else words):
            self.words[address + offset] = word

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                header = await reader.readexactly(6)
                body = await reader.readexactly(int.from_bytes(header[4:], "big"))
                request = Request.parse(header + body)
                self.requests += 1
                healthy = request.success(self.read(request))
                reply = self.answer(request) if self.answer else healthy
                if reply:
                    writer.write(reply)
                    await writer.drain()
                if self.hang_up:
                    return


@contextlib.asynccontextmanager
async def serving(device: Device) -> AsyncIterator[str]:
    """Its url."""
    talks: set[asyncio.Task[None]] = set()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        talks.add(task)
        try:
            await device.talk(reader, writer)
        except asyncio.CancelledError:
            pass  # the test is over
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
            talks.discard(task)

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        yield f"tcp://127.0.0.1:{port}"
    finally:
        server.close()
        for task in list(talks):
            task.cancel()
        await asyncio.gather(*talks)
