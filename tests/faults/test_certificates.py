"""Who may say what to a broker that ``peergrid broker config`` configured: real mosquitto, certificates."""

from __future__ import annotations

import asyncio
import datetime as dt
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio
from click.testing import CliRunner
from eth_hash.auto import keccak
from sqlalchemy import text

from grid.errors import BrokerError
from market.cli.main import cli
from market.messages.models import Award, Gate, Receipt, ReceiptResult, Status
from market.messages.signing import UNSIGNED, is_signed_by
from market.service.clock import Clock, SimulatedClock, WallClock
from market.service.gateway import Gateway
from market.service.ports import Standing
from market.service.store import Store, inputs, outbox
from meters.broker import HOST, free_port, mosquitto_path
from meters.certificates import Authority, Period
from meters.enrol import Enrolment, enrol, meter_tls
from meters.identity import write_key
from meters.mqtt import Inbox, Message, Session, Tls
from meters.secure_broker import AUTHORITY, market_tls
from tests.cli.conftest import start_process
from tests.faults.promise import promise
from tests.service.scene import (
    DOMAIN,
    FEEDER_ID,
    MARKET,
    MEMBERS,
    METERS,
    SECONDS,
    START,
    TARIFF,
    gateway_on,
    order_of,
    reading_of,
    settings,
)

pytestmark = pytest.mark.needs("mosquitto")
NOW = dt.datetime.now(dt.UTC)
PATIENCE_S = 60.0
REFUSED_S = 4.0  # as long as a client tries that has no way in
ME, OTHER = METERS[0].address, METERS[1].address


@dataclass
class Place:
    """A running broker, its folder, and the folders of two enrolled meters."""

    folder: Path
    port: int
    broker: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        path = mosquitto_path()
        assert path is not None
        with (self.folder / "mosquitto.log").open("ab") as log:
            self.broker = subprocess.Popen([path, "-c", self.folder / "mosquitto.conf"], stderr=log)

    def stop(self) -> None:
        assert self.broker is not None
        self.broker.terminate()
        self.broker.wait(timeout=PATIENCE_S)

    def speaker(self) -> Session:
        """Who may say everything: the market."""
        return Session(HOST, self.port, "", Inbox(), tls=market_tls(self.folder), timeout_s=PATIENCE_S)

    def tls(self, index: int) -> Tls:
        return meter_tls(self.folder / f"meter{index}")

    def session(self, index: int, inbox: Inbox, *topics: str, client_id: str | None = None) -> Session:
        name = client_id or METERS[index].address
        tls = self.tls(index)
        return Session(HOST, self.port, name, inbox, subscriptions=topics, tls=tls, timeout_s=PATIENCE_S)


def enrolled(folder: Path, index: int) -> None:
    secret = keccak(b"test of the service" + f"meter:load:{index}".encode())
    folder.joinpath(f"meter{index}").mkdir()
    write_key(folder / f"meter{index}" / "meter.key", secret)
    what = Enrolment(DOMAIN, MEMBERS[index].owner, f"load:{index}", 0, 43_500)
    enrol(folder / f"meter{index}", folder / AUTHORITY, what, Period(NOW, 1))


@pytest_asyncio.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    port = free_port()
    done = CliRunner().invoke(
        cli, ["broker", "config", "--feeder", FEEDER_ID, "--out", str(tmp_path), "--port", str(port)]
    )
    assert done.exit_code == 0, done.output
    for index in (0, 1):
        enrolled(tmp_path, index)
    place = Place(tmp_path, port)
    place.start()
    try:
        async with place.speaker():
            pass
        yield place
    finally:
        place.stop()


@asynccontextmanager
async def market(place: Place, clock: Clock | None = None) -> AsyncIterator[Gateway]:
    of = settings(4)
    with Store(place.folder / "market.sqlite", of.identity()) as store:
        with store.transaction() as tx:
            inputs.register(tx, of, MEMBERS)
        clock = clock or SimulatedClock(START - SECONDS)
        async with gateway_on(place.port, of, store, clock, market_tls(place.folder)) as gateway:
            deposits = {member.owner: member.deposit_ueur for member in MEMBERS}
            gateway.cover.renew(Standing(deposits, {}), {}, {})
            gateway.intake.open_gate(START, START - 300)
            gateway.listen()
            yield gateway


def topic(meter: str, leaf: str) -> str:
    return f"peergrid/v1/{FEEDER_ID}/{meter}/{leaf}"


@pytest.fixture(autouse=True)
def promised(request: pytest.FixtureRequest) -> None:
    words = request.node.name.removeprefix("test_").replace("_", " ")
    promise(words)


async def test_an_enrolled_meter_trades(place: Place) -> None:
    inbox, order = Inbox(), order_of(0, START)
    async with market(place), place.session(0, inbox, topic(ME, "receipt")) as session:
        await session.publish(
            Message(topic(ME, "order"), order.model_dump_json().encode()),
            Message(topic(ME, "reading"), reading_of(0, START - SECONDS).model_dump_json().encode()),
        )
        receipts: list[Receipt] = []
        async with asyncio.timeout(PATIENCE_S):
            while len(receipts) < 2:
                batch = await inbox.batch()
                receipts += [Receipt.model_validate_json(incoming.payload) for incoming in batch]
                Inbox.done(batch)
    assert {receipt.result for receipt in receipts} == {ReceiptResult.ACCEPTED}
    assert all(is_signed_by(DOMAIN, receipt, MARKET.address) for receipt in receipts)


