"""The double-entry ledger: postings in nEUR that sum to zero, and their netting to chain units of µEUR.

Wh × µEUR/kWh = nEUR exactly, so the ledger never rounds. The chain's token has µEUR: every account stands
there at the floor of its ledger balance, and the rounding account holds what those floors leave over.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from grid.errors import LedgerError

NEUR_PER_UEUR = 1000

RETAILER = "retailer"
NETWORK = "network"
IMBALANCE = "imbalance"
ROUNDING = "rounding"
MARKET_ACCOUNTS = (RETAILER, NETWORK, IMBALANCE, ROUNDING)


def household(meter: str) -> str:
    """The account of the household behind a meter."""
    return f"household:{meter}"


class Kind(StrEnum):
    """What a posting is for."""

    AWARD = "award"  # flexible energy at its price
    FIRM = "firm"  # firm energy at its collared price
    SUPPLY = "supply"  # import and export between network and retailer, and the network's margin on it
    RETAIL = "retail"  # energy at the retail tariffs
    CARRIED = (
        "carried"  # energy that the retailer bills by itself, as the account covers it no more: amount 0
    )
    IMBALANCE = "imbalance"
    HELD = "held"  # a seller's payment until its registers speak
    CONGESTION = "congestion"
    VOLTAGE = "voltage"
    LOSSES = "losses"
    FEES = "fees"
    COLLAR = "collar"
    REACTIVE = "reactive"
    RECOVERED = "recovered"  # what the chain paid by batches whose records were lost
    ROUNDING = "rounding"  # of prices to whole µEUR/kWh


@dataclass(frozen=True, slots=True)
class Posting:
    """One line: ``amount_neur`` > 0 is earned by the account; ``energy_wh`` > 0 went into the grid."""

    account: str
    kind: Kind
    amount_neur: int
    energy_wh: int = 0


def combine(postings: Iterable[Posting]) -> tuple[Posting, ...]:
    """One posting for each account and kind, sorted, without those that come to nothing.

    Raises :class:`LedgerError` unless they sum to exactly zero.
    """
    amounts: defaultdict[tuple[str, Kind], int] = defaultdict(int)
    energies: defaultdict[tuple[str, Kind], int] = defaultdict(int)
    for posting in postings:
        amounts[posting.account, posting.kind] += posting.amount_neur
        energies[posting.account, posting.kind] += posting.energy_wh
    total = sum(amounts.values())
    if total:
        raise LedgerError(f"the postings sum to {total} nEUR instead of zero")
    return tuple(
        Posting(account, kind, amounts[account, kind], energies[account, kind])
        for account, kind in sorted(amounts)
        if amounts[account, kind] or energies[account, kind]
    )


def adjustment(before: Iterable[Posting], after: Iterable[Posting]) -> tuple[Posting, ...]:
    """The postings that turn ``before`` into ``after``."""
    reversal = [Posting(p.account, p.kind, -p.amount_neur, -p.energy_wh) for p in before]
    return combine([*after, *reversal])


def balances_neur(postings: Iterable[Posting]) -> dict[str, int]:
    """What the accounts of some postings come to, nEUR."""
    totals: defaultdict[str, int] = defaultdict(int)
    for posting in postings:
        totals[posting.account] += posting.amount_neur
    return dict(totals)


def chain_positions(ledger_neur: Mapping[str, int], settled_ueur: Mapping[str, int]) -> dict[str, int]:
    """The net positions (µEUR by account, sum zero) that bring the chain to the ledger.

    ``ledger_neur`` is each account's ledger balance, ``settled_ueur`` the sum of its positions so far.
    Afterwards every account but ``rounding`` stands at the floor of its ledger balance: what is below one
    unit is carried, not dropped, and the units that the floors leave over (fewer than there are accounts) lie
    with ``rounding``. Accounts whose position is zero are left out.
    """
    if sum(ledger_neur.values()):
        raise LedgerError(f"the ledger sums to {sum(ledger_neur.values())} nEUR instead of zero")
    if ledger_neur.get(ROUNDING):
        raise LedgerError("the rounding account takes no postings of its own")
    if sum(settled_ueur.values()):
        raise LedgerError(f"the settled positions sum to {sum(settled_ueur.values())} µEUR instead of zero")
    positions = {
        account: ledger_neur.get(account, 0) // NEUR_PER_UEUR - settled_ueur.get(account, 0)
        for account in sorted(ledger_neur.keys() | settled_ueur.keys())
        if account != ROUNDING
    }
    positions[ROUNDING] = -sum(positions.values())
    held = settled_ueur.get(ROUNDING, 0) + positions[ROUNDING]
    if not 0 <= held < max(1, len(positions)):
        raise LedgerError(f"the rounding account would hold {held} µEUR for {len(positions) - 1} accounts")
    return {account: amount for account, amount in positions.items() if amount}
