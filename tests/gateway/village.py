"""Six meters of one village: two simulated households, two Modbus meters served by libmodbus, a Shelly and a
Tasmota that publish what was recorded. Time is the market's; the village follows it, devices first.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from eth_hash.auto import keccak
from pymodbus.client import ModbusTcpClient

from market.messages.signing import Signer
from market.service.clock import SimulatedClock
from market.service.settings import Member
from meters import running
from meters.broker import Broker
from meters.enrol import KEY
from meters.identity import write_key
from meters.mqtt import Inbox, Message, Session
from meters.run_config import read_setup
from tests.adapters.cases import case
from tests.adapters.home import Clock, answering
from tests.modbus.servers import Tables
from tests.modbus.servers import cases as modbus_cases
from tests.service.scene import DOMAIN, FEEDER_ID, MARKET, SECONDS, START, signer

NAMES = ("home-1", "home-2", "abb", "schneider", "shelly", "tasmota")
POINTS = ("load:0", "load:1", "load:2", "load:3", "bus:2", "bus:3")
SECRETS: Mapping[str, bytes] = {name: keccak(b"test of the village" + name.encode()) for name in NAMES}
SIGNERS: Mapping[str, Signer] = {name: Signer(secret) for name, secret in SECRETS.items()}
UNITS = {"abb-b23": 1, "schneider-iem3155": 2}

ABB_WH = 250
"""What each device counts in an interval, Wh; the ABB counts in steps of 10."""
SCHNEIDER_WH = 311
SHELLY_WH = (180.25, 20.5)
TASMOTA_WH = 120


def members() -> list[Member]:
    return [
        Member(
            meter=SIGNERS[name].address,
            owner=signer(f"owner:load:{index}").address if index < 4 else signer(f"owner:{name}").address,
            connection_point=point,
            bus=int(point[-1]) if point.startswith("bus") else 2 + index,
            deposit_ueur=100_000_000,
            fuse_w=43_500,
        )
        for index, (name, point) in enumerate(zip(NAMES, POINTS, strict=True))
    ]


def images() -> dict[int, Tables]:
    """By unit, the makers' register images."""
    return {
        unit: next(c for c in modbus_cases() if c.profile == name).registers for name, unit in UNITS.items()
    }


CONFIGURATION = """
resend_s = 0.5

[market]
feeder = "{feeder}"
address = "{market}"
chain_id = {chain_id}
registry = "{registry}"

[broker]
host = "{broker.host}"
port = {broker.port}
tls = false

[[meters]]
folder = "home-*"
[meters.source]
kind = "household"
feeder_name = "simbench:1-LV-rural1--2-sw"
load = "load:1"
seed = 7
[meters.source.household]
pv_scale = 4.0
battery_share = 1.0

[[meters]]
folder = "abb"
[meters.source]
kind = "modbus"
url = "{modbus}"
profile = "abb-b23"
unit = 1

[[meters]]
folder = "schneider"
[meters.source]
kind = "modbus"
url = "{modbus}"
profile = "schneider-iem3155"
unit = 2

[[meters]]
folder = "shelly"
[meters.source]
kind = "mqtt"
port = {home.port}
device = {{ adapter = "shelly", device = "{shelly}" }}

[[meters]]
folder = "tasmota"
[meters.source]
kind = "mqtt"
port = {home.port}
invert = true
device = {{ adapter = "tasmota", topic = "pow1" }}
relay = {{ rated_w = 2000, price = 20000 }}
"""


class LeadingClock(SimulatedClock):
    """The market's clock, which the village's precedes: where it moves to, ``before`` has been."""

    before: Callable[[int], None] = staticmethod(lambda _: None)

    def advance_to(self, moment: int) -> None:
        self.before(moment)
        super().advance_to(moment)


