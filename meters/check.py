"""A look at a configuration's meters before they run: is each read, and does the broker let it in?"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass

from grid.errors import BrokerError
from meters.certificates import client_certificate
from meters.mqtt import Inbox, Session
from meters.run_config import MeterSetup, RunSetup
from meters.source import READ_TIMEOUT_S, Source, SourceError, Surroundings

_CONNECT_TIMEOUT_S = 10.0
_AT_ONCE = 32


@dataclass(frozen=True)
class Finding:
    """What a meter tells now (Wh, W, export positive), or in words why it does not (``trouble``);
    ``broker`` is "connected" or the reason. ``certificate_days`` are left of its certificate's life.
    """

    name: str
    meter: str
    import_wh: int | None
    export_wh: int | None
    power_w: int | None
    trouble: str
    broker: str
    certificate_days: int | None

    @property
    def ok(self) -> bool:
        return not self.trouble and self.broker == CONNECTED


CONNECTED = "connected"


async def check(setup: RunSetup) -> Sequence[Finding]:
    """Reads every meter once and connects it; nothing is sent, signed or stored."""
    several = asyncio.Semaphore(_AT_ONCE)
    async with contextlib.AsyncExitStack() as stack:
        around = Surroundings(time.time, setup.market.interval_s, setup.path.resolve().parent, stack)
        sources = [await meter.source.open(around) for meter in setup.meters]

        async def look(meter: MeterSetup, source: Source) -> Finding:
            async with several:
                return await _finding(setup, meter, source)

        return await asyncio.gather(*map(look, setup.meters, sources))


async def _finding(setup: RunSetup, meter: MeterSetup, source: Source) -> Finding:
    interval_s = setup.market.interval_s
    read, trouble = None, ""
    try:
        async with asyncio.timeout(READ_TIMEOUT_S):
            read = await source.read(int(time.time()) // interval_s * interval_s)
    except TimeoutError:
        trouble = f"no answer within {READ_TIMEOUT_S:.0f} s"
    except SourceError as error:
        trouble = str(error)
    days = None
    if meter.tls is not None:
        days = int((client_certificate(meter.tls.certificate).end.timestamp() - time.time()) // 86_400)
    return Finding(
        name=meter.name,
        meter=meter.signer.address,
        import_wh=read.import_wh if read else None,
        export_wh=read.export_wh if read else None,
        power_w=read.power_w if read else None,
        trouble=trouble,
        broker=await _connection(setup, meter),
        certificate_days=days,
    )


async def _connection(setup: RunSetup, meter: MeterSetup) -> str:
    # Under another id than the meter's: one that runs already is not to lose its connection.
    name = f"check-{meter.signer.address}"
    session = Session(setup.host, setup.port, name, Inbox(), tls=meter.tls, timeout_s=_CONNECT_TIMEOUT_S)
    try:
        async with session:
            return CONNECTED
    except BrokerError:
        return session.problem
