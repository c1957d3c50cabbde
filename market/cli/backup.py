"""``peergrid backup``: copies of markets' databases, taken while they run."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import click

from grid.errors import InputError, StoreError
from market.cli.chain import DEPLOYMENT
from market.cli.messages import say

# What a trial's own chain and meters keep beside it belongs to the same moment.
_FILES = ("market.sqlite", "chain.sqlite", "meters.sqlite")


@click.command("backup")
@click.argument("place")
@click.option("--to", "parent", type=click.Path(file_okay=False, path_type=Path), required=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def command(place: str, parent: Path, as_json: bool) -> None:
    """Copy the databases of PLACE, a configuration or a database, into a new folder under --to.

    A copy is of one moment, also while the market runs, and is checked before it gets its name. It goes back
    by being put where it came from while no market runs. Keys, the configuration and nets are files of their
    own; PostgreSQL has pg_dump. A trial with simulated households has its own chain, which can be copied only
    while its market is stopped.
    """
    from market.cli.status import databases_of

    databases = databases_of(place)
    files = [database for database in databases if isinstance(database, Path)]
    if len(files) < len(databases):
        raise InputError.single("PLACE", "database", "…", "PostgreSQL is backed up by pg_dump")
    made = [path for file in files for path in back_up(file, parent)]
    if as_json:
        click.echo(json.dumps({"files": [str(path) for path in made]}))
        return
    for path in made:
        say(f"{path}: {path.stat().st_size / 1e6:.1f} MB, checked")


def back_up(database: Path, parent: Path) -> list[Path]:
    """The copies of a database and of what a trial's market keeps beside it. Raises :class:`StoreError`."""
    if not database.is_file():
        raise InputError.single(str(database), "", database.name, "is no database")
    if not _is_a_markets(database):
        raise InputError.single(str(database), "", database.name, "is no market's database")
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    folder = parent / f"{database.parent.name}-{stamp}"
    beside = [database.with_name(name) for name in _FILES if name != database.name]
    try:
        folder.mkdir(parents=True, mode=0o700)
        found = [copied(database, folder / database.name)]
        found += [copied(path, folder / path.name) for path in beside if path.is_file() and _is_free(path)]
        if (deployment := database.with_name(DEPLOYMENT)).is_file():
            found.append(Path(shutil.copy2(deployment, folder)))
        _on_the_disk(folder)
        _on_the_disk(parent)
    except OSError as error:
        raise StoreError(f"{folder}: cannot be written: {error.strerror}") from None
    except sqlite3.Error as error:
        raise StoreError(f"{folder}: no backup was made: {error}") from None
    return found


def _is_a_markets(database: Path) -> bool:
    """Of whatever schema: a copy comes before an upgrade."""
    try:
        with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=30)) as connection:
            tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            return {"run", "interval"} <= {name for (name,) in tables}
    except sqlite3.OperationalError as error:
        raise StoreError(f"{database}: {error}") from None
    except sqlite3.DatabaseError:
        return False


def copied(source: Path, target: Path) -> Path:
    """One database at one moment, checked and on the disk, for its owner alone."""
    unfinished = target.with_name(target.name + ".part")
    unfinished.touch(mode=0o600)
    with closing(sqlite3.connect(f"file:{source}?mode=ro", uri=True, timeout=30)) as connection:
        connection.execute("VACUUM INTO ?", (str(unfinished),))
    with closing(sqlite3.connect(f"file:{unfinished}?mode=ro", uri=True)) as connection:
        (verdict,) = connection.execute("PRAGMA integrity_check").fetchone()
        if verdict != "ok":
            raise sqlite3.DatabaseError(f"the copy of {source.name} is damaged: {verdict}")
    _on_the_disk(unfinished)
    unfinished.rename(target)
    return target


def _is_free(path: Path) -> bool:
    """A trial's own chain is its market's alone while that runs."""
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=1)) as connection:
            connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()
    except sqlite3.OperationalError:
        say(f"{path}: is in use and left out; stop the market for a copy of it")
        return False
    return True


def _on_the_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
