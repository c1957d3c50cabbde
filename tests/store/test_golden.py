"""A database that an earlier version wrote opens after its upgrade, and every row of it is still there.

``make_golden.py`` makes the file of a schema: with the code that still has it, before there is the next one.
"""

from __future__ import annotations

import json
import lzma
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from grid.errors import StoreError
from market.cli.main import run
from market.service.store import Store, leases

CASES = Path(__file__).parents[1] / "cases" / "store"
CHANGED = {"run"}


def unpacked(version: int, folder: Path) -> Path:
    """What a market on ``pandapower:panda_four_load_branch`` left after eight intervals."""
    path = folder / "market.sqlite"
    with lzma.open(CASES / f"v{version}.sqlite.xz") as packed, path.open("wb") as file:
        shutil.copyfileobj(packed, file)
    return path


def rows_of(path: Path) -> dict[str, list[tuple[object, ...]]]:
    connection = sqlite3.connect(path)
    try:
        tables = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {
            table: sorted(connection.execute(f'SELECT * FROM "{table}"'), key=repr)
            for table in tables
            if table not in CHANGED and not table.startswith("sqlite_")
        }
    finally:
        connection.close()


@pytest.mark.parametrize("version", [4, 5, 6, 7, 8])
def test_a_database_of_an_older_version_keeps_every_row(
    version: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = unpacked(version, tmp_path)
    before = rows_of(path)
    assert len(before["journal"]) > 100 and len(before["batch"]) == 6
    assert run(["status", str(path)]) == 2, "not without being told to"
    told = capsys.readouterr().err
    assert "schema_version" in told and "run --upgrade" in told
    assert rows_of(path) == before
    with Store(path, {}, upgrade=True):
        pass
    after = rows_of(path)
    assert {table: after[table] for table in before} == before
    assert run(["status", str(path), "--json"]) == 0
    (market,) = json.loads(capsys.readouterr().out)["markets"]
    unfinished = [row[4] for row in sorted(before["interval"]) if row[4] != "FINAL"]
    assert [one["state"] for one in market["intervals"]] == unfinished
    assert unfinished[:2] == ["CLEARED", "CLEARED"]


def test_a_market_that_runs_is_not_upgraded_under_its_feet(tmp_path: Path) -> None:
    path = unpacked(8, tmp_path)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE lease SET holder = ?", (leases.myself(),))
    before = rows_of(path)
    with pytest.raises(StoreError, match="runs this market: stop it before the upgrade"):
        Store(path, {}, upgrade=True)
    assert rows_of(path) == before


def test_a_settled_market_goes_on_with_its_sums(tmp_path: Path) -> None:
    """What is kept as a running sum since then equals the sum of what was there."""
    path = unpacked(4, tmp_path)
    with Store(path, {}, upgrade=True) as store, store.reading() as connection:
        rows = connection.exec_driver_sql(
            "SELECT account, ledger_neur, (SELECT COALESCE(SUM(amount_neur), 0) FROM posting"
            " WHERE posting.account = balance.account) FROM balance"
        ).fetchall()
        assert len(rows) == 8
        assert all(kept == summed for _, kept, summed in rows) and any(kept for _, kept, _ in rows)
