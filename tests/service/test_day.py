"""A market's day over a real broker, feeder, database and chain."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest

from contracts.chain import ContractRevertError
from contracts.journal import SqliteJournal
from contracts.sender import Sender
from grid.errors import LedgerError, SolverError, StoreError
from market.auction.book import Book
from market.auction.record import ClearingRecord
from market.messages.models import Award, Clearing, Gate, ReceiptKind, ReceiptResult
from market.messages.signing import is_signed_by
from market.service.ports import Progress, never
from market.service.readings import ReadingDesk
from market.service.waves import SimulatedMarket
from meters.broker import HOST, Broker, Program
from meters.mqtt import Inbox, Message, Session
from tests.service.scene import (
    DOMAIN,
    FEEDER_ID,
    MARKET,
    METERS,
    SECONDS,
    START,
    Meters,
    a_day,
    living_meters,
    market,
    physics,
    reading_of,
    settings,
    signer,
    state_of,
)

ROOT = Path(__file__).parents[2]
INTERVALS = 6
AWARDS = INTERVALS * len(METERS)


@pytest.fixture
async def broker() -> AsyncIterator[Broker]:
    async with Broker() as running:
        yield running


async def test_a_day_ends_final_with_chain_and_ledger_equal_to_the_unit(
    tmp_path: Path, broker: Broker
) -> None:
    async with living_meters(broker.port) as meters:
        async with market(tmp_path, broker.port, settings(INTERVALS)) as engine:
            await engine.run()
        while len(meters.payloads["clearing"]) < INTERVALS or len(meters.payloads["award"]) < AWARDS:
            await asyncio.sleep(0.01)
    state = state_of(tmp_path)
    assert {row[1] for row in state["interval"]} == {"FINAL"}
    assert {row[1] for row in state["clearing"]} == {"cleared".upper()}
    assert state["outbox"] == []
    assert sum(row[3] for row in state["posting"]) == 0
    assert sum(row[1] for row in state["chain"]) == 0
    assert {receipt.result for receipt in meters.receipts} <= {
        ReceiptResult.ACCEPTED,
        ReceiptResult.DUPLICATE,
    }
    awards = [Award.model_validate_json(payload) for payload in meters.payloads["award"]]
    assert len(awards) == AWARDS
    assert all(is_signed_by(DOMAIN, award, MARKET.address) for award in awards)
    clearings = [Clearing.model_validate_json(payload) for payload in meters.payloads["clearing"]]
    assert all(is_signed_by(DOMAIN, clearing, MARKET.address) for clearing in clearings)
    assert len(clearings) == INTERVALS


async def test_the_day_is_the_same_when_the_batches_are_not(tmp_path: Path) -> None:
    folders = [tmp_path / every for every in ("interval", "hour", "day")]
    for folder in folders:
        folder.mkdir()
        await a_day(folder, settings(INTERVALS, settle_every=folder.name))
    first, *others = [state_of(folder) for folder in folders]
    assert all(other["posting"] == first["posting"] for other in others)
    assert all(other["chain"] == first["chain"] for other in others)
    assert [other["batch"][0][1] for other in [first, *others]] == [6, 2, 1]


async def test_who_says_nothing_is_a_retail_customer_and_holds_nobody_up_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent, waited_s = METERS[3].address, [0.0]

    class Waiting(SimulatedMarket):
        """Its time passes only while the silent one alone is missing."""

        async def _wait(self, missing: Callable[[], set[str]]) -> None:
            async def nothing_comes(remaining_s: float) -> None:
                waited_s.append(remaining_s)

            while missing() - {silent}:
                await self._gateway.news(60)
            with monkeypatch.context() as patch:
                patch.setattr(self._gateway, "news", nothing_comes)
                await super()._wait(missing)

    monkeypatch.setattr("market.service.waves.time", SimpleNamespace(monotonic=lambda: sum(waited_s)))
    monkeypatch.setattr("tests.service.scene.SimulatedMarket", Waiting)
    await a_day(tmp_path, settings(INTERVALS, patience_s=20), meters=partial(Meters, silent={3}))
    assert waited_s == [0, 20, *[2] * (INTERVALS + 1)], "the registers of the last two intervals too"
    state = state_of(tmp_path)
    assert {row[1] for row in state["interval"]} == {"FINAL"}
    assert {row[2] for row in state["interval"]} == {1}
    assert [row for row in state["posting"] if row[1] == f"household:{silent}"] == []
    books = [json.loads(row[3]) for row in state["clearing"]]
    assert all({"connection_point": "load:3", "p_w": -332.0, "q_var": 0.0} in book["firm"] for book in books)


@pytest.mark.parametrize(
    "program", [pytest.param("mosquitto", marks=pytest.mark.needs("mosquitto")), "iotcore"]
)
async def test_a_broker_restarted_within_a_wave_tells_the_gate_to_whoever_comes(
    tmp_path: Path, program: Program
) -> None:
    """All meters come after the gate was announced on a broker that has been killed since."""
    timely, late = tmp_path / "timely", tmp_path / "late"
    timely.mkdir()
    late.mkdir()
    await a_day(timely, settings(INTERVALS))
    async with Broker(program) as first, market(late, first.port, settings(INTERVALS)) as engine:
        running = asyncio.create_task(engine.run())
        await gate_is_out(late, first.port)
        os.kill(first.pid, signal.SIGKILL)
        await first.ended()
        async with Broker(program, port=first.port) as second, living_meters(second.port):
            await running
    assert state_of(late) == state_of(timely)


async def gate_is_out(folder: Path, port: int) -> None:
    """Until the first gate was heard, and the market knows that the broker has it."""
    inbox = Inbox()
    async with Session(HOST, port, "listener", inbox, subscriptions=[f"peergrid/v1/{FEEDER_ID}/gate"]):
        Inbox.done(await inbox.batch())
    while state_of(folder)["outbox"]:
        await asyncio.sleep(0.01)


async def test_readings_that_come_late_end_in_the_ledger_of_a_timely_day(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every household's registers at one boundary come three intervals late: adjustments make up for it."""
    timely, late = tmp_path / "timely", tmp_path / "late"
    timely.mkdir()
    late.mkdir()
    await a_day(timely, settings(INTERVALS))
    held_at = START + SECONDS
    unread = ReadingDesk.unread

    def expected_now(readings: ReadingDesk, boundary: int) -> set[str]:
        """Nobody waits for what is held: patience would end sooner or later, and here it is at once."""
        return set() if boundary == held_at else unread(readings, boundary)

    monkeypatch.setattr(ReadingDesk, "unread", expected_now)

    def release(number: int, _: Gate) -> list[Message]:
        if number != 5:
            return []
        return [Meters.message(reading_of(index, held_at)) for index in range(len(METERS))]

    meters = partial(Meters, on_open=release, withheld=lambda reading: reading.taken_at == held_at)
    await a_day(late, settings(INTERVALS), meters=meters)
    expected, got = state_of(timely), state_of(late)
    held = [row for row in got["posting"] if row[2] == "held"]
    assert held and all(row[3:] == (0, 0) for row in held), "sellers waited for their registers"
    assert [row for row in got["posting"] if row not in held] == expected["posting"]
    assert got["chain"] == expected["chain"]
    assert {row[2] for row in got["interval"]} == {0}


