"""What the command says to its user besides results: lines on standard error."""

from __future__ import annotations

import click


def say(line: str) -> None:
    """One message to the user."""
    click.echo(f"peergrid: {line}", err=True)
