"""MQTT sessions that neither lose nor invent messages.

The one module that knows aiomqtt, paho and their private parts, with :mod:`meters.paho_speed` (contract
tests hold them to it):

- a message is acknowledged to the broker only after its batch was processed (:meth:`Inbox.done`);
- a publish counts when the broker's acknowledgement carries no error (aiomqtt ignores its reason code);
- a lost connection comes back by itself, with backoff and jitter;
- what a session holds unprocessed is bounded by the broker (receive maximum), never by dropping
  acknowledged messages; only QoS 0 messages, which promise nothing, are dropped in a flood.

Any number of sessions can share one :class:`Inbox`, so that one loop serves a whole fleet.
"""

from __future__ import annotations

import asyncio
import logging
import random
import socket
import struct
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import aiomqtt
from paho.mqtt.client import Client as PahoClient
from paho.mqtt.enums import MessageType
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from grid.errors import BrokerError
from meters.paho_speed import (
    decode_publishes,
    look_for_waiting_only_where_some_wait,
    read_in_large_pieces,
)

QOS = 1
BATCH_MAX = 500
BATCH_WAIT_S = 0.02
_QUIET_S = 0.002
_BACKOFF_MIN_S = 0.2
_BACKOFF_MAX_S = 30.0
_END_AGAIN_S = 1.0
_INFLIGHT_MAX = 5_000
_UNCONFIRMED_MAX = 20_000
_QOS_0_MAX = 10_000
_PUBACK = struct.Struct("!BBH")

_log = logging.getLogger(__name__)
_paho_log = logging.getLogger("peergrid.paho")
_paho_log.setLevel(logging.CRITICAL)  # a lost connection is this module's to tell


@dataclass(frozen=True)
class Tls:
    """Files (PEM) for a broker that asks for certificates: whom to trust, and who one is."""

    ca: Path
    certificate: Path
    key: Path


@dataclass(frozen=True)
class Trust:
    """For a broker that speaks TLS and asks for no certificate: the authority (PEM) that is trusted, None for
    those that this machine trusts.
    """

    ca: Path | None


@dataclass(frozen=True, repr=False)
class Login:
    """User and password, for a broker that asks for them; neither is ever shown."""

    user: str
    password: str


@dataclass(frozen=True, slots=True)
class Message:
    """A message to publish."""

    topic: str
    payload: bytes
    retain: bool = False


@dataclass(frozen=True, slots=True)
class Incoming:
    """A message as it came; it is acknowledged by :meth:`Inbox.done`."""

    topic: str
    payload: bytes
    retained: bool
    session: Session
    connection: int
    mid: int
    qos: int


class Inbox:
    """Where one or many sessions put what comes in, read in batches by one reader."""

    def __init__(self) -> None:
        self._waiting: deque[Incoming] = deque()
        self._some = asyncio.Event()

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, incoming: Incoming) -> None:
        if incoming.qos == 0 and len(self._waiting) >= _QOS_0_MAX:
            return
        self._waiting.append(incoming)
        self._some.set()

    async def batch(
        self,
        messages_max: int = BATCH_MAX,
        wait_s: float = BATCH_WAIT_S,
        timeout_s: float | None = None,
    ) -> list[Incoming]:
        """The next messages in order of arrival.

        A batch ends at ``messages_max``, ``wait_s`` after its first message, or as soon as nothing
        more comes. After ``timeout_s`` without any message it is empty.
        """
        if not self._waiting:
            self._some.clear()
            try:
                async with asyncio.timeout(timeout_s):
                    await self._some.wait()
            except TimeoutError:
                return []
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait_s
        seen = 0
        while seen < len(self._waiting) < messages_max and loop.time() < deadline:
            seen = len(self._waiting)
            await asyncio.sleep(_QUIET_S)
        return [self._waiting.popleft() for _ in range(min(messages_max, len(self._waiting)))]

    @staticmethod
    def done(batch: Iterable[Incoming]) -> None:
        """Acknowledge processed messages; those of an ended connection will come again."""
        due: dict[Session, list[int]] = {}
        for incoming in batch:
            if incoming.qos and incoming.connection == incoming.session.connections:
                due.setdefault(incoming.session, []).append(incoming.mid)
        for session, mids in due.items():
            session._acknowledge(mids)


@dataclass(slots=True)
class _Confirmation:
    """Waits for the broker's acknowledgement of several messages."""

    open: int
    future: asyncio.Future[None] = field(repr=False)

    def confirm(self, error: BrokerError | None) -> None:
        self.open -= 1
        if self.future.done():
            return
        if error is not None:
            self.future.set_exception(error)
        elif self.open == 0:
            self.future.set_result(None)


