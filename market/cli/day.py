"""A finished day as the market's database tells it: what the summary and the report are computed from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from market.accounts.ledger import Posting
from market.accounts.metering import Metered
from market.auction.book import Book
from market.auction.record import ClearingRecord
from market.messages.models import Tariff
from market.service.store import Store, counts, intervals, money
from market.service.store.money import AccountState


@dataclass(frozen=True)
class DayInterval:
    """One interval: its book and clearing, what the AC power flow said of the same book cleared without the
    network and of the metered energy, and what it came to in the ledger. ``metered`` is by meter.
    """

    start: int
    state: str
    tariff: Tariff
    book: Book
    record: ClearingRecord
    without_network: Mapping[str, Any]
    delivered: Mapping[str, Any]
    metered: Mapping[str, Metered | None]
    postings: Sequence[Posting]


@dataclass(frozen=True)
class Day:
    """All intervals in order, the accounts, and what was counted. ``gas`` is by settlement batch."""

    intervals: Sequence[DayInterval]
    accounts: Sequence[AccountState]
    messages: Mapping[str, int]
    gas: Sequence[int]


def read_day(store: Store) -> Day:
    """Everything of the day in one consistent view."""
    with store.reading() as connection:
        stored = intervals.intervals(connection)
        documents = {
            document["interval_start"]: document for document in intervals.clearing_documents(connection)
        }
        return Day(
            intervals=[
                DayInterval(
                    start=start,
                    state=interval.state,
                    tariff=interval.tariff,
                    book=Book.model_validate(documents[start]["book"]),
                    record=ClearingRecord.model_validate(documents[start]["record"]),
                    without_network=documents[start]["without_network"] or {},
                    delivered=documents[start]["delivered"] or {},
                    metered=intervals.metered(connection, start),
                    postings=money.postings(connection, start),
                )
                for start, interval in stored.items()
            ],
            accounts=money.account_states(connection),
            messages=counts.message_counts(connection),
            gas=list(money.gas_by_batch(connection).values()),
        )
