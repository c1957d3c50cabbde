"""The market's side of MQTT: what comes in is stored, then acknowledged and answered; what goes out comes
from the outbox.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence
from types import TracebackType

from grid.errors import BrokerError
from market.messages.models import Receipt, ReceiptKind, ReceiptResult, Status, Sync
from market.messages.signing import UNSIGNED, Domain, Signer
from market.service.answer import Answer
from market.service.budget import Allowance, Budget
from market.service.clock import Clock
from market.service.cover import Cover
from market.service.intake import Intake
from market.service.parse import Heard, Refusal, hear, hear_status, sender_of, topic_of
from market.service.ports import Tally
from market.service.receipts import PAUSE_S, Pacing
from market.service.roster import Roster
from market.service.settings import MarketSettings, Member
from market.service.store import Store, inputs, intervals, outbox
from meters.mqtt import Inbox, Incoming, Message, Session, Tls

_SESSION_EXPIRY_S = 3600
_RETRY_S = 0.5
_PUBLISH_ATTEMPTS_MAX = 60
_ALLOWANCE = Allowance()


class Gateway:
    """One market's connection to a broker: ``async with Gateway(...) as gateway``, or :meth:`start` for
    whoever can do without a broker for now.

    Raises :class:`BrokerError` when it is entered and there is no broker, and :class:`StoreError` out of
    :meth:`news` when what came in could not be stored (then it was not acknowledged either). ``allowance`` is
    what each meter may send.
    """

    def __init__(
        self,
        *,
        settings: MarketSettings,
        members: Sequence[Member],
        signer: Signer,
        domain: Domain,
        store: Store,
        clock: Clock,
        host: str,
        port: int,
        allowance: Allowance = _ALLOWANCE,
        tls: Tls | None = None,
    ) -> None:
        self.tally = Tally()
        self.members = Roster(members)
        with store.reading() as connection:
            self.members.load(connection)
        self.cover = Cover(settings, self.members)
        self.intake = Intake(settings, self.members, store, clock, self.cover)
        self._settings = settings
        self._signer = signer
        self._domain = domain
        self._store = store
        self._clock = clock
        self._budget = Budget(self.members, allowance)
        self._pacing = Pacing()
        self._inbox = Inbox()
        self._news = asyncio.Event()
        self._reader: asyncio.Task[None] | None = None
        self._retained: dict[str, Message] = {}
        feeder = settings.feeder
        self._session = Session(
            host,
            port,
            f"market-{feeder}",
            self._inbox,
            subscriptions=[
                topic_of(feeder, "+", subject) for subject in ("order", "reading", "sync", "status")
            ],
            clean_start=False,
            expiry_s=_SESSION_EXPIRY_S,
            on_connect=self._remind,
            tls=tls,
        )

    async def __aenter__(self) -> Gateway:
        await self._session.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._reader is not None:
            self._reader.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await self._reader
        for answer in self._pacing.rest():
            self._send(answer)
        await self._session.__aexit__(kind, error, trace)

    def start(self) -> None:
        """Begins to connect, and does not wait for it."""
        self._session.start()

    def listen(self) -> None:
        """Takes in what comes from now on, the gates standing as they did; until then the broker keeps it."""
        self._reader = asyncio.create_task(self._read(), name="gateway")

    @property
    def trouble(self) -> str:
        """Why there is no connection now; empty where there is one."""
        return "" if self._session.connected.is_set() else f"there is no connection: {self._session.problem}"

    async def news(self, timeout_s: float) -> None:
        """Waits until another batch has been taken in, ``timeout_s`` at most."""
        assert self._reader is not None
        waiting = asyncio.create_task(self._news.wait())
        try:
            await asyncio.wait(
                {waiting, self._reader}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            waiting.cancel()
        self._news.clear()
        if self._reader.done():
            self._reader.result()

    async def publish_outbox(self) -> None:
        """Publishes what the outbox holds, in order; a broker that is away is waited for."""
        while True:
            with self._store.reading() as connection:
                rows = outbox.waiting(connection)
            if not rows:
                return
            await self._publish([Message(topic, text.encode(), retain) for _, topic, text, retain in rows])
            with self._store.transaction() as tx:
                outbox.done(tx, rows[-1][0])

    async def _publish(self, messages: Sequence[Message]) -> None:
        for attempt in range(1, _PUBLISH_ATTEMPTS_MAX + 1):
            try:
                await self._session.publish(*messages)
            except BrokerError:
                if attempt == _PUBLISH_ATTEMPTS_MAX:
                    raise
                await asyncio.sleep(_RETRY_S)
            else:
                self._retained |= {message.topic: message for message in messages if message.retain}
                return

    def _remind(self, session: Session) -> None:
        """A broker that was restarted has forgotten the gate; whoever subscribes now must hear it."""
        for message in self._retained.values():
            session.send(message)

    async def _read(self) -> None:
        while True:
            batch = await self._inbox.batch(timeout_s=PAUSE_S if self._pacing.owes else None)
            if batch:
                answers, syncs = self._take(batch)
                self._inbox.done(batch)
            else:
                answers, syncs = [], []
            for answer in self._pacing.due(answers, time.monotonic()):
                self._send(answer)
            for sync in syncs:
                self._answer_sync(sync)
            self._news.set()
            await asyncio.sleep(0)

    def _take(self, batch: Sequence[Incoming]) -> tuple[list[Answer], list[Sync]]:
        """Stores a batch; what to answer, and who asks for what it missed (once each)."""
        refusals: list[Refusal] = []
        heard: list[Heard] = []
        syncs: dict[str, Sync] = {}
        statuses: dict[str, Status] = {}
        floods: dict[str, int] = {}
        now_s = time.monotonic()
        for incoming in batch:
            topic = incoming.topic
            owner = self._budget.owner(sender_of(topic))
            if not self._budget.spend(owner, now_s, is_sync=topic.endswith("/sync")):
                floods[owner] = floods.get(owner, 0) + 1
                continue
            if topic.endswith("/status"):
                status = hear_status(topic, incoming.payload, self._settings.feeder, self.members)
                if status is not None:
                    statuses[status.meter] = status
                continue
            said = hear(
                topic,
                incoming.payload,
                feeder=self._settings.feeder,
                members=self.members,
                domain=self._domain,
            )
            if isinstance(said, Refusal):
                refusals.append(said)
            elif said is not None and isinstance(said.message, Sync):
                earlier = syncs.setdefault(said.meter, said.message)
                if said.message.since < earlier.since:
                    syncs[said.meter] = said.message
            elif said is not None:
                heard.append(said)
        self.intake.note(list(statuses.values()), refusals)
        answers = self.intake.take(heard, floods) + [self.intake.refused(refusal) for refusal in refusals]
        self.tally.messages_in += len(batch)
        self.tally.messages_rejected += sum(a.result == ReceiptResult.REJECTED for a in answers)
        return answers, list(syncs.values())

    def _send(self, answer: Answer) -> None:
        """A receipt is not kept: who does not get it asks again."""
        receipt = Receipt(
            meter=answer.meter,
            kind=answer.kind,
            up_to=answer.up_to,
            result=answer.result,
            reason=answer.reason,
            field=answer.field,
            received_at=answer.received_at,
            digest="0x" + answer.digest.hex(),
            sig=UNSIGNED,
        )
        signed = self._signer.sign(self._domain, receipt)
        topic = topic_of(self._settings.feeder, answer.meter, "receipt")
        if self._session.send(Message(topic, signed.model_dump_json().encode())):
            self.tally.receipts += 1

    def _answer_sync(self, sync: Sync) -> None:
        """Sends again how far readings are stored, and the orders and awards of intervals after ``since``."""
        with self._store.reading() as connection:
            orders = inputs.orders_after(connection, sync.meter, sync.since)
            awards = intervals.awards_after(connection, sync.meter, sync.since)
        for answer in self.intake.readings.progress_answers(sync.meter, self._clock.now()):
            self._send(answer)
        for stored in orders:
            self._send(
                Answer(
                    sync.meter,
                    ReceiptKind.ORDER,
                    stored.order.version,
                    ReceiptResult.ACCEPTED,
                    stored.digest,
                    stored.received_at,
                )
            )
        topic = topic_of(self._settings.feeder, sync.meter, "award")
        for award in awards:
            self._session.send(Message(topic, award.encode()))
