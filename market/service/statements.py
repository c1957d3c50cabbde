"""Statements of accounts from a market's database: proven against the ledger before anybody sees them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Connection

from grid.errors import LedgerError
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
    """What a household's meter says of a period, and what that had come to at the retail tariffs (nEUR,
    earned > 0). ``provisional`` counts the intervals whose readings are still missing.
    """

    import_wh: int
    export_wh: int
    intervals: int
    provisional: int
    retail_neur: int


def consumption(
    connection: Connection, meter: str, since: int, until: int, flows: Mapping[int, Flows]
) -> Consumption:
    drawn_wh = fed_wh = counted = provisional = retail = 0
    for start, import_wh, export_wh in booked.metered_of(connection, meter, since, until):
        if import_wh is None or export_wh is None:
            provisional += 1
            continue
        counted, drawn_wh, fed_wh = counted + 1, drawn_wh + import_wh, fed_wh + export_wh
        if start in flows:
            retail += retail_neur(flows[start].tariff, export_wh - import_wh)
    return Consumption(drawn_wh, fed_wh, counted, provisional, retail)
