"""An award switches a relay: told, read back, released; a relay that does not obey is an error."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable

import pytest

from meters.adapters import listening
from meters.adapters.relay import Relay
from meters.broker import Broker
from meters.mqtt import Message
from meters.source import Setpoint, SourceError
from tests.adapters.home import Clock, answering, opened

NOW = 1_799_999_100
TASMOTA = {"adapter": "tasmota", "topic": "pv"}
SHELLY = {"adapter": "shelly", "device": "shellyplus1pm-1", "components": ["switch:0"]}
RELAY = {"rated_w": 600, "price": 20_000}


def setpoint(awarded_w: int, offered_w: int = 500) -> Setpoint:
    return Setpoint(NOW, NOW + 900, net_w=awarded_w - 200, flexible_w=awarded_w, offered_w=offered_w)


@pytest.mark.parametrize(
    ("awarded_w", "offered_w", "on"),
    [(500, 500, True), (250, 500, True), (249, 500, False), (0, 500, False), (0, 0, True)],
)
def test_less_than_half_of_the_offer_switches_off(awarded_w: int, offered_w: int, on: bool) -> None:
    assert Relay(**RELAY).wanted(setpoint(awarded_w, offered_w)) is on


def test_released_it_goes_where_its_owner_wants_it() -> None:
    assert Relay(**RELAY).wanted(None) is True
    assert Relay(**RELAY, released="off").wanted(None) is False


class TasmotaRelay:
    """Says its state as firmware does: {"POWER":"ON"} on stat/…/RESULT and the word on stat/…/POWER."""

    def __init__(self) -> None:
        self.on = True
        self.stuck = False

    def __call__(self, topic: str, payload: bytes) -> Iterable[Message]:
        if topic == "cmnd/pv/POWER":
            if not self.stuck:
                self.on = payload == b"ON"
            word = "ON" if self.on else "OFF"
            yield Message("stat/pv/RESULT", json.dumps({"POWER": word}).encode())
            yield Message("stat/pv/POWER", word.encode())


class ShellyRelay:
    """Switch.Set answers with what was; Shelly.GetStatus tells what is."""

    def __init__(self) -> None:
        self.on = True
        self.toggle_after: int | None = None

    def __call__(self, topic: str, payload: bytes) -> Iterable[Message]:
        asked = json.loads(payload)
        if asked["method"] == "Switch.Set":
            assert asked["params"]["id"] == 0
            result: dict = {"was_on": self.on}
            self.on, self.toggle_after = asked["params"]["on"], asked["params"].get("toggle_after")
        else:
            result = {"switch:0": {"id": 0, "output": self.on, "aenergy": {"total": 1000.0}}}
        answer = {"id": asked["id"], "src": "shellyplus1pm-1", "dst": asked["src"], "result": result}
        yield Message(f"{asked['src']}/rpc", json.dumps(answer).encode())


async def test_a_tasmota_obeys_and_is_released(broker: Broker) -> None:
    device = TasmotaRelay()
    async with contextlib.AsyncExitStack() as stack, answering(broker, ["cmnd/pv/POWER"], device):
        source = await opened(broker, stack, Clock(NOW), TASMOTA, relay=RELAY, invert=True)
        generator = source.device()
        assert generator is not None
        assert (generator.rated_w, generator.price) == (600, 20_000)
        await source.apply(setpoint(0))
        assert device.on is False
        await source.apply(setpoint(500))
        assert device.on is True
        await source.apply(setpoint(100))
        await source.apply(None)
        assert device.on is True


async def test_a_shelly_obeys_and_would_go_back_by_itself(broker: Broker) -> None:
    device = ShellyRelay()
    async with contextlib.AsyncExitStack() as stack, answering(broker, ["shellyplus1pm-1/rpc"], device):
        source = await opened(broker, stack, Clock(NOW + 10), SHELLY, relay=RELAY, invert=True)
        await source.apply(setpoint(0))
        assert (device.on, device.toggle_after) == (False, 3 * 900 - 10)
        await source.apply(None)
        assert (device.on, device.toggle_after) == (True, None)


async def test_a_relay_that_does_not_obey_is_told(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "RELAY_S", 0.2)
    device = TasmotaRelay()
    device.stuck = True
    async with contextlib.AsyncExitStack() as stack:
        source = await opened(broker, stack, Clock(NOW), TASMOTA, relay=RELAY)
        with pytest.raises(SourceError, match="told to switch off, the relay said nothing"):
            await source.apply(setpoint(0))
        monkeypatch.setattr(listening, "RELAY_S", 2.0)
        async with answering(broker, ["cmnd/pv/POWER"], device):
            with pytest.raises(SourceError, match="told to switch off, the relay stayed as it was"):
                await source.apply(setpoint(0))


async def test_without_a_relay_nothing_obeys(broker: Broker) -> None:
    async with contextlib.AsyncExitStack() as stack:
        source = await opened(broker, stack, Clock(NOW), TASMOTA)
        assert source.device() is None
