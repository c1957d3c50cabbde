"""What is asked and told after a day is over: a contested interval, its correction, the closed books."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from market.accounts.ledger import household
from market.messages.signing import message_digest
from market.service.clock import SimulatedClock
from market.service.cover import Cover
from market.service.engine import leaf_secret
from market.service.intake import Intake
from market.service.parse import Heard
from market.service.replay import COMPARED, Replay
from market.service.steps import Steps
from market.service.store import Store, instructions, schema
from market.service.store.instructions import InstructionKind
from tests.faults.promise import promise
from tests.service.process import query
from tests.service.scene import DOMAIN, MARKET, METERS, SECONDS, START, reading_of, settings
from tests.sim.simulation import BY_METER, PHYSICS, simulate

INTERVALS = 2
OF = settings(INTERVALS)
LATER = START + (INTERVALS + 1) * SECONDS
METER = METERS[2].address
MORE_WH = 5


class Day:
    """A day that is over, and what its market can still be asked and told."""

    def __init__(self, folder: Path, store: Store) -> None:
        self.folder = folder
        self.store = store
        self.database = folder / "market.sqlite"
        self._steps = Steps(
            settings=OF,
            members=BY_METER,
            signer=MARKET,
            domain=DOMAIN,
            store=store,
            physics=PHYSICS,
            leaf_secret=leaf_secret(MARKET),
        )
        self._intake = Intake(OF, BY_METER, store, SimulatedClock(LATER), Cover(OF, BY_METER))

    def ask(self, kind: InstructionKind, **body: Any) -> None:
        with self.store.transaction() as tx:
            number = instructions.give(tx, "operator", kind, body, "because")
        self._steps.instructing.carry_out_waiting(LATER)
        with self.store.reading() as connection:
            given = instructions.one(connection, number)
        assert given is not None and given.refusal == ""

    def correct(self) -> None:
        """The meter reads the end of the first interval again: it has exported more in it, and less in the
        second.
        """
        reading = reading_of(2, START + SECONDS, 1_000, MORE_WH)
        payload = reading.model_dump_json().encode()
        self._intake.take([Heard("", payload, reading.meter, reading, message_digest(DOMAIN, reading))])
        last = START + (INTERVALS - 1) * SECONDS
        self._steps.settling.settle(last, LATER, {}, late_from=START + SECONDS)

    def close_books(self) -> None:
        self._steps.settling.close_books(LATER, {})

    def neur(self, account: str, kind: str = "%") -> int:
        """What the first interval comes to for an account."""
        statement = (
            "SELECT COALESCE(SUM(amount_neur), 0) FROM posting"
            f" WHERE interval_start = {START} AND account = '{account}' AND kind LIKE '{kind}'"
        )
        amount: int = query(self.database, statement)[0][0]
        return amount

    def follows_from_its_journal(self) -> bool:
        with Store(self.folder / "replayed.sqlite", {}) as scratch:
            found = Replay(self.store, scratch, lambda _: PHYSICS).run()
        assert found is None, found
        return True


@pytest.fixture
def day(folder: Path) -> Iterator[Day]:
    simulate(folder, 0, INTERVALS)
    with Store(folder / "market.sqlite", OF.identity()) as store:
        yield Day(folder, store)


def test_what_is_contested_is_not_paid_before_it_is_decided(day: Day) -> None:
    promise("a contested interval pays its household nothing until it is decided, also where it is corrected")
    account = household(METER)
    earned = day.neur(account)
    assert earned > 0
    day.ask("dispute", interval_start=START, meter=METER)
    assert day.neur(account) == 0
    assert day.neur("imbalance", "held") == earned
    day.correct()
    corrected = earned + day.neur(account)
    assert corrected != earned and day.neur("imbalance", "held") == earned
    day.ask("resolve", dispute=1, decision="dismissed")
    assert day.neur(account) == corrected
    assert day.neur("imbalance", "held") == 0
    assert day.follows_from_its_journal()


def test_what_is_posted_after_the_last_batch_goes_with_the_closing_one(day: Day) -> None:
    promise("what is corrected after the last interval has its batch in the end, and the journal says so")
    day.correct()
    unsent = "SELECT COUNT(*) FROM posting LEFT JOIN batch ON sequence = batch WHERE sequence IS NULL"
    assert query(day.database, unsent) != [(0,)]
    day.close_books()
    assert query(day.database, unsent) == [(0,)]
    assert day.follows_from_its_journal()


# What does not follow from the journal, and why.
NOT_REPLAYED = {
    "journal": "it is what all follows from",
    "run": "the identity of the database",
    "instruction": "what was asked; what was done is in the journal",
    **dict.fromkeys(("balance", "reading_progress"), "sums of other tables"),
    **dict.fromkeys(("chain_books", "chain_transaction"), "what the chain said and was sent"),
    **dict.fromkeys(("outbox", "notice", "delivery", "alarm", "health"), "what was told, and to whom"),
    **dict.fromkeys(
        ("evidence", "reading_refused", "reading_gap", "meter_presence"), "what was not accepted"
    ),
    "lease": "who the market is",
}


def test_every_table_follows_from_the_journal_or_is_named() -> None:
    promise("a replay compares every table but those of which it is known why they do not follow")
    tables = {table.name for table in schema.metadata.tables.values()}
    compared = {table.name for table in COMPARED}
    assert compared | NOT_REPLAYED.keys() == tables
    assert not compared & NOT_REPLAYED.keys()
