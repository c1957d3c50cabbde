"""``peergrid chain key``: the market's, the operator's and the settler's keys, and their addresses."""

from __future__ import annotations

import secrets
from pathlib import Path

import click

from market.cli.messages import say
from meters.identity import SECRET_BYTES, read_key, write_key


@click.command("key")
@click.argument("files", nargs=-1, required=True, type=click.Path(dir_okay=False, path_type=Path))
def key(files: tuple[Path, ...]) -> None:
    """Print the address of the key in each of FILES; a file that is not there gets a new key, mode 600."""
    for file in files:
        if not file.exists():
            write_key(file, secrets.token_bytes(SECRET_BYTES))
            say(f"{file} has a new key: keep a copy apart, nobody can make it again")
        click.echo(f"{read_key(file).address}  {file}")
