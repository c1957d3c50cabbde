"""What readings say after an interval was settled, and what cannot be."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from grid.errors import FeederError
from market.auction.book import Book
from market.messages.models import Gate, Reading
from market.messages.signing import UNSIGNED
from market.service.batching import Batches
from market.service.networks import Networks
from market.service.ports import Physics
from market.service.settling import Settling
from market.service.store import Store, alarms, inputs, intervals
from market.service.store.inputs import StoredReading
from meters.mqtt import Message
from tests.service.scene import (
    DOMAIN,
    MEMBERS,
    METERS,
    SECONDS,
    START,
    Meters,
    a_day,
    physics,
    reading_of,
    rows,
    settings,
)

INTERVALS = 5


def corrected(of: Reading, seq: int, import_wh: int) -> Message:
    """The same moment read again, in a new epoch that says what was wrong."""
    reading = of.model_copy(update={"seq": seq, "import_wh": import_wh, "sig": UNSIGNED})
    return Meters.message(METERS[0].sign(DOMAIN, reading))


async def test_a_corrected_reading_adjusts_intervals_that_were_settled_as_measured(tmp_path: Path) -> None:
    """The meter reads one boundary again, long after: 5 Wh move from one interval to the next."""
    first = reading_of(0, START + SECONDS)
    moved_wh = 5

    def again(number: int, _: Gate) -> list[Message]:
        return [corrected(first, 1_000, first.import_wh + moved_wh)] if number == 4 else []

    await a_day(tmp_path, settings(INTERVALS), meters=partial(Meters, on_open=again))
    energies = rows(
        tmp_path,
        "SELECT (interval_start - 1465948800) / 900, revision, import_wh, flag FROM metered"
        f" WHERE meter = '{METERS[0].address}' AND interval_start < {START + 2 * SECONDS} ORDER BY 1, 2",
    )
    by_revision = {(number, revision): wh for number, revision, wh, _ in energies}
    assert by_revision[0, 1] == by_revision[0, 0] + moved_wh
    assert by_revision[1, 1] == by_revision[1, 0] - moved_wh
    assert {flag for *_, flag in energies} == {"measured"}
    assert (
        rows(
            tmp_path,
            "SELECT interval_start, SUM(amount_neur) FROM posting GROUP BY 1 HAVING SUM(amount_neur) <> 0",
        )
        == []
    )
    change = rows(
        tmp_path,
        "SELECT SUM(amount_neur) FROM posting WHERE revision = 1"
        f" AND account = 'household:{METERS[0].address}'",
    )
    assert change != [(None,)]
    assert {state for (state,) in rows(tmp_path, "SELECT state FROM interval")} == {"FINAL"}


class OutOfReach(Networks):
    """The network that intervals were cleared on is not to be had."""

    def of(self, book: Book) -> Physics:
        raise FeederError.single("feeder", "name", book.feeder, "is no file")


async def test_an_interval_that_waits_for_its_network_is_adjusted_by_the_next_process(tmp_path: Path) -> None:
    """A correction comes while the net is gone, the process ends, and no later reading ever comes."""
    of, members, last = settings(INTERVALS), {m.meter: m for m in MEMBERS}, START + (INTERVALS - 1) * SECONDS
    await a_day(tmp_path, of)
    first = reading_of(0, START + SECONDS)
    right = first.model_copy(update={"epoch": first.epoch + 1, "import_wh": first.import_wh + 5})
    later = last + 10 * SECONDS
    with Store(tmp_path / "market.sqlite", of.identity()) as store:

        def revisions() -> list[int]:
            with store.reading() as connection:
                return [intervals.revision_of(connection, START + n * SECONDS) for n in range(INTERVALS)]

        before = revisions()
        with store.transaction() as tx:
            inputs.add_readings(tx, [StoredReading(METERS[0].address, right, bytes(32), UNSIGNED, later)])
            # That somebody contests one of them keeps no reading from counting.
            intervals.advance(tx, START, "DISPUTED", later, "contested")

        def settling(kind: type[Networks]) -> Settling:
            return Settling(of, members, store, kind(of, members, physics()), Batches(store, b""))

        waiting = settling(OutOfReach).settle(last, later, {}, late_from=START + SECONDS)
        assert list(waiting) == [START, START + SECONDS] and revisions() == before

        with pytest.MonkeyPatch.context() as patch:
            # Nothing else would have made it look at those intervals again.
            patch.setattr(intervals, "incomplete_intervals", lambda *_: [])
            assert settling(Networks).settle(last, later, {}, late_from=None) == {}
            assert revisions() == [before[0] + 1, before[1] + 1, *before[2:]]
            assert settling(OutOfReach).settle(last, later, {}, late_from=None) == {}


async def test_more_than_a_fuse_carries_is_not_billed_and_raises_an_alarm(tmp_path: Path) -> None:
    """At one boundary a register shows a megawatt-hour too much: nobody trusts the two intervals at it."""
    wrong_at = START + SECONDS
    true = reading_of(0, wrong_at)
    sent = []

    def lies(number: int, _: Gate) -> list[Message]:
        if number != 2 or sent:
            return []
        sent.append(true)
        return [corrected(true, true.seq, true.import_wh + 1_000_000)]

    liar = partial(Meters, on_open=lies, withheld=lambda reading: reading == true)
    await a_day(tmp_path, settings(INTERVALS), meters=liar)
    flags = rows(
        tmp_path,
        f"SELECT (interval_start - {START}) / 900, flag FROM metered WHERE meter = '{METERS[0].address}'"
        " AND revision ="
        " (SELECT MAX(revision) FROM metered AS m WHERE m.interval_start = metered.interval_start)"
        " ORDER BY 1",
    )
    assert flags == [(0, "missing"), (1, "missing"), (2, "measured"), (3, "measured"), (4, "measured")]
    with Store(tmp_path / "market.sqlite", {}) as store, store.reading() as connection:
        raised = {(alarm.kind, alarm.subject) for alarm in alarms.alarms(connection)}
    assert ("reading", METERS[0].address) in raised
