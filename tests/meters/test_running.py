"""Meters as ``peergrid meter run`` runs them, over a real broker; the test moves the clock."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import pytest

from grid.errors import InputError, StoreError
from market.messages.models import Quality, Side
from market.messages.signing import Signer
from meters import running
from meters.agent import MarketPlace
from meters.broker import HOST, Broker, free_port
from meters.example import EXAMPLES
from meters.household.devices import Pv
from meters.household.settings import HouseholdSettings
from meters.identity import write_key
from meters.run_config import MeterSetup, RunSetup, read_setup
from meters.simulated import HouseholdSourceSettings
from meters.source import (
    SOURCES,
    RegisterReading,
    Setpoint,
    Source,
    SourceError,
    SourceSettings,
    Surroundings,
)
from tests.meters.scripted_market import DOMAIN, FEEDER, MARKET, SECONDS, ScriptedMarket, Seen

NOON = 1_795_348_800
KEYS = [Signer(bytes([7, index]) * 16) for index in range(1, 4)]
HOMES = HouseholdSettings(pv_scale=4.0, ev_share=1.0, battery_share=1.0)


class Clock:
    def __init__(self) -> None:
        self.time = float(NOON)

    def __call__(self) -> float:
        return self.time


@dataclass
class Inverter:
    """Stands in for a device: feeds in 1 kW, and does wrong what it is told to."""

    clock: Clock
    name: str = "inverter"
    hangs: bool = False
    broken: str = ""
    epoch: int = 0
    obeyed: list[Setpoint | None] = field(default_factory=list)

    def restore(self, memory: str) -> None:
        self.epoch = int(memory)

    async def read(self, at: int) -> RegisterReading:
        if self.hangs:
            await asyncio.sleep(3600)
        if self.broken:
            raise SourceError(self.broken)
        now = int(self.clock())
        export_wh = (now - NOON) * 1000 // 3600
        return RegisterReading(now, 5, export_wh, 1000, epoch=self.epoch, memory=str(self.epoch))

    def device(self) -> Pv:
        return Pv(rated_w=1_000, price=20_000)

    async def apply(self, setpoint: Setpoint | None) -> None:
        self.obeyed.append(setpoint)


class OnTheTable(SourceSettings):
    """The settings of a source that is there already."""

    kind: str = "table"

    async def open(self, around: Surroundings) -> Source:
        return TABLE[self]


TABLE: dict[SourceSettings, Source] = {}


@pytest.fixture(autouse=True)
def in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "_LOOK_S", 0.02)
    monkeypatch.setattr(running, "_RETRY_MIN_S", 0.02)
    monkeypatch.setattr(running, "READ_TIMEOUT_S", 0.3)


def home(load: str) -> HouseholdSourceSettings:
    return HouseholdSourceSettings(
        kind="household", feeder_name="simbench:1-LV-rural1--2-sw", load=load, seed=7, household=HOMES
    )


def setup_of(folder: Path, port: int, sources: list[SourceSettings]) -> RunSetup:
    meters = [
        MeterSetup(f"meter-{index}", f"meters[{index}]", KEYS[index], None, None, source)
        for index, source in enumerate(sources)
    ]
    place = MarketPlace(FEEDER, MARKET.address, DOMAIN, SECONDS)
    return RunSetup(folder / "run.toml", HOST, port, place, 0.5, folder / "outbox", tuple(meters))


@asynccontextmanager
async def run(setup: RunSetup, clock: Clock) -> AsyncIterator[None]:
    stop = asyncio.Event()
    task = asyncio.create_task(running.run(setup, stop, clock))
    try:
        yield
    finally:
        stop.set()
        await task


async def waves(market: ScriptedMarket, clock: Clock, numbers: range, meters: list[str]) -> None:
    for wave in numbers:
        start = NOON + wave * SECONDS
        clock.time = float(start - SECONDS)
        await market.wave(start, meters, timeout_s=15)


async def first_reading(market: ScriptedMarket, meter: str) -> None:
    async with asyncio.timeout(10):
        while (meter, 0) not in market.seen.readings:
            await market.hear()


async def test_households_read_at_the_boundaries_and_go_on_after_a_restart(
    broker: Broker, tmp_path: Path
) -> None:
    clock, seen = Clock(), Seen()
    setup = setup_of(tmp_path, broker.port, [home("load:1"), home("load:2")])
    meters = [meter.signer.address for meter in setup.meters]
    async with ScriptedMarket(broker.host, broker.port, seen) as market:
        async with run(setup, clock):
            await waves(market, clock, range(1, 4), meters)
        offline = set()
        async with asyncio.timeout(15):
            while len(offline) < len(meters):
                for incoming in await market.inbox.batch(timeout_s=0.2):
                    if incoming.topic.endswith("/status") and not json.loads(incoming.payload)["online"]:
                        offline.add(incoming.topic)
        clock.time += 2 * SECONDS
        async with run(setup, clock):
            await waves(market, clock, range(6, 8), meters)
            # A broker may bring the last one before the one that it sent again.
            expected = {(meter, seq) for meter in meters for seq in range(7)}
            async with asyncio.timeout(15):
                while not expected <= seen.readings.keys():
                    await market.hear()
    assert seen.readings.keys() == expected
    for meter in meters:
        own = [seen.readings[meter, seq] for seq in range(7)]
        assert [reading.taken_at for reading in own] == [NOON + k * SECONDS for k in range(7)]
        assert all(a.import_wh <= b.import_wh and a.export_wh <= b.export_wh for a, b in pairwise(own))
        orders = [order for (m, _), order in seen.orders.items() if m == meter]
        assert [order.interval_start for order in orders] == [NOON + k * SECONDS for k in (1, 2, 3, 6, 7)]
        assert [order.version for order in orders] == list(range(5))


async def test_a_meter_that_hangs_or_fails_delays_no_other(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock, seen = Clock(), Seen()
    good, hanging, broken = (Inverter(clock) for _ in range(3))
    hanging.hangs, broken.broken = True, "exception code 4"
    kinds = [OnTheTable(kind=str(index)) for index in range(3)]
    TABLE.update(zip(kinds, (good, hanging, broken), strict=True))
    async with Broker() as broker, ScriptedMarket(broker.host, broker.port, seen) as market:
        setup = setup_of(tmp_path, broker.port, list(kinds))
        async with run(setup, clock):
            await first_reading(market, KEYS[0].address)
            await waves(market, clock, range(2, 5), [KEYS[0].address])
            hanging.hangs, broken.broken = False, ""
            await waves(market, clock, range(5, 6), [KEYS[0].address])
            async with asyncio.timeout(10):
                while {meter for meter, _ in seen.readings} < {key.address for key in KEYS}:
                    await market.hear()
    assert {r.quality for (m, _), r in seen.readings.items() if m == KEYS[0].address} == {Quality.MEASURED}
    assert sum("no answer within" in text for text in caplog.messages) == 1
    assert sum("exception code 4" in text for text in caplog.messages) == 1
    assert sum("works again" in text for text in caplog.messages) == 2


async def test_a_gap_is_filled_and_a_new_epoch_counts_from_zero(tmp_path: Path) -> None:
    clock, seen = Clock(), Seen()
    inverter, kind = Inverter(clock), OnTheTable(kind="gap")
    TABLE[kind] = inverter
    meter = KEYS[0].address
    async with (
        Broker() as broker,
        ScriptedMarket(broker.host, broker.port, seen) as market,
        run(setup_of(tmp_path, broker.port, [kind]), clock),
    ):
        await first_reading(market, meter)
        await waves(market, clock, range(2, 3), [meter])
        inverter.broken = "nobody there"
        clock.time += 3 * SECONDS + 100
        await asyncio.sleep(0.2)
        inverter.broken = ""
        async with asyncio.timeout(10):
            while (meter, 5) not in seen.readings:
                await market.hear()
        first_epoch, seen.readings = seen.readings, {}
        inverter.epoch, clock.time = 1, clock.time + SECONDS
        async with asyncio.timeout(10):
            # What has no receipt is sent again: of the first epoch too.
            while not (reset := [reading for reading in seen.readings.values() if reading.epoch == 1]):
                await market.hear()
    read = [first_epoch[meter, seq] for seq in range(6)]
    assert [r.taken_at - NOON for r in read] == [0, 900, 1800, 2700, 3600, 3700]
    assert [r.quality for r in read] == [0, 0, 1, 1, 1, 0]
    assert read[-1].export_wh == 3700 * 1000 // 3600
    assert [reading.seq for reading in reset] == [0]


async def test_an_award_becomes_a_setpoint_and_is_released_at_the_end(tmp_path: Path) -> None:
    clock, seen = Clock(), Seen()
    inverter, kind = Inverter(clock), OnTheTable(kind="obey")
    TABLE[kind] = inverter
    meter = KEYS[0].address
    async with Broker() as broker, ScriptedMarket(broker.host, broker.port, seen) as market:
        async with run(setup_of(tmp_path, broker.port, [kind]), clock):
            await first_reading(market, meter)
            await waves(market, clock, range(2, 4), [meter])
            order = seen.orders[meter, NOON + 3 * SECONDS]
            assert [(step.side, step.energy_wh) for step in order.steps] == [(Side.ASK, 250)]
            clock.time = NOON + 3 * SECONDS + 0.5
            async with asyncio.timeout(15):
                while (
                    not inverter.obeyed
                    or inverter.obeyed[-1] is None
                    or inverter.obeyed[-1].start < clock.time - 5
                ):
                    await asyncio.sleep(0.02)
        assert inverter.obeyed[0] is None  # whatever it was told before it belongs to nobody now
        # The scripted market awards three quarters.
        assert inverter.obeyed[-2] == Setpoint(NOON + 2700, NOON + 3600, 0, 748, 1000)
        assert inverter.obeyed[-1] is None


async def test_meters_go_on_without_a_broker(tmp_path: Path) -> None:
    clock, seen, port = Clock(), Seen(), free_port()
    setup = setup_of(tmp_path, port, [home("load:1")])
    (meter,) = (m.signer.address for m in setup.meters)
    async with run(setup, clock):
        for _ in range(3):
            await asyncio.sleep(0.1)
            clock.time += SECONDS
        async with Broker(port=port) as broker, ScriptedMarket(broker.host, broker.port, seen) as market:
            async with asyncio.timeout(20):
                while len(seen.readings) < 4:
                    await market.hear()
    assert [r.taken_at for (m, _), r in sorted(seen.readings.items())] == [
        NOON + k * SECONDS for k in range(4)
    ]
    assert {m for m, _ in seen.readings} == {meter}


async def test_meters_do_not_run_twice_nor_in_another_market(tmp_path: Path) -> None:
    clock = Clock()
    setup = setup_of(tmp_path, free_port(), [home("load:1")])
    async with run(setup, clock):
        await asyncio.sleep(0.2)
        with pytest.raises(StoreError, match="another process runs these meters"):
            await running.run(setup, asyncio.Event(), clock)
    elsewhere = MarketPlace("elsewhere", MARKET.address, DOMAIN, SECONDS)
    other = RunSetup(setup.path, HOST, 1, elsewhere, 0.5, setup.outbox, setup.meters)
    with pytest.raises(StoreError, match="elsewhere"):
        await running.run(other, asyncio.Event(), clock)


# The configuration

GOOD = f"""
[market]
feeder = "{FEEDER}"
address = "{MARKET.address.upper().replace("X", "x")}"
chain_id = 1337
registry = "{DOMAIN.verifying_contract}"
[broker]
port = 1883
tls = false
[[meters]]
folder = "meters/*"
strategy = "truthful"
[meters.source]
kind = "household"
feeder_name = "simbench:1-LV-rural1--2-sw"
load = "load:{{folder}}"
"""


def written(folder: Path, text: str = GOOD) -> Path:
    for index in (0, 1):
        (folder / "meters" / str(index)).mkdir(parents=True, exist_ok=True)
        if not (folder / "meters" / str(index) / "meter.key").exists():
            write_key(folder / "meters" / str(index) / "meter.key", bytes([7, index + 1]) * 16)
    (folder / "run.toml").write_text(text)
    return folder / "run.toml"


def test_one_entry_is_for_every_folder_with_a_key(tmp_path: Path) -> None:
    setup = read_setup(written(tmp_path))
    assert [(meter.name, meter.signer.address) for meter in setup.meters] == [
        ("0", KEYS[0].address),
        ("1", KEYS[1].address),
    ]
    assert [meter.source.load for meter in setup.meters] == ["load:0", "load:1"]
    assert setup.market == MarketPlace(FEEDER, MARKET.address, DOMAIN, SECONDS)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (('feeder = "test-feeder"', 'feeder = "Test"'), "market.feeder: 'Test' string should match"),
        (("chain_id = 1337", ""), "market.chain_id: is missing"),
        (("port = 1883", "port = 1883\nhots = 1"), "broker.hots: 1 is no field here"),
        (("port = 1883", 'host = "192.0.2.7"'), "broker: is for a broker on this machine"),
        (('"meters/*"', '"metres/*"'), "meters[0].folder: 'metres/*' matches no folder with a meter.key"),
        (('"meters/*"', '"meters/7"'), "has no meter.key: peergrid meter enroll makes one"),
        (('"truthful"', '"honest"'), "meters[0].strategy: 'honest' is no strategy; installed are"),
        (('"household"', '"solar"'), "meters[0].source.kind: 'solar' is no kind of source: household"),
        (("feeder_name", "feder_name"), "meters[0].source.feeder_name: is missing"),
        (('"load:{folder}"', '"load:7"\nseed = 1.5'), "meters[0].source.seed: 1.5 "),
        (("tls = false", "tls = true"), "meters/0/tls.key: cannot be read: No such file or directory"),
        (("[market]", "[market"), "so it is no TOML document"),
    ],
)
def test_what_is_wrong_is_told_with_file_field_and_value(
    tmp_path: Path, change: tuple[str, str], problem: str
) -> None:
    assert change[0] in GOOD
    path = written(tmp_path, GOOD.replace(*change))
    with pytest.raises(InputError) as caught:
        read_setup(path)
    assert problem in str(caught.value)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("kind", SOURCES)
def test_the_example_of_every_kind_of_source_is_a_configuration(tmp_path: Path, kind: str) -> None:
    text = EXAMPLES[kind].replace("tls = true", "tls = false")
    (tmp_path / "meter-7").mkdir()
    write_key(tmp_path / "meter-7" / "meter.key", b"7" * 32)
    (tmp_path / "meters.toml").write_text(text)
    (meter,) = read_setup(tmp_path / "meters.toml").meters
    assert (meter.name, meter.source.kind) == ("meter-7", kind)


def test_a_key_that_others_can_read_and_a_meter_named_twice_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path, GOOD + GOOD[GOOD.index("[[meters]]") :])
    with pytest.raises(InputError, match=r"meters\[1\]\.folder: '0' has the key of 0 \(meters\[0\]\)"):
        read_setup(path)
    (tmp_path / "meters" / "1" / "meter.key").chmod(0o640)
    with pytest.raises(InputError, match="mode: '0o640' lets others read it"):
        read_setup(written(tmp_path))


def test_a_fuse_beyond_the_one_on_the_markets_record_is_refused(tmp_path: Path) -> None:
    """The market would refuse such orders; a smaller fuse is the meter's own business."""
    path = written(tmp_path)
    for terms in ('{"fuse_w": 43470}', '{"fuse_w": 60000}'):
        (tmp_path / "meters" / "1" / "terms.json").write_text(terms)
        assert len(read_setup(path).meters) == 2
    (tmp_path / "meters" / "1" / "terms.json").write_text('{"fuse_w": 24000}')
    with pytest.raises(InputError) as caught:
        read_setup(path)
    assert str(caught.value).startswith(
        f"{path}: meters[0].source.fuse_a: 63 is 43470 W on 3 phases, more than the 24000 W"
    )
    assert str(tmp_path / "meters" / "1" / "terms.json") in str(caught.value)


async def test_a_load_that_the_feeder_does_not_have_is_named(tmp_path: Path) -> None:
    setup = setup_of(tmp_path, 1, [home("load:999")])
    with pytest.raises(InputError, match="load: 'load:999' is not on this feeder"):
        await running.run(setup, asyncio.Event(), Clock())
