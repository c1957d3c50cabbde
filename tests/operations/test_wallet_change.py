"""Members and the chain, by the commands of owner and operator on a market that runs on anvil.

One meter is not on the registry: it is refused and the market goes on. One owner changes its wallet.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest
from eth_hash.auto import keccak

from contracts.deployment import EscrowTerms, deploy
from contracts.journal import SqliteJournal
from contracts.market_contracts import MarketContracts
from contracts.registry import RegisteredMeters, SignedBinding
from contracts.rpc import RpcChain
from contracts.sender import Patience, Sender
from market.cli.main import run
from market.messages.models import ReceiptKind, ReceiptResult
from market.messages.signing import Domain, Signer
from market.service.ports import Settler
from market.service.registered import Registered
from market.service.settings import MarketSettings
from market.service.settler import ContractSettler
from market.service.solver import SolverProcess
from market.service.store import Store, money
from market.service.store.journal import StoreJournal
from meters.broker import Broker
from meters.identity import signed_binding, write_key
from tests.contracts.anvil import Anvil
from tests.faults.live_stand import Stand, live_settings, stand
from tests.service.scene import (
    DEPOSITS,
    FEEDER,
    MEMBERS,
    METERS,
    SECONDS,
    START,
    Meters,
    living_meters,
    secret,
    signer,
)

pytestmark = [pytest.mark.needs("anvil"), pytest.mark.timeout(240)]
OF = live_settings()
SALT = b"the market's"
CHANGING, UNBOUND = MEMBERS[2], MEMBERS[3]
OLD, NEW = signer("owner:load:2").address, signer("new wallet").address
SOON = Patience(confirmations=1, poll_s=0.01)


class Chain:
    """The contracts on anvil, with all meters registered but one."""

    def __init__(self, anvil: Anvil, folder: Path) -> None:
        self.node = RpcChain(anvil.url)
        self.folder = folder
        for name in ("deployer", "settler", "new wallet"):
            self.node._ask("anvil_setBalance", signer(name).address, hex(10**24))
        for name in ("deployer", "owner:load:2", "new wallet"):
            write_key(self.key(name), secret(name))
        self.journal = SqliteJournal(folder / "operator.sqlite")
        self.operator = Sender(self.node, signer("deployer"), self.journal, SOON)
        terms = EscrowTerms(
            name="T",
            symbol="T",
            withdrawal_delay_s=86_400,
            position_debit_max=10**9,
            window_debit_max=10**12,
            guarantee_max=0,
        )
        settler = signer("settler").address
        self.deployment = deploy(self.node, self.operator, self.journal, terms, settler)
        self.deployment.write(folder / "deployment.json")
        self.contracts = MarketContracts(self.node, self.deployment)
        treasuries = {treasury.address: treasury.deposit_ueur for treasury in OF.treasuries.values()}
        self.contracts.fund(self.operator, "fund", {**DEPOSITS, **treasuries})
        for number in range(3):
            self.register(METERS[number], MEMBERS[number].owner, MEMBERS[number].connection_point)
        meters = RegisteredMeters(
            RpcChain(anvil.url), self.deployment.registry, self.deployment.first_block, self._final_block
        )
        self.registered = Registered(meters.look, SALT)

    def _final_block(self) -> int:
        return self.node.block_number() - 2

    def register(self, meter: Signer, owner: str, place: str, nonce: int = 0) -> None:
        """By the registrar, with the meter's word."""
        domain = Domain(self.deployment.chain_id, self.deployment.registry)
        point = keccak(SALT + place.encode())
        binding = SignedBinding(*signed_binding(meter, domain, owner, point, nonce, 2**40))
        self.contracts.registry.register(self.operator, f"register/{meter.address}/{nonce}", [binding])

    def key(self, name: str) -> Path:
        return self.folder / f"{name.replace(':', '-')}.key"

    @contextmanager
    def settler(self, _: Path, store: Store, of: MarketSettings) -> Iterator[Settler]:
        sender = Sender(RpcChain(self.node._url), signer("settler"), StoreJournal(store), SOON)
        yield ContractSettler(self.contracts, sender, of.feeder, None)

    async def owner(self, *words: object, key: str) -> int:
        named = ("--rpc", self.node._url, "--deployment", self.folder / "deployment.json")
        return await command("chain", "owner", *words, *named, "--key", self.key(key))


async def command(*words: object) -> int:
    """One of ``peergrid``'s, while the market runs."""
    return await asyncio.to_thread(run, [str(word) for word in words])


@asynccontextmanager
async def running(folder: Path, chain: Chain) -> AsyncIterator[tuple[Stand, Meters]]:
    with SolverProcess(FEEDER) as solver:
        async with Broker() as broker, living_meters(broker.port) as meters:
            parts = {"settler": chain.settler, "registered": chain.registered}
            async with stand(folder, broker.port, solver, OF, **parts) as market:
                yield market, meters


