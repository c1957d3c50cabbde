"""What the solver does to a market: an interval is suspended and settled at the retail tariffs, no more."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from market.auction.book import Book, Firm
from market.messages.models import Clearing
from market.service.solver import SolverProcess, serve_books
from meters.broker import Broker
from tests.faults.live_stand import live_settings, stand
from tests.faults.promise import promise
from tests.service.scene import FEEDER, METERS, SECONDS, START, TARIFF, living_meters, physics

KILLED, HANGS, UNKNOWN = 1, 2, 3
CLEARING_S, HANGING_S = 60, 1


class _Treacherous:
    """The pipe of a solver that dies over one book and hangs over another."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self.send = pipe.send

    def recv(self) -> Any:
        asked = self._pipe.recv()
        start = datetime.fromisoformat(Book.model_validate_json(asked[0]).interval.start)
        number = (int(start.timestamp()) - START) // SECONDS
        if number == KILLED:
            os.kill(os.getpid(), signal.SIGKILL)
        if number == HANGS:
            time.sleep(600)
        return asked


def treacherous(pipe: Connection, *arguments: Any) -> None:
    serve_books(_Treacherous(pipe), *arguments)  # type: ignore[arg-type]


@pytest.mark.needs("mosquitto")
async def test_a_solver_that_dies_hangs_or_is_given_nonsense_costs_one_interval(tmp_path: Path) -> None:
    promise(
        "solver killed, hanging past the deadline, NaN in a forecast: the interval is suspended, published "
        "and settled at the retail tariffs; the next one is normal"
    )
    true = physics()

    def outsiders(start: int, ordered: frozenset[str]) -> Sequence[Firm]:
        if (start - START) // SECONDS == UNKNOWN:
            return [Firm(connection_point="bus:5", p_w=float("nan"))]
        return true.outsiders(start, ordered)

    async with Broker("mosquitto") as broker, living_meters(broker.port) as meters:
        with SolverProcess(FEEDER, serve=treacherous) as solver:
            of = live_settings(clearing_s=CLEARING_S)
            seen = replace(true, outsiders=outsiders)
            async with stand(tmp_path, broker.port, solver, of, seen=seen) as market:
                for number in range(7):
                    # The one that hangs is not waited for longer than it needs to hang.
                    await market.whole(number, late_s=CLEARING_S - HANGING_S if number == HANGS else 1)
                await market.until_state(4, "FINAL")
                await market.until(lambda: len(meters.payloads["clearing"]) == 7)
    assert market.failures == []
    assert market.clearings() == ["CLEARED", *["SUSPENDED"] * 3, *["CLEARED"] * 3]
    reasons = market.query("SELECT reason FROM transition WHERE state = 'SUSPENDED' ORDER BY at")
    for (reason,), words in zip(reasons, ("process ended", "no answer within", "forecast"), strict=True):
        assert words in reason
    assert [Clearing.model_validate_json(p).status for p in meters.payloads["clearing"]] == market.clearings()
    for number in (KILLED, HANGS, UNKNOWN):
        start = START + number * SECONDS
        kinds = market.query(f"SELECT DISTINCT kind FROM posting WHERE interval_start = {start}")
        assert kinds == [("retail",)], kinds
        billed = market.query(
            "SELECT energy_wh, amount_neur FROM posting"
            f" WHERE interval_start = {start} AND account LIKE 'household:%'"
        )
        assert len(billed) == len(METERS)
        assert all(
            amount == energy * (TARIFF.import_price if energy < 0 else TARIFF.export_price)
            for energy, amount in billed
        ), billed
    assert market.follows_from_its_journal()
