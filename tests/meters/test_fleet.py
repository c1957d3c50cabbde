"""A fleet over a real broker: whatever is killed, each meter tells one story, complete and once."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest

from meters import fleet
from meters.broker import HOST, Broker, free_port
from meters.fleet import FleetConfig, agents_of, comfort, running
from meters.household.settings import HouseholdSettings
from meters.lifeline import Child
from tests.meters.scripted_market import DOMAIN, FEEDER, MARKET, SECONDS, ScriptedMarket, Seen
from tests.meters.test_broker import PATIENCE_S, is_running

START = 1_451_606_400 + 166 * 86_400 + 17 * 3600
WAVES = 6
KILLS = 4


def config_for(port: int, folder: Path, **changes: object) -> FleetConfig:
    given: dict[str, object] = {
        "host": HOST,
        "port": port,
        "feeder": FEEDER,
        "feeder_name": "simbench:1-LV-rural1--2-sw",
        "market": MARKET.address,
        "chain_id": DOMAIN.chain_id,
        "registry": DOMAIN.verifying_contract,
        "seed": 7,
        "first_interval_start": START,
        "household": HouseholdSettings(
            pv_scale=4.0, ev_share=0.5, battery_share=0.3, strategies={"adaptive": 0.3, "manager": 0.4}
        ),
        "database": str(folder / "meters.sqlite"),
        "resend_s": 0.5,
        "award_patience_s": 20.0,  # on a busy machine too, nobody goes on without an award that will come
    }
    return FleetConfig(**{**given, **changes})


async def finish(market: ScriptedMarket, meters: list[str]) -> None:
    """The day's end: two closed gates bring the last two readings."""
    for start in (START + WAVES * SECONDS, START + (WAVES + 1) * SECONDS):
        await market.announce(start, "CLOSED")
    async with asyncio.timeout(30):
        while len(market.seen.readings) < len(meters) * (WAVES + 2):
            await market.hear()


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Seen:
    """The story of an undisturbed day."""

    async def tell(folder: Path) -> Seen:
        seen = Seen()
        async with Broker() as broker, ScriptedMarket(broker.host, broker.port, seen) as market:
            config = config_for(broker.port, folder)
            meters = [agent.meter for agent in agents_of(config)]
            async with running(config, folder):
                for wave in range(WAVES):
                    await market.wave(START + wave * SECONDS, meters)
                await finish(market, meters)
            assert comfort(config, ()).pv_curtailed_wh > 0
        return seen

    return asyncio.run(tell(tmp_path_factory.mktemp("calm")))


def assert_same_story(seen: Seen, calm: Seen) -> None:
    assert seen.orders == calm.orders
    assert seen.readings == calm.readings
    for meter in {meter for meter, _ in seen.readings}:
        own = [seen.readings[meter, seq] for seq in range(WAVES + 2)]
        assert [reading.taken_at for reading in own] == [START + k * SECONDS for k in range(-1, WAVES + 1)]
        assert all(a.import_wh <= b.import_wh for a, b in pairwise(own))
        assert all(a.export_wh <= b.export_wh for a, b in pairwise(own))


async def test_both_brokers_carry_the_same_story(broker: Broker, calm: Seen, tmp_path: Path) -> None:
    seen = Seen()
    config = config_for(broker.port, tmp_path)
    meters = [agent.meter for agent in agents_of(config)]
    async with ScriptedMarket(broker.host, broker.port, seen) as market, running(config, tmp_path):
        for wave in range(WAVES):
            await market.wave(START + wave * SECONDS, meters)
        await finish(market, meters)
    assert_same_story(seen, calm)


async def test_a_fleet_killed_at_random_moments_continues_with_the_same_values(
    calm: Seen, tmp_path: Path
) -> None:
    async with Broker() as broker:
        await kill_a_fleet(broker, calm, tmp_path)


