"""What a simulated market is made of before anything is written: feeder, households, keys, members, terms.

All of it follows from the settings alone, so a restart makes the same world again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from eth_hash.auto import keccak

from contracts.deployment import EscrowTerms
from contracts.registry import SignedBinding
from grid.catalogue import Profiles, open_feeder, year_profiles
from grid.errors import InputError
from grid.feeder import Feeder
from market.cli.physics import bus_of, check_band
from market.cli.settings import INTERVAL_S, Settings
from market.messages.signing import Domain, Signer
from market.service.settings import MarketSettings, Member, Role, Treasury
from meters.household.sites import DAY_S, Household, households
from meters.identity import derived_secret, derived_signer, signed_binding

ROLES: tuple[Role, ...] = ("retailer", "network", "imbalance", "rounding")


@dataclass(frozen=True, eq=False)
class World:
    """Everything that follows from the settings."""

    settings: Settings
    feeder: Feeder
    profiles: Profiles
    homes: Sequence[Household]
    members: Sequence[Member]
    market_settings: MarketSettings
    market: Signer
    deployer: Signer
    settler: Signer

    @cached_property
    def home_of(self) -> dict[str, Household]:
        """The household of every meter."""
        return {member.meter: home for member, home in zip(self.members, self.homes, strict=True)}

    @cached_property
    def bus_of(self) -> dict[str, int]:
        """The bus of every element of the feeder."""
        feeder = self.feeder
        return dict(zip(feeder.element.tolist(), feeder.element_bus.tolist(), strict=True))


def build_world(settings: Settings, base: Path | None) -> World:
    """Raises :class:`InputError` where the feeder is unknown, has no households or no voltage within limits.

    ``base`` is where the path of a net starts, else the working directory.
    """
    feeder = open_feeder(settings.feeder, base)
    check_band(feeder, settings.market.limits, settings.feeder, "market.limits.")
    profiles = year_profiles(settings.feeder, base)
    homes = households(profiles, settings.households, settings.seed)
    if not homes:
        raise InputError.single(settings.feeder, "load", "none", "has nobody who could trade")
    members = [_member(home, settings, feeder) for home in homes]
    everything_ueur = sum(member.deposit_ueur for member in members)
    treasuries = {
        role: Treasury(
            address=_address(settings, role), deposit_ueur=0 if role == "rounding" else everything_ueur
        )
        for role in ROLES
    }
    market_settings = MarketSettings(
        feeder=settings.name,
        feeder_name=settings.feeder,
        seed=settings.seed,
        minutes=15,
        first_interval_start=settings.first_interval_start,
        intervals=settings.intervals,
        gate_closure_s=settings.market.gate_closure_s,
        tariff=settings.market.tariff,
        limits=settings.market.limits,
        settle_every=settings.market.settle_every,
        patience_s=settings.market.patience_s,
        treasuries=treasuries,
    )
    return World(
        settings=settings,
        feeder=feeder,
        profiles=profiles,
        homes=homes,
        members=members,
        market_settings=market_settings,
        market=derived_signer(settings.seed, "market"),
        deployer=derived_signer(settings.seed, "deployer"),
        settler=derived_signer(settings.seed, "settler"),
    )


def _address(settings: Settings, role: str) -> str:
    return derived_signer(settings.seed, role).address


def _member(home: Household, settings: Settings, feeder: Feeder) -> Member:
    """The deposit is a day at the fuse."""
    day_wh = home.fuse_w * DAY_S // 3600
    return Member(
        meter=_address(settings, f"meter:{home.name}"),
        owner=_address(settings, f"owner:{home.name}"),
        connection_point=home.name,
        bus=bus_of(feeder, home.name),
        fuse_w=home.fuse_w,
        deposit_ueur=day_wh * max(settings.market.tariff.import_price, 0) // 1000,
    )


def escrow_terms(world: World) -> EscrowTerms:
    """An escrow in which no account can be debited by more than all there is."""
    everything_ueur = sum(member.deposit_ueur for member in world.members)
    return EscrowTerms(
        name=f"Peergrid credit {world.settings.name}"[:64],
        symbol="PGC",
        position_debit_max=everything_ueur,
        window_debit_max=everything_ueur,
        guarantee_max=guarantee_ueur(world),
        window_s=INTERVAL_S,
    )


def guarantee_ueur(world: World) -> int:
    """What stands in for members that cannot pay: the largest deposit of one."""
    return max(member.deposit_ueur for member in world.members)


def bindings(world: World, domain: Domain, now: int) -> list[SignedBinding]:
    """Every meter's own word whose it is and where it stands; the place only as a salted hash."""
    settings = world.settings
    salt = derived_secret(settings.seed, "registry salt")
    deadline = now + 366 * DAY_S
    signed = []
    for home, member in zip(world.homes, world.members, strict=True):
        meter = derived_signer(settings.seed, f"meter:{home.name}")
        point = keccak(salt + home.name.encode())
        signed.append(SignedBinding(*signed_binding(meter, domain, member.owner, point, 0, deadline)))
    return signed
