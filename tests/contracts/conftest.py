"""A market's contracts on an embedded chain of their own, with three funded accounts."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import pytest
from eth_hash.auto import keccak

from contracts.artifacts import load
from contracts.chain import Call, ContractRevertError, Receipt
from contracts.deployment import Deployment, EscrowTerms, deploy
from contracts.embedded import EmbeddedChain
from contracts.journal import SqliteJournal
from contracts.market_contracts import MarketContracts
from contracts.sender import Sender
from market.messages.signing import Domain, Signer, feeder_hash

START = 1_466_000_000
HOUSEHOLDS = ("rich", "poor", "idle")
TERMS = EscrowTerms(
    name="Peergrid test",
    symbol="PGT",
    withdrawal_delay_s=3600,
    position_debit_max=50_000_000,
    window_debit_max=100_000_000,
    guarantee_max=100_000_000,
    window_s=86400,
    admin_delay_s=7200,
)


@dataclass
class Clock:
    now: int = START


@dataclass
class Stand:
    """What a test stands on. ``rich``, ``poor`` and ``idle`` have 60, 1 and 0 EUR of credit."""

    folder: Path
    clock: Clock
    chain: EmbeddedChain
    journal: SqliteJournal
    operator: Signer
    settler: Signer
    households: dict[str, Signer]
    deployment: Deployment
    contracts: MarketContracts
    numbers: Iterator[int] = field(default_factory=count)
    terms: EscrowTerms = TERMS

    market: bytes = feeder_hash("test")
    root: bytes = bytes(range(32))

    @property
    def domain(self) -> Domain:
        return Domain(self.deployment.chain_id, self.deployment.registry)

    def sender(self, signer: Signer) -> Sender:
        return Sender(self.chain, signer, self.journal)

    def address(self, household: str) -> str:
        return self.households[household].address

    def send(
        self, signer: Signer, contract: str, function: str, *arguments: object, gas: int = 1_000_000
    ) -> Receipt:
        """Sends a call of any function, each under a batch id of its own."""
        addresses = {
            "MarketEscrow": self.deployment.escrow,
            "DemoEuro": self.deployment.stablecoin,
            "MeterRegistry": self.deployment.registry,
            "MarketTimelock": self.deployment.timelock,
        }
        data = load(contract).call_data(function, *arguments)
        call = Call(f"{contract}.{function}", addresses[contract], data, gas)
        return self.sender(signer).send(f"call/{next(self.numbers)}", call)

    def settle_packed(
        self, packed: bytes, sequence: int = 0, signer: Signer | None = None, chunk: int = 0
    ) -> Receipt:
        """Settles bytes as they are, well formed or not."""
        return self.send(
            signer or self.settler,
            "MarketEscrow",
            "settle",
            self.market,
            sequence,
            chunk,
            self.root,
            packed,
            gas=16_000_000,
        )

    def settle(self, net_ueur: dict[str, int], sequence: int = 0) -> Receipt:
        """Settles net positions of households by name."""
        positions = {self.address(name): amount for name, amount in net_ueur.items()}
        (receipt,) = self.contracts.settle(
            self.sender(self.settler), self.market, sequence, self.root, positions
        )
        return receipt

    @staticmethod
    def key(role: str) -> Signer:
        """A key that nobody has used."""
        return key(role)

    @staticmethod
    def position(account: str, amount_ueur: int) -> bytes:
        return bytes.fromhex(account[2:]) + amount_ueur.to_bytes(8, "big", signed=True)

    @staticmethod
    @contextmanager
    def refuses(error: str, **arguments: object) -> Iterator[None]:
        """What stands inside reverts with this error of the contract, and these of its arguments."""
        with pytest.raises(ContractRevertError) as caught:
            yield
        reason = caught.value.reason
        assert reason.name == error
        assert {name: reason.arguments[name] for name in arguments} == arguments

    def balances(self) -> dict[str, int]:
        found = self.contracts.balances([signer.address for signer in self.households.values()])
        return {name: found[signer.address] for name, signer in self.households.items()}


def key(role: str) -> Signer:
    return Signer(keccak(f"peergrid test {role}".encode()))


@pytest.fixture(scope="session")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with chain and journal of a stand: made once, copied for each test."""
    folder = tmp_path_factory.mktemp("ready")
    operator, settler = key("operator"), key("settler")
    households = {name: key(name) for name in HOUSEHOLDS}
    funded = [signer.address for signer in (operator, settler, *households.values())]
    chain = EmbeddedChain(folder / "chain.sqlite", lambda: START, funded)
    journal = SqliteJournal(folder / "journal.sqlite")
    sender = Sender(chain, operator, journal)
    contracts = MarketContracts(chain, deploy(chain, sender, journal, TERMS, settler.address))
    contracts.fund(
        sender,
        "fund",
        {households["rich"].address: 60_000_000, households["poor"].address: 1_000_000},
    )
    journal.disconnect()
    chain.close()
    return folder


@pytest.fixture
def stand(ready: Path, tmp_path: Path) -> Iterator[Stand]:
    shutil.copytree(ready, tmp_path, dirs_exist_ok=True)
    clock = Clock()
    operator, settler = key("operator"), key("settler")
    households = {name: key(name) for name in HOUSEHOLDS}
    chain = EmbeddedChain(tmp_path / "chain.sqlite", lambda: clock.now)
    journal = SqliteJournal(tmp_path / "journal.sqlite")
    sender = Sender(chain, operator, journal)
    deployment = deploy(chain, sender, journal, TERMS, settler.address)
    contracts = MarketContracts(chain, deployment)
    yield Stand(tmp_path, clock, chain, journal, operator, settler, households, deployment, contracts)
    journal.disconnect()
    chain.close()
