"""A reorganisation deeper than what counted as final: the market says so, and settles again."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from contracts.deployment import EscrowTerms, deploy
from contracts.journal import SqliteJournal
from contracts.market_contracts import MarketContracts
from contracts.rpc import RpcChain
from contracts.sender import Patience, Sender
from market.service import batching
from market.service.batching import Batches
from market.service.settler import ContractSettler
from market.service.store import Store, alarms, money
from tests.contracts.anvil import Anvil
from tests.service.scene import DEPOSITS, START, a_day, rows, settings, signer

pytestmark = pytest.mark.needs("anvil")
OF = settings(5)
LATER = START + 10**6


@pytest.fixture
def anvil() -> Iterator[Anvil]:
    node = Anvil()
    yield node
    node.end()


def settler_on(node: RpcChain, journal: SqliteJournal) -> ContractSettler:
    """The scene's contracts on anvil; two confirmations count as final."""
    operator, settler = (
        Sender(node, signer(name), journal, Patience(confirmations=confirmations, poll_s=0.01), mine)
        for name, confirmations, mine in (
            ("deployer", 1, lambda _: None),
            ("settler", 2, lambda _: node._ask("evm_mine")),
        )
    )
    for sender in (operator, settler):
        node._ask("anvil_setBalance", sender.address, hex(10**24))
    terms = EscrowTerms(
        name="Twice", symbol="T", position_debit_max=10**9, window_debit_max=10**12, guarantee_max=0
    )
    contracts = MarketContracts(node, deploy(node, operator, journal, terms, settler.address))
    treasuries = {treasury.address: treasury.deposit_ueur for treasury in OF.treasuries.values()}
    contracts.fund(operator, "fund", {**DEPOSITS, **treasuries})
    return ContractSettler(contracts, settler, OF.feeder, None)


def send(store: Store, settler: ContractSettler) -> int:
    """Puts on the chain what waits, as the engine does; how many batches."""
    with store.reading() as connection:
        waiting = money.pending_batches(connection)
    for batch in waiting:
        sent = settler.settle(batch.sequence, batch.root, batch.positions, LATER)
        with store.transaction() as tx:
            money.finish_batch(tx, batch.sequence, tx_hash=sent.tx_hash, gas=sent.gas, at=LATER)
    return len(waiting)


def test_what_a_deep_reorganisation_took_is_shown_as_pending_and_settled_again(
    tmp_path: Path, anvil: Anvil, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Whatever the depth: it is walked back in steps until what is there begins, or the market does.
    monkeypatch.setattr(batching, "_LOOKED_BACK_AT_ONCE", 2)
    asyncio.run(a_day(tmp_path, OF))
    node = RpcChain(anvil.url)
    journal = SqliteJournal(tmp_path / "anvil.sqlite")
    settler = settler_on(node, journal)
    with Store(tmp_path / "market.sqlite", OF.identity()) as store:
        batches = Batches(store, b"secret")

        # Nothing of the day is on this chain: all of it is pending, and says why.
        batches.reopen_lost(settler, LATER)
        states = "SELECT state, COUNT(*) FROM {} GROUP BY state"
        count = len(rows(tmp_path, "SELECT * FROM batch"))
        assert rows(tmp_path, states.format("batch")) == [("PENDING", count)]
        assert rows(tmp_path, states.format("interval")) == [("SETTLED", 5)]
        assert send(store, settler) == count >= 5
        assert rows(tmp_path, states.format("interval")) == [("FINAL", 5)]
        batches.reconcile(settler)
        batches.reopen_lost(settler, LATER)
        assert rows(tmp_path, states.format("batch")) == [("FINAL", count)]

        # Two batches are deeper than the reorganisation, the others are gone: each has two blocks.
        with store.reading() as connection:
            before = {alarm.subject: alarm.count for alarm in alarms.alarms(connection)}
        node._ask("anvil_reorg", 2 * (count - 2), [])
        batches.reopen_lost(settler, LATER + 60)
        lost = [row[0] for row in rows(tmp_path, "SELECT sequence FROM batch WHERE state = 'PENDING'")]
        assert lost == list(range(2, count))
        with store.reading() as connection:
            raised = alarms.alarms(connection)
        assert {(a.kind, a.subject, a.count - before[a.subject]) for a in raised if a.last_at > LATER} == {
            ("chain", f"batch {sequence}", 1) for sequence in lost
        }
        reason = f"a reorganisation took batch {lost[0]} off the chain"
        assert rows(
            tmp_path, f"SELECT state FROM transition WHERE at = {LATER + 60} AND reason = '{reason}'"
        ) == [("SETTLED",)]

        assert send(store, settler) == len(lost)
        assert rows(tmp_path, states.format("batch")) == [("FINAL", count)]
        assert rows(tmp_path, states.format("interval")) == [("FINAL", 5)]
        batches.reconcile(settler)
    journal.disconnect()
