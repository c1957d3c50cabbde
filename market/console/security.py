"""Who may do what: tokens with roles, sessions in cookies, CSRF tokens, headers and rate limits.

On loopback reading needs no token. Everywhere else it needs one with the role viewer, and actions need
operator everywhere. A token is shown once; the file keeps its hash.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Literal

from fastapi import Depends, HTTPException, Request
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from grid.errors import InputError

Role = Literal["viewer", "operator"]
RANK: Mapping[Role, int] = {"viewer": 1, "operator": 2}
SESSION_S = 8 * 3600
SESSIONS_MAX = 1000
TOKEN_BYTES = 32
# At these rates (per second, and at once) one client cannot hold up the others.
REQUESTS_RATE, REQUESTS_BURST = 100.0, 600.0
SIGN_IN_RATE, SIGN_IN_BURST = 0.1, 5.0
CLIENTS_MAX = 10_000

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data:; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}


class Grant(BaseModel):
    """A token's holder: the hash of the token (sha256, hex) and the role."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    role: Role
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Grants(BaseModel):
    """The tokens file: holders by name."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    holders: dict[str, Grant] = {}

    def holder(self, token: str) -> tuple[str, Role] | None:
        """Whose token this is; all hashes are compared, in constant time."""
        digest = _sha256(token)
        found = None
        for name, grant in self.holders.items():
            if hmac.compare_digest(digest, grant.sha256):
                found = (name, grant.role)
        return found


def read_grants(path: Path | None) -> Grants:
    """Raises :class:`InputError` where the file is no tokens file."""
    if path is None:
        return Grants()
    try:
        return Grants.model_validate_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError.single(str(path), "", error.strerror, "so the tokens cannot be read") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        raise InputError.single(str(path), field, first.get("input"), first["msg"]) from None


def grant(path: Path, name: str, role: Role) -> str:
    """Writes a new token's hash into the tokens file, in place of the holder's former one; the token."""
    grants = read_grants(path) if path.exists() else Grants()
    token = secrets.token_urlsafe(TOKEN_BYTES)
    holders = {**grants.holders, name: Grant(role=role, sha256=_sha256(token))}
    unfinished = path.with_name(path.name + ".new")
    unfinished.touch(mode=0o600)
    unfinished.write_text(json.dumps(Grants(holders=holders).model_dump(), indent=2) + "\n", encoding="utf-8")
    unfinished.replace(path)
    return token


def _sha256(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True)
class Session:
    """Somebody who signed in; ``csrf`` must come back with every form."""

    name: str
    role: Role
    csrf: str
    ends_at: float


@dataclass(frozen=True)
class Visitor:
    """Who asks. ``role`` None may do nothing; ``csrf`` is set where a cookie says who it is."""

    name: str
    role: Role | None
    csrf: str | None = None

    def may(self, role: Role) -> bool:
        return self.role is not None and RANK[self.role] >= RANK[role]


class Buckets:
    """Token buckets by client."""

    def __init__(self, rate: float, burst: float) -> None:
        self._rate, self._burst = rate, burst
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait_s(self, client: str) -> float:
        """Takes one; 0 where it may, else how long to wait."""
        now = time.monotonic()
        level, then = self._levels.pop(client, (self._burst, now))
        level = min(self._burst, level + (now - then) * self._rate)
        allowed = level >= 1
        self._levels[client] = (level - 1 if allowed else level, now)
        while len(self._levels) > CLIENTS_MAX:
            self._levels.popitem(last=False)
        return 0.0 if allowed else (1 - level) / self._rate


class Guard:
    """The console's doorkeeper. ``open_reading`` lets everybody read, ``secure`` is set behind TLS."""

    def __init__(self, grants: Grants, *, open_reading: bool, secure: bool) -> None:
        self._grants = grants
        self._open_reading = open_reading
        self.secure = secure
        self.cookie = "__Host-peergrid" if secure else "peergrid"
        self._sessions: OrderedDict[str, Session] = OrderedDict()
        self.requests = Buckets(REQUESTS_RATE, REQUESTS_BURST)
        self.sign_ins = Buckets(SIGN_IN_RATE, SIGN_IN_BURST)

    @property
    def has_tokens(self) -> bool:
        return bool(self._grants.holders)

    def visitor(self, request: Request) -> Visitor:
        """Who asks, by bearer token or session. Raises 401 for a token that is none."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            wait_s = 0.0
            found = self._grants.holder(token.strip())
            if found is None:
                wait_s = self.sign_ins.wait_s(client_of(request))
                raise HTTPException(429 if wait_s else 401, "the token is not one of this console's")
            return Visitor(found[0], found[1])
        session = self._sessions.get(_sha256(request.cookies.get(self.cookie, "")))
        if session is not None and session.ends_at > time.time():
            return Visitor(session.name, session.role, session.csrf)
        return Visitor("", "viewer" if self._open_reading else None)

    def sign_in(self, request: Request, token: str) -> str | None:
        """A new session's key for the cookie; None for a token that is none. Raises 429 when too often."""
        if self.sign_ins.wait_s(client_of(request)):
            raise HTTPException(429, "too many attempts to sign in; wait a minute")
        found = self._grants.holder(token)
        if found is None:
            return None
        key = secrets.token_urlsafe(TOKEN_BYTES)
        name, role = found
        self._sessions[_sha256(key)] = Session(
            name, role, secrets.token_urlsafe(TOKEN_BYTES), time.time() + SESSION_S
        )
        while len(self._sessions) > SESSIONS_MAX:
            self._sessions.popitem(last=False)
        return key

    def sign_out(self, request: Request) -> None:
        self._sessions.pop(_sha256(request.cookies.get(self.cookie, "")), None)

    def set_cookie(self, response: Response, key: str) -> None:
        response.set_cookie(
            self.cookie,
            key,
            max_age=SESSION_S,
            httponly=True,
            secure=self.secure,
            samesite="strict",
            path="/",
        )


