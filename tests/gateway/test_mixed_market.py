"""Simulated households, Modbus meters, a Shelly and a Tasmota trade an hour and are settled on chain by their
registers.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path

import pytest
import pytest_asyncio

from meters import running
from meters.broker import Broker
from tests.gateway import village
from tests.gateway.village import ABB_WH, SCHNEIDER_WH, SHELLY_WH, SIGNERS, TASMOTA_WH
from tests.modbus.servers import build, libmodbus_tcp, write_image
from tests.service import scene
from tests.service.scene import SECONDS, START

INTERVALS = 4


@pytest_asyncio.fixture
async def broker() -> AsyncIterator[Broker]:
    async with Broker() as running:
        yield running


@pytest_asyncio.fixture
async def home() -> AsyncIterator[Broker]:
    async with Broker() as running:
        yield running


@pytest.mark.needs("gcc", "libmodbus")
async def test_a_mixed_market_is_settled_by_its_registers(
    tmp_path: Path, broker: Broker, home: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "_LOOK_S", 0.02)
    monkeypatch.setattr(running, "_RETRY_MIN_S", 0.02)
    members = village.members()
    monkeypatch.setattr(scene, "MEMBERS", members)
    monkeypatch.setattr(scene, "DEPOSITS", {member.owner: member.deposit_ueur for member in members})
    monkeypatch.setattr(scene, "SimulatedClock", village.LeadingClock)
    image = write_image(tmp_path / "image", village.images())
    settings = scene.settings(INTERVALS)
    with libmodbus_tcp(build(tmp_path), image) as url:
        async with scene.market(tmp_path, broker.port, settings) as engine:
            clock = engine._clock
            async with village.village(tmp_path / "gateway", clock, broker, home, url) as devices:
                await engine.run()
    assert devices.switched  # the balcony's relay was told its awards, and is free again
    assert devices.plug_on
    with sqlite3.connect(tmp_path / "market.sqlite") as database:
        check_energy(database)
        check_trade(database)
        check_money(database)


def check_energy(database: sqlite3.Connection) -> None:
    """Every interval of every meter is metered, and to the Wh what its device counted."""
    counted: dict[str, list[tuple[int, int]]] = {
        "abb": [(ABB_WH, 0)] * INTERVALS,
        "schneider": [(SCHNEIDER_WH, 0)] * INTERVALS,
        "shelly": [],
        "tasmota": [(0, TASMOTA_WH)] * INTERVALS,
    }
    imports, exports = (
        [math.floor(first + wh * number + 1e-6) for number in range(2, INTERVALS + 3)]
        for first, wh in zip((26289.57, 131881.86), SHELLY_WH, strict=True)
    )
    counted["shelly"] = [
        (later_in - earlier_in, later_out - earlier_out)
        for (earlier_in, later_in), (earlier_out, later_out) in zip(
            pairwise(imports), pairwise(exports), strict=True
        )
    ]
    query = "SELECT import_wh, export_wh, flag FROM metered WHERE meter = ? ORDER BY interval_start"
    for name, signer in SIGNERS.items():
        rows = database.execute(query, (signer.address,)).fetchall()
        assert [flag for _, _, flag in rows] == ["measured"] * INTERVALS
        if name in counted:
            assert [(drawn, fed_in) for drawn, fed_in, _ in rows] == counted[name], name


def check_trade(database: sqlite3.Connection) -> None:
    """In each interval all six have an award, and the balcony's is sold to the others."""
    query = "SELECT meter, net_wh, amount_neur FROM award WHERE interval_start = ?"
    for start in range(START, START + INTERVALS * SECONDS, SECONDS):
        awards = {meter: (net_wh, neur) for meter, net_wh, neur in database.execute(query, (start,))}
        assert awards.keys() == {signer.address for signer in SIGNERS.values()}
        net_wh, neur = awards[SIGNERS["tasmota"].address]
        assert net_wh == TASMOTA_WH
        assert neur > TASMOTA_WH * 80_000  # more than the retailer would have paid
        assert awards[SIGNERS["abb"].address][0] == -ABB_WH


def check_money(database: sqlite3.Connection) -> None:
    """All is final on the chain, every batch sums to zero, and the chain has what the ledger has."""
    assert set(database.execute("SELECT state FROM interval")) == {("FINAL",)}
    assert set(database.execute("SELECT state FROM batch")) == {("FINAL",)}
    assert set(database.execute("SELECT SUM(amount_ueur) FROM position GROUP BY sequence")) == {(0,)}
    ledger = dict(database.execute("SELECT account, SUM(amount_neur) FROM posting GROUP BY account"))
    chain = dict(database.execute("SELECT account, SUM(amount_ueur) FROM position GROUP BY account"))
    for signer in SIGNERS.values():
        account = f"household:{signer.address}"
        assert abs(ledger[account] - 1000 * chain[account]) < 1000