@pytest.mark.parametrize("leaf", ["order", "reading", "status", "sync"])
async def test_a_meter_cannot_speak_for_another(place: Place, leaf: str) -> None:
    async with place.session(0, Inbox()) as session:
        await session.publish(Message(topic(ME, leaf), b"{}"))
        with pytest.raises(BrokerError, match="Not authorized"):
            await session.publish(Message(topic(OTHER, leaf), b"{}"))


async def test_forged_receipts_awards_and_announcements_are_refused(place: Place) -> None:
    award = Award(
        meter=OTHER,
        interval_start=START,
        status="CLEARED",
        price=0,
        firm_price=0,
        setpoint_w=0,
        amount_neur=0,
        sig=UNSIGNED,
    )
    forged = METERS[0].sign(DOMAIN, award).model_dump_json().encode()
    inbox = Inbox()
    async with (
        place.session(1, inbox, topic(OTHER, "receipt"), topic(OTHER, "award")),
        place.session(0, Inbox()) as session,
        place.speaker() as speaker,
    ):
        for victim in (
            topic(OTHER, "award"),
            topic(OTHER, "receipt"),
            topic(ME, "receipt"),
            topic(ME, "award"),
        ):
            with pytest.raises(BrokerError, match="Not authorized"):
                await session.publish(Message(victim, forged))
        for leaf in ("gate", "clearing"):
            with pytest.raises(BrokerError, match="Not authorized"):
                await session.publish(Message(f"peergrid/v1/{FEEDER_ID}/{leaf}", b"{}", retain=True))
        # What comes after them is the first that the victim hears.
        await speaker.publish(Message(topic(OTHER, "receipt"), b"true"))
        assert [incoming.payload for incoming in await inbox.batch()] == [b"true"]


async def test_a_meter_hears_its_own_receipts_and_the_public_topics_and_nothing_else(place: Place) -> None:
    inbox = Inbox()
    everything = ("peergrid/v1/#", "#")
    says = [topic(OTHER, "receipt"), topic(OTHER, "award"), topic(ME, "receipt"), topic(ME, "award")]
    says += [f"peergrid/v1/{FEEDER_ID}/gate", f"peergrid/v1/{FEEDER_ID}/clearing"]
    async with (
        place.session(0, inbox, *everything),
        place.session(1, Inbox()) as other,
        place.speaker() as speaker,
    ):
        await other.publish(Message(topic(OTHER, "order"), b"{}"))
        await speaker.publish(*(Message(say, b"{}") for say in says))
        heard: list[str] = []
        while says[-1] not in heard:
            batch = await inbox.batch()
            heard += [incoming.topic for incoming in batch]
            Inbox.done(batch)
    assert set(heard) == set(says[2:])


async def test_nobody_takes_anothers_session_by_its_name(place: Place) -> None:
    async with (
        place.session(1, Inbox()) as victim,
        place.session(0, Inbox(), client_id=OTHER) as thief,
    ):
        await thief.publish(Message(topic(ME, "sync"), b"{}"))
        await victim.publish(Message(topic(OTHER, "sync"), b"{}"))
        assert (victim.connections, thief.connections) == (1, 1)


async def test_no_certificate_an_expired_one_and_another_authoritys_are_refused(
    place: Place, tmp_path: Path
) -> None:
    folder = tmp_path / "strangers"
    ours = Authority(tmp_path / AUTHORITY)
    ours.issue_client(folder, "expired", ME, Period(NOW - dt.timedelta(days=30), 29))
    Authority.create(folder / "theirs", "elsewhere", NOW).issue_client(folder, "foreign", ME, Period(NOW, 1))
    for name in ("expired", "foreign"):
        tls = Tls(tmp_path / AUTHORITY / "ca.crt", folder / f"{name}.crt", folder / f"{name}.key")
        with pytest.raises(BrokerError, match="no connection"):
            async with Session(HOST, place.port, ME, Inbox(), tls=tls, timeout_s=REFUSED_S):
                pass
    with pytest.raises(BrokerError, match="no connection"):
        async with Session(HOST, place.port, ME, Inbox(), timeout_s=REFUSED_S):
            pass
    with pytest.raises(ssl.SSLError, match=r"(?i)certificate.required"):
        await asyncio.to_thread(_listen_without_certificate, place.port, place.tls(0).ca)


def _listen_without_certificate(port: int, authority: Path) -> None:
    """Waits for the broker's word: in TLS 1.3 it refuses a client only after the handshake."""
    context = ssl.create_default_context(cafile=str(authority))
    with (
        socket.create_connection((HOST, port), timeout=PATIENCE_S) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as secure,
    ):
        secure.recv(1)


