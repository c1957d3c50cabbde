"""A household that only exists in a computer, as what a meter reads and as who trades for it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated, Literal

from pydantic import Field

from grid.catalogue import year_profiles
from grid.errors import InputError
from market.messages.models import Gate
from market.messages.signing import Signer
from meters.agent import Agent, MarketPlace, Patience
from meters.household.life import State, first_state, live, situation
from meters.household.settings import HouseholdSettings
from meters.household.sites import Household, households
from meters.mqtt import Message
from meters.outbox import MeterRow, Writes
from meters.source import RegisterReading, Setpoint, SourceSettings, Surroundings
from meters.strategies import load_strategy
from meters.strategies.interface import Plan, Strategy
from meters.trader import Ordered, Orders, Proposal

_ASK_AGAIN = 0.2
"""Of the patience for an award: how long until it is asked for (again)."""


class SimulatedHousehold:
    """A :class:`meters.source.Source` and a :class:`meters.trader.Trader`: what it offers follows from what
    it lives through, and the other way round. ``start`` is when its story begins, Unix s.
    """

    def __init__(self, household: Household, start: int, interval_s: int, strategy: Strategy) -> None:
        self.household = household
        self.name = household.name
        self.orders: Orders = lambda _start: None
        """What its awards are looked up with: its agent's orders."""
        self._state = first_state(household, start)
        self.strategy = strategy
        self._interval_s = interval_s

    @property
    def time(self) -> int:
        """The end of the last interval that it lived through."""
        return self._state.time

    # As a source

    def restore(self, memory: str) -> None:
        self._state = replace(State(**json.loads(memory)), memory=self._state.memory)

    async def read(self, at: int) -> RegisterReading:
        """Lives until ``at``, at most: its registers are those of the last boundary."""
        while self._state.time + self._interval_s <= at:
            self.live()
        return self._reading()

    def device(self) -> None:
        """It follows its awards by itself."""

    async def apply(self, setpoint: Setpoint | None) -> None:
        raise NotImplementedError

    def live(self) -> RegisterReading:
        """Through one interval; the registers at its end."""
        ordered = self.orders(self._state.time)
        plan = _plan(ordered) if ordered is not None else None
        self._state = live(self.household, self._state, plan, self._interval_s)
        return self._reading()

    def _reading(self) -> RegisterReading:
        state = self._state
        return RegisterReading(
            taken_at=state.time,
            import_wh=state.import_wh,
            export_wh=state.export_wh,
            power_w=state.power_w,
            memory=json.dumps({**vars(state), "memory": {}}),
        )

    # As a trader

    def recall(self, memory: str) -> None:
        self._state = replace(self._state, memory=json.loads(memory))

    def propose(self, gate: Gate, orders: Orders) -> Proposal | None:
        def plan(start: int) -> Plan | None:
            ordered = orders(start)
            return _plan(ordered) if ordered is not None else None

        offer = self.strategy(
            situation(self.household, self._state, plan, gate.interval_start, self._interval_s, gate.tariff)
        )
        self._state = replace(self._state, memory=offer.memory)
        return Proposal(offer.firm_import_wh, 0, offer.firm_q_var, offer.steps, json.dumps(offer.memory))


def _plan(ordered: Ordered) -> Plan:
    return Plan(ordered.proposal.steps, ordered.proposal.firm_import_wh, ordered.awarded_wh, ordered.price)


class SimulatedAgent(Agent):
    """The agent of a household in simulated time. Its clock is the gate announcement: between a gate's
    opening and closing no interval ends, so ``opens_at`` is all it needs.
    """

    def __init__(
        self, home: SimulatedHousehold, signer: Signer, place: MarketPlace, patience: Patience
    ) -> None:
        household = home.household
        super().__init__(home.name, home, signer, place, patience, fuse_w=household.fuse_w)
        self.software += f": {household.kind or 'loads'}, {household.strategy}"
        home.orders = self._orders.get
        self._home = home
        self._ask_s = 0.0

    def restore(self, row: MeterRow) -> None:
        super().restore(row)
        if self.last is not None:
            self._home.restore(self.last.memory)

    def clock(self) -> int:
        return self._home.time

    def questions(self, now_s: float) -> Iterator[Message]:
        if self._heard is not None and now_s >= max(self._ask_s, self._heard_s + self._pause_s()):
            self._ask_s = now_s + self._pause_s()
            yield self._question()

    def _pause_s(self) -> float:
        return self._patience.award_s * _ASK_AGAIN

    def _prepare(self, gate: Gate, writes: Writes, *, patient: bool) -> bool:
        """Lives until the gate opened, once all awards are there for the intervals before the gate's."""
        if patient and self._awaits_award(gate.interval_start):
            return False
        while self._home.time + self._place.interval_s <= gate.opens_at:
            self.record(self._home.live(), writes)
        self._forget_orders(self._home.time, writes)
        return True

    def _awaits_award(self, before: int) -> bool:
        return any(
            ordered.awarded_wh is None and not ordered.refused
            for start, ordered in self._orders.items()
            if self._home.time <= start < before
        )


class HouseholdSourceSettings(SourceSettings):
    """A household on a feeder's year of profiles, which repeats: the one at ``load`` of ``feeder_name``.

    ``household`` scales the profiles and adds devices, drawn from ``seed`` as in a demonstration.
    """

    kind: Literal["household"]
    feeder_name: Annotated[str, Field(min_length=1)]
    load: Annotated[str, Field(pattern=r"^load:\d+$")]
    seed: Annotated[int, Field(ge=0, le=2**63 - 1)] = 0
    household: HouseholdSettings = HouseholdSettings()

    async def open(self, around: Surroundings) -> SimulatedHousehold:
        key = ("households", self.feeder_name, self.seed, self.household.model_dump_json())
        if key not in around.shared:
            homes = households(year_profiles(self.feeder_name, around.base), self.household, self.seed)
            around.shared[key] = {home.name: home for home in homes}
        found = around.shared[key].get(self.load)
        if found is None:
            raise InputError.single(self.feeder_name, "load", self.load, "is not on this feeder")
        start = int(around.now()) // around.interval_s * around.interval_s
        return SimulatedHousehold(found, start, around.interval_s, load_strategy(found.strategy))
