"""The file of the network that an interval was cleared on is gone when it is to be settled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from grid.errors import FeederError
from market.auction.book import Firm
from market.service.solver import SolverProcess
from meters.broker import Broker
from tests.faults.live_stand import live_settings, stand
from tests.faults.promise import promise
from tests.service.scene import FEEDER, SECONDS, START, living_meters, physics

pytestmark = [pytest.mark.needs("mosquitto"), pytest.mark.timeout(240)]


class Missing:
    """The network of the first interval that asks for it is not to be had while ``gone``."""

    def __init__(self) -> None:
        self.gone = False
        self._flowed_w: float | None = None

    def check(self, flows: Sequence[Firm]) -> Mapping[str, Any]:
        flowed_w = sum(abs(flow.p_w) for flow in flows)
        if self.gone and self._flowed_w in (None, flowed_w):
            self._flowed_w = flowed_w
            raise FeederError.single("feeder", "name", "village.json", "is no file")
        return {"injected_w": sum(flow.p_w for flow in flows)}


async def test_an_interval_without_its_network_waits_and_holds_up_no_other(tmp_path: Path) -> None:
    promise("a network that is gone: its interval waits and is told of, others are settled, batches go on")
    missing = Missing()
    parts = replace(physics(), check=missing.check)
    of = live_settings()
    with SolverProcess(FEEDER) as solver:
        async with Broker("mosquitto") as broker, living_meters(broker.port):  # noqa: SIM117
            async with stand(tmp_path, broker.port, solver, of, seen=parts) as market:
                for number in range(3):
                    await market.whole(number)
                missing.gone = True
                for number in range(3, 6):
                    await market.whole(number)
                await market.until_state(3, "FINAL")
                waits = market.state(1)
                ((subject, words),) = market.query("SELECT subject, detail FROM alarm WHERE kind = 'network'")
                assert subject == f"interval:{START + SECONDS}"
                assert waits == "CLEARED" and "village.json" in words and "is no file" in words
                missing.gone = False
                await market.whole(6)
                await market.until_state(1, "FINAL")
                assert market.failures == []
                brought = dict(market.query("SELECT interval_start, batch FROM posting WHERE revision = 0"))
                assert brought[START + SECONDS] > brought[START + 3 * SECONDS], (
                    "with the next one that is due"
                )
                assert market.follows_from_its_journal()
