"""``peergrid meter``: what a meter's owner and a firmware author need."""

from __future__ import annotations

import click

from market.cli.meter_emulate import emulate
from market.cli.meter_enroll import enroll
from market.cli.meter_probe import probe
from market.cli.meter_profiles import profiles
from market.cli.meter_registry import register, revoke
from market.cli.meter_replacement import release, replace
from market.cli.meter_run import example, run
from market.cli.meter_schema import schema


@click.group("meter")
def command() -> None:
    """Enrol, register, replace, revoke and run meters; print the format of their messages."""


command.add_command(emulate)
command.add_command(enroll)
command.add_command(example)
command.add_command(probe)
command.add_command(profiles)
command.add_command(register)
command.add_command(release)
command.add_command(replace)
command.add_command(revoke)
command.add_command(run)
command.add_command(schema)
