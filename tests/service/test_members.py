"""Members come and go at an interval's boundary: each interval has its own, and the journal tells it all."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from market.cli.main import run
from market.messages.models import Gate, Order, Reading, ReceiptKind, Side, Step
from market.messages.signing import UNSIGNED, Signer
from market.service.cover import Cover
from market.service.ports import Progress, Standing
from market.service.replay import Replay
from market.service.roster import Roster
from market.service.settings import Member
from market.service.store import Store, instructions, membership
from meters.broker import Broker
from meters.mqtt import Message
from tests.service.scene import (
    DOMAIN,
    FEEDER_ID,
    MEMBERS,
    METERS,
    SECONDS,
    START,
    Meters,
    a_day,
    market,
    physics,
    rows,
    settings,
    signer,
)

INTERVALS = 7
NEW, SECOND = signer("meter:new"), signer("meter:second")
BROKEN, MOVING, LEAVING = (METERS[index].address for index in (0, 1, 3))


def at(index: int) -> int:
    return START + index * SECONDS


class Village(Meters):
    """With two more meters, which send readings and orders before they are members."""

    def _extra(self, payload: bytes) -> Sequence[Message]:
        gate = Gate.model_validate_json(payload)
        return [message for meter in (NEW, SECOND) for message in _said(meter, gate)]


def _said(meter: Signer, gate: Gate) -> list[Message]:
    count = (gate.opens_at - START) // SECONDS + 1
    reading = Reading(
        meter=meter.address,
        epoch=0,
        seq=count,
        taken_at=gate.opens_at,
        import_wh=100 * count,
        export_wh=0,
        power_w=0,
        sig=UNSIGNED,
    )
    messages = [Meters.message(meter.sign(DOMAIN, reading))]
    if gate.state == "OPEN":
        order = Order(
            meter=meter.address,
            feeder=FEEDER_ID,
            interval_start=gate.interval_start,
            version=0,
            firm_import_wh=100,
            steps=(Step(side=Side.BID, energy_wh=50, limit_price=290_000),),
            sig=UNSIGNED,
        )
        messages.append(Meters.message(meter.sign(DOMAIN, order)))
    return messages


SECOND_METER = {
    "meter": SECOND.address,
    "owner": MEMBERS[1].owner,
    "connection_point": "load:3",
    "fuse_w": 10_000,
}
ASKED: list[tuple[dict[str, Any], str]] = [
    ({"change": "replace", "meter": BROKEN, "by": NEW.address, "first_start": at(3)}, ""),
    ({"change": "leave", "meter": LEAVING, "first_start": at(4)}, ""),
    ({"change": "move", "meter": MOVING, "connection_point": "bus:1", "first_start": at(5)}, ""),
    ({"change": "join", "member": SECOND_METER, "first_start": at(5)}, ""),
    ({"change": "leave", "meter": LEAVING, "first_start": at(3)}, "has a change then or later"),
    ({"change": "join", "member": SECOND_METER, "first_start": at(6)}, "is a member already"),
    ({"change": "move", "meter": METERS[2].address, "connection_point": "load:3"}, "stands at load:3"),
    ({"change": "move", "meter": METERS[2].address, "connection_point": "load:77"}, "no connection point"),
    ({"change": "leave", "meter": METERS[2].address, "first_start": at(0)}, "is too early"),
    ({"change": "erase", "meter": METERS[2].address}, "is a member, or never was one"),
    ({"change": "vanish"}, "is none of join"),
    ({"change": "join", "member": {**SECOND_METER, "meter": "me"}}, "is malformed"),
]


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("members")
    asyncio.run(_run(folder))
    return folder


async def _run(folder: Path) -> None:
    def give(progress: Progress) -> None:
        if (progress.stage, progress.index) == ("publish", 0):
            with Store(folder / "market.sqlite", {}) as store, store.transaction() as tx:
                for body, _ in ASKED:
                    instructions.give(tx, "op", "member", body, "asked for")

    meters = await a_day(folder, settings(INTERVALS), give, Village)
    refused = {(r.meter, r.reason) for r in meters.receipts if r.kind == ReceiptKind.ORDER}
    assert (LEAVING, "is no member in this interval") in refused
    assert (BROKEN, "is no member in this interval") in refused


def test_what_cannot_be_is_refused_with_its_reason(day: Path) -> None:
    answers = [refusal for (refusal,) in rows(day, "SELECT refusal FROM instruction ORDER BY id")]
    for (_, words), answer in zip(ASKED, answers, strict=True):
        assert (answer == "") if words == "" else (words in answer), answer


def test_every_interval_has_its_own_members(day: Path) -> None:
    found: dict[int, set[str]] = {}
    for start, meter in rows(day, "SELECT interval_start, meter FROM metered WHERE revision = 0"):
        found.setdefault((start - START) // SECONDS, set()).add(meter)
    first = {member.meter for member in MEMBERS}
    replaced = first - {BROKEN} | {NEW.address}
    left = replaced - {LEAVING}
    joined = left | {SECOND.address}
    assert [found[index] for index in range(INTERVALS)] == [first] * 3 + [replaced, left, joined, joined]
    points = dict(rows(day, "SELECT interval_start, json_extract(book, '$.orders') FROM clearing"))
    assert f'"{MOVING}:0","connection_point":"load:1"' in points[at(4)].replace(" ", "")
    assert f'"{MOVING}:0","connection_point":"bus:1"' in points[at(5)].replace(" ", "")


def test_the_books_close_with_two_meters_of_one_wallet(day: Path) -> None:
    """The market itself compared chain and ledger at its end."""
    assert {state for (state,) in rows(day, "SELECT state FROM interval")} == {"FINAL"}
    assert rows(day, "SELECT SUM(amount_neur) FROM posting") == [(0,)]
    owner = f"SELECT COUNT(*) FROM account WHERE address = '{MEMBERS[1].owner}'"
    assert rows(day, owner) == [(2,)]
    late = f"SELECT COUNT(*) FROM posting WHERE account = 'household:{LEAVING}' AND interval_start >= {at(4)}"
    assert rows(day, late) == [(0,)]


def test_the_journal_tells_it_all(day: Path, tmp_path: Path) -> None:
    with Store(day / "market.sqlite", {}) as stored, Store(tmp_path / "scratch.sqlite", {}) as scratch:
        assert Replay(stored, scratch, lambda _: physics()).run() is None


def test_a_restart_takes_the_members_from_the_books(day: Path) -> None:
    """Whatever the configuration's file says of those who were changed meanwhile."""
    elsewhere = MEMBERS[1].model_copy(update={"connection_point": "bus:5"})
    configured = [
        MEMBERS[0],
        elsewhere,
        *MEMBERS[2:],
        Member.model_validate({**SECOND_METER, "bus": 5, "deposit_ueur": 0}),
    ]
    roster = Roster(configured)
    with Store(day / "market.sqlite", {}) as store, store.reading() as connection:
        roster.load(connection)
    assert dict(roster.at(START)) == {member.meter: member for member in MEMBERS}
    assert roster.at(at(5))[SECOND.address].connection_point == "load:3"
    assert set(roster) == {*roster.at(START), NEW.address, SECOND.address}


