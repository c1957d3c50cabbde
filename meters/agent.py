"""One meter of the market: what it does when it hears a gate, a receipt or an award.

An agent does no I/O. It changes its own memory, adds to :class:`Writes` what has to be on the disk first,
and tells which messages are due. Its clock is the gate announcement: between a gate's opening and closing
no interval ends, so ``opens_at`` is all it needs. Whether messages come early, late or twice makes no
difference to what it sends.
"""

from __future__ import annotations

import json
import logging
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

from eth_hash.auto import keccak
from pydantic import ValidationError

from market.messages.models import (
    Award,
    Gate,
    Order,
    Reading,
    Receipt,
    ReceiptKind,
    ReceiptResult,
    Side,
    Status,
    Step,
    Sync,
)
from market.messages.signing import UNSIGNED, Domain, Signer, is_signed_by, message_digest
from meters.household.life import Plan, State, first_state, live, situation
from meters.household.sites import Household
from meters.mqtt import Message
from meters.outbox import MeterRow, OutboxRow, PlanRow, Writes
from meters.strategies.interface import OfferedStep, Strategy

SOFTWARE = "peergrid household 1"
_RESEND_MAX_S = 60.0
_ASK_AGAIN = 0.2
"""Of the patience for an award: how long until it is asked for (again)."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class MarketPlace:
    """Where a meter trades: the feeder's id, the market's address, the signatures' domain, the length of
    an interval, and when the first one starts (Unix seconds)."""

    feeder: str
    market: str
    domain: Domain
    interval_s: int
    first_interval_start: int


@dataclass(frozen=True)
class Patience:
    """Real seconds: until a message without receipt is sent again, and for an award that is still
    missing when the next gate opens."""

    resend_s: float = 5.0
    award_s: float = 5.0


@dataclass
class _Waiting:
    """A message without receipt: when it is due to be sent (again), and the wait after that."""

    row: OutboxRow
    message: Message
    due_s: float
    wait_s: float


@dataclass(frozen=True)
class _PlanMade:
    plan: Plan
    refused: bool = False


@lru_cache(maxsize=4)
def _gate(payload: bytes) -> Gate:
    """All meters hear the same announcement."""
    return Gate.model_validate_json(payload)


class Agent:
    """The agent of one household. ``now_s`` is a monotonic real time, used for waiting only."""

    def __init__(
        self,
        household: Household,
        signer: Signer,
        place: MarketPlace,
        strategy: Strategy,
        patience: Patience,
    ) -> None:
        self.household = household
        self.meter = signer.address
        self.topic = f"peergrid/v1/{place.feeder}/{self.meter}"
        self.subscriptions = (
            f"{self.topic}/receipt",
            f"{self.topic}/award",
            f"peergrid/v1/{place.feeder}/gate",
        )
        self.ignored = 0
        """Messages that were malformed, not signed by the market or not for this meter."""
        self._signer = signer
        self._place = place
        self._strategy = strategy
        self._patience = patience
        self._state = first_state(household, place.first_interval_start - 2 * place.interval_s)
        self._next_seq = 0
        self._next_version = 0
        self._plans: dict[int, _PlanMade] = {}
        self._waiting: dict[tuple[int, int], _Waiting] = {}
        self._heard: Gate | None = None
        self._heard_s = 0.0
        self._ask_s = 0.0
        self._closed = 0

    # What the fleet restores, asks and sends

    def restore(self, row: MeterRow) -> None:
        """Continue from what was stored; plans and waiting messages follow."""
        self._state = State(**json.loads(row.state))
        self._next_seq, self._next_version = row.next_seq, row.next_version

    def restore_plan(self, row: PlanRow) -> None:
        self._plans[row.interval_start] = _plan_from_json(row.plan)

    def restore_waiting(self, row: OutboxRow) -> None:
        self._keep(row)

    def greeting(self) -> Iterator[Message]:
        """What is due on a new connection: presence, a question for what was missed, all without receipt."""
        yield self._presence(online=True)
        if self._next_seq:
            yield self._question()
        for waiting in self._waiting.values():
            waiting.due_s, waiting.wait_s = 0.0, self._patience.resend_s

    def farewell(self) -> Message:
        """Presence ended; also the last will."""
        return self._presence(online=False)

    def questions(self, now_s: float) -> Iterator[Message]:
        """Asks for a missing award from time to time: a question may get lost where nobody listens yet."""
        if self._heard is not None and now_s >= self._ask_s:
            self._ask_s = now_s + self._patience.award_s * _ASK_AGAIN
            yield self._question()

    def due(self, now_s: float) -> Iterator[_Waiting]:
        """Messages to send now; :meth:`sent` is told which were handed over."""
        for waiting in self._waiting.values():
            late = waiting.row.kind == ReceiptKind.ORDER and waiting.row.time <= self._closed
            if waiting.due_s <= now_s and not late:
                yield waiting

    @staticmethod
    def sent(waiting: _Waiting, now_s: float) -> None:
        waiting.due_s = now_s + waiting.wait_s * random.uniform(0.5, 1.5)  # noqa: S311
        waiting.wait_s = min(2 * waiting.wait_s, _RESEND_MAX_S)

    # What it hears

    def hear(self, topic: str, payload: bytes, now_s: float, writes: Writes) -> None:
        """Act on one message from the broker."""
        try:
            match topic.rsplit("/", 1)[-1]:
                case "gate":
                    self._on_gate(_gate(payload), now_s, writes)
                case "award":
                    self._on_award(Award.model_validate_json(payload), now_s, writes)
                case "receipt":
                    self._on_receipt(Receipt.model_validate_json(payload), writes)
        except ValidationError as error:
            self._ignore(f"malformed: {error.errors()[0]['msg']}")

    def wake(self, now_s: float, writes: Writes) -> None:
        """Act on a gate that was put off for want of an award."""
        if self._heard is not None:
            self._act(self._heard, now_s, writes)

    def _on_gate(self, gate: Gate, now_s: float, writes: Writes) -> None:
        if gate.feeder != self._place.feeder or gate.minutes * 60 != self._place.interval_s:
            self._ignore("a gate of another market")
            return
        if gate.state != "OPEN":
            self._closed = max(self._closed, gate.interval_start)
        if self._heard is None or self._heard.interval_start != gate.interval_start:
            self._heard_s = now_s
            self._ask_s = now_s + self._patience.award_s * _ASK_AGAIN
        self._heard = gate
        self._act(gate, now_s, writes)

    def _act(self, gate: Gate, now_s: float, writes: Writes) -> None:
        if self._awaits_award(gate.interval_start) and now_s < self._heard_s + self._patience.award_s:
            return
        self._heard = None
        changed = False
        while self._state.time + self._place.interval_s <= gate.opens_at:
            self._live_and_read(writes)
            changed = True
        start = gate.interval_start
        if gate.state == "OPEN" and start >= self._state.time and start not in self._plans:
            self._order(gate, writes)
            changed = True
        if changed:
            writes.meters[self.meter] = MeterRow(
                self.meter, 0, self._next_seq, self._next_version, json.dumps(vars(self._state))
            )
            for ended in [start for start in self._plans if start < self._state.time]:
                del self._plans[ended]
                writes.ended.append((self.meter, ended))

    def _awaits_award(self, before: int) -> bool:
        return any(
            made.plan.awarded_wh is None and not made.refused
            for start, made in self._plans.items()
            if self._state.time <= start < before
        )

    def _plan(self, start: int) -> Plan | None:
        made = self._plans.get(start)
        return made.plan if made is not None else None

    def _live_and_read(self, writes: Writes) -> None:
        plan = self._plan(self._state.time)
        self._state = state = live(self.household, self._state, plan, self._place.interval_s)
        reading = Reading(
            meter=self.meter,
            epoch=0,
            seq=self._next_seq,
            taken_at=state.time,
            import_wh=state.import_wh,
            export_wh=state.export_wh,
            power_w=state.power_w,
            sig=UNSIGNED,
        )
        self._next_seq += 1
        self._post(reading, ReceiptKind.READING, reading.seq, reading.taken_at, writes)

    def _order(self, gate: Gate, writes: Writes) -> None:
        offer = self._strategy(
            situation(
                self.household,
                self._state,
                self._plan,
                gate.interval_start,
                self._place.interval_s,
                gate.tariff,
            )
        )
        order = Order(
            meter=self.meter,
            feeder=gate.feeder,
            interval_start=gate.interval_start,
            version=self._next_version,
            firm_import_wh=offer.firm_import_wh,
            firm_q_var=offer.firm_q_var,
            steps=tuple(
                Step(side=step.side, energy_wh=step.energy_wh, limit_price=step.limit_price)
                for step in offer.steps
            ),
            sig=UNSIGNED,
        )
        self._next_version += 1
        self._set_plan(gate.interval_start, _PlanMade(Plan(offer.steps, offer.firm_import_wh)), writes)
        for waiting in list(self._waiting.values()):
            if waiting.row.kind == ReceiptKind.ORDER and waiting.row.time < gate.interval_start:
                self._drop(waiting.row, writes)  # its gate has closed: no receipt can make it count
        self._post(order, ReceiptKind.ORDER, order.version, order.interval_start, writes)

    def _on_award(self, award: Award, now_s: float, writes: Writes) -> None:
        if award.meter != self.meter or not is_signed_by(self._place.domain, award, self._place.market):
            self._ignore("an award that is not the market's for this meter")
            return
        made = self._plans.get(award.interval_start)
        if made is None or made.plan.awarded_wh is not None:
            return
        awarded = [0] * len(made.plan.steps)
        for step in award.steps:
            if step.index >= len(awarded) or step.energy_wh > made.plan.steps[step.index].energy_wh:
                self._ignore("an award of more than was offered")
                return
            awarded[step.index] = step.energy_wh
        plan = replace(made.plan, awarded_wh=tuple(awarded))
        self._set_plan(award.interval_start, _PlanMade(plan), writes)
        self.wake(now_s, writes)

    def _on_receipt(self, receipt: Receipt, writes: Writes) -> None:
        if receipt.meter != self.meter or not is_signed_by(self._place.domain, receipt, self._place.market):
            self._ignore("a receipt that is not the market's for this meter")
            return
        if receipt.result == ReceiptResult.REJECTED:
            self._on_refusal(receipt, writes)
            return
        named = self._waiting.get((receipt.kind, receipt.up_to))
        if named is not None and "0x" + named.row.digest.hex() != receipt.digest:
            self._ignore("a receipt for other content than was sent")
            return
        for waiting in list(self._waiting.values()):
            if waiting.row.kind == receipt.kind and waiting.row.number <= receipt.up_to:
                self._drop(waiting.row, writes)

    def _on_refusal(self, receipt: Receipt, writes: Writes) -> None:
        """The market will never take this message: do not send it again, and follow no award for it."""
        refused = self._waiting.get((receipt.kind, receipt.up_to))
        if refused is None:
            return
        if receipt.digest not in ("0x" + refused.row.digest.hex(), "0x" + keccak(refused.row.payload).hex()):
            self._ignore("a refusal of what somebody else sent in its name")
            return
        _log.warning(
            "%s: the market refused %s %d: %s %s",
            self.household.name,
            ReceiptKind(receipt.kind).name.lower(),
            receipt.up_to,
            receipt.field,
            receipt.reason,
        )
        self._drop(refused.row, writes)
        made = self._plans.get(refused.row.time)
        if receipt.kind == ReceiptKind.ORDER and made is not None:
            self._set_plan(refused.row.time, replace(made, refused=True), writes)

    # Bookkeeping

    def _post(
        self, message: Reading | Order, kind: ReceiptKind, number: int, time: int, writes: Writes
    ) -> None:
        digest = message_digest(self._place.domain, message)
        signed = message.model_copy(update={"sig": self._signer.sign_digest(digest)})
        row = OutboxRow(self.meter, int(kind), number, time, digest, signed.model_dump_json().encode())
        writes.sent.append(row)
        self._keep(row)

    def _keep(self, row: OutboxRow) -> None:
        leaf = "order" if row.kind == ReceiptKind.ORDER else "reading"
        message = Message(f"{self.topic}/{leaf}", row.payload)
        self._waiting[row.kind, row.number] = _Waiting(row, message, 0.0, self._patience.resend_s)

    def _drop(self, row: OutboxRow, writes: Writes) -> None:
        del self._waiting[row.kind, row.number]
        writes.covered.append((row.meter, row.kind, row.number))

    def _set_plan(self, start: int, made: _PlanMade, writes: Writes) -> None:
        self._plans[start] = made
        writes.plans[self.meter, start] = PlanRow(self.meter, start, _plan_to_json(made))

    def _question(self) -> Message:
        """Asks for all that the market said since the oldest thing that is still open."""
        since = min([self._state.time, *(waiting.row.time for waiting in self._waiting.values())])
        sync = Sync(meter=self.meter, since=since - self._place.interval_s)
        return Message(f"{self.topic}/sync", sync.model_dump_json().encode())

    def _presence(self, *, online: bool) -> Message:
        status = Status(meter=self.meter, online=online, since=self._state.time, software=SOFTWARE)
        return Message(f"{self.topic}/status", status.model_dump_json().encode(), retain=True)

    def _ignore(self, reason: str) -> None:
        self.ignored += 1
        _log.debug("%s ignored %s", self.household.name, reason)


def _plan_to_json(made: _PlanMade) -> str:
    return json.dumps(
        {
            "steps": [
                [step.device, int(step.side), step.energy_wh, step.limit_price] for step in made.plan.steps
            ],
            "firm_import_wh": made.plan.firm_import_wh,
            "awarded_wh": made.plan.awarded_wh,
            "refused": made.refused,
        }
    )


def _plan_from_json(text: str) -> _PlanMade:
    stored = json.loads(text)
    steps = tuple(
        OfferedStep(device, Side(side), energy_wh, limit_price)
        for device, side, energy_wh, limit_price in stored["steps"]
    )
    awarded = stored["awarded_wh"]
    plan = Plan(steps, stored["firm_import_wh"], None if awarded is None else tuple(awarded))
    return _PlanMade(plan, stored["refused"])