async def test_an_interval_that_cannot_be_cleared_is_suspended_and_the_next_one_is_normal(
    tmp_path: Path,
) -> None:
    def fails_once(book: Book, out_of_time: Callable[[], bool] = never) -> ClearingRecord:
        if book.interval.unix_time == START + SECONDS:
            raise SolverError("the solver was killed")
        return physics().clear(book)

    meters = await a_day(tmp_path, settings(INTERVALS), clear=fails_once)
    state = state_of(tmp_path)
    assert [row[1] for row in state["clearing"]] == ["CLEARED", "SUSPENDED"] + ["CLEARED"] * (INTERVALS - 2)
    assert {row[1] for row in state["interval"]} == {"FINAL"}
    suspended = [row for row in state["posting"] if row[0] == START + SECONDS]
    assert {row[2] for row in suspended} == {"retail"}
    awards = [Award.model_validate_json(payload) for payload in meters.payloads["award"]]
    assert {a.status for a in awards if a.interval_start == START + SECONDS} == {"SUSPENDED"}


async def test_who_withdraws_its_credit_pays_what_it_owes_and_orders_no_more(
    tmp_path: Path, broker: Broker
) -> None:
    """However early the household announces, what it had ordered before is paid out of the withdrawal."""
    owner = signer("owner:load:0")
    journal = SqliteJournal(tmp_path / "owner.sqlite")
    announced: list[int] = []

    def leave(progress: Progress) -> None:
        if progress.index == 2 and progress.stage == "clear":
            wallet = Sender(chain, owner, journal)
            held = contracts.balances([owner.address])[owner.address]
            contracts.announce_withdrawal(wallet, "leave", held)
            announced.append(held)

    async with (
        living_meters(broker.port) as meters,
        market(tmp_path, broker.port, settings(INTERVALS), leave) as engine,
    ):
        contracts = engine._settler._contracts
        chain = contracts._chain
        await engine.run()
        pending = contracts.pending_withdrawal(owner.address).amount_ueur
        credit = contracts.balances([owner.address])[owner.address]
        debts = contracts.debts([owner.address])
    journal.disconnect()

    state = state_of(tmp_path)
    assert {row[1] for row in state["interval"]} == {"FINAL"}
    account = f"household:{METERS[0].address}"
    owed = -sum(row[3] for row in state["posting"] if row[1] == account)
    assert owed > 0
    # It paid all of it, some before it announced and the rest out of what it had announced.
    assert credit + pending == 100_000_000 - -(-owed // 1000)
    assert 0 < pending < announced[0]
    assert debts == {}
    refused = {
        receipt.up_to
        for receipt in meters.receipts
        if receipt.meter == METERS[0].address
        and receipt.kind == ReceiptKind.ORDER
        and receipt.result == ReceiptResult.REJECTED
    }
    # Its order for the next interval may be in already; after that none is accepted.
    assert {4, 5} <= refused <= {3, 4, 5}


async def test_a_batch_that_nobody_can_pay_stops_the_orders_and_waits_for_a_guarantee(
    tmp_path: Path, broker: Broker
) -> None:
    """A delay that is too short lets a household take its money before its last energy is billed."""
    owner = signer("owner:load:0")
    journal = SqliteJournal(tmp_path / "owner.sqlite")

    def leave(progress: Progress) -> None:
        if progress.index == 1 and progress.stage == "clear":
            held = contracts.balances([owner.address])[owner.address]
            contracts.announce_withdrawal(Sender(chain, owner, journal), "leave", held)

    opened = []
    async with living_meters(broker.port):
        for progress in (leave, lambda _: None):
            async with market(
                tmp_path, broker.port, settings(INTERVALS), progress, withdrawal_delay_s=1800
            ) as engine:
                contracts = engine._settler._contracts
                chain = contracts._chain
                with pytest.raises(
                    ContractRevertError, match=r"GuaranteeExhausted\(account=" + owner.address
                ):
                    await engine.run()
            opened.append(len(state_of(tmp_path)["interval"]))
        assert opened[0] == opened[1] < INTERVALS, f"gates open while the batch waits: {opened}"
        assert dict(state_of(tmp_path)["batch"])["PENDING"] == 0

        async with market(tmp_path, broker.port, settings(INTERVALS), withdrawal_delay_s=1800) as engine:
            contracts = engine._settler._contracts
            operator = Sender(contracts._chain, signer("deployer"), journal)
            contracts.mint(operator, "mint", operator.address, 5_000_000)
            contracts.deposit_guarantee(operator, "guarantee", 5_000_000)
            await engine.run()
            debts = contracts.debts([owner.address])
            assert contracts.guarantee() == 5_000_000 - debts[owner.address]
    journal.disconnect()
    assert {row[1] for row in state_of(tmp_path)["interval"]} == {"FINAL"}


async def test_a_unit_too_much_on_the_chain_ends_the_day_with_an_error(tmp_path: Path) -> None:
    of = settings(INTERVALS)
    gift_ueur = {of.treasuries["retailer"].address: 1, of.treasuries["rounding"].address: -1}
    with pytest.raises(LedgerError, match="the wallet of retailer: the chain moved"):
        await a_day(tmp_path, of, gift_ueur=gift_ueur)
    assert {row[1] for row in state_of(tmp_path)["interval"]} == {"FINAL"}
    with pytest.raises(LedgerError, match="the wallet of retailer: the chain moved"):
        await a_day(tmp_path, of)


async def test_a_day_is_not_continued_under_other_terms(tmp_path: Path) -> None:
    await a_day(tmp_path, settings(INTERVALS))
    treasuries = settings(INTERVALS).treasuries
    changed = treasuries["retailer"].model_copy(update={"deposit_ueur": 1})
    with pytest.raises(StoreError, match="belongs to another run"):
        await a_day(tmp_path, settings(INTERVALS, treasuries={**treasuries, "retailer": changed}))


async def test_a_market_killed_at_any_moment_ends_with_the_same_ledger(
    tmp_path: Path, broker: Broker
) -> None:
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    undisturbed.mkdir()
    killed.mkdir()
    await a_day(undisturbed, settings(INTERVALS))
    chance, kills, output = random.Random(7), 0, ""
    command = [sys.executable, "-m", "tests.service.scene", str(killed), str(broker.port), str(INTERVALS)]
    async with living_meters(broker.port):
        for _ in range(30):
            process = await asyncio.create_subprocess_exec(
                *command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
            assert process.stdout is not None and process.stderr is not None
            if kills < 8:
                await process.stdout.readline()
                await asyncio.sleep(chance.uniform(0, 0.25))
                if process.returncode is None:
                    process.kill()
                    kills += 1
            output = (await process.stdout.read()).decode()
            errors = (await process.stderr.read()).decode()
            assert await process.wait() in (0, -9), errors
            if output.endswith("DONE\n"):
                break
    assert output.endswith("DONE\n")
    assert kills >= 3
    assert state_of(killed) == state_of(undisturbed)
