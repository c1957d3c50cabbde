"""A real MQTT broker on loopback, for as long as a block of code runs.

It is mosquitto where that is installed, else the broker inside the ``iotcore`` wheel in a process of
its own. Both keep everything in memory: what must not be lost stays in the outboxes of meters and
market until a receipt covers it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Literal

from grid.errors import BrokerError
from meters import lifeline

HOST = "127.0.0.1"
Program = Literal["mosquitto", "iotcore"]

_START_TIMEOUT_S = 15.0
_PORTS_TRIED_MAX = 5
_POLL_S = 0.02
_TCP_LISTEN = "0A"

# Queues without a cap: the default of 1,000 drops messages of a fleet that falls behind.
_MOSQUITTO = """\
listener {port} {host}
allow_anonymous true
persistence false
set_tcp_nodelay true
max_inflight_messages 0
max_queued_messages 0
max_queued_bytes 0
log_dest stderr
log_type error
log_type warning
"""

_IOTCORE = """\
id = 0
[router]
id = 0
max_connections = 10010
max_outgoing_packet_count = 1000
max_segment_size = 104857600
max_segment_count = 10
[v5.1]
name = "loopback"
listen = "{host}:{port}"
next_connection_delay_ms = 1
[v5.1.connections]
connection_timeout_ms = 60000
max_payload_size = 1048576
max_inflight_count = 1000
dynamic_filters = true
"""


def mosquitto_path() -> str | None:
    """Where mosquitto is installed; Debian puts it where users' PATH does not look."""
    return shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")


class Broker:
    """``async with Broker() as broker``: ``host``, ``port`` and ``kind`` of a running broker.

    ``program`` is mosquitto where it is found, else iotcore; ``port`` is a free one unless given.
    Raises :class:`BrokerError` when it does not come up, or another process holds its port.
    Enter it in the thread whose end may end the broker (see :mod:`meters.lifeline`).
    """

    host = HOST

    def __init__(self, program: Program | None = None, port: int | None = None) -> None:
        self.program: Program = program or ("mosquitto" if mosquitto_path() else "iotcore")
        self.port = port or 0
        self.kind: str = self.program
        self._port_is_given = port is not None
        self._child: lifeline.Child | None = None
        self._files = contextlib.ExitStack()

    async def __aenter__(self) -> Broker:
        folder = Path(self._files.enter_context(tempfile.TemporaryDirectory(prefix="peergrid-broker-")))
        try:
            for attempt in range(1, _PORTS_TRIED_MAX + 1):
                if not self._port_is_given:
                    self.port = free_port()
                try:
                    await self._start(folder)
                    break
                except BrokerError:
                    await self._stop()
                    if self._port_is_given or attempt == _PORTS_TRIED_MAX:
                        raise
        except BaseException:
            await self._stop()
            self._files.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stop()
        self._files.close()

    @property
    def pid(self) -> int:
        assert self._child is not None
        return self._child.pid

    async def ended(self) -> BrokerError:
        """Waits until the broker ends by itself, and tells it as an error to raise."""
        assert self._child is not None
        status = await self._child.wait()
        return BrokerError(f"the MQTT broker {self.kind} ended by itself with status {status}")

    async def _start(self, folder: Path) -> None:
        log = folder / "broker.log"
        if self.program == "mosquitto":
            command = self._mosquitto_command(folder)
            self.kind = await _mosquitto_version(command[0])
        else:
            command = self._iotcore_command(folder)
        self._child = child = await lifeline.Child.start(command, log)
        try:
            async with asyncio.timeout(_START_TIMEOUT_S):
                while not await _accepts(self.port):
                    if child.status is not None:
                        raise BrokerError(
                            f"the MQTT broker {self.kind} ended with status {child.status} at its "
                            f"start: {child.last_words()}"
                        )
                    await asyncio.sleep(_POLL_S)
        except TimeoutError:
            raise BrokerError(
                f"the MQTT broker {self.kind} did not listen on {HOST}:{self.port} "
                f"within {_START_TIMEOUT_S:.0f} s"
            ) from None
        if not _is_bound_by(child.pid, self.port):
            raise BrokerError(f"port {self.port} is held by another process than the broker just started")

    def _mosquitto_command(self, folder: Path) -> list[str]:
        path = mosquitto_path()
        if path is None:
            raise BrokerError("mosquitto is not installed")
        config = folder / "mosquitto.conf"
        text = _MOSQUITTO.format(port=self.port, host=HOST)
        if os.geteuid() == 0:
            # Changing its user would clear the signal that ends it with its parent.
            text += "user root\n"
        config.write_text(text)
        return [path, "-c", str(config)]

    def _iotcore_command(self, folder: Path) -> list[str]:
        config = folder / "iotcore.toml"
        config.write_text(_IOTCORE.format(port=self.port, host=HOST))
        return [sys.executable, "-m", "meters.broker", str(config)]

    async def _stop(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            await child.stop()


def free_port() -> int:
    """A TCP port that nothing listens on at this moment."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


async def _accepts(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection(HOST, port)
    except OSError:
        return False
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return True


def _is_bound_by(pid: int, port: int) -> bool:
    """Whether every socket that listens on ``port`` belongs to process ``pid``.

    Where there is no /proc the answer is yes: the child is alive, and a second one could not bind.
    """
    if not Path("/proc/net/tcp").exists():
        return True
    inodes = set()
    for table in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")):
        for line in table.read_text().splitlines()[1:] if table.exists() else ():
            columns = line.split()
            if columns[3] == _TCP_LISTEN and int(columns[1].rsplit(":", 1)[1], 16) == port:
                inodes.add(f"socket:[{columns[9]}]")
    held = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            held.add(str(descriptor.readlink()))
    return bool(inodes) and inodes <= held


async def _mosquitto_version(path: str) -> str:
    process = await asyncio.create_subprocess_exec(path, "-h", stdout=asyncio.subprocess.PIPE)
    words, _ = await process.communicate()
    first = words.decode(errors="replace").splitlines()[0].split()
    return f"mosquitto {first[-1]}" if first else "mosquitto"


def _serve_iotcore(config: str) -> None:
    """Run the embedded broker in this process until it is ended."""
    from iotcore import IotCoreBroker

    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # its loop never comes back to Python
    lifeline.end_with_stdin(signal.SIGKILL)
    IotCoreBroker(config_path=config).run_forever()


if __name__ == "__main__":
    _serve_iotcore(sys.argv[1])
