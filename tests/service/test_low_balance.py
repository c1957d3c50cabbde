"""A household whose balance runs low is told so on its page and its statement, until it has paid in."""

from __future__ import annotations

from pathlib import Path

import httpx

from market.cli.main import run
from market.console.app import create_app
from market.console.market import Market
from market.service.collateral import Collateral
from market.service.cover import Cover
from market.service.ports import Standing
from market.service.store import Store, intervals
from market.service.store.inputs import register
from tests.service.scene import FEEDER_ID, MEMBERS, START, settings

OF = settings(None)
POOR, RICH = MEMBERS[0], MEMBERS[1]
ENOUGH_UEUR = 10**8


async def pages(folder: Path, member: int) -> list[str]:
    """The household's page in the console, and its printed statement."""
    meter, out = MEMBERS[member].meter, folder / "out"
    shown = Market(folder / "market.sqlite")
    served = httpx.ASGITransport(create_app([shown], audit=folder / "audit.sqlite"))
    async with httpx.AsyncClient(transport=served, base_url="http://127.0.0.1") as client:
        page = await client.get(f"/f/{FEEDER_ID}/households/{meter}")
    shown.close()
    assert page.status_code == 200, page.text
    assert run(["statement", str(folder / "market.sqlite"), "--month", "2016-06", "--out", str(out)]) == 0
    return [page.text, (out / f"load-{member}-2016-06.html").read_text()]


async def test_the_household_is_told_until_it_has_paid_in(tmp_path: Path) -> None:
    members = {member.meter: member for member in MEMBERS}
    cover = Cover(OF, members)
    with Store(tmp_path / "market.sqlite", OF.identity()) as store:
        with store.transaction() as tx:
            register(tx, OF, MEMBERS)
            intervals.open_interval(
                tx,
                interval_start=START,
                minutes=OF.minutes,
                opens_at=START - OF.seconds,
                closes_at=START - OF.gate_closure_s,
                tariff=OF.tariff,
            )
        collateral = Collateral(OF, members, store, cover)
        rich = {member.owner: ENOUGH_UEUR for member in MEMBERS}
        collateral.renew(START, Standing({**rich, POOR.owner: 1_234_567}, {}))
        for told in await pages(tmp_path, 0):
            assert "1.23 EUR are left beside orders" in told
        for told in await pages(tmp_path, 1):
            assert "left beside orders" not in told

        # A market that was begun again knows from its store whom it had told.
        Collateral(OF, members, store, Cover(OF, members)).renew(START, Standing(rich, {}))
        for told in await pages(tmp_path, 0):
            assert "left beside orders" not in told
