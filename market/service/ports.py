"""What the engine is given from outside: the feeder's physics, the chain, and whom it tells of its
progress.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeVar

from grid.errors import ChainError, FeederError
from market.auction.book import Book, Firm, Limits
from market.auction.record import ClearingRecord
from market.messages.models import Message
from market.messages.signing import Domain

Document = Mapping[str, Any]
M = TypeVar("M", bound=Message)
Stage = Literal["gate", "settle", "clear", "compare", "publish", "store", "chain"]


def never() -> bool:
    """A deadline that does not come."""
    return False


@dataclass(frozen=True)
class Network:
    """A feeder by name, and the limits that a market keeps on it."""

    feeder_name: str
    limits: Limits


class Clear(Protocol):
    def __call__(self, book: Book, out_of_time: Callable[[], bool] = never) -> ClearingRecord:
        """Clears a book under the feeder's limits; see :func:`market.auction.clearing.clear_book`."""


class Signing(Protocol):
    """The market's key, or what stands for it."""

    address: str

    def sign(self, domain: Domain, message: M) -> M:
        """The same message with the market's signature."""


def _unchangeable(network: Network) -> Physics:
    raise FeederError.single("feeder", "name", network.feeder_name, "cannot be changed to here")


@dataclass(frozen=True)
class Physics:
    """The feeder as the market sees it; all of them pure functions of their arguments.

    ``clear`` clears a book under the feeder's limits. ``without_network`` clears it as if there were none and
    tells what the AC power flow says of that. ``check`` tells what it says of the given injections.
    ``outsiders`` tells the forecast of every connection point in the interval (by its start) except those
    named, which have an order. ``bus_of`` is the bus of a connection point.
    The two documents are stored as JSON, as they come. ``feeder_sha256`` is what the network hashes to;
    ``changed`` is the same on another network, or raises :class:`grid.errors.FeederError`.
    """

    clear: Clear
    without_network: Callable[[Book], Document]
    check: Callable[[Sequence[Firm]], Document]
    outsiders: Callable[[int, frozenset[str]], Sequence[Firm]]
    bus_of: Callable[[str], int]
    feeder_sha256: str = ""
    changed: Callable[[Network], Physics] = _unchangeable


@dataclass(frozen=True)
class Sent:
    """How a batch went on the chain: its last transaction, and the gas of all of them."""

    tx_hash: str
    gas: int


@dataclass(frozen=True)
class Standing:
    """How accounts stand on the chain but for settlements, by holder's address.

    ``equity_ueur`` is what they deposited less what they announced to withdraw, µEUR: deposits count when
    they are final, withdrawals at once. ``debts_ueur`` is what they owe to the guarantee: these are barred
    from ordering until they have repaid. ``liable_s`` is how long after this was told all of it can still be
    debited: what is announced later is paid out no sooner. ``successors`` are the wallets that took others'
    places for good, by those. ``unregistered`` says of meters what the chain's registry has against them;
    they are barred like debtors.
    """

    equity_ueur: Mapping[str, int]
    debts_ueur: Mapping[str, int]
    liable_s: int = 0
    successors: Mapping[str, str] = field(default_factory=dict)
    unregistered: Mapping[str, str] = field(default_factory=dict)

    def wallet(self, owner: str) -> str:
        """The wallet that stands in for ``owner`` now: itself, where none does."""
        while owner in self.successors:
            owner = self.successors[owner]
        return owner

    def by_wallet(self, amounts_ueur: Mapping[str, int]) -> Counter[str]:
        """What amounts by address come to for the wallets that stand there now."""
        found: Counter[str] = Counter()
        for address, amount_ueur in amounts_ueur.items():
            found[self.wallet(address)] += amount_ueur
        return found


@dataclass(frozen=True)
class ChainBooks:
    """What a market's contracts hold at one block, µEUR: what must be so is
    ``supply = deposits`` and ``backing = supply + withdrawals + guarantee``.

    ``deposits_ueur`` is what came in less what went out, added up from events, ``backing_ueur`` the
    stablecoin that the escrow holds. ``withdrawals`` are amount and due time of what was announced and not
    paid, by address.
    """

    block: int
    supply_ueur: int
    deposits_ueur: int
    backing_ueur: int
    guarantee_ueur: int
    withdrawals_ueur: int
    paused: bool
    debts_ueur: Mapping[str, int]
    withdrawals: Mapping[str, tuple[int, int]]


@dataclass(frozen=True)
class OnChain:
    """A batch as the chain has it: net positions (µEUR by holder's address), when it was mined, and whether
    that is final.
    """

    sequence: int
    root: bytes
    positions: Mapping[str, int]
    tx_hash: str
    gas: int
    at: int
    is_final: bool = True


class BehindError(ChainError):
    """The chain has batches that this database lacks: it was restored from an older backup."""

    def __init__(self, batches: Sequence[OnChain]) -> None:
        self.batches = batches
        first, last = batches[0].sequence, batches[-1].sequence
        which = f"batch {first}" if first == last else f"batches {first} to {last}"
        super().__init__(
            f"this database is older than the chain, which has {which} that it lacks: restore a newer copy,"
            " or take them in with `peergrid operate recover`"
        )


class Settler(Protocol):
    """The chain, as the engine needs it. All calls block and may come from another thread, one at a time."""

    def settle(self, sequence: int, root: bytes, positions: Mapping[str, int], at: int) -> Sent:
        """Puts net positions (µEUR by holder's address, sum zero) on the chain at time ``at``.

        Returns when that is final. A sequence that is on the chain already is not sent again: the call then
        tells how it went. Raises :class:`grid.errors.ChainError`.
        """

    def lost(self, batches: Mapping[int, Mapping[str, int]]) -> Sequence[int]:
        """Those of batches that were final (positions by sequence) that the chain does not have any more."""

    def ahead(self, first: int) -> Sequence[OnChain]:
        """The batches from ``first`` on that the chain has, unless the first of them is what this database
        sent itself.
        """

    def standing(self) -> Standing:
        """How accounts stand now."""

    def credit_moved(self) -> Mapping[str, int]:
        """What changed accounts' tokens other than by settlement, µEUR by holder's address."""

    def balances(self, addresses: Sequence[str]) -> Mapping[str, int]:
        """Token balances, µEUR."""

    def total_supply(self) -> int:
        """All tokens there are, µEUR."""

    def books(self) -> ChainBooks:
        """What the contracts hold now."""


@dataclass(frozen=True)
class Progress:
    """A stage of an interval's wave is over. ``index`` counts from 0; ``seconds`` are real ones."""

    index: int
    interval_start: int
    stage: Stage
    seconds: float


@dataclass
class Tally:
    """What a run came to in this process, for the summary."""

    messages_in: int = 0
    messages_rejected: int = 0
    receipts: int = 0
    awards: int = 0
    gates: int = 0
    clearings: int = 0
    transactions: int = 0
    gas: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