# paho leaves the socket of a failed handshake to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_a_meter_does_not_talk_to_a_broker_of_another_authority(place: Place, tmp_path: Path) -> None:
    Authority.create(tmp_path / "theirs", "elsewhere", NOW)
    mine = place.tls(0)
    with pytest.raises(BrokerError, match="certificate verify failed"):
        async with Session(
            HOST,
            place.port,
            ME,
            Inbox(),
            tls=Tls(tmp_path / "theirs" / "ca.crt", mine.certificate, mine.key),
            timeout_s=REFUSED_S,
        ):
            pass


async def test_a_revoked_certificate_is_refused_and_no_other(place: Place, tmp_path: Path) -> None:
    authority = tmp_path / AUTHORITY
    runner = CliRunner()
    done = runner.invoke(cli, ["meter", "revoke", ME, "--authority", str(authority)])
    assert done.exit_code == 0, done.output
    assert "1 certificates revoked" in done.output
    again = runner.invoke(cli, ["meter", "revoke", ME.upper(), "--authority", str(authority)])
    assert "was revoked before" in again.output
    unknown = runner.invoke(cli, ["meter", "revoke", MARKET.address, "--authority", str(authority)])
    assert "never got a certificate here" in str(unknown.exception)

    assert place.broker is not None
    place.broker.send_signal(signal.SIGHUP)
    with pytest.raises(BrokerError, match="certificate is not accepted"):
        while True:  # until the broker has read its list again
            async with Session(HOST, place.port, ME, Inbox(), tls=place.tls(0), timeout_s=REFUSED_S):
                pass
    assert "certificate verify failed" in (tmp_path / "mosquitto.log").read_text()
    async with place.session(1, Inbox()) as other:
        await other.publish(Message(topic(OTHER, "sync"), b"{}"))


CONFIG = """
[market]
feeder = "{feeder}"
address = "{market}"
chain_id = {chain_id}
registry = "{registry}"
[broker]
port = {port}
[[meters]]
folder = "meter*"
[meters.source]
kind = "household"
feeder_name = "simbench:1-LV-rural1--2-sw"
load = "load:1"
"""


def end_once_said(process: subprocess.Popen[str], *awaited: str) -> None:
    """SIGTERM when it has said what is awaited."""
    assert process.stderr is not None
    said = ""
    while not all(words in said for words in awaited):
        line = process.stderr.readline()
        assert line, said
        said += line
    process.send_signal(signal.SIGTERM)
    _, rest = process.communicate()
    assert process.returncode == 0, said + rest


async def test_meter_run_with_what_enroll_made_and_sigterm_ends_it_in_order(place: Place) -> None:
    """The command as a user gives it, twice, in real time: the second time it goes on where it was."""
    path = place.folder / "meters.toml"
    path.write_text(
        CONFIG.format(
            feeder=FEEDER_ID,
            market=MARKET.address,
            chain_id=DOMAIN.chain_id,
            registry=DOMAIN.verifying_contract,
            port=place.port,
        )
    )
    ids = {ME: 0, OTHER: 1}
    async with market(place, WallClock()) as gateway:
        start = (int(time.time()) // SECONDS + 2) * SECONDS  # no boundary that passes meanwhile closes it
        gate = Gate(
            feeder=FEEDER_ID,
            interval_start=start,
            minutes=15,
            opens_at=start - SECONDS,
            closes_at=start,
            tariff=TARIFF,
            state="OPEN",
        )
        gateway.intake.open_gate(start, start)
        with gateway._store.transaction() as tx:
            outbox.put(tx, f"peergrid/v1/{FEEDER_ID}/gate", gate.model_dump_json(), retain=True)
        await gateway.publish_outbox()
        for life in (0, 1):
            process = start_process("meter", "run", path)
            async with asyncio.timeout(2 * PATIENCE_S):
                while gateway.intake.silent(start) & set(ids) or gateway.tally.receipts < 2 * len(ids) * (
                    life + 1
                ):
                    await gateway.news(0.2)
            awaited = ["2 of 2 connected", *([] if life else [f"meter {meter} reads" for meter in ids])]
            await asyncio.to_thread(end_once_said, process, *awaited)
        with gateway._store.reading() as connection:
            readings = connection.execute(text("SELECT meter, seq, taken_at FROM reading")).fetchall()
            orders = inputs.live_orders(connection, start)
    inbox = Inbox()
    async with Session(
        HOST, place.port, "", inbox, subscriptions=[topic("+", "status")], tls=market_tls(place.folder)
    ):
        statuses = {}
        while len(statuses) < len(ids):
            for incoming in await inbox.batch():
                statuses[incoming.topic] = Status.model_validate_json(incoming.payload)
    assert {status.online for status in statuses.values()} == {False}
    assert set(orders) == set(ids)
    for meter in ids:
        own = sorted((seq, taken_at) for who, seq, taken_at in readings if who == meter)
        assert [seq for seq, _ in own] == list(range(len(own)))
        # Read once at its first start; after that at the boundaries that passed, if one did.
        assert [at for _, at in own] == [own[0][1] + k * SECONDS for k in range(len(own))]
