"""Alarms reach operators by webhook and e-mail: once each, signed, again after a failure, without secrets."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import logging
import socket
import time
from collections.abc import Iterator
from email import message_from_bytes, policy
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from grid.errors import InputError
from market.cli.alerts_config import AlertsSection, channels_of
from market.service.alerts import Channel, Email, Webhook, deliver_all, document
from market.service.store import Store, alarms, notices
from market.service.store.inputs import register
from market.service.store.leases import take
from market.service.store.notices import Notice
from tests.service.scene import MEMBERS, settings

AT = 1_800_000_000
SECRET = "a-very-secret-word"


class Receiver:
    """A web server that answers with what it was told to."""

    def __init__(self) -> None:
        self.answers: list[int] = []
        self.got: list[tuple[dict[str, str], bytes]] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.got.append(({key.lower(): value for key, value in self.headers.items()}, body))
                self.send_response(receiver.answers.pop(0) if receiver.answers else 204)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/{SECRET}"

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    found = Receiver()
    yield found
    found.close()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "market.sqlite", {"feeder": "lane"}) as store:
        yield store


def raised(store: Store, *subjects: str, at: int = AT) -> None:
    with store.transaction() as tx:
        for subject in subjects:
            alarms.raise_alarm(tx, at, "solver", subject, "it gave no answer")


async def delivering(store: Store, channels: list[Channel], until: Any) -> None:
    """Delivers until ``until()``; a failed attempt is due again at once."""
    task = asyncio.create_task(deliver_all(store, "lane", channels))
    deadline = time.monotonic() + 120
    try:
        while not until():
            assert time.monotonic() < deadline and not task.done()
            await asyncio.sleep(0.02)
            with store.transaction() as tx:
                tx.exec_driver_sql("UPDATE delivery SET next_at = 0 WHERE sent_at IS NULL")
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def sent(store: Store, channel: str) -> int:
    with store.reading() as connection:
        query = "SELECT COUNT(*) FROM delivery WHERE channel = ? AND sent_at IS NOT NULL"
        count: int = connection.exec_driver_sql(query, (channel,)).scalar_one()
        return count


async def test_a_webhook_gets_each_alarm_once_signed_and_numbered(store: Store, receiver: Receiver) -> None:
    raised(store, "interval:1", "interval:2")
    channel = Webhook(receiver.url, b"key of both")
    await delivering(store, [channel], lambda: sent(store, "webhook") == 2)
    await delivering(store, [channel], lambda: sent(store, "webhook") == 2)  # a restart sends nothing again
    assert [json.loads(body)["subject"] for _, body in receiver.got] == ["interval:1", "interval:2"]
    headers, body = receiver.got[0]
    assert headers["idempotency-key"] == json.loads(body)["id"] == "lane-1"
    expected = hmac.new(b"key of both", body, hashlib.sha256).hexdigest()
    assert headers["x-peergrid-signature"] == f"sha256={expected}"
    assert "interval:1" in json.loads(body)["text"]


@pytest.mark.parametrize(
    ("subject", "words"),
    [
        ("interval:1795369200", "interval 2026-11-22T17:40Z"),
        (f"0x{0:040x} 1795369200", f"0x{0:040x} interval 2026-11-22T17:40Z"),
        ("batch 7", "batch 7"),
    ],
)
def test_people_read_times_of_intervals_and_programs_their_seconds(subject: str, words: str) -> None:
    told = document("lane", Notice(1, AT, "solver", subject, "it gave no answer"))
    assert told["subject"] == subject
    assert f" solver, {words} at " in str(told["text"])


async def test_an_e_mail_tells_people_where_a_meter_stands_and_when_it_was(
    store: Store, mailbox: tuple[Mailbox, int]
) -> None:
    box, port = mailbox
    known, unknown = MEMBERS[0], "0x" + "ee" * 20
    with store.transaction() as tx:
        register(tx, settings(1), MEMBERS)
        notices.tell(tx, AT, "dispute", f"{known.meter} 1795369200", "the display says 5 kWh")
        alarms.raise_alarm(tx, AT, "balance", known.owner, "7 µEUR are left")
        alarms.raise_alarm(tx, AT, "offline", unknown, "is offline")
    await delivering(store, [mail_to(port, SECRET)], lambda: sent(store, "email") == 3)
    letters = [message_from_bytes(one.content, policy=policy.default) for one in box.got]
    place = known.connection_point
    abouts = [f"{place} ({known.meter}) interval 2026-11-22T17:40Z", f"{place} ({known.owner})", unknown]
    kinds = ["dispute", "balance", "offline"]
    assert [one["Subject"] for one in letters[:2]] == [
        f"[Peergrid lane] dispute: {place} interval 2026-11-22T17:40Z",
        f"[Peergrid lane] balance: {place}",
    ]
    bodies = [one.get_content().replace("\r\n", "\n") for one in letters]
    for kind, about, body in zip(kinds, abouts, bodies, strict=True):
        assert " ".join(body.split()).startswith(f"{about}: ")
        assert f"\nAlarm   {kind}\nAt      2027-01-15T08:00:00Z\n" in body
        assert "1795369200" not in body and max(map(len, body.splitlines())) < 80
    assert "the display says 5 kWh" in " ".join(bodies[0].split())


async def test_what_fails_is_tried_again_in_order_and_says_why_without_the_address(
    store: Store, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.answers = [503, 500]
    raised(store, "interval:1", "interval:2")
    with caplog.at_level(logging.INFO, "peergrid"):
        await delivering(store, [Webhook(receiver.url)], lambda: sent(store, "webhook") == 2)
    subjects = [json.loads(body)["subject"] for _, body in receiver.got]
    assert subjects == ["interval:1", "interval:1", "interval:1", "interval:2"]
    assert len({headers["idempotency-key"] for headers, _ in receiver.got}) == 2
    errors = [vars(record)["event"]["error"] for record in caplog.records if record.levelname == "WARNING"]
    assert errors == ["answered 503", "answered 500"]
    assert SECRET not in "".join(str(vars(record)) for record in caplog.records)


async def test_a_receiver_that_is_away_holds_up_no_other(store: Store, receiver: Receiver) -> None:
    gone = Receiver()
    url = gone.url
    gone.close()
    raised(store, "interval:1")
    away = Webhook(url, name="away")
    await delivering(store, [away, Webhook(receiver.url)], lambda: sent(store, "webhook") == 1)
    with store.reading() as connection:
        error, sent_at = connection.exec_driver_sql(
            "SELECT error, sent_at FROM delivery WHERE channel = 'away'"
        ).one()
        assert error == "no answer (ConnectError)" and sent_at is None
        assert notices.undelivered(connection, ["away", "webhook"], int(time.time())) == 1


def test_waits_grow_and_what_is_old_is_given_up(store: Store) -> None:
    raised(store, "interval:1")
    now = int(time.time())
    waits = []
    for _ in range(14):
        with store.transaction() as tx:
            notices.tried(tx, 1, "webhook", now, "no answer")
            row = tx.exec_driver_sql("SELECT next_at FROM delivery").one()
        waits.append(row.next_at - now)
    assert waits[:4] == [5, 10, 20, 40] and waits[-1] == 3600
    with store.reading() as connection:
        assert notices.due(connection, "webhook", now) == []
        assert [one.id for one in notices.due(connection, "webhook", now + 3600)] == [1]
        assert notices.due(connection, "webhook", now + notices.EXPIRES_S + 1) == []


def test_the_same_alarm_is_told_once_an_hour(store: Store) -> None:
    for minutes in range(0, 121, 10):
        raised(store, "interval:1", at=AT + 60 * minutes)
    with store.reading() as connection:
        told = [one.at for one in notices.due(connection, "webhook", int(time.time()))]
    assert told == [AT, AT + 3600, AT + 7200]


async def test_a_market_that_was_taken_over_tells_nothing_more(store: Store, receiver: Receiver) -> None:
    raised(store, "interval:1")
    with store.transaction() as tx:
        fence = take(tx, "one", None)
    assert fence is not None
    store.hold(fence + 1)
    await deliver_all(store, "lane", [Webhook(receiver.url)])


class Mailbox:
    """A mail server on this machine; it wants a name and a password where it is told to."""

    def __init__(self, refusals: int = 0) -> None:
        self.got: list[Envelope] = []
        self.refusals = refusals

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802
        if self.refusals:
            self.refusals -= 1
            return "451 later"
        self.got.append(envelope)
        return "250 OK"


@pytest.fixture
def mailbox() -> Iterator[tuple[Mailbox, int]]:
    mailbox = Mailbox(refusals=1)

    def known(_server: Any, _session: Any, _envelope: Any, _kind: str, data: LoginPassword) -> AuthResult:
        right = (data.login, data.password) == (b"market", SECRET.encode())
        return AuthResult(success=right, handled=right)

    with socket.socket() as probe:  # the controller cannot choose one by itself
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    controller = Controller(
        mailbox,
        hostname="127.0.0.1",
        port=port,
        authenticator=known,
        auth_require_tls=False,
        ready_timeout=60,
    )
    controller.start()
    yield mailbox, port
    controller.stop()


def mail_to(port: int, password: str) -> Email:
    return Email(
        host="127.0.0.1",
        port=port,
        security="none",
        sender="market@grid.example",
        recipients=("ops@grid.example", "night@grid.example"),
        user="market",
        password=password,
    )


async def test_an_e_mail_reaches_everybody_after_the_server_said_later(
    store: Store, mailbox: tuple[Mailbox, int]
) -> None:
    box, port = mailbox
    raised(store, "interval:1")
    await delivering(store, [mail_to(port, SECRET)], lambda: sent(store, "email") == 1)
    (envelope,) = box.got
    assert envelope.rcpt_tos == ["ops@grid.example", "night@grid.example"]
    assert isinstance(envelope.content, bytes)
    message = message_from_bytes(envelope.content)
    assert message["Subject"] == "[Peergrid lane] solver: interval:1"
    assert message["Message-ID"] == "<lane-1@grid.example>"
    assert "it gave no answer" in message.get_payload()


async def test_a_wrong_password_is_told_without_it(
    store: Store, mailbox: tuple[Mailbox, int], caplog: pytest.LogCaptureFixture
) -> None:
    raised(store, "interval:1")
    channel = mail_to(mailbox[1], SECRET + "x")

    def refused() -> bool:
        return bool(caplog.records)

    with caplog.at_level(logging.INFO, "peergrid"):
        await delivering(store, [channel], refused)
    assert vars(caplog.records[0])["event"]["error"] == "the mail server answered 535"
    assert SECRET not in caplog.text + repr(channel) + str(vars(caplog.records[0]))


def private(path: Path, text: str) -> str:
    path.write_text(text)
    path.chmod(0o600)
    return path.name


def test_channels_are_read_with_their_secrets_from_files(tmp_path: Path) -> None:
    alerts = AlertsSection.model_validate(
        {
            "webhook": {
                "url_file": private(tmp_path / "hook.url", "https://chat.example/hook/1\n"),
                "key_file": private(tmp_path / "hook.key", SECRET),
            },
            "email": {
                "host": "mail.example",
                "sender": "market@grid.example",
                "recipients": ["ops@grid.example"],
                "user": "market",
                "password_file": private(tmp_path / "mail.password", SECRET),
            },
        }
    )
    hook, mail = channels_of(alerts, tmp_path)
    assert hook == Webhook("https://chat.example/hook/1", SECRET.encode())
    assert isinstance(mail, Email) and mail.security == "starttls" and mail.password == SECRET


@pytest.mark.parametrize(
    ("url", "mode", "words"),
    [
        ("http://chat.example/hook", 0o600, "is no https address"),
        ("https://chat.example/hook", 0o644, "chmod 600"),
        ("", 0o600, "is empty"),
    ],
)
def test_a_webhook_that_is_not_safe_is_refused(tmp_path: Path, url: str, mode: int, words: str) -> None:
    (tmp_path / "hook.url").write_text(url)
    (tmp_path / "hook.url").chmod(mode)
    with pytest.raises(InputError, match=words) as error:
        channels_of(AlertsSection.model_validate({"webhook": {"url_file": "hook.url"}}), tmp_path)
    assert "chat.example" not in str(error.value)


def test_mail_without_tls_is_for_this_machine_alone() -> None:
    email = {
        "host": "mail.example",
        "security": "none",
        "sender": "a@b.example",
        "recipients": ["c@d.example"],
    }
    with pytest.raises(ValueError, match="security is needed for a mail server on another machine"):
        AlertsSection.model_validate({"email": email})
