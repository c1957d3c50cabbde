"""Live events: they come by themselves, and a stream that was cut misses nothing."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
from fastapi import Request

from market.console.events import Feed
from market.console.market import Market
from tests.console.conftest import Console

STREAMS = 200


def dispute(console: Console, at: int, before: int = 2**62) -> int:
    """Another process changes an interval's state: the newest one's ``before``."""
    with sqlite3.connect(console.folder / "market.sqlite") as connection:
        newest = "SELECT MAX(interval_start) FROM interval WHERE interval_start < ?"
        start: int = connection.execute(newest, (before,)).fetchone()[0]
        connection.execute(
            "INSERT INTO transition (interval_start, number, state, at, reason)"
            " SELECT ?, COUNT(*), 'DISPUTED', ?, 'a test' FROM transition WHERE interval_start = ?",
            (start, at, start),
        )
        connection.execute("UPDATE interval SET state = 'DISPUTED' WHERE interval_start = ?", (start,))
    connection.close()
    return start


async def events(answer: httpx.Response) -> AsyncIterator[dict[str, str]]:
    event: dict[str, str] = {}
    async for line in answer.aiter_lines():
        if not line and event:
            if "event" in event:
                yield event
            event = {}
        elif ": " in line:
            name, _, value = line.partition(": ")
            event[name] = value


async def first(answer: httpx.Response, name: str) -> dict[str, str]:
    async for event in events(answer):
        if event["event"] == name:
            return event
    raise AssertionError("the stream ended")


async def test_a_change_is_told_to_two_hundred_streams_at_once(fresh_console: Callable[..., Any]) -> None:
    with fresh_console() as console:
        now = console.ask("SELECT MAX(at) FROM transition")[0][0]
        limits = httpx.Limits(max_connections=STREAMS + 10)
        async with httpx.AsyncClient(timeout=60, limits=limits) as client:
            opened = 0
            ready = asyncio.Event()

            async def listen() -> tuple[float, Any]:
                nonlocal opened
                async with client.stream("GET", f"{console.api}/events") as answer:
                    assert answer.headers["content-type"].startswith("text/event-stream")
                    stream = events(answer)
                    async for event in stream:
                        if event["event"] == "hello":
                            opened += 1
                            if opened == STREAMS:
                                ready.set()
                        elif event["event"] == "interval":
                            return time.monotonic(), json.loads(event["data"])
                raise AssertionError("the stream ended")

            listeners = [asyncio.create_task(listen()) for _ in range(STREAMS)]
            async with asyncio.timeout(40):
                await ready.wait()
                told = time.monotonic()
                start = await asyncio.to_thread(dispute, console, now + 60)
                found = await asyncio.gather(*listeners)
    assert {(content["interval_start"], content["state"]) for _, content in found} == {(start, "DISPUTED")}
    assert max(at for at, _ in found) - told < 10


async def test_who_comes_at_the_same_moment_shares_one_look_at_the_database(
    fresh_console: Callable[..., Any],
) -> None:
    with fresh_console() as console:
        market = Market(console.folder / "market.sqlite")
        feed = Feed(market)
        streams = [feed.stream(Request({"type": "http"}), "") for _ in range(STREAMS)]
        await asyncio.gather(*map(anext, streams))
        asking = [task for task in asyncio.all_tasks() if task.get_name() == "console events"]
        assert (len(asking), feed.listeners) == (1, STREAMS)
        for stream in streams:
            await stream.aclose()
        await asyncio.wait(asking)
        assert feed.listeners == 0
        market.close()


async def test_what_happened_earlier_and_is_stored_later_is_told(fresh_console: Callable[..., Any]) -> None:
    with fresh_console() as console:
        now = console.ask("SELECT MAX(at) FROM transition")[0][0]
        async with (
            httpx.AsyncClient(timeout=20) as client,
            client.stream("GET", f"{console.api}/events") as answer,
        ):
            stream = events(answer)
            assert (await anext(stream))["event"] == "hello"
            newest = await asyncio.to_thread(dispute, console, now + 60)
            assert json.loads((await anext(stream))["data"])["interval_start"] == newest
            other = await asyncio.to_thread(dispute, console, now + 30, newest)
            assert json.loads((await anext(stream))["data"])["interval_start"] == other


async def test_a_stream_that_was_cut_is_taken_up_without_loss(fresh_console: Callable[..., Any]) -> None:
    with fresh_console() as console:
        now = console.ask("SELECT MAX(at) FROM transition")[0][0]
        async with httpx.AsyncClient(timeout=20) as client:
            async with client.stream("GET", f"{console.api}/events") as answer:
                last = (await first(answer, "hello"))["id"]
            assert last == str(now)
            start = await asyncio.to_thread(dispute, console, now + 60)
            headers = {"last-event-id": last}
            async with client.stream("GET", f"{console.api}/events", headers=headers) as answer:
                async for event in events(answer):
                    content = json.loads(event["data"])
                    if content["state"] == "DISPUTED":
                        break
    assert (content["interval_start"], content["reason"], content["at"]) == (start, "a test", now + 60)
