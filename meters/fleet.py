"""All simulated households of a feeder in one process: ``python -m meters.fleet fleet.json``."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
import signal
import sys
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from grid.catalogue import year_profiles
from grid.errors import InputError, PeergridError
from market.messages.models import Address, FeederId, UnixTime
from market.messages.signing import Domain
from meters import lifeline
from meters.agent import MarketPlace, Patience
from meters.configuration import Part, parsed_json, read_text
from meters.connected import BrokerAt, Connected
from meters.household.life import State, at_hand_wh
from meters.household.settings import HouseholdSettings
from meters.household.sites import Household, households
from meters.identity import derived_signer
from meters.outbox import Outbox
from meters.simulated import SimulatedAgent, SimulatedHousehold
from meters.strategies import load_strategy

_STOP_TIMEOUT_S = 10.0


class FleetConfig(Part):
    """What a fleet is told; times Unix seconds, ``database`` a path, waiting times real seconds."""

    host: str
    port: Annotated[int, Field(gt=0, lt=65536)]
    feeder: FeederId
    feeder_name: str
    market: Address
    chain_id: Annotated[int, Field(ge=0)]
    registry: Address
    seed: Annotated[int, Field(ge=0, le=2**63 - 1)]
    first_interval_start: UnixTime
    minutes: Literal[5, 15, 30, 60] = 15
    household: HouseholdSettings = HouseholdSettings()
    database: str
    resend_s: Annotated[float, Field(gt=0)] = 5.0
    award_patience_s: Annotated[float, Field(gt=0)] = 5.0

    def identity(self) -> str:
        """Whose database it is: another seed, feeder, time or household must not continue it."""
        what = self.model_dump_json(exclude={"host", "port", "database", "resend_s", "award_patience_s"})
        return f"{self.feeder} {hashlib.sha256(what.encode()).hexdigest()[:16]}"


def read_config(path: Path) -> FleetConfig:
    """The configuration in a JSON file (:class:`InputError` names what is wrong with it)."""
    return parsed_json(str(path), FleetConfig, read_text(path))


def agents_of(config: FleetConfig) -> tuple[SimulatedAgent, ...]:
    """One agent for each household of the feeder."""
    place = MarketPlace(
        feeder=config.feeder,
        market=config.market,
        domain=Domain(config.chain_id, config.registry),
        interval_s=config.minutes * 60,
    )
    patience = Patience(resend_s=config.resend_s, award_s=config.award_patience_s)
    start = config.first_interval_start - 2 * place.interval_s
    profiles = year_profiles(config.feeder_name)
    return tuple(
        SimulatedAgent(
            SimulatedHousehold(household, start, place.interval_s, load_strategy(household.strategy)),
            derived_signer(config.seed, f"meter:{household.name}"),
            place,
            patience,
        )
        for household in households(profiles, config.household, config.seed)
    )


@dataclass(frozen=True)
class Comfort:
    """What the day was for the households, besides money; ``battery_wh`` is in the batteries at its end.

    ``at_hand_wh`` is what :func:`meters.household.life.at_hand_wh` tells of each meter's household then.
    """

    pv_curtailed_wh: int
    battery_wh: int
    ev_departures: int
    ev_unmet: int
    ev_unmet_wh: int
    heat_lacking_wh: int
    at_hand_wh: Mapping[str, float]


def comfort(config: FleetConfig, homes: Iterable[Household]) -> Comfort:
    """The day's comfort of the fleet's ``homes`` as its database tells it."""
    outbox = Outbox(Path(config.database), config.identity())
    try:
        lasts = {row.meter: json.loads(row.state)["last"] for row in outbox.meters()}
    finally:
        outbox.close()
    by_meter = {meter: State(**json.loads(last["memory"])) for meter, last in lasts.items()}
    meters = {derived_signer(config.seed, f"meter:{home.name}").address: home for home in homes}
    states = by_meter.values()
    return Comfort(
        pv_curtailed_wh=round(sum(state.pv_curtailed_wh for state in states)),
        battery_wh=round(sum(state.battery_wh for state in states)),
        ev_departures=sum(state.ev_departures for state in states),
        ev_unmet=sum(state.ev_unmet for state in states),
        ev_unmet_wh=round(sum(state.ev_unmet_wh for state in states)),
        heat_lacking_wh=round(sum(state.heat_lacking_wh for state in states)),
        at_hand_wh={meter: at_hand_wh(home, by_meter[meter]) for meter, home in meters.items()},
    )


@contextlib.asynccontextmanager
async def running(config: FleetConfig, folder: Path) -> AsyncIterator[lifeline.Child]:
    """The fleet as a child process; its configuration and log are written into ``folder``."""
    path = folder / "fleet.json"
    path.write_text(config.model_dump_json(indent=2) + "\n", encoding="utf-8")
    command = [sys.executable, "-m", "meters.fleet", str(path)]
    child = await lifeline.Child.start(command, folder / "fleet.log")
    try:
        yield child
    finally:
        await child.stop(_STOP_TIMEOUT_S)


async def _main(config: FleetConfig) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stop.set)
    lifeline.end_with_stdin()
    outbox = Outbox(Path(config.database), config.identity())
    try:
        await Connected(agents_of(config), outbox, BrokerAt(config.host, config.port)).run(stop)
    finally:
        outbox.close()


def main(arguments: list[str]) -> int:
    """The exit status of the command; errors go to standard error, one line each."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        if len(arguments) != 1:
            raise InputError.single("meters.fleet", "", arguments, "is not one configuration file")
        asyncio.run(_main(read_config(Path(arguments[0]))))
    except PeergridError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
