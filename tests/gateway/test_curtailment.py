"""A market's awards lower a SunSpec inverter and a battery, seen in the next readings; silence frees them."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from market.messages.models import Reading
from market.service.settings import Member
from meters import running
from meters.broker import Broker
from meters.enrol import KEY
from meters.identity import write_key
from meters.modbus.emulator import Emulator, image_of, serving
from meters.modbus.line import Place
from meters.modbus.plant import DevicePlant
from meters.modbus.profile import find_profile
from meters.mqtt import Inbox, Session
from meters.run_config import read_setup
from tests.adapters.home import Clock
from tests.gateway.village import SECRETS, SIGNERS, LeadingClock
from tests.service import scene
from tests.service.scene import DOMAIN, FEEDER_ID, MARKET, SECONDS, START, signer

INTERVALS = 4
SUN_W, DISCHARGE_W, RATED_W = 8_000, 2_000, {"inverter": 10_000, "battery": 3_000}
NAMES = {"inverter": "home-1", "battery": "home-2"}

CONFIGURATION = f"""
resend_s = 0.5

[market]
feeder = "{FEEDER_ID}"
address = "{MARKET.address}"
chain_id = {DOMAIN.chain_id}
registry = "{DOMAIN.verifying_contract}"

[broker]
port = %d
tls = false

[[meters]]
folder = "inverter"
[meters.source]
kind = "modbus"
url = "%s"
profile = "sunspec-inverter"
pv = {{ rated_w = {RATED_W["inverter"]}, price = 100000 }}  # more than the retailer pays

[[meters]]
folder = "battery"
[meters.source]
kind = "modbus"
url = "%s"
profile = "sunspec-battery"
battery = {{ capacity_wh = 10000, power_w = {RATED_W["battery"]} }}
"""


def members() -> list[Member]:
    return [
        Member(
            meter=SIGNERS[NAMES[name]].address,
            owner=signer(f"owner:load:{index}").address,
            connection_point=f"load:{index}",
            bus=2 + index,
            deposit_ueur=100_000_000,
        )
        for index, name in enumerate(NAMES)
    ]


class Listener:
    """The last reading of each meter by the time that it is of, as the broker carried it."""

    def __init__(self, session: Session, inbox: Inbox) -> None:
        self._session, self._inbox = session, inbox
        self.power_w: dict[tuple[str, int], int] = {}

    async def hear(self, until: int) -> None:
        """Until all meters were read at that boundary."""
        names = {SIGNERS[NAMES[name]].address: name for name in NAMES}
        async with asyncio.timeout(30):
            while not all((name, until) in self.power_w for name in NAMES):
                batch = await self._inbox.batch()
                for incoming in batch:
                    reading = Reading.model_validate_json(incoming.payload)
                    self.power_w[names[reading.meter], reading.taken_at] = reading.power_w
                Inbox.done(batch)


async def test_an_inverter_and_a_battery_follow_their_awards_until_the_market_is_silent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "_LOOK_S", 0.02)
    monkeypatch.setattr(scene, "MEMBERS", members())
    monkeypatch.setattr(scene, "SimulatedClock", LeadingClock)
    clock = Clock(float(START - 2 * SECONDS))
    emulators: dict[str, Emulator] = {}
    places: list[Place] = []
    stop = asyncio.Event()
    async with AsyncExitStack() as stack:
        broker = await stack.enter_async_context(Broker())
        for name, free_w in (("inverter", SUN_W), ("battery", DISCHARGE_W)):
            profile = find_profile(f"sunspec-{name}")
            plant = DevicePlant(
                lambda _, free_w=free_w: free_w,  # type: ignore[misc]
                clock(),
                capacity_wh=10_000 if name == "battery" else None,
            )
            emulators[name] = Emulator(image_of(profile, RATED_W[name]), plant, profile.unit, clock)
            places.append(await stack.enter_async_context(serving([emulators[name]], Place("127.0.0.1", 0))))
            (tmp_path / name).mkdir()
            write_key(tmp_path / name / KEY, SECRETS[NAMES[name]])
        path = tmp_path / "gateway.toml"
        path.write_text(CONFIGURATION % (broker.port, *places))
        inbox = Inbox()
        topics = [f"peergrid/v1/{FEEDER_ID}/+/reading"]
        session = Session(broker.host, broker.port, "listener", inbox, subscriptions=topics)
        listener = Listener(await stack.enter_async_context(session), inbox)
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        tasks.create_task(running.run(read_setup(path), stop, clock))
        await listener.hear(START - 2 * SECONDS)

        def lead(moment: int) -> None:
            clock.time_s = max(clock.time_s, float(moment))

        lead(START - SECONDS)
        market = scene.market(tmp_path, broker.port, scene.settings(INTERVALS))
        engine = await stack.enter_async_context(market)
        engine._clock.before = lead
        hear_all = engine._hear_all

        async def hear_all_and_wait(start: int, boundary: int) -> None:
            """Then the clock stands at the boundary until the devices are told, as it would in real time."""
            await hear_all(start, boundary)
            if boundary < START:
                return
            sold_wh = awards_of(tmp_path / "market.sqlite")["inverter", boundary]
            wanted = {"inverter": 4 * sold_wh, "battery": -RATED_W["battery"]}
            async with asyncio.timeout(20):
                while not all(is_told(name, wanted[name]) for name in NAMES):
                    await asyncio.sleep(0.02)

        def is_told(name: str, power_w: int) -> bool:
            told_w, _ = emulators[name].image.told()
            return told_w is not None and abs(told_w - power_w) < 2

        monkeypatch.setattr(engine, "_hear_all", hear_all_and_wait)
        await engine.run()
        awards = awards_of(tmp_path / "market.sqlite")
        for number in range(INTERVALS - 1):
            start = START + number * SECONDS
            await listener.hear(start + SECONDS)
            sold_wh = awards["inverter", start]
            assert 0 < sold_wh < SUN_W // 4 * 0.9, "the neighbours take less than the sun would give"
            assert listener.power_w["inverter", start + SECONDS] == pytest.approx(4 * sold_wh, abs=1)
            assert awards["battery", start] < 0, "it charges more than it would give by itself"
            assert listener.power_w["battery", start + SECONDS] == -RATED_W["battery"]

        silent = START + (INTERVALS + 3) * SECONDS
        lead(silent)
        await listener.hear(silent)
        lead(silent + SECONDS)
        await listener.hear(silent + SECONDS)
        told_w = [emulator.image.told()[0] for emulator in emulators.values()]
        assert told_w == [None, None], "the gateway released them, not their timers alone"
        assert listener.power_w["inverter", silent + SECONDS] == SUN_W
        assert listener.power_w["battery", silent + SECONDS] == DISCHARGE_W
        stop.set()


def awards_of(path: Path) -> dict[tuple[str, int], int]:
    """Net energy into the grid, Wh, by name and interval."""
    names = {SIGNERS[meter].address: name for name, meter in NAMES.items()}
    with sqlite3.connect(path) as database:
        rows = database.execute("SELECT meter, interval_start, net_wh FROM award").fetchall()
    return {(names[meter], start): net_wh for meter, start, net_wh in rows}
