"""Statements of accounts from a market's database: proven against the ledger before anybody sees them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Connection

from grid.errors import LedgerError
from market.accounts.ledger import Kind, household
from market.accounts.statement import Flows, Statement, statement_of
from market.accounts.tariff import retail_neur
from market.service.store import booked


def statement(
    connection: Connection, account: str, since: int, until: int, flows: Mapping[int, Flows]
) -> Statement:
    """An account's statement for the intervals that start in ``[since, until)``.

    ``flows`` is :func:`booked.flows` of the same period. Raises :class:`LedgerError`
    where opening balance, statement and what came after it are not the account's balance.
    """
    before, after, running = booked.balances(connection, account, since, until)
    rows = booked.of_account(connection, account, since, until)
    made = statement_of(account, (since, until), before, rows, flows)
    if made.closing_neur + after != running:
        raise LedgerError(
            f"{account}: {before} nEUR before the statement, {made.total_neur} in it and {after} after it are"
            f" not the balance of {running} nEUR"
        )
    return made


def statements(
    connection: Connection, since: int, until: int, flows: Mapping[int, Flows]
) -> dict[str, Statement]:
    """Those of all accounts, by name. Raises :class:`LedgerError` unless they sum to zero."""
    made = {
        account: statement(connection, account, since, until, flows)
        for account in booked.accounts(connection)
    }
    if total := sum(one.total_neur for one in made.values()):
        raise LedgerError(f"the statements of all accounts sum to {total} nEUR instead of zero")
    return made


@dataclass(frozen=True, slots=True)
class Consumption:
    """What a household's meter says of a period, and what the energy that it settled in the market had come
    to at the retail tariffs (nEUR, earned > 0). ``provisional`` counts the intervals whose readings are
    still missing: what is taken for their energy is settled and compared, but not in ``import_wh`` and
    ``export_wh``.
    """

    import_wh: int
    export_wh: int
    provisional: int
    retail_neur: int


def consumption(
    connection: Connection, meter: str, since: int, until: int, flows: Mapping[int, Flows]
) -> Consumption:
    read = booked.metered_of(connection, meter, since, until)
    known = [(drawn, fed) for _, drawn, fed in read if drawn is not None and fed is not None]
    nets: Counter[int] = Counter()
    for row in booked.of_account(connection, household(meter), since, until):
        if row.kind != Kind.CARRIED:  # the retailer bills that by itself
            nets[row.interval_start] += row.energy_wh
    return Consumption(
        import_wh=sum(drawn for drawn, _ in known),
        export_wh=sum(fed for _, fed in known),
        provisional=len(read) - len(known),
        retail_neur=sum(retail_neur(flows[start].tariff, net_wh) for start, net_wh in nets.items()),
    )