class Session:
    """One client's connection, kept up: ``async with Session(...) as session``.

    ``subscriptions`` are topic filters, made anew on each connection before ``on_connect`` is called.
    With ``clean_start`` the broker forgets what it held for this client; without it the broker keeps
    subscriptions and unacknowledged messages for ``expiry_s`` seconds. ``will`` is published by the
    broker when the connection breaks; ``tls`` is for a broker that speaks it, ``login`` for one that wants a
    password. Entering raises :class:`BrokerError` when there is no first connection within
    ``timeout_s``, which also bounds every publish.
    """

    def __init__(
        self,
        host: str,
        port: int,
        client_id: str,
        inbox: Inbox,
        *,
        subscriptions: Sequence[str] = (),
        will: Message | None = None,
        clean_start: bool = True,
        expiry_s: int = 0,
        receive_max: int = 2 * BATCH_MAX,
        keepalive_s: int = 15,
        timeout_s: float = 10.0,
        on_connect: Callable[[Session], None] | None = None,
        tls: Tls | Trust | None = None,
        login: Login | None = None,
    ) -> None:
        self.client_id = client_id
        self.connected = asyncio.Event()
        self.connections = 0
        self.refused = 0
        self._host, self._port = host, port
        self._inbox = inbox
        self._subscriptions = tuple(subscriptions)
        self._will = will
        self._clean_start = clean_start
        self._expiry_s = expiry_s
        self._receive_max = receive_max
        self._keepalive_s = keepalive_s
        self._timeout_s = timeout_s
        self._on_connect = on_connect
        self._tls = tls
        self._login = login
        # TLS 1.3 refuses a client only after the handshake, and then nothing but silence comes.
        self._silence = "no answer" if tls is None else "no answer, as where a certificate is not accepted"
        self.problem = self._silence
        """Why there was no connection, the last time that there was none."""
        self._paho: PahoClient | None = None
        self._unconfirmed: dict[int, _Confirmation | None] = {}
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Session:
        self.start()
        assert self._task is not None
        first = asyncio.create_task(self.connected.wait())
        try:
            await asyncio.wait(
                {first, self._task}, timeout=self._timeout_s, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            first.cancel()
        if not self.connected.is_set():
            await self._end()
            raise BrokerError(
                f"{self.client_id} has no connection to the MQTT broker at {self._host}:{self._port} "
                f"after {self._timeout_s:.0f} s: {self.problem}"
            )
        return self

    def start(self) -> None:
        """Begin to connect, for whoever can do without a broker for now; ``async with`` waits for it."""
        self._task = asyncio.create_task(self._keep_connected(), name=f"mqtt {self.client_id}")

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._end()

    async def publish(self, *messages: Message) -> None:
        """Publish in this order; returns when the broker has acknowledged all of them.

        :class:`BrokerError` when it refuses one, when the connection breaks or after the timeout:
        then any of them may have arrived.
        """
        if not messages:
            return
        try:
            async with asyncio.timeout(self._timeout_s):
                await self.connected.wait()
                future = asyncio.get_running_loop().create_future()
                confirmation = _Confirmation(len(messages), future)
                for message in messages:
                    if not self._hand_over(message, confirmation):
                        raise BrokerError(f"{self.client_id}: the connection broke while publishing")
                await future
        except TimeoutError:
            raise BrokerError(
                f"{self.client_id}: no acknowledgement by the broker within {self._timeout_s:.0f} s"
            ) from None

    def send(self, message: Message) -> bool:
        """Publish without waiting for the broker; False when it cannot be handed over now."""
        return self._hand_over(message, None)

    def _hand_over(self, message: Message, confirmation: _Confirmation | None) -> bool:
        if self._paho is None or not self.connected.is_set() or len(self._unconfirmed) >= _UNCONFIRMED_MAX:
            return False
        info = self._paho.publish(message.topic, message.payload, QOS, message.retain)
        if info.rc != 0:  # broken, though its end has not come round the loop yet
            self.connected.clear()
            return False
        self._unconfirmed[info.mid] = confirmation
        return True

    async def _end(self) -> None:
        task, self._task = self._task, None
        while task is not None and not task.done():
            # Python 3.11's wait_for, inside aiomqtt, may swallow a cancellation: ask again.
            task.cancel()
            await asyncio.wait({task}, timeout=_END_AGAIN_S)
        if task is not None and not task.cancelled():
            task.result()  # it ended by itself: a defect, not to be hidden

    async def _keep_connected(self) -> None:
        backoff_s = _BACKOFF_MIN_S
        while True:
            try:
                client = self._new_client()
                async with client:
                    await self._subscribe(client)
                    self.connected.set()
                    backoff_s = _BACKOFF_MIN_S
                    if self._on_connect is not None:
                        self._on_connect(self)
                    broken = client._disconnected
                    await asyncio.wait({broken})  # waiting for it directly would cancel it with us
                    self.problem = str(broken.exception() or "the connection broke")
            except (aiomqtt.MqttError, OSError) as error:
                self.problem = self._silence if "timed out" in str(error) else str(error)
                _log.debug("%s: %s", self.client_id, error)
            finally:
                self._forget_connection()
            await asyncio.sleep(backoff_s * random.uniform(0.5, 1.5))  # noqa: S311
            backoff_s = min(2 * backoff_s, _BACKOFF_MAX_S)

    def _forget_connection(self) -> None:
        self.connected.clear()
        self._paho = None
        lost, self._unconfirmed = self._unconfirmed, {}
        for confirmation in lost.values():
            if confirmation is not None:
                confirmation.confirm(BrokerError(f"{self.client_id}: the connection to the broker broke"))

    def _new_client(self) -> aiomqtt.Client:
        """A client for one connection, its private parts set before anything can arrive."""
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.ReceiveMaximum = self._receive_max
        if self._expiry_s:
            properties.SessionExpiryInterval = self._expiry_s
        client = aiomqtt.Client(
            self._host,
            self._port,
            identifier=self.client_id,
            username=None if self._login is None else self._login.user,
            password=None if self._login is None else self._login.password,
            protocol=aiomqtt.ProtocolVersion.V5,
            clean_start=self._clean_start,
            properties=properties,
            keepalive=self._keepalive_s,
            timeout=self._timeout_s,
            logger=_paho_log,
            tls_params=None if self._tls is None else _tls_parameters(self._tls),
            socket_options=[(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)],
            will=None
            if self._will is None
            else aiomqtt.Will(self._will.topic, self._will.payload, QOS, self._will.retain),
        )
        self.connections += 1
        connection = self.connections
        # Known from here on: a kept session's messages come, and are acknowledged, before the SUBACK.
        self._paho = paho = client._client
        # A connection may break while it is being ended, when nobody waits for it any more.
        client._disconnected.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        paho.manual_ack_set(True)
        read_in_large_pieces(paho)
        look_for_waiting_only_where_some_wait(paho)
        announce = paho.on_connect

        def on_connect(*arguments: Any) -> None:
            """Keep to the number of unacknowledged messages that the broker takes."""
            limit = getattr(arguments[4], "ReceiveMaximum", _INFLIGHT_MAX)
            paho._max_inflight_messages = min(limit, _INFLIGHT_MAX)
            if announce is not None:
                announce(*arguments)

        def on_message(topic: str, payload: bytes, retained: bool, mid: int, qos: int) -> None:
            self._inbox.put(Incoming(topic, payload, retained, self, connection, mid, qos))

        def on_publish(
            _client: PahoClient, _data: Any, mid: int, reason: ReasonCode, _properties: Properties
        ) -> None:
            confirmation = self._unconfirmed.pop(mid, None)
            error = None
            if reason.is_failure:
                self.refused += 1
                error = BrokerError(f"{self.client_id}: the broker refused a message: {reason}")
                _log.warning("%s", error)
            if confirmation is not None:
                confirmation.confirm(error)

        decode_publishes(paho, on_message)
        paho.on_connect = on_connect
        paho.on_publish = on_publish
        return client

    async def _subscribe(self, client: aiomqtt.Client) -> None:
        if not self._subscriptions:
            return
        answers = await client.subscribe(
            [(topic, SubscribeOptions(qos=QOS)) for topic in self._subscriptions]
        )
        for topic, answer in zip(self._subscriptions, answers, strict=True):
            if isinstance(answer, ReasonCode) and answer.is_failure:
                raise aiomqtt.MqttError(f"the broker refused the subscription to {topic}: {answer}")

    def _acknowledge(self, mids: Sequence[int]) -> None:
        """All in one write: paho would make a system call for each."""
        if self._paho is not None:
            packets = b"".join([_PUBACK.pack(MessageType.PUBACK, 2, mid) for mid in mids])
            self._paho._packet_queue(MessageType.PUBACK, packets, mids[-1], QOS)


def _tls_parameters(tls: Tls | Trust) -> aiomqtt.TLSParameters:
    if isinstance(tls, Trust):
        return aiomqtt.TLSParameters(ca_certs=None if tls.ca is None else str(tls.ca))
    return aiomqtt.TLSParameters(str(tls.ca), str(tls.certificate), str(tls.key))
