"""The interval state machine: the waves of a market's day on a clock that is passed in."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from market.messages.signing import Domain, Signer
from market.service.clock import SimulatedClock
from market.service.gateway import Gateway
from market.service.ports import Physics, Progress, Settler, Tally
from market.service.settings import MarketSettings, Member
from market.service.store import Store


class Engine:
    """One market on one feeder. ``await engine.run()`` finishes what the database says is not finished."""

    def __init__(
        self,
        *,
        settings: MarketSettings,
        members: Sequence[Member],
        signer: Signer,
        domain: Domain,
        store: Store,
        gateway: Gateway,
        clock: SimulatedClock,
        physics: Physics,
        settler: Settler,
        progress: Callable[[Progress], None],
    ) -> None: ...

    async def run(self) -> Tally: ...
