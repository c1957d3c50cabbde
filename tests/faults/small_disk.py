"""A disk that a test can fill and make read-only, under the database of a market in this process."""

from __future__ import annotations

import contextlib
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event

SIZE_BYTES = 4 << 20


class Disk(ABC):
    """Its files are in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @abstractmethod
    def fill(self) -> None: ...

    @abstractmethod
    def make_room(self) -> None: ...

    @abstractmethod
    def be_writable(self, yes: bool) -> None: ...


class TmpfsDisk(Disk):
    """A file system of its own, where this machine lets one be mounted: the kernel refuses to write."""

    @classmethod
    @contextmanager
    def mounted(cls, folder: Path) -> Iterator[Disk]:
        made = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={SIZE_BYTES}", "tmpfs", folder],
            check=False,
            capture_output=True,
        )
        if made.returncode:
            pytest.skip("may not mount a tmpfs here: the limited disk stands for it")
        try:
            yield cls(folder)
        finally:
            subprocess.run(["umount", folder], check=True)

    def fill(self) -> None:
        with contextlib.suppress(OSError), (self.folder / "ballast").open("wb") as file:
            while True:
                file.write(bytes(4096))
                file.flush()

    def make_room(self) -> None:
        (self.folder / "ballast").unlink()

    def be_writable(self, yes: bool) -> None:
        subprocess.run(["mount", "-o", f"remount,{'rw' if yes else 'ro'}", self.folder], check=True)


class LimitedDisk(Disk):
    """Needs no rights: SQLite itself refuses a further page (SQLITE_FULL), or to write (SQLITE_READONLY)."""

    _PAGES_MAX = 2**32 - 2
    _pages = _PAGES_MAX
    _writable = True

    @classmethod
    @contextmanager
    def mounted(cls, folder: Path) -> Iterator[Disk]:
        disk = cls(folder)
        event.listen(Engine, "checkout", disk._limit)
        try:
            yield disk
        finally:
            event.remove(Engine, "checkout", disk._limit)

    def _limit(self, connection: Any, _record: Any, _proxy: Any) -> None:
        connection.execute(f"PRAGMA max_page_count = {self._pages}")
        connection.execute(f"PRAGMA query_only = {not self._writable}")

    def fill(self) -> None:
        self._pages = 1  # no less than it has

    def make_room(self) -> None:
        self._pages = self._PAGES_MAX

    def be_writable(self, yes: bool) -> None:
        self._writable = yes
