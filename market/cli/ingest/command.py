"""Runs broker, market and load, and tells what came of it."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

from grid.errors import PeergridError
from market.cli.ingest.plan import Plan
from market.cli.ingest.stages import stages_us
from market.cli.messages import say
from meters.broker import Broker
from meters.lifeline import Child

_READY_S = 600.0


@dataclass(frozen=True)
class Figures:
    """What one run came to. Times are from when a message was due, not from when it left."""

    broker: str
    connections: int
    readings_per_message: int
    offered_per_s: float
    readings: int
    readings_per_s: float
    durable_ms_p50: float
    durable_ms_p99: float
    durable_ms_max: float
    load_late_ms_max: float
    missing: int
    unreceipted: int
    messages_per_commit: float
    receipts: int
    market_memory_mib: float
    cpu_us_per_message: dict[str, float]
    load_average_before: float


@click.command("ingest")
@click.option("--rate", default=5_000, show_default=True, help="Messages a second.")
@click.option("--seconds", default=20.0, show_default=True, help="How long.")
@click.option("--connections", default=1_000, show_default=True, help="Meters, each on a connection.")
@click.option("--list", "per_message", default=1, show_default=True, help="Readings in each signed message.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as one JSON document.")
def ingest(rate: int, seconds: float, connections: int, per_message: int, as_json: bool) -> None:
    """Signed readings over a real broker: verified, validated, deduplicated, on the disk, receipted."""
    before = os.getloadavg()[0]
    figures = asyncio.run(_measure(rate, seconds, connections, per_message, before))
    if as_json:
        click.echo(json.dumps(asdict(figures)))
        return
    click.echo(
        f"{figures.readings} readings, {figures.readings_per_message} a message, from {connections} "
        f"connections over {figures.broker}: {figures.readings_per_s:.0f} readings/s\n"
        f"publish to durable p50 {figures.durable_ms_p50:.0f} ms, p99 {figures.durable_ms_p99:.0f} ms, "
        f"max {figures.durable_ms_max:.0f} ms (the load at most {figures.load_late_ms_max:.0f} ms late)\n"
        f"missing {figures.missing}, without receipt {figures.unreceipted}, "
        f"{figures.messages_per_commit:.0f} messages a commit, {figures.receipts} receipts"
    )
    for name, spent in figures.cpu_us_per_message.items():
        click.echo(f"  {name:28} {spent:7.1f} µs of CPU a message")


async def _measure(rate: int, seconds: float, connections: int, per_message: int, before: float) -> Figures:
    folder = Path(tempfile.mkdtemp(prefix="peergrid-bench-"))
    try:
        async with Broker() as broker:
            plan = Plan(broker.port, str(folder), connections, rate, seconds, per_message)
            (folder / "plan.json").write_text(json.dumps(asdict(plan)))
            market = await _start(folder, "market")
            try:
                say(f"bench: signing {plan.messages * connections} messages")
                load = await _start(folder, "load")
                broker_cpu_s = _cpu_s(broker.pid)
                say(f"bench: {rate} messages a second for {seconds:.0f} s")
                (folder / "go").touch()
                status = await load.wait()
                broker_cpu_s = _cpu_s(broker.pid) - broker_cpu_s
                if status:
                    raise PeergridError(f"the load ended with status {status}: {load.last_words()}")
            finally:
                await market.stop(30.0)
            if market.status:
                raise PeergridError(f"the market ended with status {market.status}: {market.last_words()}")
        sent = json.loads((folder / "load.json").read_text())
        stored = json.loads((folder / "durable.json").read_text())
        return _figures(plan, broker.kind, sent, stored, broker_cpu_s, before)
    finally:
        shutil.rmtree(folder)


async def _start(folder: Path, part: str) -> Child:
    command = ["-m", f"market.cli.ingest.{part}", str(folder / "plan.json")]
    child = await Child.start([sys.executable, *command], folder / f"{part}.log")
    deadline = time.monotonic() + _READY_S
    while not (folder / f"{part}.ready").exists():
        if child.status is not None or time.monotonic() > deadline:
            raise PeergridError(f"the {part} did not come up: {child.last_words()}")
        await asyncio.sleep(0.05)
    return child


def _figures(
    plan: Plan, broker: str, sent: dict[str, Any], stored: dict[str, Any], broker_cpu_s: float, before: float
) -> Figures:
    delays, missing = [], 0
    last_s = 0.0
    for connection, meter in enumerate(sent["meters"]):
        durable = stored["durable_s"].get(meter, [])[: plan.messages]
        missing += plan.messages - len(durable)
        for number, durable_s in enumerate(durable):
            delays.append(durable_s - sent["began_s"] - plan.sent_after_s(number, connection))
        last_s = max(last_s, durable[-1] - sent["began_s"] if durable else 0.0)
    messages = plan.messages * plan.connections
    delay_ms = np.array(delays) * 1e3
    steps = stages_us(plan.per_message)
    receipts_us = steps.pop("receipt") * stored["receipts"] / messages
    market_us = stored["cpu_s"] / messages * 1e6
    cpu = {
        "broker": broker_cpu_s / messages * 1e6,
        "load": sent["cpu_s"] / messages * 1e6,
        "market": market_us,
        **{f"market: {name}": spent for name, spent in steps.items()},
        "market: receipts": receipts_us,
        "market: MQTT and the rest": market_us - sum(steps.values()) - receipts_us,
    }
    return Figures(
        broker=broker,
        connections=plan.connections,
        readings_per_message=plan.per_message,
        offered_per_s=plan.rate * plan.per_message,
        readings=messages * plan.per_message,
        readings_per_s=messages * plan.per_message / last_s,
        durable_ms_p50=float(np.percentile(delay_ms, 50)),
        durable_ms_p99=float(np.percentile(delay_ms, 99)),
        durable_ms_max=float(delay_ms.max()),
        load_late_ms_max=sent["late_max_s"] * 1e3,
        missing=missing * plan.per_message,
        unreceipted=sent["unreceipted"],
        messages_per_commit=messages / max(1, stored["batches"]),
        receipts=stored["receipts"],
        market_memory_mib=stored["memory_mib"],
        cpu_us_per_message=cpu,
        load_average_before=before,
    )


def _cpu_s(pid: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
