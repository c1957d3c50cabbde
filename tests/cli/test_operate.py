"""What operators ask of a market from a command line: checked before it is asked, and kept until answered."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from market.cli.main import run
from market.cli.status import interval_lines, numbered
from market.service.store import Store, disputes, instructions, intervals, membership, terms
from market.service.store.inputs import register
from market.service.store.membership import Change
from tests.service.scene import FEEDER, MEMBERS, START, TARIFF, settings

HEADER = "from,import_price,export_price,floor,cap,local_fee,import_fees\n"
LINE = "2026-11-23T07:00:00Z,350000,80000,-500000,2000000,20000,100000\n"
NIGHT = "2026-11-23T22:00:00+01:00,250000,80000,-500000,2000000,20000,100000\n"


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "market.sqlite"
    with Store(path, settings(None).identity()):
        return path


def asked(database: Path) -> list[instructions.Instruction]:
    with Store(database, {}) as store, store.reading() as connection:
        return instructions.waiting(connection)


def test_a_day_of_prices_is_one_instruction(database: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prices = database.with_name("prices.csv")
    prices.write_text(HEADER + LINE + NIGHT)
    options = ["--reason", "winter", "--wait-s", "0"]
    assert run(["operate", "tariff", str(database), str(prices), *options]) == 0
    assert "instruction 1 waits" in capsys.readouterr().err
    (one,) = asked(database)
    assert (one.kind, one.reason) == ("tariff", "winter")
    starts = [change["first_start"] for change in one.body["changes"]]
    assert starts == [1_795_417_200, 1_795_467_600]
    assert [change["tariff"]["import_price"] for change in one.body["changes"]] == [350_000, 250_000]
    assert run(["status", str(database), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["markets"][0]["instructions_waiting"] == [1]


def test_parts_and_time_of_use_are_asked_for(database: Path) -> None:
    lines = database.with_name("prices.csv")
    parts = "import_parts.energy,import_parts.network,import_parts.vat"
    lines.write_text(f"{HEADER.strip()},{parts}\n{LINE.strip()},200000,100000,50000\n")
    bands = database.with_name("prices.toml")
    prices = "import_price = 300000\nexport_price = 80000\nfloor = 0\ncap = 900000\n"
    bands.write_text(
        'timezone = "Europe/Berlin"\n[[bands]]\nname = "night"\nhours = ["22:00-06:00"]\n'
        f'[bands.tariff]\n{prices}[[bands]]\nname = "day"\n[bands.tariff]\n{prices}'
    )
    for file in (lines, bands):
        assert run(["operate", "tariff", str(database), str(file), "--reason", "x", "--wait-s", "0"]) == 0
    by_line, by_time = (one.body["changes"][0] for one in asked(database))
    assert by_line["tariff"]["import_parts"] == {
        "energy": 200000,
        "network": 100000,
        "levies": 0,
        "vat": 50000,
    }
    assert [band["name"] for band in by_time["time_of_use"]["bands"]] == ["night", "day"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (HEADER, "has no line with prices"),
        (HEADER + LINE.replace("350000", "dear"), "prices.csv:2: import_price: 'dear' is no whole number"),
        (HEADER + LINE.replace("350000", "10"), "floor <= export_price <= import_price"),
        (HEADER + LINE.replace("Z", ""), "prices.csv:2: from: '2026-11-23T07:00:00' is no time with a zone"),
        (HEADER.replace("from", "since") + LINE, "prices.csv:1: header: 'since,import_price"),
        (HEADER.replace("cap", "floor") + LINE, "prices.csv:1: header: 'floor' names two columns"),
        (HEADER + "\n" + LINE.strip() + ",77,88\n", "prices.csv:3: has 9 columns where the header has 7"),
        (HEADER + "2026-11-23T07:00:00Z,350000\n", "prices.csv:2: has 2 columns where the header has 7"),
        (
            HEADER + LINE + NIGHT + LINE.replace("07:00:00Z", "08:00:00+01:00"),
            "prices.csv:4: from: '2026-11-23T08:00:00+01:00' has prices in line 2 already",
        ),
    ],
)
def test_prices_that_are_none_are_refused_by_line(
    database: Path, text: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    prices = database.with_name("prices.csv")
    prices.write_text(text)
    assert run(["operate", "tariff", str(database), str(prices), "--reason", "x", "--wait-s", "0"]) == 2
    assert words in capsys.readouterr().err
    assert asked(database) == []


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["operate", "suspend", "--from", "yesterday"], "--from: 'yesterday' is no time with a zone"),
        (["operate", "recover", "--paid-until", "noon"], "--paid-until: 'noon' is no time with a zone"),
        (["member", "leave", "0x", "--from", "2026-11-23"], "--from: '2026-11-23' is no time with a zone"),
        (["dispute", "open", "--meter", "0x", "--interval", "x"], "--interval: 'x' is no time with a zone"),
        (["operate", "grid", "--net", "simbench:x"], "--net: 'simbench:x' is no SimBench code"),
    ],
)
def test_an_option_that_is_wrong_is_named(
    database: Path, arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    group, name, *options = arguments
    assert run([group, name, str(database), *options, "--reason", "x", "--wait-s", "0"]) == 2
    assert capsys.readouterr().err.startswith(f"peergrid: {told}")
    assert run(["export", str(database), "--until", "noon"]) == 2
    assert capsys.readouterr().err.startswith("peergrid: --until: 'noon' is no time with a zone")
    assert asked(database) == []


def test_limits_that_leave_no_voltage_are_refused_by_file_and_field(
    database: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    limits = database.with_name("limits.toml")
    limits.write_text("v_min_pu = 1.3\n")
    options = ["--net", FEEDER, "--limits", str(limits), "--reason", "x", "--wait-s", "0"]
    assert run(["operate", "grid", str(database), *options]) == 2
    assert (
        "limits.toml: v_min_pu: 1.3 is not below v_max_pu, 1.1, the net's own at" in capsys.readouterr().err
    )
    limits.write_text("v_max_pu = 0.8\n")
    assert run(["operate", "grid", str(database), *options]) == 2
    assert "limits.toml: v_max_pu: 0.8 is not above v_min_pu, 0.9, the" in capsys.readouterr().err
    assert asked(database) == []


@contextmanager
def answered(database: Path, refusal: str) -> Iterator[None]:
    """A market that answers the one instruction that it gets."""

    def answer() -> None:
        with Store(database, {}) as store:
            for _ in range(1000):
                with store.transaction() as tx:
                    if waiting := instructions.waiting(tx):
                        instructions.answer(tx, waiting[0].id, 1_795_416_000, refusal)
                        return
                time.sleep(0.02)

    market = Thread(target=answer)
    market.start()
    yield
    market.join()


def test_a_time_that_the_market_refuses_is_told_where_it_was_written(
    database: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prices = database.with_name("prices.csv")
    prices.write_text(HEADER + LINE + NIGHT)
    said = ["--reason", "x", "--wait-s", "20"]
    with answered(database, "2026-11-23T21:00Z is too early: 2026-11-24T00:00Z is the first"):
        assert run(["operate", "tariff", str(database), str(prices), *said]) == 2
    words = f"peergrid: {prices}:3: from: '2026-11-23T22:00:00+01:00' is too early: 2026-11-24T00:00Z is the"
    assert capsys.readouterr().err.startswith(words)
    with answered(database, "2026-11-23T07:00:01Z is no boundary of 15 minutes"):
        first = "2026-11-23T07:00:01Z"
        assert run(["member", "leave", str(database), "0x", "--from", first, *said]) == 2
    assert capsys.readouterr().err == f"peergrid: --from: '{first}' is no boundary of 15 minutes\n"
    with answered(database, "trading is not suspended"):
        assert run(["operate", "resume", str(database), *said]) == 1
    assert capsys.readouterr().err == "peergrid: refused: trading is not suspended\n"


def test_what_is_no_markets_database_stays_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {"empty.sqlite": b"", "letter.sqlite": b"Dear aunt, " * 100}
    for name, content in files.items():
        path = tmp_path / name
        path.write_bytes(content)
        for command in (["status"], ["operate", "suspend", "--reason", "x"], ["export"], ["replay"]):
            group, *rest = command
            place = [*rest[:1], str(path), *rest[1:]]
            assert run([group, *place]) == 2, command
            assert capsys.readouterr().err == f"peergrid: {path}: is no market's database\n"
        assert path.read_bytes() == content


def test_a_database_of_an_older_schema_ends_every_command_alike(
    database: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("UPDATE run SET value = '3' WHERE key = 'schema_version'")
    for command in (["status"], ["operate", "resume", "--reason", "x"], ["member", "list"]):
        group, *rest = command
        assert run([group, *rest[:1], str(database), *rest[1:]]) == 2
        assert "peergrid run --upgrade" in capsys.readouterr().err


def test_an_export_is_told_in_words(database: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Store(database, {}) as store, store.transaction() as tx:
        register(tx, settings(None), MEMBERS[:1])
    file = database.with_name("data.json")
    assert run(["member", "export", str(database), MEMBERS[0].meter, "--out", str(file)]) == 0
    assert capsys.readouterr().err == "peergrid: registrations: 1, accounts: 1\n"


def test_a_decision_needs_its_energy_or_none(database: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = ["dispute", "resolve", str(database), "1", "--reason", "x", "--wait-s", "0"]
    for options in ([], ["--dismiss", "--import-wh", "1"], ["--import-wh", "1"]):
        assert run([*whole, *options]) == 2
        told = "peergrid: --dismiss: stands alone; without it both --import-wh and --export-wh are needed\n"
        assert capsys.readouterr().err == told
    assert run([*whole, "--dismiss"]) == 0
    assert [dict(one.body) for one in asked(database)] == [{"dispute": 1, "decision": "dismissed"}]


def test_what_is_kept_for_good_is_not_empty(database: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["operate", "suspend", str(database), "--reason", " ", "--wait-s", "0"]) == 2
    assert "--reason" in capsys.readouterr().err and asked(database) == []


def test_what_is_not_there_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nowhere = tmp_path / "nowhere.sqlite"
    assert run(["status", str(nowhere)]) == 2
    assert run(["replay", str(nowhere)]) == 2
    assert "nowhere.sqlite" in capsys.readouterr().err
    assert not nowhere.exists()


def test_the_answer_says_from_when_on_and_status_what_comes(
    database: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def carry_out() -> None:
        with Store(database, {}) as store:
            for _ in range(1000):
                with store.transaction() as tx:
                    if waiting := instructions.waiting(tx):
                        terms.suspend(tx, 1_795_417_200, "line 4")
                        instructions.answer(tx, waiting[0].id, 1_795_416_000, "")
                        return
                time.sleep(0.02)

    market = Thread(target=carry_out)
    market.start()
    assert run(["operate", "suspend", str(database), "--reason", "line 4", "--wait-s", "20"]) == 0
    market.join()
    told = "2026-11-23T07:00Z  no trading: line 4"
    assert capsys.readouterr().err == f"peergrid: done\n  {told}\n"
    assert run(["status", str(database)]) == 0
    shown = capsys.readouterr().out
    assert f"from {told}" in shown and "nobody runs it" in shown and "no interval waits" in shown


def interval(index: int, state: str, **more: int) -> dict[str, Any]:
    start = 1_795_417_200 + 900 * index
    return {"interval_start": start, "state": state, "incomplete": 0, "revision": 0, **more}


def test_few_intervals_have_a_line_each_and_many_share_them() -> None:
    few = [interval(0, "SETTLED", incomplete=1, revision=2), interval(1, "CLEARED"), interval(2, "OPEN")]
    assert interval_lines(few) == [
        "2026-11-23T07:00Z SETTLED 1 meter to be read, revision 2",
        "2026-11-23T07:15Z CLEARED",
        "2026-11-23T07:30Z OPEN",
    ]
    many = [interval(index, "SETTLED", incomplete=index % 2) for index in range(198)]
    assert interval_lines([*many, interval(198, "CLEARED"), interval(199, "OPEN")]) == [
        "2026-11-23T07:00Z to 2026-11-25T08:15Z SETTLED (198 intervals) 99 with meters to be read",
        "2026-11-25T08:30Z CLEARED",
        "2026-11-25T08:45Z OPEN",
    ]


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ([23], "1 batch (number 23)"),
        ([*range(12, 58)], "46 batches (12 to 57)"),
        ([3, 9, 8, 7], "4 batches (3, 7 to 9)"),
        ([*range(0, 40, 2)], "20 batches (0, 2, 4, 6, …, 38)"),
    ],
)
def test_what_has_numbers_is_counted_and_shown_as_spans(numbers: list[int], words: str) -> None:
    assert numbered("batch", "batches", numbers) == words


def test_status_tells_counts_from_numbers_and_where_a_meter_stands(
    database: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = MEMBERS[0]
    with Store(database, {}) as store, store.transaction() as tx:
        register(tx, settings(None), MEMBERS)
        intervals.open_interval(
            tx, interval_start=START, minutes=15, opens_at=START, closes_at=START, tariff=TARIFF
        )
        disputes.open_one(tx, START, one.meter, START, "stood still", 0)
        membership.add(tx, Change(START, one.meter, None))
        instructions.give(tx, "somebody", "suspend", {}, "line 4")
    assert run(["status", str(database)]) == 0
    shown = capsys.readouterr().out
    assert "  1 instruction (number 1) waiting for the market\n" in shown
    place = f"{one.connection_point} ({one.meter})"
    assert f"  dispute 1: {place} at 2016-06-15T00:00Z: stood still\n" in shown
    assert f"  dispute 1 of {place}: open" in shown
    assert f"  {one.meter} at {one.connection_point}, no member any more\n" in shown
