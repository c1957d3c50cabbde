"""What systemd wants to hear from a service (sd_notify(3)): that it began, that it lives, that it ends."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress


def tell(words: str) -> None:
    """Sends a line to whoever started this process; nothing where nobody wants to hear."""
    place = os.environ.get("NOTIFY_SOCKET", "")
    if not place.startswith(("/", "@")):
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
        sender.setblocking(False)
        # Who does not listen is not waited for.
        with suppress(OSError):
            sender.sendto(words.encode(), "\0" + place[1:] if place[0] == "@" else place)


@asynccontextmanager
async def told_of() -> AsyncIterator[None]:
    """While the block runs, and its event loop with it, the watchdog hears so."""
    tell("READY=1")
    living = asyncio.create_task(_live(int(os.environ.get("WATCHDOG_USEC", "0")) / 1e6 / 3))
    try:
        yield
    finally:
        tell("STOPPING=1")
        living.cancel()


async def _live(every_s: float) -> None:
    while every_s > 0:
        tell("WATCHDOG=1")
        await asyncio.sleep(every_s)
