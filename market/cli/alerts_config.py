"""``[alerts]`` of a market's configuration: whom the market tells of alarms, and how."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from grid.errors import InputError
from market.service.alerts import Channel, Email, Webhook
from meters.configuration import Part, read_text
from meters.identity import check_private

_LOOPBACK = ("localhost", "127.0.0.1", "::1")
Address = Annotated[str, Field(pattern=r"^[^@\s<>,]+@[^@\s<>,]+$")]
Text = Annotated[str, Field(min_length=1)]


class WebhookSection(Part):
    """``url_file`` holds the address, mode 600, since most such addresses let everybody post who knows them.

    ``key_file``, mode 600 too, holds what bodies are signed with (HMAC-SHA256).
    """

    url_file: Text
    key_file: Text | None = None


class EmailSection(Part):
    """``password_file`` is a file that only its owner can read."""

    host: Text
    port: Annotated[int, Field(gt=0, lt=65536)] = 587
    security: Literal["starttls", "tls", "none"] = "starttls"
    sender: Address
    recipients: Annotated[tuple[Address, ...], Field(min_length=1, max_length=50, strict=False)]
    user: Text | None = None
    password_file: Text | None = None

    @model_validator(mode="after")
    def _protected(self) -> Self:
        if self.security == "none" and self.host not in _LOOPBACK:
            raise ValueError("security is needed for a mail server on another machine")
        if (self.user is None) != (self.password_file is None):
            raise ValueError("user and password_file go together")
        return self


class AlertsSection(Part):
    webhook: WebhookSection | None = None
    email: EmailSection | None = None


def channels_of(alerts: AlertsSection | None, base: Path) -> Sequence[Channel]:
    """The channels that are configured; paths start at ``base``. Raises :class:`InputError`."""
    found: list[Channel] = []
    if alerts is None:
        return found
    if hook := alerts.webhook:
        place = base / hook.url_file
        key = _secret(base / hook.key_file).encode() if hook.key_file else None
        found.append(Webhook(_checked_url(place, _secret(place)), key))
    if mail := alerts.email:
        password = _secret(base / mail.password_file) if mail.password_file else None
        found.append(
            Email(
                host=mail.host,
                port=mail.port,
                security=mail.security,
                sender=mail.sender,
                recipients=mail.recipients,
                user=mail.user,
                password=password,
            )
        )
    return found


def _secret(path: Path) -> str:
    check_private(path)
    text = read_text(path).strip()
    if not text:
        raise InputError.single(str(path), "", "", "is empty")
    return text


def _checked_url(path: Path, url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _LOOPBACK):
        return url
    reason = "is no https address (http is for this machine alone)"
    raise InputError.single(str(path), "scheme", parts.scheme, reason)
