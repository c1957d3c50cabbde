"""What a node, and a market that dies while it talks to one, do to settlement: each batch once, and the
state that is shown is true. The node is anvil; between it and the market is a network that can be cut.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest

from contracts.deployment import Deployment, EscrowTerms, deploy
from contracts.journal import SqliteJournal
from contracts.market_contracts import MarketContracts
from contracts.rpc import RpcChain
from contracts.sender import Patience, Sender
from grid.errors import StoreError
from market.messages.signing import feeder_hash
from market.service.ports import Settler
from market.service.settings import MarketSettings
from market.service.settler import ContractSettler, LateSettler
from market.service.solver import SolverProcess
from market.service.store import Store
from market.service.store.journal import StoreJournal
from meters.broker import Broker
from tests.contracts.anvil import Anvil
from tests.faults.live_stand import Stand, live_settings, stand
from tests.faults.promise import promise
from tests.faults.proxy import Proxy
from tests.service.scene import DEPOSITS, FEEDER, SECONDS, START, alongside, living_meters, signer

pytestmark = [pytest.mark.needs("mosquitto", "anvil"), pytest.mark.timeout(240)]
OF = live_settings()
DELAY_S = 4 * 3600
CONFIRMATIONS = 2
FINAL = (
    "SELECT interval_start, MAX(number) FROM transition JOIN interval USING (interval_start)"
    " WHERE interval.state = 'FINAL' GROUP BY interval_start"
)
"""Intervals that are final, and the change by which each came to be."""
MONEY = {**DEPOSITS, **{treasury.address: treasury.deposit_ueur for treasury in OF.treasuries.values()}}


class Dying(RpcChain):
    """A node whose market dies at the broadcasts that are named: before (False) or after (True) them."""

    dies: list[bool]
    drops = False

    def send_raw(self, raw: bytes) -> None:
        after = self.dies.pop(0) if self.dies else None
        if after is False:
            raise StoreError("dies between commit and broadcast")
        super().send_raw(raw)
        if after is True:
            raise StoreError("dies between broadcast and storing the result")
        if self.drops:
            type(self).drops = False
            self._ask("anvil_dropAllTransactions")


class Chain:
    """The contracts on anvil, and settlers that reach them through ``port``."""

    def __init__(self, anvil: Anvil, folder: Path) -> None:
        self.url = anvil.url
        self.node = RpcChain(self.url)
        for name in ("deployer", "settler"):
            self.node._ask("anvil_setBalance", signer(name).address, hex(10**24))
        journal = SqliteJournal(folder / "operator.sqlite")
        mine = Patience(confirmations=1, poll_s=0.01)
        operator = Sender(self.node, signer("deployer"), journal, mine, lambda _: self._mine())
        terms = EscrowTerms(
            name="T",
            symbol="T",
            withdrawal_delay_s=DELAY_S,
            position_debit_max=10**9,
            window_debit_max=10**12,
            guarantee_max=0,
        )
        self.deployment: Deployment = deploy(self.node, operator, journal, terms, signer("settler").address)
        self.contracts = MarketContracts(self.node, self.deployment)
        self.contracts.fund(operator, "fund", MONEY)
        self._mine()  # two confirmations count as final
        journal.disconnect()
        self.port = anvil.port
        self.seen_final = 0

    def _mine(self) -> None:
        self.node._ask("evm_mine")

    @contextmanager
    def settler(self, _: Path, store: Store, of: MarketSettings) -> Iterator[Settler]:
        def opened() -> Settler:
            chain = Dying(f"http://127.0.0.1:{self.port}")
            patience = Patience(confirmations=CONFIRMATIONS, poll_s=0.01, nudge_s=0.1, timeout_s=10.0)
            sender = Sender(chain, signer("settler"), StoreJournal(store), patience, lambda _: self._mine())
            return ContractSettler(MarketContracts(chain, self.deployment), sender, of.feeder, None)

        yield LateSettler(opened)

    @asynccontextmanager
    async def watched(self, market: Stand) -> AsyncIterator[None]:
        """All the time what is shown is compared with the chain: an interval that comes to be shown as final
        has all its batches there, deep enough.
        """
        async with alongside(self._watch(market)):
            yield

    async def _watch(self, market: Stand) -> None:
        contracts, known = MarketContracts(RpcChain(self.url), self.deployment), set[tuple[int, int]]()
        while True:
            shown = set(market.query(FINAL))
            for start, _ in shown - known:
                batches = market.query(f"SELECT DISTINCT batch FROM posting WHERE interval_start = {start}")
                for (sequence,) in batches:
                    found = await asyncio.to_thread(contracts.settled, feeder_hash(OF.feeder), sequence)
                    deep = self.node.block_number() - CONFIRMATIONS + 1
                    assert found and found[-1].block <= deep, f"{start} is not final: {found}, {deep} is"
                    self.seen_final += 1
            known = shown
            await asyncio.sleep(0.02)

    def check_settled_once(self, market: Stand) -> None:
        moved = dict.fromkeys(MONEY, 0)
        for address, amount_ueur in market.query(
            "SELECT address, amount_ueur FROM position JOIN batch USING (sequence)"
            " JOIN account USING (account) WHERE state = 'FINAL'"
        ):
            moved[address] = moved.get(address, 0) + amount_ueur
        balances = self.contracts.balances(list(moved))
        assert {a: b - MONEY.get(a, 0) for a, b in balances.items()} == moved


def chain_part(market: Stand) -> tuple[int, str]:
    """How the chain is, for those who see only the database: whether it is there, else what is wrong."""
    ok, detail = market.query("SELECT ok, detail FROM health WHERE part = 'chain'")[0]
    return ok, detail


@pytest.fixture
def chain(tmp_path: Path) -> Iterator[Chain]:
    anvil = Anvil("--no-mining")
    yield Chain(anvil, tmp_path)
    anvil.end()


@pytest.fixture(scope="module")
def solver() -> Iterator[SolverProcess]:
    with SolverProcess(FEEDER) as running:
        yield running


async def test_a_batch_is_settled_once_whatever_is_lost(
    tmp_path: Path, chain: Chain, solver: SolverProcess
) -> None:
    promise(
        "crash between commit and broadcast, or broadcast and storing the result; dropped transaction; "
        "reorganisation: settled once, and what is shown as final is"
    )
    Dying.dies = [False, True]
    async with Broker("mosquitto") as broker, living_meters(broker.port):  # noqa: SIM117
        async with (
            stand(tmp_path, broker.port, solver, OF, settler=chain.settler) as market,
            chain.watched(market),
        ):
            for number in range(3):
                await market.whole(number)
            await market.until_state(0, "FINAL")
            await market.whole(3)
            await market.until_state(1, "FINAL")
            assert Dying.dies == [] and len(market.failures) == 2, market.failures
            Dying.drops = True
            await market.whole(4)
            await market.until_state(2, "FINAL")
            assert not Dying.drops
            chain.check_settled_once(market)
            await market.until(lambda: chain.seen_final >= 3)

            before = market.query("SELECT COUNT(*) FROM transition WHERE state = 'SETTLED'")[0][0]
            chain.node._ask("anvil_reorg", CONFIRMATIONS, [])
            await market.until(
                lambda: market.query("SELECT COUNT(*) FROM transition WHERE state = 'SETTLED'")[0][0] > before
            )
            await market.until_state(2, "FINAL")
            chain.check_settled_once(market)
            await market.until(lambda: chain.seen_final >= 4)
    assert market.clearings() == ["CLEARED"] * 5
    assert market.follows_from_its_journal()


async def test_a_node_that_is_away_for_an_hour(tmp_path: Path, chain: Chain, solver: SolverProcess) -> None:
    promise(
        "RPC down for an hour of market time: orders go on by what is known, settled is shown as settled and "
        "the chain as away, and all is final soon after it is back"
    )
    Dying.dies = []
    async with Proxy(chain.port) as network, Broker("mosquitto") as broker, living_meters(broker.port):
        chain.port = network.port
        async with stand(tmp_path, broker.port, solver, OF, settler=chain.settler) as market:
            for number in range(3):
                await market.whole(number)
            await market.until_state(0, "FINAL")
            await market.until(lambda: chain_part(market) == (1, ""))
            network.close_for_all()
            away_at = market.machine_s
            for number in range(3, 5):
                await market.whole(number)
            await market.until(lambda: chain_part(market)[0] == 0)
        # Begun again while it is away: what was last known of deposits is in the journal.
        async with (
            stand(tmp_path, broker.port, solver, OF, settler=chain.settler) as market,
            chain.watched(market),
        ):
            market.go_to(START + 4 * SECONDS - 290)
            for number in range(5, 7):
                await market.whole(number)
            await market.until_state(4, "SETTLED")
            assert [market.state(number) for number in range(5)] == ["FINAL", *["SETTLED"] * 4]
            alarms = market.query("SELECT count FROM alarm WHERE kind = 'chain'")
            assert alarms and alarms[0][0] > 0
            ok, words = chain_part(market)
            assert not ok and "127.0.0.1" in words
            assert market.failures == [] and market.machine_s - away_at >= 3600
            network.open_for_all()
            for number in range(1, 5):
                await market.until_state(number, "FINAL")
            await market.until(lambda: chain_part(market) == (1, "") and chain.seen_final >= 5)
            chain.check_settled_once(market)
    assert market.clearings() == ["CLEARED"] * 7
    assert market.follows_from_its_journal()


async def test_deposits_count_no_longer_than_they_can_be_debited(
    tmp_path: Path, chain: Chain, solver: SolverProcess
) -> None:
    promise("a chain that is away for as long as a withdrawal takes: no orders, until it has been seen again")
    Dying.dies = []
    async with Proxy(chain.port) as network, Broker("mosquitto") as broker, living_meters(broker.port):
        chain.port = network.port
        async with stand(tmp_path, broker.port, solver, OF, settler=chain.settler) as market:
            await market.whole(0)
            network.close_for_all()
            await market.until(lambda: bool(market.query("SELECT * FROM alarm WHERE kind = 'chain'")))
            later = DELAY_S // SECONDS
            market.go_to(START + later * SECONDS + 1)
            await market.until_state(later + 1, "SUSPENDED")
            (reason,) = market.query(
                f"SELECT reason FROM transition WHERE interval_start = {START + (later + 1) * SECONDS}"
                " AND state = 'SUSPENDED'"
            )[0]
            assert "deposits may be gone" in reason
            network.open_for_all()
            await market.until(lambda: market.market is not None and not market.market._chain_trouble)
            await market.whole(later + 2)
    assert market.clearings()[-1] == "CLEARED"
