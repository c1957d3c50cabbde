"""Batches to anvil while everything goes wrong: each is settled once, and all ends equal to the unit.

Between any two steps of the settler it may crash; broadcasts are doubled, transactions dropped from the
pool, fees too low for the next blocks, blocks reorganised away, the node stopped and continued, or replaced
by one of another chain on the same port. A few batches run always, a thousand with ``make test-long``:
docs/settlement.md records such a run.
"""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import pytest
from eth_hash.auto import keccak

from contracts.chain import (
    ContractRevertError,
    TransactionFailedError,
    TransactionRefusedError,
    WrongChainError,
)
from contracts.deployment import EscrowTerms, deploy
from contracts.journal import SqliteJournal
from contracts.market_contracts import MarketContracts
from contracts.rpc import RpcChain
from contracts.sender import Patience, Sender
from grid.errors import ChainError
from market.messages.signing import Signer, feeder_hash

from .anvil import Anvil

pytestmark = pytest.mark.needs("anvil")

MARKET = feeder_hash("storm")
OPERATOR, SETTLER = Signer(keccak(b"storm operator")), Signer(keccak(b"storm settler"))
HOLDERS = [Signer(keccak(f"storm {number}".encode())).address for number in range(9)]
DEPOSIT_UEUR = 50_000_000
TERMS = EscrowTerms(
    name="Storm", symbol="ST", position_debit_max=10**9, window_debit_max=10**13, guarantee_max=0
)
KINDS = (
    "crash",
    "duplicate broadcast",
    "dropped transaction",
    "stuck fee",
    "fee bump",
    "reorganisation",
    "stopped node",
    "replaced node",
)
CALLS_AT_LEAST = 15  # of the node, for a batch
CRASHES_MAX = 60  # for one batch; more would be a settler that gets nowhere


class CrashError(Exception):
    """The settler's process dies here."""


@dataclass
class Storm:
    """What goes wrong, drawn from ``chance``; ``seen`` counts it."""

    chance: Random
    seen: Counter[str] = field(default_factory=Counter)
    calm: bool = False
    calls_until_hang: int | None = None
    """The node answers so many calls of the settler and then hangs once."""

    def strikes(self, what: str, probability: float) -> bool:
        if self.calm or self.chance.random() >= probability:
            return False
        self.seen[what] += 1
        return True

    def hangs_now(self) -> bool:
        if self.calls_until_hang is None:
            return False
        self.calls_until_hang -= 1
        if self.calls_until_hang >= 0:
            return False
        self.calls_until_hang = None
        self.seen["stopped node"] += 1
        return True


class Crashing:
    """A journal or node whose every call may be the last thing that the settler does, or just was; a node
    (``anvil``) may also hang at any call until the settler has given it up.
    """

    def __init__(self, real: Any, storm: Storm, anvil: Anvil | None = None) -> None:
        self._real, self._storm, self._anvil = real, storm, anvil

    def __getattr__(self, name: str) -> Any:
        member = getattr(self._real, name)
        if not callable(member):
            return member

        def call(*arguments: Any) -> Any:
            if self._storm.strikes("crash", 0.01):
                raise CrashError
            if self._anvil is not None and self._storm.hangs_now():
                self._anvil.stop()
                try:
                    member(*arguments)
                finally:
                    self._anvil.go_on()
            result = member(*arguments)
            if self._storm.strikes("crash", 0.01):
                raise CrashError
            if name == "send_raw" and self._storm.strikes("duplicate broadcast", 0.1):
                with suppress(TransactionRefusedError):
                    member(*arguments)
            return result

        return call


