"""The command ``peergrid``: one group whose sub-commands are imported only when they are called.

Whatever goes wrong ends as one plain line per error on standard error and an exit status: 2 for bad usage
or bad input, 3 for a suspended interval, 1 for anything else. A traceback is shown only with ``--debug``
or ``PEERGRID_DEBUG=1``.
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from importlib.metadata import version

import click

from grid.errors import InputError, PeergridError
from market.cli.messages import say

COMMANDS = {
    "backup": ("market.cli.backup", "Copy markets' databases, also while they run."),
    "bench": ("market.cli.bench", "Measure how fast the parts are."),
    "chain": ("market.cli.chain_group", "Deploy a market's contracts, watch them, deposit and withdraw."),
    "broker": ("market.cli.broker", "Set up an MQTT broker that knows everybody by certificate."),
    "clear": ("market.cli.clear", "Clear one book of orders under a feeder's limits."),
    "console": ("market.cli.console", "Serve the operator's console over a stored or running market."),
    "demo": ("market.cli.demo", "Run one simulated day of the whole market."),
    "export": ("market.cli.export", "Write what a market's database holds as CSV or Parquet."),
    "feeder": ("market.cli.feeder", "List feeders, check one, import one's own."),
    "dispute": ("market.cli.dispute", "Contest what an interval came to; decide on it."),
    "init": ("market.cli.init", "Write a commented configuration of a market."),
    "member": ("market.cli.members", "Members join, leave, move, get another meter or wallet."),
    "meter": ("market.cli.meter", "Find, enrol and run meters; print the format of their messages."),
    "operate": ("market.cli.operate", "Suspend a market and resume it, change its prices or its network."),
    "replay": ("market.cli.replay", "Rebuild a market's database from its journal and compare."),
    "run": ("market.cli.run_command", "Run markets on the wall clock."),
    "status": ("market.cli.status", "Show the intervals that are not final."),
    "statement": ("market.cli.statement.command", "Write the month's statement of every account."),
    "verify": ("market.cli.verify", "Check a clearing record against its book, by pandapower."),
}


class LazyGroup(click.Group):
    """A group that knows its commands' names and first lines without importing them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(COMMANDS[cmd_name][0])
        command = module.command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(version("peergrid"), prog_name="peergrid")
@click.option("--debug", is_flag=True, envvar="PEERGRID_DEBUG", help="Show the traceback of an error.")
@click.pass_context
def cli(context: click.Context, debug: bool) -> None:
    """A peer-to-peer energy market on a real distribution feeder."""
    context.obj = debug


def wants_traceback(arguments: Sequence[str]) -> bool:
    return "--debug" in arguments or os.environ.get("PEERGRID_DEBUG", "0") not in ("", "0")


def run(arguments: Sequence[str]) -> int:
    """Runs one command and returns its exit status."""
    try:
        status = cli.main(args=list(arguments), prog_name="peergrid", standalone_mode=False)
        return status if isinstance(status, int) else 0
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return 2
    except click.ClickException as error:
        say(" ".join(error.format_message().split()))
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        say("interrupted")
        return 1
    except BrokenPipeError:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115  nobody reads it any more
        return 1
    except PeergridError as error:
        if wants_traceback(arguments):
            traceback.print_exc()
        problems = error.problems if isinstance(error, InputError) else (" ".join(str(error).split()),)
        for problem in problems:
            say(str(problem))
        return error.exit_status
    except Exception as error:
        if wants_traceback(arguments):
            traceback.print_exc()
        say(f"{type(error).__name__}: {' '.join(str(error).split())}; --debug shows where")
        return 1


def main() -> None:
    # One thread for each process: the matrices are small and the processes several.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # keccak in C, several times faster than the default back end; children inherit it.
    os.environ.setdefault("ETH_HASH_BACKEND", "pysha3")
    sys.exit(run(sys.argv[1:]))
