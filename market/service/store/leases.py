"""Which process is the market: one at a time, and who was one is told so before it can write again.

The holder makes its lease beat. Who wants it watches the beat for as long as a lease lasts *by its own
monotonic clock* and takes over when it stands still: nobody compares clocks, so none can be wrong. Each
holder has a higher fence than the one before; every write transaction begins by checking it, and a process
that slept through its lease finds out there.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, insert, select, update

from grid.errors import StoreError
from market.service.store.schema import lease as table

MARKET = "market"
_HOLDER = select(table.c.holder, table.c.fence).where(table.c.name == MARKET).with_for_update()
_BEAT = update(table).where(table.c.name == MARKET).values(beat=table.c.beat + 1)


class FencedError(StoreError):
    """Another process has taken this market over; nothing was written."""


@dataclass(frozen=True, slots=True)
class Lease:
    """``holder`` is empty when it was given back."""

    holder: str
    fence: int
    beat: int


def current(connection: Connection) -> Lease | None:
    row = connection.execute(select(table).where(table.c.name == MARKET)).one_or_none()
    return Lease(row.holder, row.fence, row.beat) if row else None


def take(tx: Connection, holder: str, seen: Lease | None) -> int | None:
    """The fence of the new holder; None where the lease is not as ``seen`` any more."""
    if seen is None:
        if current(tx) is not None:
            return None
        tx.execute(insert(table), {"name": MARKET, "holder": holder, "fence": 1, "beat": 0})
        return 1
    taken = tx.execute(
        update(table)
        .where(table.c.name == MARKET, table.c.fence == seen.fence, table.c.beat == seen.beat)
        .values(holder=holder, fence=seen.fence + 1, beat=0)
    )
    return seen.fence + 1 if taken.rowcount == 1 else None


def beat(tx: Connection) -> None:
    """The holder lives."""
    tx.execute(_BEAT)


def give_back(tx: Connection) -> None:
    tx.execute(update(table).where(table.c.name == MARKET).values(holder=""))


def check(tx: Connection, fence: int | None) -> None:
    """Begins a write transaction; on PostgreSQL it also waits for the one before it."""
    if fence is None:
        return
    found = tx.execute(_HOLDER).one()
    if found.fence != fence:
        raise FencedError(f"this market was taken over by {found.holder or 'another process'}")


def myself() -> str:
    """This process, so that another one on the same machine can tell whether it lives."""
    return f"{_machine()} {os.getpid()} {_started(os.getpid())}"


def is_held(lease: Lease | None) -> bool:
    """Whether somebody has it who is not known to have ended."""
    return lease is not None and lease.holder != "" and not is_gone(lease.holder)


def is_gone(holder: str) -> bool:
    """Whether a holder is known to have ended: only what runs on this machine can be known."""
    machine, _, process = holder.partition(" ")
    if machine != _machine() or not Path("/proc/self/stat").exists():
        return False
    pid, _, started = process.partition(" ")
    return _started(int(pid)) != started


def _machine() -> str:
    boot = Path("/proc/sys/kernel/random/boot_id")
    return f"{socket.gethostname()}/{boot.read_text().strip() if boot.exists() else ''}"


def _started(pid: int) -> str:
    """When a process started, in the kernel's own units; nothing where there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    return stat.rpartition(")")[2].split()[19]
