"""``peergrid meter schema``: the published form of the messages, from the models the market checks with."""

from __future__ import annotations

import json
from pathlib import Path

import click

from grid.errors import InputError
from market.messages.schema import asyncapi, documents, json_schemas


@click.command("schema")
@click.argument("message", required=False)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="Write every file into this folder instead of printing.",
)
def schema(message: str | None, out: Path | None) -> None:
    """Print the JSON Schema of MESSAGE, or the AsyncAPI document of all."""
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        for name, text in documents().items():
            (out / name).write_text(text, encoding="utf-8")
        return
    schemas = json_schemas()
    if message is not None and message not in schemas:
        raise InputError.single("meter schema", "message", message, f"is none of {', '.join(schemas)}")
    document = asyncapi() if message is None else schemas[message]
    click.echo(json.dumps(document, indent=2, ensure_ascii=False))
