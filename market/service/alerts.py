"""Telling operators of alarms by webhook and e-mail, out of the database's outbox.

What cannot be delivered is tried again, later each time; a receiver that gets something twice knows it by its
number. Nothing secret of a channel is ever in an error: addresses of webhooks often are secrets themselves.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import logging
import re
import smtplib
import ssl
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import EmailMessage
from textwrap import fill
from typing import Literal, Protocol

import httpx
from sqlalchemy.exc import DatabaseError

from market.service.clock import utc
from market.service.store import Store, notices
from market.service.store.leases import FencedError
from market.service.store.notices import Notice

TIMEOUT_S = 10.0
_LOOK_S = 2.0
_START = re.compile(r"(?:interval:|(?<= ))(?P<start>\d{9,10})$")

_log = logging.getLogger("peergrid.market")


class AlertError(Exception):
    """Why a notice was not taken, without secrets."""


class Channel(Protocol):
    @property
    def name(self) -> str:
        """Stays the same over restarts: what was delivered is known by it."""

    def send(self, market: str, notice: Notice) -> None:
        """Delivers it, blocking. Raises :class:`AlertError`."""


def document(market: str, notice: Notice) -> dict[str, object]:
    """A notice as JSON values. ``text`` is what chat systems show."""
    at = datetime.fromtimestamp(notice.at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "id": f"{market}-{notice.id}",
        "market": market,
        "kind": notice.kind,
        "subject": notice.subject,
        "detail": notice.detail,
        "at": at,
        "text": f"Peergrid {market}: {notice.kind}, {_in_words(notice)} at {at}: {notice.detail}",
    }


def _in_words(notice: Notice, *, shortly: bool = False) -> str:
    """What a notice is about, for people: meters and wallets by where they stand, and the times of intervals
    are Unix seconds to programs alone.
    """
    address, *more = notice.subject.split(" ", 1)
    name = (notice.place if shortly else f"{notice.place} ({address})") if notice.place else address
    return _START.sub(lambda found: "interval " + utc(int(found["start"])), " ".join([name, *more]))


def _letter(market: str, notice: Notice) -> str:
    """A notice as the text of an e-mail."""
    told = document(market, notice)
    says = fill(f"{_in_words(notice)}: {notice.detail}", break_long_words=False, break_on_hyphens=False)
    return f"{says}\n\nMarket  {market}\nAlarm   {notice.kind}\nAt      {told['at']}\nNumber  {told['id']}\n"


@dataclass(frozen=True)
class Webhook:
    """Posts JSON. With ``key`` its bytes are signed: ``X-Peergrid-Signature: sha256=<HMAC>``."""

    url: str
    key: bytes | None = None
    name: str = "webhook"

    def send(self, market: str, notice: Notice) -> None:
        told = document(market, notice)
        body = json.dumps(told, ensure_ascii=False).encode()
        headers = {"Content-Type": "application/json", "Idempotency-Key": str(told["id"])}
        if self.key is not None:
            signature = hmac.new(self.key, body, hashlib.sha256).hexdigest()
            headers["X-Peergrid-Signature"] = f"sha256={signature}"
        try:
            answer = httpx.post(self.url, content=body, headers=headers, timeout=TIMEOUT_S)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise AlertError(f"no answer ({type(error).__name__})") from None
        if not answer.is_success:
            raise AlertError(f"answered {answer.status_code}")


@dataclass(frozen=True)
class Email:
    """Sends one message to all of ``recipients``; ``password`` is never shown."""

    host: str
    port: int
    security: Literal["starttls", "tls", "none"]
    sender: str
    recipients: Sequence[str]
    user: str | None = None
    password: str | None = None
    name: str = "email"

    def __repr__(self) -> str:
        return f"Email({self.host}:{self.port})"

    def send(self, market: str, notice: Notice) -> None:
        told = document(market, notice)
        message = EmailMessage()
        message["From"], message["To"] = self.sender, ", ".join(self.recipients)
        subject = f"[Peergrid {market}] {notice.kind}: {_in_words(notice, shortly=True)}"
        message["Subject"] = " ".join(subject.split())[:200]
        message["Message-ID"] = f"<{told['id']}@{self.sender.rpartition('@')[2]}>"
        message["Date"] = datetime.now(UTC)
        message["Auto-Submitted"] = "auto-generated"
        message.set_content(_letter(market, notice))
        try:
            self._deliver(message)
        except smtplib.SMTPResponseException as error:
            raise AlertError(f"the mail server answered {error.smtp_code}") from None
        except smtplib.SMTPRecipientsRefused as error:
            codes = ", ".join(str(code) for code, _ in error.recipients.values())
            raise AlertError(f"the mail server took no recipient ({codes})") from None
        except (smtplib.SMTPException, OSError) as error:
            raise AlertError(f"no delivery ({type(error).__name__})") from None

    def _deliver(self, message: EmailMessage) -> None:
        context = ssl.create_default_context()
        if self.security == "tls":
            server: smtplib.SMTP = smtplib.SMTP_SSL(self.host, self.port, timeout=TIMEOUT_S, context=context)
        else:
            server = smtplib.SMTP(self.host, self.port, timeout=TIMEOUT_S)
        with server:
            if self.security == "starttls":
                server.starttls(context=context)
            if self.user is not None:
                server.login(self.user, self.password or "")
            server.send_message(message)


async def deliver_all(store: Store, market: str, channels: Sequence[Channel]) -> None:
    """Delivers what is due until it is cancelled, or another process is the market."""
    with suppress(FencedError):
        while True:
            for channel in channels:
                try:
                    await _deliver_due(store, market, channel)
                except DatabaseError as error:  # the market itself sees that it is away, and begins again
                    _log.warning(
                        "alerts", extra={"event": {"channel": channel.name, "error": str(error.orig)}}
                    )
            await asyncio.sleep(_LOOK_S)


async def _deliver_due(store: Store, market: str, channel: Channel) -> None:
    with store.reading() as connection:
        waiting = notices.due(connection, channel.name, int(time.time()))
    for notice in waiting:
        error = ""
        try:
            await asyncio.to_thread(channel.send, market, notice)
        except AlertError as refused:
            error = str(refused)
        with store.transaction() as tx:
            notices.tried(tx, notice.id, channel.name, int(time.time()), error)
        event = {"feeder": market, "channel": channel.name, "notice": notice.id, "error": error}
        (_log.warning if error else _log.info)("alert", extra={"event": event})
        if error:
            return  # the others would fail as well
