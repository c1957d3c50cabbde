"""A market of four households that dies at a chosen write: the process of ``test_every_write``.

It is forked from a server that has imported this module, so that a death costs no import.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection

from market.service.store import Store
from tests.service import scene

INTERVALS = 3
scene.physics()  # the feeder is open in every fork


class CrashingStore(Store):
    """Notes every write that is on the disk by who made it; the ``fatal``-th one is the process's last."""

    notes: Path
    fatal = 0
    _count = 0

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        # Above this frame are the two of the context manager.
        writer = sys._getframe(2).f_code.co_qualname
        with super().transaction() as tx:
            yield tx
        type(self)._count += 1
        with self.notes.open("a") as notes:
            notes.write(f"{writer}\n")
        if self._count == self.fatal:
            os.kill(os.getpid(), signal.SIGKILL)


def run(folder: Path, port: int, fatal: int) -> None:
    """The whole of a day, or until the ``fatal``-th write of this process (0: never)."""
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    CrashingStore.notes = folder / "writes.txt"
    CrashingStore.fatal = fatal
    scene.Store = CrashingStore  # type: ignore[misc]

    async def day() -> None:
        async with scene.market(folder, port, scene.settings(INTERVALS)) as market:
            await market.run()

    asyncio.run(day())
