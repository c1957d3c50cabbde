"""What ``peergrid run`` is told: one strict TOML document (``peergrid init`` writes one, with comments)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from grid.errors import InputError, Problem
from market.auction.book import Limits
from market.cli.alerts_config import AlertsSection
from market.cli.lines import read_lines
from market.messages.models import Address, FeederId, Tariff
from market.service.settings import (
    DATABASE,
    ClearingTime,
    GateClosure,
    Member,
    MeteringTime,
    Minutes,
    Role,
    SettleEvery,
    Treasury,
    every_role,
)
from meters.configuration import Part, parsed, read_toml
from meters.household.settings import HouseholdSettings

Text = Annotated[str, Field(min_length=1)]
Port = Annotated[int, Field(gt=0, lt=65536)]
MEMBER_COLUMNS = ("meter", "owner", "connection_point", "fuse_w", "tan_phi_ppm")


class BrokerSection(Part):
    """Where the broker is; without ``host`` the market brings its own along, on this machine alone.

    ``tls`` is the folder that ``peergrid broker config`` wrote.
    """

    host: Text | None = None
    port: Port = 8883
    tls: Text | None = None

    @model_validator(mode="after")
    def _secret(self) -> Self:
        if self.host is not None and self.tls is None and self.host not in ("localhost", "127.0.0.1", "::1"):
            raise ValueError("tls is needed for a broker on another machine: elsewhere anybody could listen")
        return self


class ChainSection(Part):
    """A node and the contracts on it; ``settler_key`` is a file that only its owner can read.

    With ``confirmations`` 0 a batch is final when the node says that its block is. ``registry_salt`` is the
    file ``salt`` of the market's authority: with it, where each member stands is compared with the registry.
    """

    rpc: Text
    deployment: Text
    settler_key: Text
    confirmations: Annotated[int, Field(ge=0)] = 0
    registry_salt: Text | None = None


class ConsoleSection(Part):
    """The operator's console, as ``peergrid console`` serves it: reading is open on this machine alone,
    actions need one of ``tokens``.
    """

    port: Port = 8440
    host: Text = "127.0.0.1"
    tokens: Text | None = None
    tls_cert: Text | None = None
    tls_key: Text | None = None
    behind_proxy: bool = False
    names: Annotated[tuple[Text, ...], Field(strict=False)] = ()

    @model_validator(mode="after")
    def _secret(self) -> Self:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls_cert and tls_key go together")
        alone = self.host in ("localhost", "127.0.0.1", "::1") and not self.behind_proxy
        if not alone and self.tls_cert is None and not self.behind_proxy:
            raise ValueError(
                "tls_cert and tls_key, or behind_proxy, are needed where others reach the console"
            )
        if not alone and self.tokens is None:
            raise ValueError("tokens is needed where others reach the console")
        return self

    def options(self, base: Path) -> list[str]:
        """As the command takes them; paths start at ``base``."""
        found = ["--port", str(self.port), "--host", self.host]
        for name in ("tokens", "tls_cert", "tls_key"):
            if (given := getattr(self, name)) is not None:
                found += [f"--{name.replace('_', '-')}", str(base / given)]
        for name in self.names:
            found += ["--name", name]
        return [*found, "--behind-proxy"] if self.behind_proxy else found


class SimulationSection(Part):
    """Households of the feeder's own, with keys that follow from ``seed``: for play money only."""

    seed: Annotated[int, Field(ge=0, le=2**63 - 1)] = 1
    households: HouseholdSettings = HouseholdSettings()


class MarketSection(Part):
    """One market on one feeder; see :class:`market.service.settings.MarketSettings` for its times."""

    name: FeederId
    feeder: Text
    minutes: Minutes = 15
    gate_closure_s: GateClosure = 300
    clearing_s: ClearingTime = 120
    metering_s: MeteringTime = 180
    clock_skew_s: Annotated[int, Field(ge=0)] = 60
    dispute_window_s: Annotated[int, Field(ge=0)] = 14 * 86_400
    settle_every: SettleEvery = "hour"
    database: Text | None = None
    tariff: Tariff
    limits: Limits = Limits()
    simulation: SimulationSection | None = None
    key: Text | None = None
    members: Text | None = None
    chain: ChainSection | None = None
    treasuries: Annotated[dict[Role, Address], AfterValidator(every_role)] | None = None

    @model_validator(mode="after")
    def _real_or_simulated(self) -> Self:
        real = (self.key, self.members, self.chain, self.treasuries)
        if self.simulation is not None and any(part is not None for part in real):
            raise ValueError("simulation makes its own key, members, chain and treasuries: leave those out")
        if self.simulation is None and any(part is None for part in real):
            raise ValueError("key, members, chain and treasuries are needed where there is no simulation")
        return self


class ServiceConfig(Part):
    """``folder`` holds everything that a restart needs; paths start where the file is."""

    folder: Text = "market"
    lease_s: Annotated[float, Field(ge=3, le=600)] = 15.0
    broker: BrokerSection = BrokerSection()
    console: ConsoleSection | None = None
    alerts: AlertsSection | None = None
    markets: Annotated[tuple[MarketSection, ...], Field(min_length=1, strict=False)]

    @model_validator(mode="after")
    def _names(self) -> Self:
        names = [market.name for market in self.markets]
        if len(set(names)) != len(names):
            raise ValueError("two markets have one name")
        return self

    def database_of(self, market: MarketSection, base: Path) -> Path | str:
        """A market's database: a URL where one is named, else a file; paths start at ``base``."""
        return market.database or base / self.folder / market.name / DATABASE


def read_service(path: Path) -> ServiceConfig:
    """Raises :class:`InputError` with everything that is wrong."""
    return parsed(str(path), ServiceConfig, read_toml(path))


def read_members(path: Path, bus_of: dict[str, int]) -> list[Member]:
    """The members in a CSV file. Raises :class:`InputError`."""
    header, lines = read_lines(path)
    if header != MEMBER_COLUMNS:
        raise InputError.single(f"{path}:1", "header", ",".join(header), f"is not {','.join(MEMBER_COLUMNS)}")
    members: list[Member] = []
    problems: list[Problem] = []
    seen: dict[str, int] = {}
    for line in lines:
        try:
            member = _member(line.where, line.values, bus_of)
        except InputError as error:
            problems += error.problems
            continue
        if (first := seen.setdefault(member.meter, line.number)) != line.number:
            problems.append(Problem(line.where, "meter", member.meter, f"stands in line {first} already"))
        members.append(member)
    if problems:
        raise InputError(problems)
    if not members:
        raise InputError.single(str(path), "", "…", "has no member")
    return members


def _member(where: str, row: dict[str, str], bus_of: dict[str, int]) -> Member:
    point = row["connection_point"]
    if point not in bus_of:
        raise InputError.single(where, "connection_point", point, "is not on this feeder")
    numbers = {field: _whole(where, field, row[field]) for field in ("fuse_w", "tan_phi_ppm")}
    return parsed(where, Member, {**row, **numbers, "bus": bus_of[point], "deposit_ueur": 0})


def _whole(where: str, field: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise InputError.single(where, field, text, "is no whole number") from None


def treasuries_of(addresses: dict[Role, str]) -> dict[Role, Treasury]:
    return {role: Treasury(address=address, deposit_ueur=0) for role, address in addresses.items()}
