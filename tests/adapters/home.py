"""A home: a broker, devices that publish what was recorded, and a source that hears them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from paho.mqtt import publish
from paho.mqtt.enums import MQTTProtocolVersion

from meters.adapters.listening import MqttSource
from meters.adapters.source import MqttSourceSettings
from meters.broker import Broker
from meters.mqtt import Inbox, Message, Session
from meters.source import Surroundings
from tests.adapters.cases import Recorded

Answer = Callable[[str, bytes], Iterable[Message]]


@dataclass
class Clock:
    """A clock that stands still until it is moved."""

    time_s: float

    def __call__(self) -> float:
        return self.time_s


async def opened(
    broker: Broker,
    stack: contextlib.AsyncExitStack,
    now: Callable[[], float],
    device: dict,
    **settings: object,
) -> MqttSource:
    """A source as a configuration opens it, connected."""
    content = {"kind": "mqtt", "host": broker.host, "port": broker.port, "device": device, **settings}
    around = Surroundings(now, 900, Path(), stack)
    source = await MqttSourceSettings.model_validate(content).open(around)
    await asyncio.wait_for(source._sessions[0].connected.wait(), 10)
    return source


async def say(broker: Broker, messages: Sequence[Recorded]) -> None:
    """Publish by another library than the source's session, in the devices' MQTT 3.1.1 where it is spoken."""
    protocol = MQTTProtocolVersion.MQTTv5 if broker.program == "iotcore" else MQTTProtocolVersion.MQTTv311
    batch = [(message.topic, message.payload, 1, message.retained) for message in messages]
    if batch:
        await asyncio.to_thread(
            publish.multiple, batch, hostname=broker.host, port=broker.port, protocol=protocol
        )


async def until(done: Callable[[], bool], timeout_s: float = 10.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not done():
            await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def answering(broker: Broker, topics: Sequence[str], answer: Answer) -> AsyncIterator[None]:
    """A device that answers what it is asked."""
    inbox = Inbox()

    async def serve(session: Session) -> None:
        while True:
            batch = await inbox.batch()
            for incoming in batch:
                for message in answer(incoming.topic, incoming.payload):
                    session.send(message)
            Inbox.done(batch)

    async with Session(broker.host, broker.port, "device", inbox, subscriptions=topics) as session:
        task = asyncio.create_task(serve(session))
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait({task})
