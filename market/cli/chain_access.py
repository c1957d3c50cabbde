"""Which chain a command talks to: that of a run's folder, or a node's with a market deployed on it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from contracts.chain import Chain
from contracts.deployment import Deployment
from contracts.embedded import EmbeddedChain
from contracts.journal import SqliteJournal
from contracts.market_contracts import MarketContracts
from contracts.rpc import RpcChain
from contracts.sender import Patience, Sender
from grid.errors import InputError
from market.cli.chain import CHAIN, DEPLOYMENT
from market.cli.folder import SETTINGS
from market.cli.messages import say
from market.messages.signing import Signer
from market.service.settings import DATABASE
from market.service.store import Store, money
from meters.identity import derived_signer, read_key

WALLETS = "wallets.sqlite"


@dataclass(frozen=True)
class Place:
    """Where the market is: ``out`` is a run's folder, else ``rpc`` a node's URL and ``deployment`` a file.

    ``at`` is what the clock of a run's own chain shows, at least (Unix seconds).
    """

    out: Path | None
    rpc: str | None
    deployment: Path | None
    at: int | None

    def check(self) -> None:
        """Raises :class:`InputError` unless exactly one chain is named."""
        if (self.out is None) == (self.rpc is None):
            raise InputError.single(
                "--out, --rpc", "", self.rpc or "", "name one of the two: a folder or a node"
            )
        if self.rpc is not None and self.deployment is None:
            raise InputError.single(
                "--deployment", "", "", "is needed with --rpc: the file that deploy wrote"
            )
        if self.out is not None and not (self.out / DEPLOYMENT).exists():
            raise InputError.single("--out", "", str(self.out), "holds no run with a chain")


@dataclass(frozen=True)
class Access:
    """An open chain with its market; ``names`` are those of accounts, where they are known. The chain's next
    block is not before ``next_block_at`` (Unix s).
    """

    chain: Chain
    contracts: MarketContracts
    names: dict[str, str]
    next_block_at: int


@contextmanager
def opened(place: Place) -> Iterator[Access]:
    place.check()
    if place.rpc is not None:
        assert place.deployment is not None
        chain = RpcChain(place.rpc)
        contracts = MarketContracts(chain, Deployment.read(place.deployment))
        yield Access(chain, contracts, {}, max(chain.block_time(), int(time.time())))
        return
    assert place.out is not None
    deployment = Deployment.read(place.out / DEPLOYMENT)
    embedded = EmbeddedChain(place.out / CHAIN, lambda: place.at or 0, chain_id=deployment.chain_id)
    try:
        next_block_at = max(embedded.block_time(), place.at or 0)
        yield Access(embedded, MarketContracts(embedded, deployment), account_names(place.out), next_block_at)
    finally:
        embedded.close()


@contextmanager
def wallet(place: Place, access: Access, signer: Signer, patience: Patience) -> Iterator[Sender]:
    """A sender for one's own key; what it signs is kept beside the deployment."""
    if place.out is not None:
        path = place.out / WALLETS
    else:
        assert place.deployment is not None
        path = place.deployment.with_name(f"{place.deployment.stem}.{signer.address}.journal")
    journal = SqliteJournal(path)
    try:
        yield Sender(access.chain, signer, journal, patience)
    finally:
        journal.disconnect()


@contextmanager
def sending(place: Place, signer: Signer, patience: Patience) -> Iterator[tuple[Access, Sender, bool]]:
    """A chain, a sender for one's own key, and whether it is free to act.

    What an earlier command signed and could not finish is finished instead: it may well be the same.
    """
    with opened(place) as access, wallet(place, access, signer, patience) as sender:
        finished = sender.resume()
        if finished:
            say("finished what an earlier command had signed; nothing else was done")
        yield access, sender, not finished


def signer_of(place: Place, key: Path | None, household: str | None) -> Signer:
    """The key in a file, or that of a simulated household (``load:7``), which follows from the run's seed."""
    if key is not None:
        return read_key(key)
    if household is None:
        raise InputError.single("--key", "", "", "is needed, or --household for a simulated one")
    if place.out is None:
        raise InputError.single("--household", "", household, "has a key only in a run's folder: use --key")
    seed = json.loads((place.out / SETTINGS).read_text(encoding="utf-8"))["seed"]
    return derived_signer(seed, f"owner:{household}")


@contextmanager
def opened_store(out: Path) -> Iterator[Store]:
    """A run's database as it is. Raises :class:`InputError` where there is none."""
    path = out / DATABASE
    if not path.exists():
        raise InputError.single("--out", "", str(out), "holds no market's database")
    with Store(path, {}) as store:
        yield store


def account_names(out: Path) -> dict[str, str]:
    """The accounts of a run by address; households by where they stand."""
    with opened_store(out) as store, store.reading() as connection:
        points = money.connection_points(connection)
        return {
            state.address: points.get(state.address, state.account)
            for state in money.account_states(connection)
        }
