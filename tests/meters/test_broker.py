"""The broker runs on loopback, on a port that is surely its own, and never outlives its parent."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from grid.errors import BrokerError
from meters.broker import Broker

PATIENCE_S = 30


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


async def test_it_tells_what_it_is_and_ends_with_its_block(program: str) -> None:
    async with Broker(program) as broker:
        assert broker.kind.startswith(program)
        pid = broker.pid
        with socket.create_connection((broker.host, broker.port), timeout=5):
            pass
    assert not is_running(pid)


async def test_it_listens_on_loopback_only(broker: Broker) -> None:
    listening = [
        line.split()[1]
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]
        if line.split()[3] == "0A" and line.split()[1].endswith(f":{broker.port:04X}")
    ]
    assert listening == [f"0100007F:{broker.port:04X}"]


async def test_a_port_that_another_process_holds_is_refused(program: str) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(BrokerError, match=r"another process|ended with status"):
            async with Broker(program, port=other.getsockname()[1]):
                pass


async def test_its_unexpected_end_is_an_error(broker: Broker) -> None:
    os.kill(broker.pid, signal.SIGKILL)
    error = await asyncio.wait_for(broker.ended(), PATIENCE_S)
    assert isinstance(error, BrokerError)
    assert "-9" in str(error)


def test_it_dies_when_its_parent_is_killed(program: str) -> None:
    script = textwrap.dedent(f"""
        import asyncio, sys
        from meters.broker import Broker
        async def main():
            async with Broker({program!r}) as broker:
                print(broker.pid, flush=True)
                await asyncio.sleep(60)
        asyncio.run(main())
    """)
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    with parent.stdout:
        pid = int(parent.stdout.readline())
        assert is_running(pid)
        parent.kill()
        parent.wait()
    deadline = time.monotonic() + PATIENCE_S
    while is_running(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not is_running(pid)
