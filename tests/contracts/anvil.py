"""A real node for tests: anvil, which npm brings with Foundry (contracts/forge.sh installs it)."""

from __future__ import annotations

import re
import signal
import subprocess
from pathlib import Path
from threading import Thread

FOUNDRY = Path(__file__).parents[2] / "contracts" / "node_modules" / "@foundry-rs"
ANVIL = next(FOUNDRY.glob("anvil-*/bin/anvil*"), None)


class Anvil:
    """One anvil process on loopback. ``options`` are those of its command line; port 0 takes a free one."""

    def __init__(self, *options: str, port: int = 0) -> None:
        command = [str(ANVIL), "--host", "127.0.0.1", "--port", str(port), "--hardfork", "prague", *options]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout
        lines = iter(self.process.stdout)
        address = next((found[1] for line in lines if (found := re.match(r"Listening on (\S+)", line))), None)
        assert address is not None, "anvil ended before it listened"
        self.url = f"http://{address}"
        self.port = int(address.rpartition(":")[2])
        # It tells of every call; with a full pipe it would stop.
        self._listener = Thread(target=lambda: [None for _ in lines], daemon=True)
        self._listener.start()

    def stop(self) -> None:
        """It hangs: connections are accepted and nothing is answered."""
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def end(self, *, gently: bool = False) -> None:
        """``gently`` lets it write its state."""
        self.process.send_signal(signal.SIGTERM if gently else signal.SIGKILL)
        self.process.wait(timeout=20)
        self._listener.join()
        assert self.process.stdout
        self.process.stdout.close()
