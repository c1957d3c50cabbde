"""The database of a day follows from its journal to the last byte, and a changed byte is found."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from grid.errors import SolverError
from market.auction.book import Book
from market.auction.record import ClearingRecord
from market.messages.models import Gate
from market.service.ports import Clear, never
from market.service.replay import Difference, Replay
from market.service.settings import MarketSettings
from market.service.store import Store
from meters.mqtt import Message
from tests.service.scene import METERS, SECONDS, START, Meters, a_day, physics, reading_of, settings

INTERVALS = 4


async def late_day(folder: Path, clear: Clear | None = None) -> None:
    """With readings that come late, so that there are adjustments."""
    held_at = START + SECONDS

    def release(number: int, _: Gate) -> list[Message]:
        return [Meters.message(reading_of(index, held_at)) for index in range(2)] if number == 3 else []

    meters = partial(
        Meters,
        on_open=release,
        withheld=lambda r: r.taken_at == held_at and r.meter in (METERS[0].address, METERS[1].address),
    )
    await a_day(folder, settings(INTERVALS, patience_s=2.0), meters=meters, clear=clear)


def replayed(folder: Path) -> Difference | None:
    scratch = folder / "scratch.sqlite"
    scratch.unlink(missing_ok=True)
    asked: list[MarketSettings] = []

    def physics_for(of: MarketSettings) -> object:
        asked.append(of)
        return physics()

    with Store(folder / "market.sqlite", {}) as stored, Store(scratch, {}) as empty:
        found = Replay(stored, empty, physics_for).run()  # type: ignore[arg-type]
    assert [of.feeder_name for of in asked] == [settings(INTERVALS).feeder_name]
    return found


def tamper(folder: Path, statement: str) -> None:
    with closing(sqlite3.connect(folder / "market.sqlite")) as connection, connection:
        connection.execute(statement)


async def test_a_day_follows_from_its_journal_and_what_was_changed_is_named(tmp_path: Path) -> None:
    def suspended_once(book: Book, out_of_time: Callable[[], bool] = never) -> ClearingRecord:
        if book.interval.unix_time == START + 2 * SECONDS:
            raise SolverError("the solver was killed")
        return physics().clear(book, out_of_time)

    await late_day(tmp_path, suspended_once)
    assert replayed(tmp_path) is None

    changed = START + SECONDS
    tamper(
        tmp_path,
        "UPDATE posting SET amount_neur = amount_neur + 1"
        f" WHERE interval_start = {changed} AND kind = 'firm'",
    )
    found = replayed(tmp_path)
    assert found is not None and (found.table, found.column) == ("posting", "amount_neur")
    assert found.key["interval_start"] == changed
    assert found.stored == found.replayed + 1

    tamper(tmp_path, f"DELETE FROM award WHERE interval_start = {START}")
    found = replayed(tmp_path)
    assert found is not None and (found.table, found.column) == ("award", "row")
    assert (found.stored, found.replayed) == ("missing", "there")


async def test_the_journal_cannot_be_changed(tmp_path: Path) -> None:
    await late_day(tmp_path)
    for statement in ("UPDATE journal SET at = 0", "DELETE FROM journal"):
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            tamper(tmp_path, statement)