async def test_a_market_begins_again_after_its_members_changed(day: Path, tmp_path: Path) -> None:
    """With the members that it was configured with: nothing is told twice, nobody comes back."""
    folder = tmp_path / "again"
    shutil.copytree(day, folder)
    entries = rows(folder, "SELECT COUNT(*) FROM journal WHERE kind = 'market'")
    metered = rows(folder, "SELECT * FROM metered")
    async with (
        Broker() as broker,
        market(folder, broker.port, settings(INTERVALS, patience_s=0.1)) as running,
    ):
        await running.run()
    assert rows(folder, "SELECT COUNT(*) FROM journal WHERE kind = 'market'") == entries == [(1,)]
    assert rows(folder, "SELECT * FROM metered") == metered


def test_one_wallet_covers_all_its_meters_once() -> None:
    pair = [MEMBERS[0], MEMBERS[1].model_copy(update={"owner": MEMBERS[0].owner})]
    cover = Cover(settings(4), Roster(pair))
    fuse_neur = 5_000 * 300_000
    standing = Standing({pair[0].owner: 4 * fuse_neur // 1000}, {})
    cover.renew(standing, {}, {})
    assert cover.newly_low() == {}
    cover.set(pair[1].meter, START, 2 * fuse_neur)
    order = Order(
        meter=pair[0].meter, feeder=FEEDER_ID, interval_start=START, version=0, firm_import_wh=1, sig=UNSIGNED
    )
    assert cover.shortfall_neur(order) == 300_000, "the other meter's orders and fuse count too"
    assert cover.room_neur(standing, {}, {}) == {member.meter: fuse_neur for member in pair}
    assert cover.newly_low() == {pair[0].owner: 2 * fuse_neur}
    assert cover.newly_low() == {}, "told once"


def test_who_has_left_is_forgotten_but_for_the_books(day: Path, tmp_path: Path) -> None:
    with Store(day / "market.sqlite", {}) as store:
        with store.reading() as connection:
            before = membership.everything_of(connection, LEAVING)
        assert before["posting"] and before["reading"] and before["meter"]
        with pytest.raises(ZeroDivisionError), store.transaction() as tx:
            tx.exec_driver_sql("INSERT INTO alarm VALUES ('flood', ?, 1, 1, 1, 'x')", (LEAVING,))
            membership.erase(tx, LEAVING)
            after = membership.everything_of(tx, LEAVING)
            assert after == before | {name: [] for name in ("alarm", "notice", "meter_presence", "evidence")}
            1 / 0  # noqa: B018  the stored day stays as it is


def test_the_command_line_shows_asks_and_exports(
    day: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "market.sqlite"
    shutil.copy(day / "market.sqlite", place)
    assert run(["member", "list", str(place), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert {member["meter"] for member in told["members"]} == {
        NEW.address,
        SECOND.address,
        MOVING,
        METERS[2].address,
    }
    assert len(told["changes"]) == 5
    assert run(["member", "export", str(place), LEAVING, "--out", str(tmp_path / "all.json")]) == 0
    assert len(json.loads((tmp_path / "all.json").read_text())["award"]) == 4
    asked = ["--reason", "x", "--wait-s", "0"]
    assert run(["member", "move", str(place), MOVING, "--connection-point", "load:1", *asked]) == 0
    with Store(place, {}) as store, store.reading() as connection:
        (one,) = instructions.waiting(connection)
    assert one.body == {"change": "move", "meter": MOVING, "connection_point": "load:1", "first_start": None}
    place_of = ["--owner", "me", "--connection-point", "load:1", "--fuse-w", "1"]
    assert run(["member", "join", str(place), SECOND.address, *place_of, *asked]) == 2
    assert "owner: 'me'" in capsys.readouterr().err
    assert run(["member", "export", str(place), "0x" + "00" * 20]) == 2
