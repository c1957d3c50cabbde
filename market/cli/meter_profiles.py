"""``peergrid meter profiles``: the meter types that can be read by Modbus, and the form of their files."""

from __future__ import annotations

import json
from pathlib import Path

import click


@click.command("profiles")
@click.argument("profile", required=False, metavar="[PROFILE]")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.option("--schema", is_flag=True, help="Print the JSON Schema of a profile instead.")
def profiles(profile: str | None, as_json: bool, schema: bool) -> None:
    """List the meter types that can be read by Modbus, or show what PROFILE says (a name, or a YAML file).

    A type is "verified" where a register image by its maker's definition was read back through servers that
    are not ours; that is no test with the device itself.
    """
    from meters.modbus.profile import find_profile, json_schema, shipped

    if schema:
        click.echo(json.dumps(json_schema(), indent=2, ensure_ascii=False))
        return
    found = shipped() if profile is None else {Path(profile).stem: find_profile(profile)}
    if as_json:
        document = {name: one.model_dump(mode="json", exclude_none=True) for name, one in found.items()}
        click.echo(json.dumps(document, indent=2, ensure_ascii=False))
        return
    width = max(map(len, found))
    for name, one in found.items():
        mark = "verified  " if one.verified else "unverified"
        obeys = "" if one.control is None else "; can be told what to do"
        click.echo(f"{name:{width}}  {mark}  {'/'.join(one.transports):7}  {one.maker}: {one.model}{obeys}")
    if profile is not None:
        one = found[Path(profile).stem]
        for title, lines in (("source", one.sources), ("disputed", one.disputes), ("note", one.notes)):
            for line in lines:
                click.echo(f"  {title}: {line}")
