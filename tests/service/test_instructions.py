"""What operators ask for: disputes that are held back and decided, prices from an interval on, suspension."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from market.service.ports import Progress
from market.service.replay import Replay
from market.service.store import Store, instructions
from market.service.store.instructions import InstructionKind
from tests.service.scene import METERS, SECONDS, START, TARIFF, a_day, physics, rows, settings

INTERVALS = 7
NIGHTLY = {
    "timezone": "UTC",
    "bands": [
        {"name": "rest", "tariff": TARIFF.model_dump()},
        {
            "name": "low",
            "hours": ["01:15-01:30"],
            "tariff": TARIFF.model_dump() | {"import_price": 250_000},
        },
    ],
}
METER = METERS[0].address
ACCOUNT = f"household:{METER}"


async def told_day(folder: Path, asked: dict[int, list[tuple[InstructionKind, dict[str, Any]]]]) -> None:
    """``asked`` is given by the wave after which it is."""

    def give(progress: Progress) -> None:
        if progress.stage != "publish":
            return
        with Store(folder / "market.sqlite", {}) as store, store.transaction() as tx:
            for kind, body in asked.get(progress.index, []):
                instructions.give(tx, "op", kind, body, f"because of wave {progress.index}")

    await a_day(folder, settings(INTERVALS), give)
    with Store(folder / "market.sqlite", {}) as stored, Store(folder / "scratch.sqlite", {}) as scratch:
        assert Replay(stored, scratch, lambda _: physics()).run() is None


def refusals(folder: Path) -> list[str]:
    return [refusal for (refusal,) in rows(folder, "SELECT refusal FROM instruction ORDER BY id")]


async def test_a_dispute_holds_back_and_its_decision_settles_anew(tmp_path: Path) -> None:
    """The household says that it drew 40 Wh less; the operator finds it right. Another one is dismissed."""
    right: dict[str, Any] = {"dispute": 1, "decision": "upheld", "import_wh": 500, "export_wh": 0}
    asked: dict[int, list[tuple[InstructionKind, dict[str, Any]]]] = {
        3: [
            ("dispute", {"interval_start": START, "meter": METER}),
            ("dispute", {"interval_start": START, "meter": METERS[2].address}),
            ("dispute", {"interval_start": START, "meter": METER}),
            ("dispute", {"interval_start": START + 5 * SECONDS, "meter": METER}),
        ],
        4: [
            ("resolve", {**right, "import_wh": "many"}),
            ("resolve", {**right, "import_wh": 99_999_999}),
        ],
        5: [
            ("resolve", right),
            ("resolve", {"dispute": 2, "decision": "dismissed"}),
            ("resolve", {"dispute": 3, "decision": "dismissed"}),
            # Numbers that are none, or that no database takes: each is answered, and the market goes on.
            ("resolve", {"dispute": 2**80, "decision": "dismissed"}),
            ("suspend", {"first_start": 2**80 * SECONDS}),
            ("tariff", {"changes": "soon"}),
            ("grid", {"feeder": None}),
        ],
    }
    await told_day(tmp_path, asked)
    told = refusals(tmp_path)
    unreadable, impossible = told.pop(4), told.pop(4)
    assert "the fuse of 20000 W carries at most" in impossible
    malformed = [unreadable, *told[7:]]
    assert [told[index] for index in (0, 1, 4, 5)] == [""] * 4
    assert "is disputed already" in told[2]
    assert "is not settled: it is unknown" in told[3]
    assert "no open dispute 3" in told[6]
    assert len(malformed) == 5 and all(answer.startswith("is malformed: ") for answer in malformed)
    states = [s for (s,) in rows(tmp_path, f"SELECT state FROM transition WHERE interval_start = {START}")]
    assert states[-3:] == ["DISPUTED", "SETTLED", "FINAL"]

    held = rows(
        tmp_path,
        f"SELECT account, SUM(amount_neur), COUNT(*) FROM posting WHERE interval_start = {START}"
        " AND kind = 'held' GROUP BY account",
    )
    assert {account for account, *_ in held} == {ACCOUNT, f"household:{METERS[2].address}", "imbalance"}
    assert all(amount == 0 and count > 1 for _, amount, count in held), "held for a time, then given back"
    energies = f"SELECT import_wh FROM metered WHERE interval_start = {START} AND meter = '{METER}'"
    assert rows(tmp_path, energies)[-1] == (500,)
    unbalanced = "SELECT revision FROM posting GROUP BY interval_start, revision HAVING SUM(amount_neur) <> 0"
    assert rows(tmp_path, unbalanced) == []
    assert {state for (state,) in rows(tmp_path, "SELECT state FROM interval")} == {"FINAL"}


async def test_prices_change_from_an_interval_on_and_trading_stops_and_goes_on(tmp_path: Path) -> None:
    dearer = TARIFF.model_copy(update={"import_price": 350_000})
    later = START + 3 * SECONDS
    asked: dict[int, list[tuple[InstructionKind, dict[str, Any]]]] = {
        0: [
            ("tariff", {"changes": [{"first_start": later, "tariff": dearer.model_dump()}]}),
            ("tariff", {"changes": [{"first_start": START, "tariff": dearer.model_dump()}]}),
            ("tariff", {"changes": [{"first_start": later + 1, "tariff": dearer.model_dump()}]}),
            ("tariff", {"changes": [{"tariff": {"import_price": 1}}]}),
        ],
        2: [("tariff", {"changes": [{"first_start": START + 5 * SECONDS, "time_of_use": NIGHTLY}]})],
        3: [("suspend", {}), ("suspend", {})],
        5: [("resume", {}), ("resume", {})],
    }
    await told_day(tmp_path, asked)
    told = refusals(tmp_path)
    assert (told[0], told[4], told[5], told[7]) == ("", "", "", "")
    for index, words in {
        1: "too early",
        2: "no boundary",
        3: "is malformed",
        6: "already",
        8: "not suspended",
    }.items():
        assert words in told[index]
    prices = rows(
        tmp_path, "SELECT json_extract(tariff, '$.import_price') FROM interval ORDER BY interval_start"
    )
    assert [price for (price,) in prices] == [300_000] * 3 + [350_000] * 2 + [250_000, 300_000]
    books = rows(
        tmp_path, "SELECT json_extract(book, '$.tariff.import_price') FROM clearing ORDER BY interval_start"
    )
    assert books == prices
    states = [status for (status,) in rows(tmp_path, "SELECT status FROM clearing ORDER BY interval_start")]
    assert states == ["CLEARED"] * 4 + ["SUSPENDED"] * 2 + ["CLEARED"]
    reasons = rows(tmp_path, "SELECT DISTINCT reason FROM transition WHERE state = 'SUSPENDED'")
    assert reasons == [("suspended by the operator: because of wave 3",)]
