"""Brokers for the tests of meters: each runs against both real ones."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from meters.broker import Broker

BROKERS = [pytest.param("mosquitto", marks=pytest.mark.needs("mosquitto")), "iotcore"]


@pytest.fixture(params=BROKERS)
def program(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest_asyncio.fixture
async def broker(program: str) -> AsyncIterator[Broker]:
    async with Broker(program) as running:
        yield running
