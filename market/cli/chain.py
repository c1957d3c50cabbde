"""The embedded chain of a run: contracts deployed, meters registered, deposits made, ready to settle."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from contracts.deployment import Deployment, deploy
from contracts.embedded import EmbeddedChain
from contracts.market_contracts import MarketContracts
from contracts.sender import Patience, Sender
from market.cli.world import World, bindings, escrow_terms, guarantee_ueur
from market.messages.signing import Domain
from market.service.clock import Clock, SimulatedClock
from market.service.settler import ContractSettler
from market.service.store import Store
from market.service.store.journal import StoreJournal

CONTRACTS = ("MarketTimelock", "MeterRegistry", "DemoEuro", "MarketEscrow")
CHAIN = "chain.sqlite"
DEPLOYMENT = "deployment.json"
SETUP_BEFORE_S = 3600  # of the first interval, on the chain's clock


@dataclass(frozen=True)
class MarketChain:
    """``setup_gas`` and ``setup_transactions`` are what it took to get here."""

    chain: EmbeddedChain
    contracts: MarketContracts
    deployment: Deployment
    settler: ContractSettler
    domain: Domain
    setup_transactions: int
    setup_gas: int


@contextmanager
def market_chain(
    world: World, folder: Path, store: Store, live_clock: Clock | None = None
) -> Iterator[MarketChain]:
    """The chain in ``folder``, made there or continued; what is sent is journalled in ``store``.

    Its blocks have the time of ``live_clock``, else of the batches. Calling it again after a crash does
    nothing twice.
    """
    simulated = SimulatedClock(world.settings.first_interval_start - SETUP_BEFORE_S)
    clock = live_clock or simulated
    # Owners need ether for the day when they withdraw on their own.
    owners = (member.owner for member in world.members)
    funded = (world.deployer.address, world.settler.address, *owners)
    chain = EmbeddedChain(folder / CHAIN, clock.now, funded)
    journal = StoreJournal(store)
    try:
        deployer = Sender(chain, world.deployer, journal)
        deployment = deploy(chain, deployer, journal, escrow_terms(world), world.settler.address)
        deployment.write(folder / DEPLOYMENT)
        contracts = MarketContracts(chain, deployment)
        domain = Domain(chain.chain_id, deployment.registry)
        receipts = contracts.registry.register(deployer, "register", bindings(world, domain, clock.now()))
        deposits = {member.owner: member.deposit_ueur for member in world.members}
        deposits |= {
            treasury.address: treasury.deposit_ueur for treasury in world.market_settings.treasuries.values()
        }
        receipts += contracts.fund(deployer, "fund", deposits)
        # One member that cannot pay must not hold up the others.
        amount_ueur = guarantee_ueur(world)
        receipts.append(contracts.mint(deployer, "guarantee/mint", deployer.address, amount_ueur))
        receipts += contracts.deposit_guarantee(deployer, "guarantee", amount_ueur)
        created = [
            chain.receipt(attempt.hash)
            for name in CONTRACTS
            for attempt in journal.attempts(f"deploy/{name}")
        ]
        receipts += [receipt for receipt in created if receipt is not None]
        yield MarketChain(
            chain=chain,
            contracts=contracts,
            deployment=deployment,
            settler=ContractSettler(
                contracts,
                Sender(chain, world.settler, journal, Patience(confirmations=None)),
                world.settings.name,
                None if live_clock else simulated,
            ),
            domain=domain,
            setup_transactions=len(receipts),
            setup_gas=sum(receipt.gas_used for receipt in receipts),
        )
    finally:
        chain.close()
