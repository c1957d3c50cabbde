"""Modbus servers that have nothing to do with pymodbus: libmodbus (C) and modbus-tk, and a serial bus."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import threading
import tty
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CASES = Path(__file__).parents[1] / "cases" / "modbus"
SOURCE = Path(__file__).with_name("register_server.c")
MODBUS_TK = Path(__file__).with_name("modbus_tk_server.py")
BAUD = 115_200

Tables = Mapping[str, Mapping[str, str]]
"""Table ("holding", "input") → address → words, all hexadecimal."""


@dataclass(frozen=True)
class Case:
    """A register image by the maker's definition, and what it means."""

    profile: str
    name: str
    unit: int
    registers: Tables
    expected: Mapping[str, Any]

    def __str__(self) -> str:
        return f"{self.profile}: {self.name}"


def cases() -> list[Case]:
    found = []
    for path in sorted(CASES.glob("*.json")):
        content = json.loads(path.read_text())
        found += [Case(content["profile"], **case) for case in content["cases"]]
    return found


def build(folder: Path) -> Path:
    """The libmodbus server, compiled."""
    program = folder / "register_server"
    flags = ["-O1", "-Wall", "-Wextra", "-Werror", "-I/usr/include/modbus"]
    subprocess.run(["gcc", *flags, "-o", program, SOURCE, "-lmodbus"], check=True)
    return program


def write_image(path: Path, units: Mapping[int, Tables]) -> Path:
    lines = [
        f"{unit} {table} {address} {words}"
        for unit, tables in units.items()
        for table, blocks in tables.items()
        for address, words in blocks.items()
    ]
    path.write_text("\n".join(lines) + "\n")
    return path


@contextlib.contextmanager
def libmodbus_tcp(program: Path, image: Path) -> Iterator[str]:
    """Its url."""
    with _running([str(program), "tcp", "127.0.0.1", str(image)]) as first_line:
        yield f"tcp://127.0.0.1:{int(first_line)}"


@contextlib.contextmanager
def libmodbus_rtu(program: Path, image: Path, device: str) -> Iterator[None]:
    with _running([str(program), "rtu", device, str(BAUD), str(image)]):
        yield


@contextlib.contextmanager
def _running(command: list[str]) -> Iterator[str]:
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline()
        finally:
            process.kill()


@contextlib.contextmanager
def modbus_tk_tcp(image: Path) -> Iterator[str]:
    """Its url."""
    with _running([sys.executable, str(MODBUS_TK), str(image)]) as first_line:
        yield f"tcp://127.0.0.1:{int(first_line)}"


@contextlib.contextmanager
def modbus_tk_rtu(image: Path, device: str) -> Iterator[None]:
    with _running([sys.executable, str(MODBUS_TK), str(image), device, str(BAUD)]):
        yield


class Bus:
    """A serial bus of pseudo-terminals: what one says all others hear."""

    def __init__(self, units: int) -> None:
        pairs = [os.openpty() for _ in range(units + 1)]
        for _, slave in pairs:
            tty.setraw(slave)
        self._pairs = pairs
        self.client, *self.units = [os.ttyname(slave) for _, slave in pairs]
        self._stop, self._stopped = os.pipe()
        self._thread = threading.Thread(target=self._copy)

    def _copy(self) -> None:
        masters = [master for master, _ in self._pairs]
        while True:
            ready, _, _ = select.select([*masters, self._stop], [], [])
            if self._stop in ready:
                return
            for master in ready:
                data = os.read(master, 4096)
                for other in masters:
                    if other != master:
                        os.write(other, data)

    def __enter__(self) -> Bus:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        os.write(self._stopped, b"x")
        self._thread.join()
        for descriptor in (*[end for pair in self._pairs for end in pair], self._stop, self._stopped):
            os.close(descriptor)
