"""Who may order, who is billed through the market, and for whom the guarantee is there."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from contracts.journal import SqliteJournal
from contracts.sender import Sender
from market.messages.models import ReceiptKind, ReceiptResult
from market.service.clock import SimulatedClock
from market.service.cover import Cover
from market.service.intake import Intake
from market.service.parse import Heard, hear, topic_of
from market.service.ports import Progress, Standing
from market.service.store import Store, inputs
from meters.broker import Broker
from tests.service.scene import (
    DEPOSITS,
    DOMAIN,
    FEEDER_ID,
    MEMBERS,
    METERS,
    SECONDS,
    START,
    living_meters,
    market,
    order_of,
    rows,
    settings,
    signer,
)
from tests.service.test_replay import replayed

BY_METER = {member.meter: member for member in MEMBERS}
OWNER = MEMBERS[0].owner
FUSE_NEUR = 5000 * 300_000  # 20 kW for a quarter of an hour at the import tariff


@pytest.fixture
async def broker() -> AsyncIterator[Broker]:
    async with Broker() as running:
        yield running


def test_a_debtor_is_barred_by_name_whatever_it_covers_until_it_has_repaid(tmp_path: Path) -> None:
    of = settings(4)
    cover = Cover(of, BY_METER)
    with Store(tmp_path / "market.sqlite", of.identity()) as store:
        with store.transaction() as tx:
            inputs.register(tx, of, MEMBERS)
        intake = Intake(of, BY_METER, store, SimulatedClock(START - SECONDS), cover)
        cover.renew(Standing(DEPOSITS, {OWNER: 7}), {}, {})
        intake.open_gate(START, START - 300)

        def answers(version: int) -> list[tuple[int, str]]:
            heard = []
            for index in range(2):
                order = order_of(index, START, version)
                topic = topic_of(FEEDER_ID, order.meter, "order")
                payload = order.model_dump_json().encode()
                said = hear(topic, payload, feeder=FEEDER_ID, members=BY_METER, domain=DOMAIN)
                assert isinstance(said, Heard)
                heard.append(said)
            return [(answer.result, answer.reason) for answer in intake.take(heard)]

        reason = "the account owes 7 µEUR to the market's guarantee: barred until repaid"
        assert answers(0) == [(ReceiptResult.REJECTED, reason), (ReceiptResult.ACCEPTED, "")]
        cover.renew(Standing(DEPOSITS, {}), {}, {})
        assert {result for result, _ in answers(1)} == {ReceiptResult.ACCEPTED}


def test_the_room_of_an_account_is_what_it_covers_beside_its_orders() -> None:
    cover = Cover(settings(4), BY_METER)
    standing = Standing({**DEPOSITS, MEMBERS[1].owner: 0}, {MEMBERS[2].owner: 1})
    account = f"household:{METERS[0].address}"
    cover.renew(standing, {}, {})
    cover.set(METERS[0].address, START, 700)
    room = cover.room_neur(standing, {account: -5}, {account: -20})
    assert room[METERS[0].address] == (100_000_000 - 5) * 1000 - 20 - 700
    assert room[METERS[1].address] == 0
    assert room[METERS[2].address] is None


async def test_who_withdrew_everything_is_supplied_by_the_retailer_and_not_at_the_guarantees_cost(
    tmp_path: Path, broker: Broker
) -> None:
    """There is no guarantee here: one µEUR that the household cannot pay would stop the market."""
    owner, intervals = signer("owner:load:0"), 7
    journal = SqliteJournal(tmp_path / "owner.sqlite")
    standings: list[Any] = []

    def leave(progress: Progress) -> None:
        if progress.stage != "clear":
            return
        held = contracts.balances([owner.address])[owner.address]
        if progress.index == 0:
            contracts.announce_withdrawal(Sender(chain, owner, journal), "leave", held)
        if progress.index == intervals - 1:
            # An hour later it is due: what comes now, the household no longer answers for.
            standings.append((held, contracts.pending_withdrawal(owner.address).amount_ueur))

    of = settings(intervals)
    async with (
        living_meters(broker.port) as meters,
        market(tmp_path, broker.port, of, leave, withdrawal_delay_s=4 * SECONDS) as engine,
    ):
        contracts = engine._settler._contracts
        chain = contracts._chain
        await engine.run()
        left = contracts.pending_withdrawal(owner.address).amount_ueur
        assert contracts.debts([owner.address]) == {}
        assert contracts.guarantee() == 0
    journal.disconnect()

    lines = _postings(tmp_path, f"household:{METERS[0].address}")
    carried = {start for start, kind, _, _ in lines if kind == "carried"}
    ordered = {start for start, kind, _, _ in lines if kind != "carried"}
    assert carried and ordered
    assert max(ordered) < min(carried)
    assert not carried & ordered
    assert all(amount == 0 and energy < 0 for _, kind, amount, energy in lines if kind == "carried")
    # The retailer has the same energy, to bill it outside the market.
    retailer = [line for line in _postings(tmp_path, "retailer") if line[1] == "carried"]
    assert sorted((start, -energy) for start, _, _, energy in retailer) == sorted(
        (start, energy) for start, kind, _, energy in lines if kind == "carried"
    )
    owed = -sum(amount for _, _, amount, _ in lines)
    assert left == 100_000_000 - -(-owed // 1000)
    refused = {
        receipt.up_to
        for receipt in meters.receipts
        if receipt.meter == METERS[0].address
        and receipt.kind == ReceiptKind.ORDER
        and receipt.result == ReceiptResult.REJECTED
    }
    assert refused >= set(range(2, intervals))
    assert replayed(tmp_path) is None


def _postings(folder: Path, account: str) -> list[tuple[int, str, int, int]]:
    return rows(
        folder,
        f"SELECT interval_start, kind, amount_neur, energy_wh FROM posting WHERE account = '{account}'",
    )