async def kill_a_fleet(broker: Broker, calm: Seen, tmp_path: Path) -> None:
    seen = Seen()
    config = config_for(broker.port, tmp_path)
    (tmp_path / "fleet.json").write_text(config.model_dump_json())
    command = [sys.executable, "-m", "meters.fleet", str(tmp_path / "fleet.json")]
    meters = [agent.meter for agent in agents_of(config)]
    chance, kills, day_is_over = random.Random(3), 0, asyncio.Event()

    async def keep_killing() -> int:
        nonlocal kills
        while not day_is_over.is_set():
            child = await Child.start(command, tmp_path / "fleet.log")
            try:
                life_s = chance.uniform(0.7, 1.6) if kills < KILLS else None
                await asyncio.wait_for(day_is_over.wait(), life_s)
            except TimeoutError:
                os.kill(child.pid, signal.SIGKILL)
                kills += 1
                await child.wait()
            await child.stop()
        return kills

    async with ScriptedMarket(broker.host, broker.port, seen) as market:
        killing = asyncio.create_task(keep_killing())
        for wave in range(WAVES):
            await market.wave(START + wave * SECONDS, meters)
            await asyncio.sleep(chance.uniform(0, 0.8))
        await finish(market, meters)
        day_is_over.set()
        await killing
    assert kills >= 3
    assert (tmp_path / "fleet.log").read_text() == ""
    assert_same_story(seen, calm)


async def test_nothing_is_lost_when_the_broker_is_killed(calm: Seen, tmp_path: Path) -> None:
    """The one that comes along; tests/faults kill mosquitto."""
    seen, port = Seen(), free_port()
    config = config_for(port, tmp_path)
    meters = [agent.meter for agent in agents_of(config)]
    chance, pids = random.Random(5), asyncio.Queue[int]()

    async def keep_alive() -> None:
        while True:
            async with Broker(port=port) as broker:
                pids.put_nowait(broker.pid)
                await broker.ended()

    async def kill_soon() -> None:
        pid = await pids.get()
        await asyncio.sleep(chance.uniform(0, 0.2))
        os.kill(pid, signal.SIGKILL)

    keeping = asyncio.create_task(keep_alive())
    async with ScriptedMarket(HOST, port, seen) as market, running(config, tmp_path) as child:
        for wave in range(WAVES):
            killing = asyncio.create_task(kill_soon() if wave % 2 else asyncio.sleep(0))
            await market.wave(START + wave * SECONDS, meters)
            await killing
        await finish(market, meters)
        assert child.status is None
    keeping.cancel()
    await asyncio.wait({keeping})
    assert_same_story(seen, calm)


async def test_it_says_farewell_and_ends_in_order(tmp_path: Path) -> None:
    seen = Seen()
    async with Broker() as broker, ScriptedMarket(broker.host, broker.port, seen) as market:
        config = config_for(broker.port, tmp_path)
        meters = [agent.meter for agent in agents_of(config)]
        async with running(config, tmp_path) as child:
            await market.wave(START, meters)
        assert child.status == 0, child.last_words()
        statuses = set()
        async with asyncio.timeout(10):
            while len(statuses) < len(meters):
                for incoming in await market.inbox.batch(timeout_s=0.2):
                    if incoming.topic.endswith("/status") and not json.loads(incoming.payload)["online"]:
                        statuses.add(incoming.topic)


def test_it_dies_with_its_parent(tmp_path: Path) -> None:
    script = f"""
import asyncio
from pathlib import Path
from meters.broker import Broker
from meters.fleet import running, FleetConfig
async def main():
    async with Broker() as broker:
        text = Path({str(tmp_path / "config.json")!r}).read_text()
        config = FleetConfig.model_validate_json(text.replace('"port":1', f'"port":{{broker.port}}'))
        async with running(config, Path({str(tmp_path)!r})) as child:
            print(child.pid, flush=True)
            await asyncio.sleep(60)
asyncio.run(main())
"""
    (tmp_path / "config.json").write_text(config_for(1, tmp_path).model_dump_json())
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    with parent.stdout:
        pid = int(parent.stdout.readline())
        assert is_running(pid)
        parent.kill()
        parent.wait()
    deadline = time.monotonic() + PATIENCE_S
    while is_running(pid):
        assert time.monotonic() < deadline, "the fleet lives on"
        time.sleep(0.02)


def test_a_bad_configuration_is_one_line_that_names_the_field(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "fleet.json"
    document = json.loads(config_for(1, tmp_path).model_dump_json())
    path.write_text(json.dumps({**document, "seed": -1}))
    assert fleet.main([str(path)]) == 2
    assert fleet.main([str(tmp_path / "none.json")]) == 2
    errors = capfd.readouterr().err.splitlines()
    assert len(errors) == 2
    assert "fleet.json: seed: -1" in errors[0]
    assert "none.json" in errors[1]
