"""What market and meters rely on in an MQTT session, held against real brokers.

These are also the contract tests of the private parts of aiomqtt and paho that meters/mqtt.py calls: an
update that changes them fails here.
"""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from grid.errors import BrokerError
from meters.broker import HOST, Broker, free_port, mosquitto_path
from meters.mqtt import Inbox, Incoming, Message, Session


async def collect(inbox: Inbox, count: int, *, done: bool = True) -> list[Incoming]:
    found: list[Incoming] = []
    async with asyncio.timeout(15):
        while len(found) < count:
            batch = await inbox.batch()
            found += batch
            if done:
                Inbox.done(batch)
    return found


async def cut(session: Session) -> None:
    """Break the connection as a network does: no farewell."""
    await session.connected.wait()
    assert session._paho is not None
    session._paho.socket().shutdown(2)


async def test_messages_come_complete_and_in_order(broker: Broker) -> None:
    inbox = Inbox()
    async with (
        Session(broker.host, broker.port, "reader", inbox, subscriptions=["a/+"]),
        Session(broker.host, broker.port, "writer", Inbox()) as writer,
    ):
        sent = [b"%d" % number for number in range(3000)]
        await writer.publish(*(Message("a/b", payload) for payload in sent))
        found = await collect(inbox, len(sent))
    assert [incoming.payload for incoming in found] == sent


async def test_a_batch_has_at_most_its_size(broker: Broker) -> None:
    inbox = Inbox()
    async with Session(broker.host, broker.port, "both", inbox, subscriptions=["a"]) as session:
        await session.publish(*(Message("a", b"x") for _ in range(30)))
        sizes = []
        while sum(sizes) < 30:
            batch = await inbox.batch(messages_max=7)
            sizes.append(len(batch))
            Inbox.done(batch)
    assert max(sizes) <= 7


async def test_without_messages_a_batch_ends_with_its_timeout() -> None:
    assert await Inbox().batch(timeout_s=0.01) == []


async def test_what_was_not_done_comes_again_and_what_was_done_does_not(broker: Broker) -> None:
    inbox = Inbox()
    keep = {"clean_start": False, "expiry_s": 3600}
    async with Session(broker.host, broker.port, "writer", Inbox()) as writer:
        async with Session(broker.host, broker.port, "reader", inbox, subscriptions=["a"], **keep) as reader:
            await writer.publish(*(Message("a", b"%d" % number) for number in range(4)))
            found = await collect(inbox, 4, done=False)
            Inbox.done(found[:2])
            await reader.publish(Message("elsewhere", b""))  # the acknowledgements are through
        await writer.publish(Message("a", b"4"))
        again = Inbox()
        async with Session(broker.host, broker.port, "reader", again, subscriptions=["a"], **keep):
            found = await collect(again, 3)
    assert [incoming.payload for incoming in found] == [b"2", b"3", b"4"]


async def test_an_acknowledgement_never_meets_another_connections_message(broker: Broker) -> None:
    inbox = Inbox()
    keep = {"clean_start": False, "expiry_s": 3600}
    async with (
        Session(broker.host, broker.port, "writer", Inbox()) as writer,
        Session(broker.host, broker.port, "reader", inbox, subscriptions=["a"], **keep) as reader,
    ):
        await writer.publish(Message("a", b"before"))
        old = await collect(inbox, 1, done=False)
        await cut(reader)
        new = await collect(inbox, 1, done=False)
        assert [incoming.payload for incoming in new] == [b"before"]
        Inbox.done(old)  # belongs to the ended connection: must not acknowledge the new one's
        await cut(reader)
        assert [incoming.payload for incoming in await collect(inbox, 1)] == [b"before"]


async def test_what_comes_before_the_subscription_is_confirmed_is_acknowledged_too(broker: Broker) -> None:
    keep = {"clean_start": False, "expiry_s": 3600}
    async with Session(broker.host, broker.port, "writer", Inbox()) as writer:
        async with Session(broker.host, broker.port, "reader", Inbox(), subscriptions=["a"], **keep):
            pass
        await writer.publish(*(Message("a", b"%d" % number) for number in range(50)))
        inbox = Inbox()
        inbox.put = lambda incoming: Inbox.done([incoming])  # at once, wherever the session stands
        async with Session(broker.host, broker.port, "reader", inbox, subscriptions=["a"], **keep) as reader:
            await reader.publish(Message("elsewhere", b""))
        later = Inbox()
        async with Session(broker.host, broker.port, "reader", later, subscriptions=["a"], **keep):
            assert await later.batch(timeout_s=0.3) == []


@pytest.mark.needs("mosquitto")
@pytest.mark.parametrize("program", ["mosquitto"])  # iotcore has a limit of its own for all clients
async def test_the_broker_holds_back_what_a_session_has_not_processed(broker: Broker) -> None:
    inbox = Inbox()
    async with (
        Session(broker.host, broker.port, "reader", inbox, subscriptions=["a"], receive_max=10),
        Session(broker.host, broker.port, "writer", Inbox()) as writer,
    ):
        await writer.publish(*(Message("a", b"x") for _ in range(100)))
        await asyncio.sleep(0.3)
        assert len(inbox) <= 10
        assert len(await collect(inbox, 100)) == 100


