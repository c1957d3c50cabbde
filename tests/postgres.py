"""A PostgreSQL server of the tests' own, and empty databases on it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import SEARCH_PATH

LANGUAGE = ("--locale-provider=icu", "--icu-locale=en-US")


def as_postgres(*command: str | Path) -> None:
    """PostgreSQL refuses to run as root."""
    program = shutil.which(str(command[0]), path=SEARCH_PATH)
    assert program is not None
    whole = [program, *map(str, command[1:])]
    if os.geteuid() == 0:
        whole = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", *whole]
    subprocess.run(whole, check=True, capture_output=True, timeout=60, cwd="/")


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """A cluster of its own, reached by a socket in its folder: no port is open."""
    # A short path: that of a socket may have 107 bytes; and one that its user may enter.
    folder = Path(subprocess.check_output(["mktemp", "-d", "/tmp/pg-XXXXXX"], text=True).strip())
    if os.geteuid() == 0:
        shutil.chown(folder, "postgres", "postgres")
    data = folder / "data"
    try:
        as_postgres("initdb", "-D", data, "-U", "peergrid", "-A", "trust", "--no-sync", "-E", "UTF8")
        options = f"-k {folder} -c listen_addresses='' -c fsync=off"
        as_postgres("pg_ctl", "-D", data, "-w", "-l", folder / "log", "-o", options, "start")
        yield str(folder)
        as_postgres("pg_ctl", "-D", data, "-w", "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(name="postgres")
def postgres_database(postgres_server: str, request: pytest.FixtureRequest) -> str:
    """The URL of an empty database, set up in a language that does not order texts by their bytes."""
    name = request.node.name[:50].lower()
    as_postgres("createdb", "-h", postgres_server, "-U", "peergrid", "-T", "template0", *LANGUAGE, name)
    return f"postgresql+psycopg://peergrid@/{name}?host={postgres_server}"
