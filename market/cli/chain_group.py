"""``peergrid chain`` with its groups."""

from __future__ import annotations

from market.cli.chain_commands import command
from market.cli.chain_key import key
from market.cli.chain_limits import command as limits
from market.cli.chain_owner import command as owner

command.add_command(key)
command.add_command(limits)
command.add_command(owner)
__all__ = ["command"]
