"""What meters say of themselves is kept, and messages that they had not signed are counted."""

from __future__ import annotations

from pathlib import Path

from market.messages.models import Reading, Status
from market.messages.signing import UNSIGNED
from market.service.clock import SimulatedClock
from market.service.cover import Cover
from market.service.intake import Intake
from market.service.parse import Refusal, hear, hear_status, topic_of
from market.service.store import Store, alarms, inputs
from tests.service.scene import DOMAIN, FEEDER_ID, MEMBERS, START, settings, signer

BY_METER = {member.meter: member for member in MEMBERS}
ONE, OTHER = MEMBERS[0].meter, MEMBERS[1].meter


def status(meter: str, *, online: bool = True, software: str = "some meter 1") -> bytes:
    return Status(meter=meter, online=online, since=START, software=software).model_dump_json().encode()


def heard(topic: str, payload: bytes) -> Status | None:
    return hear_status(topic, payload, FEEDER_ID, BY_METER)


def test_only_a_members_own_status_is_heard() -> None:
    own = topic_of(FEEDER_ID, ONE, "status")
    said = heard(own, status(ONE))
    assert said is not None and said.software == "some meter 1"
    assert heard(own, status(OTHER)) is None, "it speaks of somebody else"
    assert heard(topic_of("another", ONE, "status"), status(ONE)) is None
    stranger = signer("stranger").address
    assert heard(topic_of(FEEDER_ID, stranger, "status"), status(stranger)) is None
    assert heard(own, b"{") is None


def test_the_last_status_counts_and_forgeries_add_up(tmp_path: Path) -> None:
    of = settings(1)
    reading = Reading(
        meter=ONE,
        epoch=0,
        seq=1,
        taken_at=START,
        import_wh=1,
        export_wh=0,
        power_w=0,
        quality=0,
        sig=UNSIGNED,
    )
    forged = signer("somebody else").sign(DOMAIN, reading).model_dump_json().encode()
    topic = topic_of(FEEDER_ID, ONE, "reading")
    refusal = hear(topic, forged, feeder=FEEDER_ID, members=BY_METER, domain=DOMAIN)
    malformed = hear(topic, b"{}", feeder=FEEDER_ID, members=BY_METER, domain=DOMAIN)
    assert isinstance(refusal, Refusal) and isinstance(malformed, Refusal)
    with Store(tmp_path / "market.sqlite", of.identity()) as store:
        with store.transaction() as tx:
            inputs.register(tx, of, MEMBERS)
        intake = Intake(of, BY_METER, store, SimulatedClock(START), Cover(of, BY_METER))
        first, last = (Status.model_validate_json(status(ONE, online=one)) for one in (True, False))
        intake.note([first], [refusal, malformed])
        intake.note([last], [refusal])
        with store.reading() as connection:
            rows = connection.exec_driver_sql(
                "SELECT meter, online, software, heard_at, forged, forged_at FROM meter_presence"
            ).all()
    assert [tuple(row) for row in rows] == [(ONE, 0, "some meter 1", START, 2, START)]


def test_who_stays_offline_is_an_alarm_until_it_is_back(tmp_path: Path) -> None:
    """Two intervals of patience; a will that is told again, as retained ones are, does not begin anew."""
    of, clock = settings(1), SimulatedClock(START)
    with Store(tmp_path / "market.sqlite", of.identity()) as store:
        with store.transaction() as tx:
            inputs.register(tx, of, MEMBERS)
        intake = Intake(of, BY_METER, store, clock, Cover(of, BY_METER))

        def say(meter: str, online: bool) -> None:
            intake.note([Status.model_validate_json(status(meter, online=online))], [])

        def alarmed() -> list[tuple[str, str, int, int]]:
            intake.note_absent()
            with store.reading() as connection:
                return [(one.kind, one.subject, one.first_at, one.count) for one in alarms.alarms(connection)]

        say(ONE, False)
        say(OTHER, False)
        clock.advance_to(START + of.seconds)
        say(ONE, False)
        say(OTHER, True)
        clock.advance_to(START + 2 * of.seconds)
        assert alarmed() == []
        clock.advance_to(START + 2 * of.seconds + 1)
        expected = [("offline", ONE, START + 2 * of.seconds + 1, 1)]
        assert alarmed() == expected
        clock.advance_to(START + 4 * of.seconds)
        assert alarmed() == expected, "one absence, one alarm"
        say(ONE, True)
        assert alarmed() == []
