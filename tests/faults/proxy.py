"""A network between meters and broker that can be cut, in the middle of whatever was on its way."""

from __future__ import annotations

import asyncio
import contextlib

_CHUNK_BYTES = 16_384


class Proxy:
    """``async with Proxy(port) as proxy``: what connects to ``proxy.port`` is led to ``port``."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._writers: set[asyncio.StreamWriter] = set()
        self._down = False
        self.port = 0
        self.cuts = 0

    async def __aenter__(self) -> Proxy:
        self._server = await asyncio.start_server(self._lead, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.close_for_all()

    def cut(self) -> None:
        """Every connection ends at once, with what it held."""
        self.cuts += 1
        for writer in list(self._writers):
            writer.transport.abort()

    async def outage(self, seconds: float) -> None:
        """Cut, and nobody gets through for a while."""
        self.close_for_all()
        await asyncio.sleep(seconds)
        self.open_for_all()

    def close_for_all(self) -> None:
        self._down = True
        self.cut()

    def open_for_all(self) -> None:
        self._down = False

    async def _lead(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._down:
            writer.transport.abort()
            return
        try:
            there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, there_writer}
        if self._down:  # cut while it was being made
            self.cut()
        try:
            await asyncio.gather(_pump(reader, there_writer), _pump(there_reader, writer))
        finally:
            for end in (writer, there_writer):
                end.transport.abort()
                self._writers.discard(end)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(_CHUNK_BYTES):
            writer.write(data)
            await writer.drain()
    writer.transport.abort()
