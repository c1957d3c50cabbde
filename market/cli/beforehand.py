"""What a configuration names beside itself: checked before a market makes anything on disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from contracts.deployment import Deployment
from grid.catalogue import open_feeder
from grid.errors import InputError, Problem
from market.cli.alerts_config import channels_of
from market.cli.physics import check_band
from market.cli.service import bus_of
from market.cli.service_config import MarketSection, ServiceConfig, read_members
from meters.configuration import read_text
from meters.identity import read_key
from meters.secure_broker import market_tls, read_salt


def check(config: ServiceConfig, path: Path) -> None:
    """Raises :class:`InputError` with everything that is wrong with feeders, limits, members, keys and other
    files that ``config``, the content of ``path``, names.
    """
    base = path.resolve().parent
    problems: list[Problem] = []
    if (tls := config.broker.tls) is not None and config.broker.host is not None:
        problems += _found(path, "broker.tls", lambda: _read_tls(base / tls))
    problems += _found(path, "alerts", lambda: channels_of(config.alerts, base))
    for index, market in enumerate(config.markets):
        problems += _of_market(path, f"markets[{index}]", market, base)
    if problems:
        raise InputError(problems)


def _of_market(path: Path, place: str, market: MarketSection, base: Path) -> list[Problem]:
    problems: list[Problem] = []

    def look(field: str, name: str | None, read: Callable[[Path], object]) -> None:
        if name is not None:
            problems.extend(_found(path, f"{place}.{field}", lambda: read(base / name)))

    try:
        feeder = open_feeder(market.feeder, base)
    except InputError as error:
        problems += [_told(path, f"{place}.feeder", problem) for problem in error.problems]
    else:
        try:
            check_band(feeder, market.limits, str(path), f"{place}.limits.")
        except InputError as error:
            problems += error.problems
        look("members", market.members, lambda file: read_members(file, bus_of(feeder)))
    look("key", market.key, read_key)
    if (chain := market.chain) is not None:
        look("chain.deployment", chain.deployment, Deployment.read)
        look("chain.settler_key", chain.settler_key, read_key)
        look("chain.registry_salt", chain.registry_salt, read_salt)
    return problems


def _read_tls(folder: Path) -> None:
    for file in vars(market_tls(folder)).values():
        read_text(file)


def _found(path: Path, field: str, read: Callable[[], object]) -> list[Problem]:
    try:
        read()
    except InputError as error:
        return [_told(path, field, problem) for problem in error.problems]
    return []


def _told(path: Path, field: str, problem: Problem) -> Problem:
    """A problem of what ``field`` names, with that field."""
    if (problem.source, problem.field) == ("feeder", "name"):
        return Problem(str(path), field, problem.value, problem.reason)
    return Problem(f"{path}: {field}: {problem.source}", problem.field, problem.value, problem.reason)
