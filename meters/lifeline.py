"""Child processes that do not outlive their parent.

On Linux the kernel sends the signal (PR_SET_PDEATHSIG); it fires when the *thread* that started the
child ends, so children are started from the thread that runs the event loop. Elsewhere, and as a
second line, a Python child watches its standard input, which ends with the parent.

``python -m meters.lifeline COMMAND…`` ties itself to its parent and then becomes COMMAND: for
programs that know nothing of this.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading

_PR_SET_PDEATHSIG = 1


def tie_to_parent(parent: int, deadly: signal.Signals = signal.SIGTERM) -> None:
    """Have the kernel send ``deadly`` to this process when ``parent``, which started it, ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(deadly))
    if os.getppid() != parent:  # it ended before the call
        os.kill(os.getpid(), deadly)


def end_with_stdin(deadly: signal.Signals = signal.SIGTERM) -> None:
    """Send ``deadly`` to this process when its standard input, a pipe from the parent, ends."""

    def watch() -> None:
        while os.read(0, 4096):
            pass
        os.kill(os.getpid(), deadly)

    threading.Thread(target=watch, name="lifeline", daemon=True).start()


def become(parent: int, command: list[str]) -> None:
    """Tie this process to ``parent`` and replace it by ``command``."""
    tie_to_parent(parent, signal.SIGKILL)
    os.execvp(command[0], command)  # noqa: S606


def launcher(command: list[str]) -> list[str]:
    """The command line that runs ``command`` tied to the calling process, under the same process id."""
    return [sys.executable, "-m", "meters.lifeline", str(os.getpid()), *command]


if __name__ == "__main__":
    become(int(sys.argv[1]), sys.argv[2:])
