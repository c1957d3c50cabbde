from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.modbus.servers import build, cases, libmodbus_tcp, modbus_tk_tcp, write_image


@pytest.fixture(scope="session")
def register_server(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The libmodbus server; its tests are marked ``needs("gcc", "libmodbus")``."""
    return build(tmp_path_factory.mktemp("libmodbus"))


@pytest.fixture(scope="session")
def all_cases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One image with all cases: the first is unit 1, the second unit 2, and so on."""
    units = {unit: case.registers for unit, case in enumerate(cases(), 1)}
    return write_image(tmp_path_factory.mktemp("cases") / "image", units)


@pytest.fixture(scope="session")
def libmodbus(register_server: Path, all_cases: Path) -> Iterator[str]:
    with libmodbus_tcp(register_server, all_cases) as url:
        yield url


@pytest.fixture(scope="session")
def modbus_tk(all_cases: Path) -> Iterator[str]:
    with modbus_tk_tcp(all_cases) as url:
        yield url
