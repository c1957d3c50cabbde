"""Being the one process that is the market (see :mod:`market.service.store.leases`)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from types import TracebackType

from sqlalchemy.exc import DatabaseError

from market.service.store import Store, leases
from market.service.store.leases import FencedError, Lease

_BEATS = 4
"""So many beats fit into a lease."""

_log = logging.getLogger("peergrid.market")


class LeaseHolder:
    """``acquire`` waits for its turn; then, as an async context manager, makes the lease beat and gives it
    back. ``lease_s`` is real time, as ``monotonic`` tells it.
    """

    def __init__(self, store: Store, lease_s: float, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._lease_s = lease_s
        self._monotonic = monotonic
        self._beating: asyncio.Task[None] | None = None

    async def acquire(self, stop: asyncio.Event) -> bool:
        """True when the lease is this process's; False when ``stop`` was set before."""
        watched: Lease | None = None
        since = self._monotonic()
        while not stop.is_set():
            with self._store.reading() as connection:
                seen = leases.current(connection)
            if seen != watched:
                if seen is not None and (watched is None or watched.holder != seen.holder):
                    _log.info("lease", extra={"event": {"held_by": seen.holder}})
                watched, since = seen, self._monotonic()
            free = seen is None or not seen.holder or leases.is_gone(seen.holder)
            if free or self._monotonic() - since >= self._lease_s:
                with self._store.transaction() as tx:
                    fence = leases.take(tx, leases.myself(), seen)
                if fence is not None:
                    self._store.hold(fence)
                    return True
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), self._lease_s / _BEATS)
        return False

    async def __aenter__(self) -> LeaseHolder:
        self._beating = asyncio.create_task(self._beat(), name="lease")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._beating is not None
        self._beating.cancel()
        with contextlib.suppress(asyncio.CancelledError, FencedError, DatabaseError):
            await self._beating
        # Whoever took over holds it now; a database that is away will see it end.
        with contextlib.suppress(FencedError, DatabaseError), self._store.transaction() as tx:
            leases.give_back(tx)

    def check(self) -> None:
        """Raises what went wrong with the lease."""
        if self._beating is not None and self._beating.done():
            self._beating.result()

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(self._lease_s / _BEATS)
            with self._store.transaction() as tx:
                leases.beat(tx)