def client_of(request: Request) -> str:
    return request.client.host if request.client else ""


def guard_of(request: Request) -> Guard:
    found = request.app.state.guard
    assert isinstance(found, Guard)
    return found


def viewer(request: Request) -> Visitor:
    """Reading. Raises 401 where nobody is known."""
    visitor = guard_of(request).visitor(request)
    if visitor.role is None:
        raise HTTPException(401, "this console asks for a token", {"WWW-Authenticate": "Bearer"})
    return visitor


def operator(request: Request) -> Visitor:
    """Acting. Raises 401 without a token, 403 for a role that may not."""
    visitor = guard_of(request).visitor(request)
    if not visitor.name:
        raise HTTPException(
            401, "actions need a token with the role operator", {"WWW-Authenticate": "Bearer"}
        )
    if not visitor.may("operator"):
        raise HTTPException(403, f"{visitor.name} is a {visitor.role}; this needs an operator")
    return visitor


def check_csrf(visitor: Visitor, given: str) -> None:
    """Raises 403 where a cookie speaks without the form's own token. A bearer token needs none."""
    if visitor.csrf is not None and not hmac.compare_digest(visitor.csrf, given):
        raise HTTPException(403, "the form is not from this session; load the page again")


Viewer = Annotated[Visitor, Depends(viewer)]
Operator = Annotated[Visitor, Depends(operator)]


class Protected:
    """ASGI middleware: the rate limit before, security headers after. Streams pass through unbuffered."""

    def __init__(self, app: ASGIApp, guard: Guard, refuse: Callable[[Request, float], Response]) -> None:
        self._app, self._guard, self._refuse = app, guard, refuse
        headers = dict(HEADERS)
        if guard.secure:
            headers["Strict-Transport-Security"] = "max-age=31536000"
        self._headers = [(name.lower().encode(), value.encode()) for name, value in headers.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *self._headers]
            await send(message)

        request = Request(scope, receive)
        wait_s = self._guard.requests.wait_s(client_of(request))
        app = self._refuse(request, wait_s) if wait_s else self._app
        await app(scope, receive, send_with_headers)