class Weather:
    """What happens to the node while the settler waits: it passes for the sender's ``sleep``."""

    def __init__(self, anvil: Anvil, storm: Storm) -> None:
        self.anvil, self.storm = anvil, storm
        self.now = 0.0
        self.rpc = RpcChain(anvil.url)

    def ask(self, method: str, *parameters: Any) -> Any:
        return self.rpc._ask(method, *parameters)

    def pass_by(self, seconds: float) -> None:
        self.now += seconds
        if self.storm.strikes("dropped transaction", 0.08):
            self.ask("anvil_dropAllTransactions")
        if self.storm.strikes("stuck fee", 0.08):
            base_fee = int(self.ask("eth_getBlockByNumber", "latest", False)["baseFeePerGas"], 16)
            self.ask("anvil_setNextBlockBaseFeePerGas", hex(min(base_fee * 4, 60 * 10**9)))
        if self.storm.strikes("reorganisation", 0.05):
            depth = min(self.storm.chance.randint(1, 8), self.rpc.block_number() - self.protected)
            if depth > 0:
                self.storm.seen[f"depth {depth}"] += 1
                self.ask("anvil_reorg", depth, [])
        self.ask("evm_mine")

    protected = 0  # blocks up to this one are not reorganised: the contracts stand there


def net(sequence: int) -> dict[str, int]:
    """Another batch for each sequence: one that counted twice or not at all would show."""
    chance = Random(sequence)
    amounts = {holder: chance.randint(-40_000, 40_000) for holder in chance.sample(HOLDERS, 6)}
    last = next(holder for holder in HOLDERS if holder not in amounts)
    return {**amounts, last: -sum(amounts.values())}


def set_up(anvil: Anvil, folder: Path) -> MarketContracts:
    chain = RpcChain(anvil.url)
    for signer in (OPERATOR, SETTLER):
        chain._ask("anvil_setBalance", signer.address, hex(10**24))
    journal = SqliteJournal(folder / "operator.sqlite")
    patience = Patience(timeout_s=60, poll_s=0.01)
    operator = Sender(chain, OPERATOR, journal, patience, sleep=lambda _: chain._ask("evm_mine"))
    contracts = MarketContracts(chain, deploy(chain, operator, journal, TERMS, SETTLER.address))
    contracts.fund(operator, "fund", dict.fromkeys(HOLDERS, DEPOSIT_UEUR))
    journal.disconnect()
    return contracts


def settle(sequence: int, contracts: MarketContracts, weather: Weather, folder: Path) -> None:
    """Starts the settler again after each crash and each error, as a supervisor would, until it is done."""
    for _ in range(CRASHES_MAX):
        journal = SqliteJournal(folder / "settler.sqlite")
        try:
            chain = Crashing(RpcChain(weather.anvil.url), weather.storm, weather.anvil)
            # Two confirmations: most reorganisations take back what counted as final.
            patience = Patience(confirmations=2, timeout_s=20, poll_s=1, nudge_s=2)
            sender = Sender(
                chain,
                SETTLER,
                Crashing(journal, weather.storm),
                patience,
                sleep=weather.pass_by,
                monotonic=lambda: weather.now,
            )
            MarketContracts(chain, contracts.deployment).settle(
                sender, MARKET, sequence, bytes(32), net(sequence)
            )
            return
        except CrashError:
            continue
        except ChainError as error:
            # Not confirmed in time, or a busy node: again. These are not meant here and show what is wrong.
            if isinstance(error, (ContractRevertError, TransactionFailedError, WrongChainError)):
                raise
            weather.storm.seen[type(error).__name__] += 1
        finally:
            journal.disconnect()
    pytest.fail(f"batch {sequence} is not settled after {CRASHES_MAX} attempts")


def finish(weather: Weather, folder: Path, batches: int) -> None:
    """The storm is over: what a late reorganisation took is brought back."""
    weather.storm.calm = True
    journal = SqliteJournal(folder / "settler.sqlite")
    patience = Patience(confirmations=10, timeout_s=200, poll_s=1, nudge_s=2)
    chain = RpcChain(weather.anvil.url)
    sender = Sender(chain, SETTLER, journal, patience, sleep=weather.pass_by, monotonic=lambda: weather.now)
    sender.resume()
    assert not journal.pending(SETTLER.address)
    signed = sum(len(journal.attempts(f"settle/{MARKET.hex()}/{number}/0")) for number in range(batches))
    weather.storm.seen["fee bump"] = signed - batches
    journal.disconnect()


