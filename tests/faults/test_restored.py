"""A market whose database was restored from a backup that is older than its chain: it says so, settles
nothing, takes in what the chain has, and goes on. Nobody is paid twice.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from grid.errors import ChainError
from market.cli.backup import copied
from market.cli.effects import effects
from market.messages.models import ReceiptKind
from market.service.batching import Batches
from market.service.ports import Settler
from market.service.settings import MarketSettings
from market.service.settler import LateSettler
from market.service.solver import SolverProcess
from market.service.store import Store, instructions
from meters.broker import Broker
from tests.faults.live_stand import Stand, live_settings, stand
from tests.faults.promise import promise
from tests.service.process import query
from tests.service.scene import FEEDER, SECONDS, START, Meters, living_meters, own_chain

pytestmark = [pytest.mark.needs("mosquitto"), pytest.mark.timeout(240)]
OF = live_settings()


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


def behind(cut: list[bool]) -> Callable[[Path, Store, MarketSettings], AbstractContextManager[Settler]]:
    """The scene's chain, behind a network that is cut while ``cut`` has something in it."""

    @contextmanager
    def settler(folder: Path, store: Store, of: MarketSettings) -> Iterator[Settler]:
        with own_chain(folder, store, of) as chain:

            def opened() -> Settler:
                if cut:
                    raise ChainError("the node cannot be reached")
                return chain

            yield LateSettler(opened)

    return settler


def unread(meters: Meters) -> bool:
    """Whether a reading has no receipt yet: it will be sent again."""
    return any(kind == ReceiptKind.READING for _, _, kind in meters._unconfirmed)


def restore(copy: Path, database: Path) -> None:
    for suffix in ("-wal", "-shm"):
        database.with_name(database.name + suffix).unlink(missing_ok=True)
    shutil.copy(copy, database)


def reconciled(folder: Path) -> None:
    """Ledger and chain agree to the unit."""
    with Store(folder / "market.sqlite", {}) as store, own_chain(folder, store, OF) as chain:
        Batches(store, b"secret").reconcile(chain)


async def test_a_market_restored_from_before_its_newest_batches_takes_them_in(
    tmp_path: Path, solver: SolverProcess
) -> None:
    promise("a database older than its chain: it is told, nothing is settled twice, the market goes on")
    database, copy, lost = (tmp_path / name for name in ("market.sqlite", "copy", "lost"))
    async with Broker("mosquitto") as broker, living_meters(broker.port) as meters:
        async with stand(tmp_path, broker.port, solver, OF) as market:
            for number in range(3):
                await market.whole(number)
            await market.until_state(0, "FINAL")
            copied(database, copy)
            await market.whole(3)
            await market.whole(9)
            await market.until_state(7, "FINAL")
            await market.until(lambda: not unread(meters))
            left_at = market.machine_s
        copied(database, lost)
        restore(copy, database)

        cut = [True]
        async with stand(tmp_path, broker.port, solver, OF, settler=behind(cut)) as market:
            # Without a chain it cannot know, and makes batches of its own.
            market.machine_s = left_at + 2 * SECONDS
            await market.until(lambda: bool(market.query("SELECT * FROM batch WHERE state = 'PENDING'")))
            cut.clear()
            await market.until(lambda: bool(market.query("SELECT * FROM alarm WHERE subject = 'database'")))
            market.go_to(START + 11 * SECONDS + 1)
            await market.until_state(12, "SUSPENDED")
            ((told,),) = market.query("SELECT detail FROM alarm WHERE subject = 'database'")
            assert "older than the chain, which has batches 1 to" in told
            why = (
                f"SELECT reason FROM transition WHERE interval_start = {START + 12 * SECONDS} AND number = 2"
            )
            assert market.query(why) == [(told,)]

            assert "no boundary" in await answer_to(market, paid_until=START + 1)
            paid_until = START + 8 * SECONDS
            assert await answer_to(market, paid_until=paid_until) == ""
            with Store(market.database, {}) as store, store.reading() as connection:
                assert any("taken in from the chain" in effect.words for effect in effects(connection))
            for number in range(8):
                await market.until_state(number, "FINAL")
            await market.whole(13)
            await market.whole(14)
            await market.until_state(12, "FINAL")
            sequences = [row[0] for row in market.query("SELECT sequence FROM batch ORDER BY 1")]
            assert sequences == list(range(len(sequences)))
            assert market.clearings()[12:] == ["SUSPENDED", "CLEARED", "CLEARED"]
            # What it had read of an interval that nobody paid is lost; far readings tell the sum.
            flags = "SELECT DISTINCT flag FROM metered WHERE interval_start = {} ORDER BY revision DESC"
            read = [market.query(flags.format(START + number * SECONDS))[0] for number in (8, 9)]
            assert read == [("interpolated",), ("measured",)]
            await market.until(lambda: not unread(meters))
            assert market.failures == []
            assert market.follows_from_its_journal()
    sums = "SELECT account, SUM(amount_neur) FROM posting WHERE {} GROUP BY account"
    ((newest,),) = query(lost, "SELECT MAX(sequence) FROM batch WHERE state = 'FINAL'")
    before = dict(query(lost, sums.format(f"batch <= {newest}")))
    after = dict(query(database, sums.format(f"interval_start < {paid_until}")))
    assert before.keys() == after.keys()
    assert all(abs(neur - after[name]) < 1000 for name, neur in before.items())
    reconciled(tmp_path)
