"""A backup is taken while the market runs, and the market that gets it back goes on from there."""

from __future__ import annotations

import json
import shutil
import signal
import sqlite3
import stat
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from market.cli.main import run
from tests.service.process import NAME, Service, is_event, query
from tests.service.process import config as config  # the fixtures
from tests.service.process import start as start

pytestmark = pytest.mark.timeout(900)
OWNER_ALONE = stat.S_IRWXG | stat.S_IRWXO


def entries(database: Path) -> int:
    ((count,),) = query(database, "SELECT COUNT(*) FROM journal")
    return int(count)


def backed_up(config: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Path]:
    capsys.readouterr()
    assert run(["backup", str(config), "--to", str(config.with_name("backups")), "--json"]) == 0
    return {Path(name).name: Path(name) for name in json.loads(capsys.readouterr().out)["files"]}


def test_a_market_that_lost_its_disk_goes_on_from_its_backup(
    config: Path, start: Callable[[str], Service], capsys: pytest.CaptureFixture[str]
) -> None:
    market = config.parent / "market" / NAME
    first = start("first")
    first.until(is_event("settled"))
    running = backed_up(config, capsys)
    assert "chain.sqlite" not in running
    assert not running["market.sqlite"].stat().st_mode & OWNER_ALONE
    assert entries(running["market.sqlite"]) > 20
    first.send(signal.SIGTERM)
    assert first.ended() == 0
    assert run(["replay", str(running["market.sqlite"])]) == 0, "it is whole, and of one moment"

    stopped = backed_up(config, capsys)
    assert set(stopped) == {"market.sqlite", "chain.sqlite", "meters.sqlite", "deployment.json"}
    second = start("second")
    second.until(is_event("cleared"))
    second.send(signal.SIGKILL)
    second.ended()
    assert entries(stopped["market.sqlite"]) < entries(market / "market.sqlite"), "it went on meanwhile"
    shutil.rmtree(market)
    shutil.copytree(stopped["market.sqlite"].parent, market)
    third = start("third")
    third.until(lambda event: event.get("state") == "CLEARED")
    third.send(signal.SIGTERM)
    assert third.ended() == 0, third.words()
    assert run(["replay", str(market / "market.sqlite")]) == 0


def test_what_cannot_be_backed_up_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    database = tmp_path / "market.sqlite"
    to = ["--to", str(tmp_path / "backups")]
    assert run(["backup", str(database), *to]) == 2
    assert "is not there" in capsys.readouterr().err
    database.write_bytes(b"no database at all, but long enough to be looked at" * 100)
    assert run(["backup", str(database), *to]) == 2
    assert "is no market's database" in capsys.readouterr().err
    database.unlink()
    with closing(sqlite3.connect(database)) as another, another:
        another.execute("CREATE TABLE something (else_ INTEGER)")
    assert run(["backup", str(database), *to]) == 2
    assert "is no market's database" in capsys.readouterr().err
    assert not (tmp_path / "backups").exists()
    assert run(["backup", "postgresql://nobody@localhost/peergrid", *to]) == 2
    assert "pg_dump" in capsys.readouterr().err
