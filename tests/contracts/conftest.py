"""A market's contracts on an embedded chain of their own, with three funded accounts."""

from __future__ import annotations

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
TERMS = EscrowTerms(
    name="Peergrid test",
    symbol="PGT",
    withdrawal_delay_s=3600,
    position_debit_max=50_000_000,
    window_debit_max=100_000_000,
    window_s=86400,
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
        }
        data = load(contract).call_data(function, *arguments)
        call = Call(f"{contract}.{function}", addresses[contract], data, gas)
        return self.sender(signer).send(f"call/{next(self.numbers)}", call)

    def settle_packed(self, packed: bytes, sequence: int = 0, signer: Signer | None = None) -> Receipt:
        """Settles bytes as they are, well formed or not."""
        return self.send(
            signer or self.settler,
            "MarketEscrow",
            "settle",
            self.market,
            sequence,
            self.root,
            packed,
            gas=16_000_000,
        )

    def settle(self, net_ueur: dict[str, int], sequence: int = 0) -> Receipt:
        """Settles net positions of households by name."""
        positions = {self.address(name): amount for name, amount in net_ueur.items()}
        return self.contracts.settle(self.sender(self.settler), self.market, sequence, self.root, positions)

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


@pytest.fixture
def stand(tmp_path: Path) -> Iterator[Stand]:
    clock = Clock()
    operator, settler = key("operator"), key("settler")
    households = {name: key(name) for name in ("rich", "poor", "idle")}
    funded = [signer.address for signer in (operator, settler, *households.values())]
    chain = EmbeddedChain(tmp_path / "chain.sqlite", lambda: clock.now, funded)
    journal = SqliteJournal(tmp_path / "journal.sqlite")
    sender = Sender(chain, operator, journal)
    deployment = deploy(chain, sender, journal, TERMS, settler.address)
    contracts = MarketContracts(chain, deployment)
    contracts.fund(
        sender,
        "fund",
        {households["rich"].address: 60_000_000, households["poor"].address: 1_000_000},
    )
    yield Stand(tmp_path, clock, chain, journal, operator, settler, households, deployment, contracts)
    journal.disconnect()
    chain.close()
