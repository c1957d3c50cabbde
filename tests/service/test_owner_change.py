"""A member's wallet changes: on the chain at once, in the market from an interval on; all is paid once."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from eth_hash.auto import keccak

from contracts.registry import BoundMeter
from contracts.sender import Sender
from contracts.succession import Word
from market.cli.main import run
from market.service.cover import Cover
from market.service.ports import Progress, Standing
from market.service.registered import Registered
from market.service.replay import Replay
from market.service.roster import Roster
from market.service.settler import ContractSettler
from market.service.store import Store, batch_views, instructions, money
from market.service.store.journal import StoreJournal
from market.service.waves import SimulatedMarket
from meters.broker import Broker
from tests.service.scene import (
    MEMBERS,
    SECONDS,
    START,
    living_meters,
    market,
    physics,
    rows,
    settings,
    signer,
)

INTERVALS = 7
HANDED_OVER, CHANGED = 1, 4
METER, OWNER = MEMBERS[2].meter, signer("owner:load:2")
WALLET, STRANGER = signer("the new wallet"), signer("a stranger")


def at(index: int) -> int:
    return START + index * SECONDS


ASKED: list[tuple[int, dict[str, Any], str]] = [
    (0, {"owner": WALLET.address}, "has not handed over to"),
    (2, {"owner": STRANGER.address}, "has not handed over to"),
    (2, {"owner": OWNER.address}, "'s already"),
    (2, {"owner": WALLET.address, "first_start": at(CHANGED)}, ""),
    (2, {"owner": WALLET.address, "first_start": at(CHANGED)}, "has a change then or later"),
]


def contracts_of(market: SimulatedMarket) -> Any:
    settler = market._settler
    assert isinstance(settler, ContractSettler)
    return settler._contracts


def hand_over(market: SimulatedMarket, store: Store) -> None:
    contracts = contracts_of(market)
    owners = contracts.owners
    word = Word("Succession", OWNER.address, WALLET.address, 0, START + 10**6)
    signatures = [word.signed_by(key, owners.domain) for key in (OWNER, WALLET)]
    sender = Sender(contracts._chain, signer("deployer"), StoreJournal(store))
    owners.hand_over(sender, "hand over", word, *signatures)


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, int]]:
    folder = tmp_path_factory.mktemp("owner")
    return folder, asyncio.run(_run(folder))


async def _run(folder: Path) -> dict[str, int]:
    running: SimulatedMarket | None = None

    def act(progress: Progress) -> None:
        if progress.stage != "publish":
            return
        with Store(folder / "market.sqlite", {}) as store:
            if progress.index == HANDED_OVER:
                assert running is not None
                hand_over(running, store)
            with store.transaction() as tx:
                for index, body, _ in ASKED:
                    if index == progress.index:
                        asked = {"change": "owner", "meter": METER, **body}
                        instructions.give(tx, "op", "member", asked, "key lost")

    async with (
        Broker() as broker,
        living_meters(broker.port),
        market(folder, broker.port, settings(INTERVALS), act) as engine,
    ):
        running = engine
        await engine.run()
        found: dict[str, int] = contracts_of(engine).balances([OWNER.address, WALLET.address])
    return found


def test_what_is_not_so_on_the_chain_is_refused(day: tuple[Path, dict[str, int]]) -> None:
    answers = [refusal for (refusal,) in rows(day[0], "SELECT refusal FROM instruction ORDER BY id")]
    for (_, _, words), answer in zip(ASKED, answers, strict=True):
        assert (answer == "") if words == "" else (words in answer), answer


def test_batches_go_to_the_wallet_of_their_time_and_all_money_is_in_the_new_one(
    day: tuple[Path, dict[str, int]],
) -> None:
    """The market itself compared chain and ledger, wallet by wallet, at its end."""
    folder, balances = day
    with Store(folder / "market.sqlite", {}) as store, store.reading() as connection:
        batches = money.final_batches(connection, 2**62, 100)
        settled = money.settled_by_wallet(connection)
    assert {state for (state,) in rows(folder, "SELECT state FROM interval")} == {"FINAL"}
    for batch in batches:
        paid = batch.positions.keys() & {OWNER.address, WALLET.address}
        assert paid == {OWNER.address if batch.made_at < at(CHANGED) else WALLET.address}
        with Store(folder / "market.sqlite", {}) as store, store.reading() as connection:
            shown = batch_views.positions(connection, batch.sequence)
        assert {row["address"]: row["amount_ueur"] for row in shown} == batch.positions
    assert settled[OWNER.address] > 0
    assert settled[WALLET.address] > 0
    assert balances == {
        OWNER.address: 0,
        WALLET.address: 100_000_000 + settled[OWNER.address] + settled[WALLET.address],
    }


def test_orders_are_covered_before_and_after(day: tuple[Path, dict[str, int]]) -> None:
    orders = rows(day[0], f"SELECT COUNT(DISTINCT interval_start) FROM orders WHERE meter = '{METER}'")
    assert orders == [(INTERVALS,)]


def test_the_journal_tells_it_all(day: tuple[Path, dict[str, int]], tmp_path: Path) -> None:
    with Store(day[0] / "market.sqlite", {}) as stored, Store(tmp_path / "scratch.sqlite", {}) as scratch:
        assert Replay(stored, scratch, lambda _: physics()).run() is None


def test_the_command_asks_for_it(
    day: tuple[Path, dict[str, int]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "market.sqlite"
    place.write_bytes((day[0] / "market.sqlite").read_bytes())
    asked = ["--reason", "x", "--wait-s", "0"]
    assert run(["member", "owner", str(place), METER, "--owner", "me", *asked]) == 2
    assert run(["member", "owner", str(place), METER, "--owner", STRANGER.address, *asked]) == 0
    with Store(place, {}) as store, store.reading() as connection:
        (one,) = instructions.waiting(connection)
    body = {"change": "owner", "meter": METER, "owner": STRANGER.address, "first_start": None}
    assert one.body == body
    capsys.readouterr()
    assert run(["member", "list", str(place), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["members"]
    assert {member["owner"] for member in told if member["meter"] == METER} == {WALLET.address}


def test_a_debt_bars_whoever_has_the_debtors_place() -> None:
    """Whether the market was told of the new wallet or not, and whether the debt has moved or not."""
    changed = [MEMBERS[2].model_copy(update={"owner": WALLET.address}), *MEMBERS[:2]]
    for members in (MEMBERS[:3], changed):
        for debtor in (OWNER.address, WALLET.address):
            standing = Standing(
                {OWNER.address: 10**9}, {debtor: 5}, successors={OWNER.address: WALLET.address}
            )
            cover = Cover(settings(4), Roster(members))
            cover.renew(standing, {}, {})
            assert cover.debt_ueur(METER) == 5
            assert cover.debt_ueur(MEMBERS[0].meter) == 0
            room = cover.room_neur(standing, {}, {})
            assert room[METER] is None
            assert room[MEMBERS[0].meter] is not None
    free = Standing({OWNER.address: 10**9}, {}, successors={OWNER.address: WALLET.address})
    assert cover.room_neur(free, {}, {})[METER] == 10**12, "what the old wallet brought in covers"


def test_the_registry_is_compared_by_wallet_place_and_meter() -> None:
    salt, member = b"s" * 32, MEMBERS[2]
    place = keccak(salt + member.connection_point.encode())
    standing = Standing({}, {}, successors={OWNER.address: WALLET.address})

    def problem(bound: BoundMeter | None, salt: bytes | None = salt) -> str:
        registered = Registered(lambda: {} if bound is None else {member.meter: bound}, salt)
        assert registered.problem(member, standing) == "", "nothing is known before the first look"
        registered.look()
        found = registered.problems([member], standing)
        assert found == ({member.meter: found[member.meter]} if found else {})
        return found.get(member.meter, "")

    assert problem(BoundMeter(OWNER.address, place)) == ""
    assert problem(BoundMeter(WALLET.address, place)) == "", "its own successor"
    assert f"as {STRANGER.address}'s" in problem(BoundMeter(STRANGER.address, place))
    assert "does not have" in problem(BoundMeter(OWNER.address, bytes(32)))
    assert problem(BoundMeter(OWNER.address, bytes(32)), None) == "", "without the salt"
    assert "does not know" in problem(None)
