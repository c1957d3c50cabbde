"""Who decides what a meter orders: the one interface between an agent and what it trades with."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from market.messages.models import Gate, Side
from meters.strategies.interface import OfferedStep


@dataclass(frozen=True)
class Proposal:
    """What to order for an interval; at most one of the two firm energies is positive.

    ``firm_q_var`` is an injection: a load that consumes var has it negative. ``memory`` is what the trader
    wants to be told by :meth:`Trader.recall` after a restart.
    """

    firm_import_wh: int
    firm_export_wh: int
    firm_q_var: int
    steps: tuple[OfferedStep, ...]
    memory: str = ""

    def within_fuse(self, fuse_wh: int) -> Proposal:
        """Cut down, each way, to what the fuse lets through in the interval: firm energy goes first, then the
        steps that are worth the most. An order for more would be refused as a whole.
        """
        firm_import_wh = min(self.firm_import_wh, fuse_wh)
        firm_export_wh = min(self.firm_export_wh, fuse_wh)
        left_wh = {Side.BID: fuse_wh - firm_import_wh, Side.ASK: fuse_wh - firm_export_wh}
        kept_wh = [0] * len(self.steps)
        for index in sorted(range(len(self.steps)), key=lambda index: _dearness(self.steps[index])):
            step = self.steps[index]
            kept_wh[index] = min(step.energy_wh, left_wh[step.side])
            left_wh[step.side] -= kept_wh[index]
        steps = (replace(step, energy_wh=wh) for step, wh in zip(self.steps, kept_wh, strict=True) if wh)
        return replace(self, firm_import_wh=firm_import_wh, firm_export_wh=firm_export_wh, steps=tuple(steps))


def _dearness(step: OfferedStep) -> int:
    """The less, the more the step is worth to who offers it: dear bids, cheap asks."""
    return step.limit_price if step.side == Side.ASK else -step.limit_price


@dataclass(frozen=True)
class Ordered:
    """What was ordered for an interval, and what came of it.

    ``awarded_wh`` is the energy awarded to each step (None: no award known), ``price`` (µEUR/kWh) that of the
    steps and ``setpoint_w`` the net power that go with it. ``refused`` tells that no award will come.
    """

    proposal: Proposal
    awarded_wh: tuple[int, ...] | None = None
    price: int | None = None
    setpoint_w: int | None = None
    refused: bool = False

    def to_json(self) -> str:
        proposal = self.proposal
        steps = [[s.device, int(s.side), s.energy_wh, s.limit_price] for s in proposal.steps]
        return json.dumps(
            {
                "firm": [proposal.firm_import_wh, proposal.firm_export_wh, proposal.firm_q_var],
                "steps": steps,
                "awarded_wh": self.awarded_wh,
                "price": self.price,
                "setpoint_w": self.setpoint_w,
                "refused": self.refused,
            }
        )

    @classmethod
    def from_json(cls, text: str) -> Ordered:
        stored = json.loads(text)
        steps = tuple(
            OfferedStep(device, Side(side), energy_wh, limit_price)
            for device, side, energy_wh, limit_price in stored["steps"]
        )
        firm_import_wh, firm_export_wh, firm_q_var = stored["firm"]
        awarded = stored["awarded_wh"]
        return cls(
            Proposal(firm_import_wh, firm_export_wh, firm_q_var, steps),
            None if awarded is None else tuple(awarded),
            stored["price"],
            stored["setpoint_w"],
            stored["refused"],
        )


Orders = Callable[[int], Ordered | None]
"""What was ordered for the interval that starts at the given time, if anything was."""


class Trader(Protocol):
    """Turns what a meter knows into orders."""

    def recall(self, memory: str) -> None:
        """Called once after a restart, with the last stored ``memory`` of its own, if there is one."""

    def propose(self, gate: Gate, orders: Orders) -> Proposal | None:
        """What to order now that ``gate`` is open; None where nothing can be said yet."""