@pytest.fixture
def chain(tmp_path: Path) -> Iterator[Chain]:
    anvil = Anvil()
    made = Chain(anvil, tmp_path)
    yield made
    made.journal.disconnect()
    anvil.end()


async def asked(market: Stand, *words: object, until: Callable[[], bool] = lambda: True) -> int:
    await market.until(until)
    command_, *rest = words
    return await command("member", command_, market.database, *rest, "--reason", "test", "--wait-s", 30)


async def test_members_are_those_of_the_chain(
    tmp_path: Path, chain: Chain, capsys: pytest.CaptureFixture[str]
) -> None:
    async with running(tmp_path, chain) as (market, meters):

        def successors() -> bool:
            return market.market is not None and OLD in market.market._standing.successors

        def unregistered() -> set[str]:
            return set() if market.market is None else set(market.market._standing.unregistered)

        def registered(meter: str) -> bool:
            return meter in (chain.registered._bound or {})

        def refused() -> set[tuple[str, str, str]]:
            return {
                (receipt.meter, receipt.field, receipt.reason)
                for receipt in meters.receipts
                if receipt.kind == ReceiptKind.ORDER and receipt.result == ReceiptResult.REJECTED
            }

        # One is not on the registry: it alone is refused, and told why.
        await market.open(0)
        await market.until(lambda: bool(refused()))
        await market.whole(0, orders=3)
        await market.until(lambda: bool(market.query("SELECT 1 FROM alarm WHERE kind = 'registry'")))
        alarm = market.query("SELECT subject, count FROM alarm WHERE kind = 'registry'")
        assert alarm == [(UNBOUND.meter, 1)]
        words = f"the chain's registry does not know meter {UNBOUND.meter}"
        assert refused() == {(UNBOUND.meter, "meter", words)}
        stranger = signer("meter:stranger").address
        place = ("--owner", NEW, "--connection-point", "bus:1", "--fuse-w", 9000)
        assert await asked(market, "join", stranger, *place) == 1
        assert "does not know" in capsys.readouterr().err
        assert await asked(market, "move", CHANGING.meter, "--connection-point", "bus:1") == 1
        assert f"does not have {CHANGING.meter} at bus:1" in capsys.readouterr().err

        # Once it is brought there it takes part, without a restart.
        chain.register(METERS[3], UNBOUND.owner, UNBOUND.connection_point)
        await market.until(lambda: not unregistered())
        await market.whole(1)

        # The owner changes its wallet on the chain; the market follows when it is told.
        to_new = ("owner", CHANGING.meter, "--owner", NEW)
        assert await asked(market, *to_new) == 1
        assert "has not handed over" in capsys.readouterr().err
        offer = tmp_path / "offer.json"
        assert await chain.owner("offer", "--to", NEW, "--out", offer, key="owner:load:2") == 0
        assert await chain.owner("accept", offer, key="new wallet") == 0
        assert await asked(market, *to_new, until=successors) == 0, capsys.readouterr().err

        # Another one gets a second meter, and a third one leaves: from the next gate on.
        second = signer("meter:second")
        chain.register(second, MEMBERS[0].owner, "bus:1")
        place = ("--owner", MEMBERS[0].owner, "--connection-point", "bus:1", "--fuse-w", 9000)
        await market.until(lambda: registered(second.address))
        assert await asked(market, "join", second.address, *place) == 0, capsys.readouterr().err
        assert await asked(market, "leave", MEMBERS[1].meter) == 0, capsys.readouterr().err
        for number in (2, 3, 4, 5):
            await market.whole(number, orders=3)
        await market.until_state(3, "FINAL")
        assert not unregistered()
        owner = market.query(f"SELECT owner FROM meter WHERE meter = '{CHANGING.meter}'")
        assert owner == [(NEW,)]
        metered = market.query(f"SELECT meter FROM metered WHERE interval_start = {START + 3 * SECONDS}")
        assert {meter for (meter,) in metered} == {
            second.address,
            *(member.meter for member in MEMBERS if member != MEMBERS[1]),
        }

    with Store(market.database, OF.identity()) as store:
        with store.reading() as connection:
            batches = money.final_batches(connection, 2**62, 100)
        paid = [batch.positions.keys() & {OLD, NEW} for batch in batches]
        assert paid[0] == {OLD} and paid[-1] == {NEW}
        sender = Sender(chain.node, signer("settler"), StoreJournal(store), SOON)
        settler = ContractSettler(chain.contracts, sender, OF.feeder, None)
        moved = settler.credit_moved()
    balances = chain.contracts.balances([OLD, NEW])
    settled = {a: sum(batch.positions.get(a, 0) for batch in batches) for a in (OLD, NEW)}
    assert {a: balances[a] - moved.get(a, 0) for a in (OLD, NEW)} == settled, "ledger = chain to the unit"
    assert balances[OLD] == 0
    assert balances[NEW] == CHANGING.deposit_ueur + sum(settled.values())
    assert market.clearings() == ["CLEARED"] * 6
    assert market.failures == []
    assert market.follows_from_its_journal()