@dataclass
class Devices:
    """What the village's devices have counted after so many intervals, in their own words."""

    modbus: str
    clock: Clock
    intervals: int = 0
    plug_on: bool = True
    plug_wh: int = 0
    switched: list[bool] = field(default_factory=list)

    def __post_init__(self) -> None:
        host, port = self.modbus.removeprefix("tcp://").split(":")
        self._bus = ModbusTcpClient(host, port=int(port))
        self._shelly = case("shelly-pro3em")
        self._tasmota = case("tasmota-pow")

    def live_until(self, moment: int) -> None:
        """Through the intervals that end by then."""
        while (end := self.clock.time_s // SECONDS * SECONDS + SECONDS) <= moment:
            self._live()
            self.clock.time_s = end
        self.clock.time_s = max(self.clock.time_s, float(moment))

    def _live(self) -> None:
        self.intervals += 1
        self.plug_wh += TASMOTA_WH if self.plug_on else 0
        abb = (0x12D687 + ABB_WH // 10 * self.intervals).to_bytes(8, "big")
        schneider = (0xBC614E + SCHNEIDER_WH * self.intervals).to_bytes(8, "big")
        assert self._bus.connect()
        for unit, address, register in ((1, 0x5000, abb), (2, 0x0C83, schneider)):
            words = [int.from_bytes(register[i : i + 2], "big") for i in range(0, 8, 2)]
            answer = self._bus.write_registers(address, words, device_id=unit)
            assert not answer.isError(), answer

    def close(self) -> None:
        self._bus.close()

    def answer(self, topic: str, payload: bytes) -> Iterable[Message]:
        """As the recorded payloads, their counters moved on."""
        if topic == "cmnd/pow1/POWER":
            self.plug_on = payload == b"ON"
            self.switched.append(self.plug_on)
            yield Message("stat/pow1/RESULT", json.dumps({"POWER": payload.decode()}).encode())
        elif topic == "cmnd/pow1/STATUS":
            report = json.loads(self._tasmota.messages[1].payload)
            report["StatusSNS"]["Time"] = (
                f"{datetime.fromtimestamp(self.clock.time_s, UTC):%Y-%m-%dT%H:%M:%S}"
            )
            report["StatusSNS"]["ENERGY"]["Total"] = round(6.404 + self.plug_wh / 1000, 3)
            yield Message(self._tasmota.messages[1].topic, json.dumps(report).encode())
        else:
            asked = json.loads(payload)
            status = json.loads(self._shelly.messages[0].payload)["params"]
            status |= json.loads(self._shelly.messages[1].payload)["params"]
            data = status["emdata:0"]
            data["total_act"] = round(data["total_act"] + SHELLY_WH[0] * self.intervals, 2)
            data["total_act_ret"] = round(data["total_act_ret"] + SHELLY_WH[1] * self.intervals, 2)
            status["ts"] = self.clock.time_s + 3  # by then the minute is counted
            answer = {"id": asked["id"], "src": "shelly", "dst": asked["src"], "result": status}
            yield Message(f"{asked['src']}/rpc", json.dumps(answer).encode())

    @property
    def topics(self) -> list[str]:
        return ["cmnd/pow1/POWER", "cmnd/pow1/STATUS", f"{self.shelly}/rpc"]

    @property
    def shelly(self) -> str:
        return str(self._shelly.settings["device"])


@asynccontextmanager
async def village(
    folder: Path, market_clock: LeadingClock, broker: Broker, home: Broker, modbus: str
) -> AsyncIterator[Devices]:
    """The gateway of all six, as ``peergrid meter run`` runs it, and its devices, in the market's time.

    All meters have been read once, an interval before the first gate opens: so they have a past by then, and
    a forecast.
    """
    clock = Clock(float(START - 2 * SECONDS))
    devices = Devices(modbus, clock)
    for name, secret in SECRETS.items():
        (folder / name).mkdir(parents=True)
        write_key(folder / name / KEY, secret)
    texts: dict[str, Any] = {"broker": broker, "home": home, "modbus": modbus, "shelly": devices.shelly}
    texts |= {"feeder": FEEDER_ID, "market": MARKET.address}
    texts |= {"chain_id": DOMAIN.chain_id, "registry": DOMAIN.verifying_contract}
    path = folder / "gateway.toml"
    path.write_text(CONFIGURATION.format(**texts))
    stop = asyncio.Event()

    async def all_are_heard() -> None:
        inbox, heard = Inbox(), set()
        topics = [f"peergrid/v1/{FEEDER_ID}/+/reading"]
        async with Session(broker.host, broker.port, "listener", inbox, subscriptions=topics):
            while len(heard) < len(NAMES):
                batch = await inbox.batch()
                heard |= {incoming.topic for incoming in batch}
                Inbox.done(batch)

    async with answering(home, devices.topics, devices.answer), asyncio.TaskGroup() as tasks:
        tasks.create_task(running.run(read_setup(path), stop, clock))
        try:
            await asyncio.wait_for(all_are_heard(), 60)
            devices.live_until(market_clock.now())
            market_clock.before = devices.live_until
            yield devices
        finally:
            stop.set()
    devices.close()