def check(contracts: MarketContracts, batches: int) -> None:
    expected = dict.fromkeys(HOLDERS, DEPOSIT_UEUR)
    for sequence in range(batches):
        for holder, amount in net(sequence).items():
            expected[holder] += amount
    assert contracts.balances(HOLDERS) == expected
    assert contracts.total_supply() == contracts.backing() == len(HOLDERS) * DEPOSIT_UEUR
    assert contracts.debts(HOLDERS) == {}
    for sequence in range(batches):
        assert len(contracts.settled(MARKET, sequence)) == 1


def brew(batches: int, seed: int, folder: Path, every: int) -> Counter[str]:
    """``every`` so many batches the node hangs in the middle of one, and is replaced once."""
    state = folder / "anvil.json"
    options = (
        "--no-mining",
        "--slots-in-an-epoch",
        "4",
        "--state",
        str(state),
        "--preserve-historical-states",
    )
    anvil = Anvil(*options)
    storm = Storm(Random(seed))
    try:
        contracts = set_up(anvil, folder)
        weather = Weather(anvil, storm)
        weather.protected = weather.rpc.block_number()
        for sequence in range(batches):
            if sequence % every == every // 2:
                storm.calls_until_hang = storm.chance.randint(0, CALLS_AT_LEAST)
            settle(sequence, contracts, weather, folder)
            if sequence % every == every - 1:
                weather.anvil = anvil = replace(anvil, options, contracts, folder, sequence + 1)
                # Of blocks from before it was started anvil has no states to go back to.
                weather.protected = weather.rpc.block_number()
                weather.storm.seen["replaced node"] += 1
            storm.seen["batches"] += 1
        finish(weather, folder, batches)
        check(MarketContracts(RpcChain(anvil.url), contracts.deployment), batches)
        return storm.seen
    finally:
        anvil.go_on()
        anvil.end()


def attempt(url: str, contracts: MarketContracts, folder: Path, sequence: int) -> None:
    """One attempt at a batch, on the node as it is."""
    journal = SqliteJournal(folder / "settler.sqlite")
    try:
        chain = RpcChain(url)
        sender = Sender(chain, SETTLER, journal, Patience(timeout_s=0))
        MarketContracts(chain, contracts.deployment).settle(
            sender, MARKET, sequence, bytes(32), net(sequence)
        )
    finally:
        journal.disconnect()


def replace(
    anvil: Anvil, options: tuple[str, ...], contracts: MarketContracts, folder: Path, sequence: int
) -> Anvil:
    """Another chain takes the port: nothing is sent to it. Then the first one is back from its file."""
    sender_chain = RpcChain(anvil.url)
    anvil.end(gently=True)
    for other_options, error in (
        (("--chain-id", "4242"), "the node is of chain 4242"),
        ((), "there is no contract"),
    ):
        other = Anvil(*other_options, port=anvil.port)
        try:
            with pytest.raises(ChainError, match=error):
                attempt(other.url, contracts, folder, sequence)
            # A settler that was connected before notices it as well.
            with pytest.raises(WrongChainError):
                sender_chain.check_same()
            assert RpcChain(other.url).nonce(SETTLER.address) == 0
        finally:
            other.end()
    return Anvil(*options, port=anvil.port)


@pytest.fixture(autouse=True)
def short_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A node that hangs is given up after two seconds instead of ten."""
    monkeypatch.setattr("contracts.rpc._TIMEOUT_S", 2.0)


def test_batches_in_a_storm_are_settled_exactly_once(tmp_path: Path) -> None:
    seen = brew(40, 4, tmp_path, every=20)
    for what in KINDS:
        assert seen[what], f"{what} never happened: {seen}"


@pytest.mark.long
@pytest.mark.timeout(7200)
def test_a_thousand_batches_in_a_storm_are_settled_exactly_once(tmp_path: Path) -> None:
    seen = brew(1000, 7, tmp_path, every=100)
    print(dict(sorted(seen.items())))
    assert seen["batches"] == 1000
    assert all(seen[what] for what in KINDS)
    assert all(seen[f"depth {depth}"] for depth in range(1, 9))
