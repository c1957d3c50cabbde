"""Live events: every change of state of an interval, as server-sent events that can be taken up again, and a
hint that instructions changed.

An event's id is the market's clock. A browser that comes back with ``Last-Event-ID`` gets everything from an
hour before that moment on again: some of it twice, nothing never, and an event's content says by itself what
it is.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, replace
from typing import Any

from fastapi import HTTPException, Request
from fastapi.responses import StreamingResponse
from sqlalchemy.exc import DatabaseError

from market.console.market import Market
from market.service.store import views
from market.service.store.views import Transition

POLL_S = 0.4
HEARTBEAT_S = 15.0
QUEUE_MAX = 400
_INSTRUCTION = "event: instruction\ndata: {}\n\n"
"""Somebody asked something of the market, or was answered: it has no id, as a page that comes back looks."""
REPLAY_MAX = 3000
STREAMS_MAX = 1000
LAG_S = 3600
"""What is stored may have happened so long before what was stored earlier, by the market's clock: a
settlement takes its time, and a simulated chain has its batches when they were made.
"""
LOOK_BACK_S = 36 * 3600
"""Transitions are looked for among the intervals that started this long before the newest one."""


@dataclass(frozen=True, slots=True)
class _Mark:
    """How far changes were told: up to the market's time ``at``, and of its last ``LAG_S`` these."""

    at: int
    told: frozenset[tuple[int, int]]
    instructions: tuple[int, int]


class Feed:
    """One market's changes, asked from the database once for all who listen."""

    def __init__(self, market: Market) -> None:
        self._market = market
        self._listeners: set[asyncio.Queue[str | None]] = set()
        self._task: asyncio.Task[None] | None = None
        self._beginning = asyncio.Lock()
        self._mark = _Mark(0, frozenset(), (0, 0))

    @property
    def listeners(self) -> int:
        return len(self._listeners)

    async def stream(self, request: Request, last_event_id: str) -> AsyncIterator[str]:
        """The events after ``last_event_id``, then whatever comes."""
        queue: asyncio.Queue[str | None] = asyncio.Queue(QUEUE_MAX)
        async with self._beginning:  # of those who come at the same moment one begins
            if self._task is None or self._task.done():
                self._mark = await asyncio.to_thread(self._newest)
                self._task = asyncio.create_task(self._poll(), name="console events")
            self._listeners.add(queue)
        try:
            yield "retry: 2000\n\n"
            if last_event_id.isdecimal():
                for text in await asyncio.to_thread(self._replay, int(last_event_id)):
                    yield text
            else:
                yield f"event: hello\nid: {self._mark.at}\ndata: {{}}\n\n"
            while True:
                try:
                    event = await asyncio.wait_for(queue.get(), HEARTBEAT_S)
                except TimeoutError:
                    yield ": still here\n\n"
                    continue
                if event is None:
                    return  # fell behind: the browser comes back with its last id
                yield event
        finally:
            self._listeners.discard(queue)
            if not self._listeners and self._task is not None:
                self._task.cancel()
                self._task = None

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(POLL_S)
            try:
                self._mark, news = await asyncio.to_thread(self._news, self._mark)
            except DatabaseError:
                continue  # what is missed meanwhile is found when the database is back
            for event in news:
                for queue in list(self._listeners):
                    if queue.full():
                        while not queue.empty():
                            queue.get_nowait()
                        queue.put_nowait(None)
                        self._listeners.discard(queue)
                    else:
                        queue.put_nowait(event)

    def _newest(self) -> _Mark:
        with self._market.stored.reading() as connection:
            at = views.market_now(connection) or 0
            found = views.transitions_from(connection, at - LAG_S, at - LOOK_BACK_S, REPLAY_MAX)
            return _Mark(at, _keys(found), views.instructions_seen(connection))

    def _news(self, mark: _Mark) -> tuple[_Mark, list[str]]:
        with self._market.stored.reading() as connection:
            found = views.transitions_from(connection, mark.at - LAG_S, mark.at - LOOK_BACK_S, REPLAY_MAX)
            new = [item for item in found if (item.interval_start, item.number) not in mark.told]
            instructions = views.instructions_seen(connection)
            news = [_INSTRUCTION] if instructions != mark.instructions else []
            if not new:
                return replace(mark, instructions=instructions), news
            news += [_event(document(self._market, connection, item)) for item in new]
            at = max(mark.at, *(item.at for item in new))
            return _Mark(at, _keys(item for item in found if item.at >= at - LAG_S), instructions), news

    def _replay(self, at: int) -> list[str]:
        with self._market.stored.reading() as connection:
            found = views.transitions_from(connection, at - LAG_S, at - LOOK_BACK_S, REPLAY_MAX + 1)
            if len(found) > REPLAY_MAX:
                return [f"event: reload\nid: {found[-1].at}\ndata: {{}}\n\n"]
            return [_event(document(self._market, connection, item)) for item in found]


def _keys(transitions: Iterable[Transition]) -> frozenset[tuple[int, int]]:
    return frozenset((item.interval_start, item.number) for item in transitions)


def document(market: Market, connection: Any, item: Transition) -> dict[str, Any]:
    """A change of state, with what the interval came to once that is known."""
    line = market.lines(connection, item.interval_start, item.interval_start + 1)
    known = line[0].document() if line else {}
    return known | {
        "interval_start": item.interval_start,
        "number": item.number,
        "state": item.state,
        "at": item.at,
        "reason": item.reason,
    }


def _event(content: dict[str, Any]) -> str:
    return f"event: interval\nid: {content['at']}\ndata: {json.dumps(content, separators=(',', ':'))}\n\n"


def respond(feed: Feed, request: Request) -> StreamingResponse:
    """The stream as an answer. Raises 503 where too many are open."""
    if feed.listeners >= STREAMS_MAX:
        raise HTTPException(503, f"{STREAMS_MAX} streams are open already")
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    last = request.headers.get("last-event-id", "")[:20]
    return StreamingResponse(feed.stream(request, last), media_type="text/event-stream", headers=headers)
