"""What goes wrong in a simulation, drawn from its seed.

- Network: messages are lost, come twice, late and out of order; receipts and gates are lost; the broker is
  away, on the wall clock for minutes and beyond a gate.
- Disk: a write fails, and often those after it: the disk is full, until somebody has made room.
- Power: the process ends before a write is committed, or after it; it begins again at once, or much later.
- Threads: what is done in one, by the solver or the chain, takes long, beyond every deadline.
- Solver: its process dies; it has no answer by the deadline.
- Chain: the node does not answer, so a transaction is not sent, or is sent and nobody is told.
- On the wall clock also: a reorganisation takes off the batches that were settled last; meters are off over
  some boundaries, are without a connection and send all later, or correct what they said; a second market
  takes over as from one that was paused through its lease; the machine's clock is set wrong, and right again.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from sqlalchemy import Connection
from sqlalchemy.exc import OperationalError

from market.service.store import Store

HANG_S_MAX = 900.0


class PowerCutError(Exception):
    """The process ends here; what was committed is on the disk."""


class Faults:
    """The chances of each, by message, write, call or boundary; seed 0 is a day without any. ``rarity`` is
    how much rarer than usual all are.

    With ``live`` also that goes wrong after which a day cannot end as one without faults.
    """

    def __init__(self, seed: int, rarity: float = 1.0, *, live: bool = False) -> None:
        self.random = random.Random(seed)
        self.calm = seed == 0
        self._writes_to_fail = 0
        often = 1.0 / rarity
        self.lost = self.repeated = 0.2 * often
        self.delayed = 1.0 * often
        self.power_cut, self.torn, self.disk_full = 0.03 * often, 0.01 * often, 0.015 * often
        self.broker_away = self.solver_dies = 0.1 * often
        self.chain_away = 0.05 * often
        self.hangs = 0.02 * often
        after = often if live else 0.0
        self.reorganised, self.rival, self.clock_stepped = 0.02 * after, 0.2 * after, 0.2 * after
        self.meter_off = self.meter_silent = self.corrected = 0.04 * after

    def cease(self) -> None:
        """From now on all is well."""
        self.calm = True
        self._writes_to_fail = 0

    def happens(self, chance: float) -> bool:
        return not self.calm and chance > 0 and self.random.random() < chance

    def is_disk_full(self) -> bool:
        """Whether a write fails; often the next ones do as well, until somebody has made room."""
        if self._writes_to_fail:
            self._writes_to_fail -= 1
            return True
        if self.happens(self.disk_full):
            self._writes_to_fail = int(self.random.expovariate(1.0))
            return True
        return False


class FaultyStore(Store):
    faults: Faults
    _is_cut = False

    def cut(self) -> None:
        """The process ends: nothing of it is written any more."""
        self._is_cut = True

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        if self._is_cut:
            raise PowerCutError  # whatever else runs in the process ends with it
        with super().transaction() as tx:
            yield tx
            if self.faults.is_disk_full():
                raise OperationalError("COMMIT", {}, Exception("database or disk is full"))
            self._may_end(self.faults.torn)
        self._may_end(self.faults.power_cut)

    def _may_end(self, chance: float) -> None:
        if self.faults.happens(chance):
            self.cut()
            raise PowerCutError


@contextmanager
def inline_threads(faults: Faults) -> Iterator[None]:
    """What the market does in threads takes virtual time, now and then long, and others go on meanwhile: all
    of it in an order that follows from the seed.
    """

    async def to_thread(function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        if faults.happens(faults.hangs):
            await asyncio.sleep(faults.random.uniform(0.0, HANG_S_MAX))
        else:
            await asyncio.sleep(0.0 if faults.calm else faults.random.expovariate(1.0))
        return function(*arguments, **named)

    with patch.object(asyncio, "to_thread", to_thread):
        yield
