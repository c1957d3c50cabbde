"""The market of the fault tests: the real gateway and store in a process that can be killed at any point.

``python -m tests.faults.stand_market FOLDER PORT`` takes readings until it is ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from pathlib import Path

from grid.errors import BrokerError
from market.service.budget import Allowance
from market.service.clock import WallClock
from market.service.gateway import Gateway
from market.service.store import Store, inputs
from meters import lifeline
from tests.faults.stand import DOMAIN, MARKET, MEMBERS, settings


async def serve(folder: Path, port: int) -> None:
    lifeline.end_with_stdin()
    of = settings()
    with Store(folder / "market.sqlite", of.identity()) as store:
        with store.transaction() as tx:
            inputs.register(tx, of, MEMBERS)
        while True:  # as `peergrid run` does where no broker is there for long
            with contextlib.suppress(BrokerError):
                async with Gateway(
                    settings=of,
                    members=MEMBERS,
                    signer=MARKET,
                    domain=DOMAIN,
                    store=store,
                    clock=WallClock(),
                    host="127.0.0.1",
                    port=port,
                    allowance=Allowance(per_s=1e6, burst=1e6),
                ) as gateway:
                    gateway.listen()
                    while True:
                        await gateway.news(60.0)


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1]), int(sys.argv[2])))