async def test_a_lost_connection_comes_back_with_its_subscriptions(broker: Broker) -> None:
    inbox, connects = Inbox(), []
    async with (
        Session(
            broker.host, broker.port, "reader", inbox, subscriptions=["a"], on_connect=connects.append
        ) as reader,
        Session(broker.host, broker.port, "writer", Inbox()) as writer,
    ):
        await cut(reader)
        while len(connects) < 2:
            await asyncio.sleep(0.02)
        await writer.publish(Message("a", b"x"))
        assert (await collect(inbox, 1))[0].payload == b"x"


async def test_a_session_outlives_its_broker(program: str) -> None:
    port, inbox = free_port(), Inbox()
    async with Broker(program, port=port):
        session = Session(HOST, port, "both", inbox, subscriptions=["a"])
        await session.__aenter__()
    try:
        while session.connected.is_set():
            await asyncio.sleep(0.02)
        assert not session.send(Message("a", b"into the void"))
        async with Broker(program, port=port):
            await session.publish(Message("a", b"x"))
            assert [incoming.payload for incoming in await collect(inbox, 1)] == [b"x"]
    finally:
        await session.__aexit__(None, None, None)


async def test_publishing_without_a_broker_fails_within_the_timeout(program: str) -> None:
    async with Broker(program) as broker:
        session = Session(broker.host, broker.port, "writer", Inbox(), timeout_s=2)
        await session.__aenter__()
    try:
        with pytest.raises(BrokerError, match=r"broke|no acknowledgement"):
            await session.publish(Message("a", b"x"))
    finally:
        await session.__aexit__(None, None, None)


async def test_no_broker_at_all_is_an_error_that_names_the_address() -> None:
    port = free_port()
    with pytest.raises(BrokerError, match=f"writer has no connection .* {HOST}:{port} after 1 s"):
        async with Session(HOST, port, "writer", Inbox(), timeout_s=1):
            pass


async def test_the_last_will_is_told_when_the_connection_breaks(broker: Broker) -> None:
    inbox = Inbox()
    will = Message("status/lost", b"gone", retain=True)
    async with (
        Session(broker.host, broker.port, "reader", inbox, subscriptions=["status/+"]),
        Session(broker.host, broker.port, "mortal", Inbox(), will=will) as mortal,
    ):
        await cut(mortal)
        assert [incoming.payload for incoming in await collect(inbox, 1)] == [b"gone"]


async def test_a_retained_message_meets_who_comes_later(broker: Broker) -> None:
    inbox = Inbox()
    async with Session(broker.host, broker.port, "writer", Inbox()) as writer:
        await writer.publish(Message("gate", b"open", retain=True))
        async with Session(broker.host, broker.port, "reader", inbox, subscriptions=["gate"]):
            (incoming,) = await collect(inbox, 1)
    assert incoming.retained


ACL = "topic read open/#\ntopic write open/#\n"


@pytest_asyncio.fixture
async def strict_mosquitto(tmp_path: Path) -> AsyncIterator[int]:
    """A mosquitto that refuses what is outside open/, and announces a small receive maximum."""
    port = free_port()
    (tmp_path / "acl").write_text(ACL)
    (tmp_path / "acl").chmod(0o600)
    (tmp_path / "conf").write_text(
        f"listener {port} 127.0.0.1\nallow_anonymous true\nuser root\n"
        f"acl_file {tmp_path / 'acl'}\nmax_inflight_messages 5\n"
    )
    path = mosquitto_path()
    assert path is not None
    process = subprocess.Popen([path, "-c", tmp_path / "conf"], stderr=subprocess.DEVNULL)
    async with Session(HOST, port, "probe", Inbox()):
        pass
    yield port
    process.terminate()
    process.wait(5)


@pytest.mark.needs("mosquitto")
async def test_a_refused_message_is_an_error_and_not_a_success(strict_mosquitto: int) -> None:
    async with Session(HOST, strict_mosquitto, "writer", Inbox()) as writer:
        await writer.publish(Message("open/a", b"x"))
        with pytest.raises(BrokerError, match="refused a message: Not authorized"):
            await writer.publish(Message("shut/a", b"x"))
        assert writer.refused == 1


@pytest.mark.needs("mosquitto")
async def test_a_session_keeps_to_the_brokers_receive_maximum(strict_mosquitto: int) -> None:
    async with Session(HOST, strict_mosquitto, "writer", Inbox()) as writer:
        assert writer._paho is not None
        assert writer._paho._max_inflight_messages == 5
        await writer.publish(*(Message("open/a", b"x") for _ in range(200)))
        assert writer.connections == 1
