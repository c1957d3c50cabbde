"""A reading that came late, and a market that ended before it had settled anew."""

from __future__ import annotations

from pathlib import Path

from market.messages.signing import message_digest
from market.service.clock import SimulatedClock
from market.service.cover import Cover
from market.service.intake import Intake
from market.service.parse import Heard
from market.service.store import Store, inputs
from tests.faults.promise import promise
from tests.service.scene import DOMAIN, MEMBERS, SECONDS, START, reading_of, settings

OF = settings(4)
BY_METER = {member.meter: member for member in MEMBERS}


def test_the_next_process_knows_of_what_came_late_and_was_not_settled(tmp_path: Path) -> None:
    promise("a late reading that was receipted just before the market ended is settled by the next one")
    late = reading_of(0, START)
    heard = Heard("", late.model_dump_json().encode(), late.meter, late, message_digest(DOMAIN, late))
    with Store(tmp_path / "market.sqlite", OF.identity()) as store:
        with store.transaction() as tx:
            inputs.register(tx, OF, MEMBERS)

        def begun() -> Intake:
            clock = SimulatedClock(START + 2 * SECONDS)
            intake = Intake(OF, BY_METER, store, clock, Cover(OF, BY_METER))
            intake.readings.watch_boundary(START + 2 * SECONDS)
            return intake

        before = begun()
        assert before.readings.take_late() is None
        before.take([heard])
        assert begun().readings.take_late() == START
