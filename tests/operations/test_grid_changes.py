"""The network changes from an interval on: earlier intervals keep theirs, and the journal proves both."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandapower as pp
import pandapower.networks as pn
import pytest

from grid.catalogue import open_feeder
from market.auction.book import Book, Limits
from market.auction.record import ClearingRecord
from market.cli.main import run
from market.cli.physics import replay_physics
from market.console.market import Market
from market.console.network import day_values, duration_curves
from market.service.ports import Physics, Progress
from market.service.replay import Replay
from market.service.solver import SolverProcess
from market.service.store import Store, instructions, intervals
from meters.broker import Broker
from tests.service import scene
from tests.service.scene import FEEDER, SECONDS, START, a_day, living_meters, market, settings

INTERVALS = 6
CHANGED = START + 3 * SECONDS


def physics(base: Path) -> Physics:
    """As ``peergrid run`` has it, with the forecast of the scene."""
    feeder = open_feeder(FEEDER)
    return replace(replay_physics(feeder, Limits(), SECONDS, base), outsiders=scene.physics().outsiders)


def weaker_net(path: Path, cable_a: float) -> str:
    """The same lane with a thinner first cable; its sha256."""
    net = pn.panda_four_load_branch()
    net.line.loc[net.line.index[0], "max_i_ka"] = cable_a / 1000
    path.parent.mkdir(exist_ok=True)
    pp.to_json(net, str(path))
    return open_feeder(str(path)).sha256


async def told_day(
    folder: Path, asked: Sequence[dict[str, Any]], after: int = 0, spoil: Path | None = None
) -> list[str]:
    """What was answered to instructions given after wave ``after``; then ``spoil`` is another net."""

    def give(progress: Progress) -> None:
        if progress.stage == "publish" and progress.index == after:
            with Store(folder / "market.sqlite", {}) as store, store.transaction() as tx:
                for body in asked:
                    instructions.give(tx, "op", "grid", body, "the cable was replaced")

    await a_day(folder, settings(INTERVALS), give, parts=physics(folder))
    with Store(folder / "market.sqlite", {}) as stored, stored.reading() as connection:
        rows = connection.exec_driver_sql("SELECT refusal FROM instruction ORDER BY id")
        return [row.refusal for row in rows]


def clearings(folder: Path) -> list[tuple[Book, ClearingRecord]]:
    with Store(folder / "market.sqlite", {}) as store, store.reading() as connection:
        starts = [START + index * SECONDS for index in range(INTERVALS)]
        found = [intervals.clearing(connection, start) for start in starts]
    return [(one.book, one.record) for one in found]


def replayed(folder: Path, base: Path) -> Any:
    with Store(folder / "market.sqlite", {}) as stored, Store(folder / "scratch.sqlite", {}) as scratch:
        return Replay(stored, scratch, lambda _: physics(base)).run()


async def test_a_weaker_cable_counts_from_its_interval_on_and_the_journal_proves_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sha256 = weaker_net(tmp_path / "revision-2" / "net.json", 0.95)
    body = {
        "first_start": CHANGED,
        "feeder": "revision-2/net.json",
        "feeder_sha256": sha256,
        "limits": {"v_min_pu": 0.93},
    }
    assert await told_day(tmp_path, [body]) == [""]
    found = clearings(tmp_path)
    before, after = found[:3], found[3:]
    assert {book.feeder for book, _ in before} == {FEEDER}
    assert {record.certificate.feeder_sha256 for _, record in before} == {open_feeder(FEEDER).sha256}
    assert {(book.feeder, book.limits.v_min_pu) for book, _ in after} == {("revision-2/net.json", 0.93)}
    assert {record.certificate.feeder_sha256 for _, record in after} == {sha256}
    assert {record.feeder for _, record in after} == {"revision-2/net.json"}, "not a place on this machine"
    assert all(record.ac.loading_max_percent < 2 for _, record in before)
    assert all(90 < record.ac.loading_max_percent <= 100 for _, record in after)
    assert replayed(tmp_path, tmp_path) is None

    for name, (book, record) in {"before": before[-1], "after": after[0]}.items():
        (tmp_path / f"{name}.book.json").write_text(book.model_dump_json())
        (tmp_path / f"{name}.json").write_text(json.dumps(record.json_document()))
        feeder = str(tmp_path / "revision-2" / "net.json") if name == "after" else FEEDER
        files = [str(tmp_path / f"{name}.json"), str(tmp_path / f"{name}.book.json")]
        assert run(["verify", *files, "--feeder", feeder]) == 0, capsys.readouterr()
    other = ["verify", str(tmp_path / "after.json"), str(tmp_path / "after.book.json"), "--feeder", FEEDER]
    assert run(other) != 0, "not on the network of before"


async def test_a_network_that_does_not_fit_is_refused_and_nothing_changes(tmp_path: Path) -> None:
    sha256 = weaker_net(tmp_path / "net.json", 0.95)
    smaller = pn.panda_four_load_branch()
    smaller.load.drop(smaller.load.index[-1], inplace=True)
    pp.to_json(smaller, str(tmp_path / "smaller.json"))
    good = {"first_start": CHANGED, "feeder": "net.json", "feeder_sha256": sha256, "limits": None}
    lacking = good | {
        "feeder": "smaller.json",
        "feeder_sha256": open_feeder(str(tmp_path / "smaller.json")).sha256,
    }
    asked = [
        lacking,
        good | {"feeder_sha256": "0" * 64},
        good | {"feeder": "nowhere.json"},
        good | {"first_start": START},
        good | {"first_start": CHANGED + 1},
        good | {"limits": {"v_min_pu": 2.0}},
    ]
    told = await told_day(tmp_path, asked)
    words = [
        "'load:3' is not on",
        "was changed",
        "is no file",
        "is too early",
        "no boundary",
        "is not below v_max_pu",
    ]
    assert len(told) == len(words)
    for refusal, word in zip(told, words, strict=True):
        assert word in refusal
    assert {book.feeder for book, _ in clearings(tmp_path)} == {FEEDER}


async def test_a_net_that_was_changed_in_place_suspends_its_intervals_until_it_is_back(
    tmp_path: Path,
) -> None:
    """The market is begun again after somebody wrote over the net that it was told of."""
    path = tmp_path / "net.json"
    sha256 = weaker_net(path, 0.95)
    asked = [{"first_start": CHANGED, "feeder": "net.json", "feeder_sha256": sha256, "limits": None}]

    class EndedError(Exception):
        pass

    def give(progress: Progress) -> None:
        if progress.stage == "publish" and progress.index == 0:
            with Store(tmp_path / "market.sqlite", {}) as store, store.transaction() as tx:
                instructions.give(tx, "op", "grid", asked[0], "the cable was replaced")
        if progress.stage == "publish" and progress.index == 1:
            raise EndedError

    of = settings(INTERVALS)
    async with Broker() as broker, living_meters(broker.port):
        with pytest.raises(EndedError):
            async with market(tmp_path, broker.port, of, give, parts=physics(tmp_path)) as first:
                await first.run()
        weaker_net(path, 500.0)
        async with market(tmp_path, broker.port, of, parts=physics(tmp_path)) as second:
            await second.run()
    found = clearings(tmp_path)
    assert [record.status for _, record in found] == ["cleared"] * 3 + ["suspended"] * 3
    assert all("its network is not to be had" in (record.reason or "") for _, record in found[3:])
    weaker_net(path, 0.95)
    assert replayed(tmp_path, tmp_path) is None


def test_the_solver_clears_each_book_on_the_network_that_it_names(tmp_path: Path) -> None:
    sha256 = weaker_net(tmp_path / "net.json", 0.95)
    books = [
        Book.model_validate_json(
            json.dumps(
                {
                    "feeder": name,
                    "interval": {"start": "2016-06-15T00:00:00Z", "minutes": 15},
                    "tariff": scene.TARIFF.model_dump(),
                    "firm": [],
                    "orders": [],
                }
            )
        )
        for name in (FEEDER, "net.json", FEEDER)
    ]
    with SolverProcess(FEEDER, base=tmp_path) as solver:
        found = [solver.clear(book, 60).record.certificate.feeder_sha256 for book in books]
    usual = open_feeder(FEEDER).sha256
    assert found == [usual, sha256, usual]


async def test_the_console_verifies_each_interval_on_its_own_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sha256 = weaker_net(tmp_path / "net.json", 0.95)
    body = {"first_start": CHANGED, "feeder": "net.json", "feeder_sha256": sha256, "limits": None}
    assert await told_day(tmp_path, [body]) == [""]
    monkeypatch.chdir(tmp_path)  # where the configuration would be
    shown = Market(tmp_path / "market.sqlite")
    with shown.stored.reading() as connection:
        for index in (0, 4):
            clearing = shown.clearing(connection, START + index * SECONDS)
            assert clearing is not None and shown.verified(clearing).ok
        day = shown.day(connection)
        assert day is not None
        assert [(one.until, one.name) for one in shown.versions(connection, *day)] == [
            (CHANGED, FEEDER),
            (day[1], "net.json"),
        ]
        assert shown.feeder("net.json").sha256 == sha256
        for moment in (START, CHANGED):  # each day's page shows the network that stood then
            values = day_values(shown, connection, moment)
            assert [start < CHANGED for start in values["starts"]] == [moment < CHANGED] * len(
                values["starts"]
            )
            assert all(values["voltage"])
        assert duration_curves(shown, connection, *day, ["line:0"])
    shown.close()
