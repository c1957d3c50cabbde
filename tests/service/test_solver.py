"""The solver's process: whatever becomes of it, there is an answer by the deadline."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from grid.errors import SolverError
from market.service import orderbook
from market.service.solver import SolverProcess
from tests.service.scene import FEEDER, MEMBERS, METERS, START, TARIFF, order_of, physics, settings

MEMBERS_BY_METER = {member.meter: member for member in MEMBERS}
ORDERS = {METERS[index].address: order_of(index, START) for index in range(4)}
BOOK = orderbook.build_book(
    settings(1), START, ORDERS, MEMBERS_BY_METER, physics().outsiders(START, frozenset()), TARIFF
)


def hangs(pipe: Connection, _: str, _base: Path | None) -> None:
    pipe.send(("ready", "", None))
    pipe.recv()
    time.sleep(600)


def talks_nonsense(pipe: Connection, _: str, _base: Path | None) -> None:
    pipe.send(("ready", "", None))
    pipe.recv()
    pipe.send(("error", "ValueError: NaN in a bound", None))


@pytest.fixture(scope="module")
def solver() -> Iterator[SolverProcess]:
    with SolverProcess(FEEDER) as running:
        yield running


def test_it_clears_as_the_market_would(solver: SolverProcess) -> None:
    solved = solver.clear(BOOK, 60.0)
    assert solved.rounds is None
    assert solved.record == physics().clear(BOOK)


def test_a_killed_one_is_replaced_for_the_next_book(solver: SolverProcess) -> None:
    assert solver.pid is not None
    os.kill(solver.pid, signal.SIGKILL)
    with pytest.raises(SolverError, match="process ended"):
        while True:  # until the kill has arrived
            solver.clear(BOOK, 60.0)
            os.kill(solver.pid, signal.SIGKILL)
    assert solver.clear(BOOK, 60.0).record.status == "cleared"


def test_one_that_hangs_is_killed_soon_after_the_deadline() -> None:
    with SolverProcess(FEEDER, hangs) as solver:
        pid = solver.pid
        with pytest.raises(SolverError, match="no answer within 1 s and was killed"):
            solver.clear(BOOK, 1.0)
        assert pid is not None and not Path(f"/proc/{pid}").exists()


def test_what_it_cannot_solve_is_told() -> None:
    with SolverProcess(FEEDER, talks_nonsense) as solver, pytest.raises(SolverError, match="NaN in a bound"):
        solver.clear(BOOK, 10.0)


def test_a_feeder_that_is_none_is_told_at_the_start() -> None:
    with pytest.raises(SolverError, match="pandapower:nowhere"):
        SolverProcess("pandapower:nowhere").start()


def test_without_time_it_says_so_and_how_often_it_looked(solver: SolverProcess) -> None:
    solved = solver.clear(BOOK, 0.0)
    assert solved.rounds == 0
    assert solved.record == physics().clear(BOOK, lambda: True)
