"""A market whose database was restored from a backup that is older than its chain: it says so, settles
nothing, takes in what the chain has, and goes on. Nobody is paid twice.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from market.cli.backup import copied
from market.messages.models import ReceiptKind
from market.service.networks import Networks
from market.service.settling import Settling
from market.service.solver import SolverProcess
from market.service.store import Store, alarms, instructions
from meters.broker import Broker
from tests.faults.live_stand import Stand, live_settings, stand
from tests.faults.promise import promise
from tests.service.process import query
from tests.service.scene import FEEDER, MEMBERS, SECONDS, START, living_meters, own_chain, physics

pytestmark = [pytest.mark.needs("mosquitto"), pytest.mark.timeout(240)]
OF = live_settings()
LEDGER = "SELECT account, SUM(amount_neur) FROM posting WHERE interval_start < {} GROUP BY account"


@pytest.fixture(scope="module")
def solver() -> Iterator[SolverProcess]:
    with SolverProcess(FEEDER) as running:
        yield running


async def answer_to(market: Stand, **body: object) -> str:
    with Store(market.database, {}) as store:
        with store.transaction() as tx:
            number = instructions.give(tx, "operator", "recover", body, "disk lost")

        def answered() -> str | None:
            with store.reading() as connection:
                given = instructions.one(connection, number)
            return None if given is None else given.refusal

        await market.until(lambda: answered() is not None)
        return answered() or ""


def restore(copy: Path, database: Path) -> None:
    for suffix in ("-wal", "-shm"):
        database.with_name(database.name + suffix).unlink(missing_ok=True)
    shutil.copy(copy, database)


def reconciled(folder: Path) -> None:
    """Ledger and chain agree to the unit."""
    members = {member.meter: member for member in MEMBERS}
    with Store(folder / "market.sqlite", {}) as store, own_chain(folder, store, OF) as chain:
        Settling(OF, members, store, Networks(OF, members, physics()), b"secret").reconcile(chain)


async def test_a_market_restored_from_before_its_newest_batches_takes_them_in(
    tmp_path: Path, solver: SolverProcess
) -> None:
    promise("a database older than its chain: it is told, nothing is settled twice, the market goes on")
    database, copy, lost = (tmp_path / name for name in ("market.sqlite", "copy", "lost"))
    async with Broker("mosquitto") as broker, living_meters(broker.port) as meters:
        async with stand(tmp_path, broker.port, solver, OF) as market:
            for number in range(4):
                await market.whole(number)
            await market.until_state(1, "FINAL")
            copied(database, copy)
            for number in range(4, 8):
                await market.whole(number)
            await market.until_state(5, "FINAL")
            left_at = market.machine_s
        copied(database, lost)
        restore(copy, database)

        async with stand(tmp_path, broker.port, solver, OF) as market:
            market.machine_s = left_at + 2 * SECONDS
            await market.until_state(9, "SUSPENDED")
            with Store(database, {}) as store, store.reading() as connection:
                (told,) = [a.detail for a in alarms.alarms(connection) if a.subject == "database"]
            assert "older than the chain, which has batches 2 to 5" in told
            reason = "SELECT reason FROM transition WHERE interval_start = {} AND state = 'SUSPENDED'"
            ((why,),) = market.query(reason.format(START + 5 * SECONDS))
            assert why.startswith("lost with its records")
            assert [market.state(number) for number in (1, 3, 4)] == ["FINAL", "CLEARED", "SUSPENDED"]

            assert "no boundary" in await answer_to(market, paid_until=START + 1)
            assert await answer_to(market) == ""
            for number in range(6):
                await market.until_state(number, "FINAL")
            await market.whole(10)
            await market.whole(11)
            await market.whole(12)
            await market.until_state(10, "FINAL")
            sequences = [row[0] for row in market.query("SELECT sequence FROM batch ORDER BY 1")]
            assert sequences == list(range(len(sequences))) and len(sequences) > 6
            assert market.clearings()[10:] == ["CLEARED"] * 3
            flags = "SELECT DISTINCT flag FROM metered WHERE interval_start = {}"
            read = [market.query(flags.format(START + number * SECONDS)) for number in (5, 6, 7)]
            assert read == [[], [("interpolated",)], [("measured",)]]
            await market.until(lambda: not any(key[2] == ReceiptKind.READING for key in meters._unconfirmed))
            assert market.failures == []
            assert market.follows_from_its_journal()
    paid = START + 6 * SECONDS
    ledgers = [dict(query(place, LEDGER.format(paid))) for place in (lost, database)]
    assert ledgers[0].keys() == ledgers[1].keys()
    assert all(abs(neur - ledgers[1][name]) < 1000 for name, neur in ledgers[0].items())
    reconciled(tmp_path)
