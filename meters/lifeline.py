"""Child processes that do not outlive their parent.

On Linux the kernel sends the signal (PR_SET_PDEATHSIG); it fires when the *thread* that started the
child ends, so children are started from the thread that runs the event loop. Elsewhere, and as a
second line, a Python child watches its standard input, which ends with the parent.

``python -m meters.lifeline COMMAND…`` ties itself to its parent and then becomes COMMAND: for
programs that know nothing of this.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import stat
import sys
import threading
from pathlib import Path

_PR_SET_PDEATHSIG = 1


def tie_to_parent(parent: int, deadly: signal.Signals = signal.SIGTERM) -> None:
    """Have the kernel send ``deadly`` to this process when ``parent``, which started it, ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(deadly))
    if os.getppid() != parent:  # it ended before the call
        os.kill(os.getpid(), deadly)


def end_with_stdin(deadly: signal.Signals = signal.SIGTERM) -> None:
    """Send ``deadly`` to this process when its standard input ends, if that is a pipe from the parent."""
    if not stat.S_ISFIFO(os.fstat(0).st_mode):
        return

    def watch() -> None:
        while os.read(0, 4096):
            pass
        os.kill(os.getpid(), deadly)

    threading.Thread(target=watch, name="lifeline", daemon=True).start()


def become(parent: int, command: list[str]) -> None:
    """Tie this process to ``parent`` and replace it by ``command``."""
    tie_to_parent(parent, signal.SIGKILL)
    os.execvp(command[0], command)  # noqa: S606


class Child:
    """A running child process, tied to this one; what it prints goes to ``log``."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self._process = process
        self.log = log

    @classmethod
    async def start(cls, command: list[str], log: Path) -> Child:
        launcher = [sys.executable, "-m", "meters.lifeline", str(os.getpid())]
        with log.open("ab") as output:
            process = await asyncio.create_subprocess_exec(
                *launcher,
                *command,
                stdin=asyncio.subprocess.PIPE,
                stdout=output,
                stderr=output,
                start_new_session=True,  # Ctrl-C is for the parent, which then ends its children in order
            )
        return cls(process, log)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def status(self) -> int | None:
        """Its exit status (negative: the signal that ended it), None while it runs."""
        return self._process.returncode

    def last_words(self) -> str:
        """The end of what it printed, in one line."""
        return " ".join(self.log.read_text(errors="replace").strip().splitlines()[-3:])

    async def wait(self) -> int:
        """Its exit status, when it has ended."""
        return await self._process.wait()

    async def stop(self, timeout_s: float = 5.0) -> None:
        """Ends it in order, or after ``timeout_s`` without asking."""
        if self._process.returncode is None:
            self._process.terminate()
            try:
                async with asyncio.timeout(timeout_s):
                    await self._process.wait()
            except TimeoutError:
                self._process.kill()
                await self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()


if __name__ == "__main__":
    become(int(sys.argv[1]), sys.argv[2:])
