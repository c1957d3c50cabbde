"""What a market's database holds, as flat tables: one definition for API, exports and data frames.

Times are Unix seconds, energies Wh, prices µEUR/kWh, ledger money nEUR, chain money µEUR. A table with a time
is read between ``since`` (included) and ``until`` (left out).
"""

from __future__ import annotations

from market.service.store.tables import energy, money, operating, trading
from market.service.store.tables.table import Column, Table

__all__ = ["TABLES", "Column", "Table"]

_ORDER = (
    "intervals",
    "transitions",
    "fills",
    "trades",
    "prices",
    "binding",
    "orders",
    "awards",
    "readings",
    "metered",
    "postings",
    "batches",
    "alarms",
    "tariffs",
    "member_changes",
    "instructions",
    "disputes",
    "chain_books",
    "meters",
    "accounts",
)
_BY_NAME = {table.name: table for part in (trading, energy, money, operating) for table in part.TABLES}
TABLES = {name: _BY_NAME[name] for name in _ORDER}
