"""``peergrid chain limits``: other bounds of what the settler may move, behind the timelock."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from grid.errors import InputError
from market.cli.chain_commands import on_a_chain, patience, show, status, ueur, with_a_key

if TYPE_CHECKING:
    from contracts.market_contracts import Limits
    from market.cli.chain_access import Place


@click.command("limits")
@click.argument("proposal", metavar="NAME")
@click.option("--position-max", metavar="EUR", help="The most that one account pays in a batch.")
@click.option("--window-max", metavar="EUR", help="The most that all pay in a window.")
@click.option("--guarantee-max", metavar="EUR", help="The most that is drawn from the guarantee in a window.")
@click.option("--window", type=click.IntRange(1, 2**32 - 1), metavar="SECONDS", help="How long one is.")
@click.option("--apply", "due", is_flag=True, help="When the timelock's delay is over: with the same bounds.")
@with_a_key
@on_a_chain
def command(
    place: Place,
    proposal: str,
    position_max: str | None,
    window_max: str | None,
    guarantee_max: str | None,
    window: int | None,
    due: bool,
    key: Path | None,
    household: str | None,
    confirmations: int,
    as_json: bool,
) -> None:
    """Announce, as the market's operator, other bounds of what the settler may move; with --apply, later, set
    them.

    What is not given stays as it is. NAME is the announcement's own, as raise-2026-11: each counts once.
    """
    from market.cli.chain_access import sending, signer_of

    place.check()
    signer = signer_of(place, key, household)
    with sending(place, signer, patience(confirmations)) as (access, sender, is_free):
        if is_free:
            contracts = access.contracts
            asked = _changed(contracts.limits(), position_max, window_max, guarantee_max, window)
            (contracts.apply_limits if due else contracts.propose_limits)(sender, f"limits/{proposal}", asked)
        document = status(access)
    show(document, as_json)


def _changed(
    limits: Limits,
    position_max: str | None,
    window_max: str | None,
    guarantee_max: str | None,
    window_s: int | None,
) -> Limits:
    from contracts.deployment import UINT56_MAX

    amounts = {
        "position_debit_max": (position_max, "--position-max"),
        "window_debit_max": (window_max, "--window-max"),
        "guarantee_max": (guarantee_max, "--guarantee-max"),
    }
    given = {field: ueur(text, option) for field, (text, option) in amounts.items() if text is not None}
    for field, amount_ueur in given.items():
        if amount_ueur > UINT56_MAX:
            text, option = amounts[field]
            raise InputError.single(option, "", text, "is more than 72 billion EUR")
    if window_s is not None:
        given["window_s"] = window_s
    if not given:
        raise InputError.single("--position-max", "", None, "or another bound is needed")
    return replace(limits, **given)
