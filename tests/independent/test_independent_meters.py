"""Clients that share no code with Peergrid trade with the real market, from the published schema alone.

One is written in JavaScript (mqtt.js, ethers), the other is mosquitto_pub and mosquitto_sub with signatures
by eth-account.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from eth_account import Account
from eth_account.messages import encode_typed_data
from eth_hash.auto import keccak

from meters.broker import Broker
from tests.conftest import SEARCH_PATH
from tests.service.scene import (
    DOMAIN,
    FEEDER_ID,
    MARKET,
    METERS,
    living_meters,
    market,
    settings,
)

FOLDER = Path(__file__).parent
SCHEMAS = FOLDER.parents[1] / "docs" / "messages"
JAVASCRIPT, SHELL = 0, 1
KEPT = "kept"
ANSWERS = {("receipt", 0), ("receipt", 1), ("award", None)}
pytestmark = [pytest.mark.needs("mosquitto", "mosquitto_pub", "node", "npm"), pytest.mark.timeout(120)]


def secret(index: int) -> bytes:
    return keccak(b"test of the service" + f"meter:load:{index}".encode())


@pytest.fixture(scope="module")
def packages() -> None:
    if not (FOLDER / "node_modules" / ".package-lock.json").exists():
        npm = shutil.which("npm", path=SEARCH_PATH)
        assert npm is not None
        subprocess.run(
            [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"],
            cwd=FOLDER,
            check=True,
        )


def signed(kind: str, message: dict[str, Any], index: int) -> bytes:
    """By the types in the schema; the messages here need no more of its rules than these."""
    described = json.loads((SCHEMAS / f"{kind}.schema.json").read_text())["x-eip712"]
    domain = {
        **described["domain"],
        "chainId": DOMAIN.chain_id,
        "verifyingContract": DOMAIN.verifying_contract,
    }

    def struct(name: str, source: dict[str, Any]) -> dict[str, Any]:
        value: dict[str, Any] = {}
        for field in described["types"][name]:
            snake = "".join("_" + c.lower() if c.isupper() else c for c in field["name"])
            if field["name"] == "feeder":
                value["feeder"] = keccak(source["feeder"].encode())
            elif field["type"].endswith("[]"):
                value[field["name"]] = [struct(field["type"][:-2], item) for item in source[snake]]
            else:
                value[field["name"]] = source[snake]
        return value

    primary = described["primaryType"]
    data = encode_typed_data(domain, described["types"], struct(primary, message))
    signature = Account.from_key(secret(index)).sign_message(data).signature
    return json.dumps({**message, "sig": "0x" + signature.hex().removeprefix("0x")}).encode()


class ShellMeter:
    """A meter made of mosquitto's two commands."""

    def __init__(self, port: int) -> None:
        self._port = str(port)
        self._meter = METERS[SHELL].address
        self.topic = f"peergrid/v1/{FEEDER_ID}/{self._meter}"

    async def listen(self, count: int, *topics: str) -> asyncio.subprocess.Process:
        named = [word for topic in topics for word in ("-t", topic)]
        return await asyncio.create_subprocess_exec(
            *("mosquitto_sub", "-p", self._port, "-q", "1", *named, "-C", str(count), "-W", "120"),
            stdout=asyncio.subprocess.PIPE,
        )

    async def listening(self, count: int, topic: str) -> asyncio.subprocess.Process:
        """One that is subscribed by now: it has heard what the broker keeps."""
        process = await self.listen(count + 1, topic, KEPT)
        assert process.stdout is not None
        assert await process.stdout.readline() == b"kept\n"
        return process

    async def publish(self, topic: str, payload: bytes, *options: str) -> None:
        process = await asyncio.create_subprocess_exec(
            *("mosquitto_pub", "-p", self._port, "-q", "1", "-t", topic, "-s", *options),
            stdin=asyncio.subprocess.PIPE,
        )
        await process.communicate(payload)
        assert process.returncode == 0

    async def trade(self) -> list[dict[str, Any]]:
        """One reading and one order; the receipts and the award."""
        await self.publish(KEPT, b"kept", "-r")
        receipts = await self.listening(2, f"{self.topic}/receipt")
        awards = await self.listening(1, f"{self.topic}/award")
        gates = await self.listen(1, f"peergrid/v1/{FEEDER_ID}/gate")
        gate = json.loads((await gates.communicate())[0])
        assert gate["state"] == "OPEN"
        common = {"v": 1, "meter": self._meter}
        registers = {"import_wh": 7, "export_wh": 0, "power_w": 0, "quality": 0}
        reading = {**common, "epoch": 0, "seq": 0, "taken_at": gate["opens_at"], **registers}
        await self.publish(f"{self.topic}/reading", signed("reading", reading, SHELL))
        order = {
            **common,
            "feeder": FEEDER_ID,
            "interval_start": gate["interval_start"],
            "version": 3,
            "firm_import_wh": 0,
            "firm_export_wh": 0,
            "firm_q_var": 0,
            "steps": [{"side": 0, "energy_wh": 250, "limit_price": 900_000, "min_fill_percent": 0}],
        }
        await self.publish(f"{self.topic}/order", signed("order", order, SHELL))
        said = (await receipts.communicate())[0] + (await awards.communicate())[0]
        return [json.loads(line) for line in said.splitlines()]


async def test_a_javascript_client_and_mosquittos_commands_trade_by_the_schema_alone(
    tmp_path: Path, packages: None
) -> None:
    async with Broker("mosquitto") as broker:
        config = {
            "port": broker.port,
            "feeder": FEEDER_ID,
            "chainId": DOMAIN.chain_id,
            "registry": DOMAIN.verifying_contract,
            "market": MARKET.address,
            "secret": "0x" + secret(JAVASCRIPT).hex(),
            "schemas": str(SCHEMAS),
        }
        (tmp_path / "meter.json").write_text(json.dumps(config))
        node = shutil.which("node", path=SEARCH_PATH)
        assert node is not None
        script = await asyncio.create_subprocess_exec(
            *(node, FOLDER / "meter.mjs", tmp_path / "meter.json"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert script.stdout is not None
        assert json.loads(await script.stdout.readline()) == {"kind": "ready"}
        shell = asyncio.create_task(ShellMeter(broker.port).trade())
        async with (
            living_meters(broker.port, silent={JAVASCRIPT, SHELL}),
            market(tmp_path, broker.port, settings(1, patience_s=15.0)) as engine,
        ):
            await engine.run()
        by_shell = await shell
        events: list[dict[str, Any]] = []
        while not {(event["kind"], event["message"].get("kind")) for event in events} >= ANSWERS:
            events.append(json.loads(await script.stdout.readline()))
        rest, _ = await script.communicate(b"")
    events += [json.loads(line) for line in rest.splitlines()]
    assert all(event["isMarkets"] for event in events), "ethers does not take the market's signature"
    by_script = [event["message"] for event in events]
    for heard, energy_wh in ((by_script, 300), (by_shell, 250)):
        receipts = [message for message in heard if "result" in message]
        assert {receipt["kind"] for receipt in receipts} == {0, 1}
        assert {receipt["result"] for receipt in receipts} == {0}, receipts
        (award,) = [message for message in heard if "amount_neur" in message]
        assert (award["status"], award["steps"]) == ("CLEARED", [{"index": 0, "energy_wh": energy_wh}])
        assert award["amount_neur"] < 0
