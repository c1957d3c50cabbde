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
    known: frozenset[str] | None = None
    """Where these are given, the first write of another kind is the last one."""
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
        if self._count == self.fatal or (self.known is not None and writer not in self.known):
            os.kill(os.getpid(), signal.SIGKILL)


def run(folder: Path, port: int, fatal: int, *, at_news: bool = False) -> None:
    """The whole of a day, or until the ``fatal``-th write of this process (0: never), or with ``at_news``
    until one of a kind that no process has made before.
    """
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    CrashingStore.notes = folder / "writes.txt"
    CrashingStore.fatal = fatal
    if at_news:
        notes = CrashingStore.notes
        CrashingStore.known = frozenset(notes.read_text().splitlines() if notes.exists() else ())
    scene.Store = CrashingStore  # type: ignore[misc]

    async def day() -> None:
        async with scene.market(folder, port, scene.settings(INTERVALS)) as market:
            await market.run()

    asyncio.run(day())
