"""A real broker at home, and the devices on it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from meters.broker import Broker


@pytest_asyncio.fixture
async def broker() -> AsyncIterator[Broker]:
    async with Broker() as running:
        yield running
