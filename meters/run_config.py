"""What ``peergrid meter run`` is told: one strict TOML document (``peergrid meter example`` prints one)."""

from __future__ import annotations

import importlib
import ipaddress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from grid.errors import InputError, Problem
from market.messages.models import Address, FeederId
from market.messages.signing import Domain, Signer
from meters.agent import MarketPlace
from meters.certificates import client_certificate
from meters.configuration import Part, field_path, parsed, read_toml
from meters.enrol import KEY, TERMS, meter_tls, read_terms
from meters.identity import check_private, read_key
from meters.mqtt import Tls
from meters.source import SOURCES, SourceSettings
from meters.strategies import load_strategy
from meters.strategies.interface import Strategy

Text = Annotated[str, Field(min_length=1)]
# Wallets and explorers show addresses with capitals in them.
AnyCase = Annotated[
    Address, BeforeValidator(lambda value: value.lower() if isinstance(value, str) else value)
]
DATABASE = "meters.sqlite"


class MarketConfig(Part):
    """The market: its id in the topics, the address that it signs with, its registry, its interval."""

    feeder: FeederId
    address: AnyCase
    chain_id: Annotated[int, Field(ge=0)]
    registry: AnyCase
    minutes: Literal[5, 15, 30, 60] = 15


class BrokerConfig(Part):
    """Where the broker is. Without ``tls`` it has to be on this machine."""

    host: Text = "localhost"
    port: Annotated[int, Field(gt=0, lt=65536)] = 8883
    tls: bool = True

    @model_validator(mode="after")
    def _secret(self) -> Self:
        if not self.tls and not _is_loopback(self.host):
            raise ValueError("is for a broker on this machine: elsewhere anybody could listen")
        return self


class MeterConfig(Part):
    """One meter, or one for each folder that matches ``folder``; ``{folder}`` in the source's texts is its
    name. ``strategy`` is needed where the household names none.
    """

    folder: Text
    strategy: Text | None = None
    source: dict[str, Any]


class RunConfig(Part):
    """``outbox`` is the folder of what must not be lost; paths start where the file is."""

    outbox: Text = "outbox"
    resend_s: Annotated[float, Field(gt=0)] = 5.0
    market: MarketConfig
    broker: BrokerConfig = BrokerConfig()
    meters: Annotated[tuple[MeterConfig, ...], Field(min_length=1, strict=False)]


@dataclass(frozen=True)
class MeterSetup:
    """One meter: ``place`` is where the configuration speaks of it, for errors."""

    name: str
    place: str
    signer: Signer
    tls: Tls | None
    strategy: Strategy | None
    source: SourceSettings


@dataclass(frozen=True)
class RunSetup:
    """A configuration whose files were looked at; ``path`` is where it was read from."""

    path: Path
    host: str
    port: int
    market: MarketPlace
    resend_s: float
    outbox: Path
    meters: tuple[MeterSetup, ...]

    @property
    def identity(self) -> str:
        """Whose outbox it is."""
        market, domain = self.market, self.market.domain
        return f"{market.feeder} of {market.market} on {domain.chain_id}/{domain.verifying_contract}"


def read_setup(path: Path) -> RunSetup:
    """Raises :class:`InputError` with everything that is wrong in the file, or in what it names."""
    config = parsed(str(path), RunConfig, read_toml(path))
    base = path.resolve().parent
    meters: list[MeterSetup] = []
    problems: list[Problem] = []
    for index, meter in enumerate(config.meters):
        for folder in _folders(path, base, index, meter.folder):
            try:
                meters.append(_meter(path, index, meter, folder, tls=config.broker.tls))
            except InputError as error:
                problems += error.problems
    by_id: dict[str, MeterSetup] = {}
    for setup in meters:
        other = by_id.setdefault(setup.signer.address, setup)
        if other is not setup:
            reason = f"has the key of {other.name} ({other.place}): a meter runs once"
            problems.append(Problem(str(path), f"{setup.place}.folder", setup.name, reason))
    if problems:
        raise InputError(problems)
    market = config.market
    return RunSetup(
        path=path,
        host=config.broker.host,
        port=config.broker.port,
        market=MarketPlace(
            market.feeder, market.address, Domain(market.chain_id, market.registry), 60 * market.minutes
        ),
        resend_s=config.resend_s,
        outbox=base / config.outbox,
        meters=tuple(meters),
    )


def _folders(path: Path, base: Path, index: int, pattern: str) -> list[Path]:
    place = f"meters[{index}].folder"
    if Path(pattern).is_absolute() or "*" not in pattern:
        return [base / pattern]
    found = sorted(folder for folder in base.glob(pattern) if (folder / KEY).exists())
    if not found:
        raise InputError.single(str(path), place, pattern, f"matches no folder with a {KEY}")
    return found


def _meter(path: Path, index: int, meter: MeterConfig, folder: Path, *, tls: bool) -> MeterSetup:
    place = f"meters[{index}]"
    if not (folder / KEY).exists():
        reason = f"has no {KEY}: peergrid meter enroll makes one"
        raise InputError.single(str(path), f"{place}.folder", str(folder), reason)
    signer = read_key(folder / KEY)
    files = None
    if tls:
        files = meter_tls(folder)
        check_private(files.key)
        certificate = client_certificate(files.certificate)
        if certificate.name != signer.address:
            reason = f"is not the meter {signer.address} of {folder / KEY}"
            raise InputError.single(str(files.certificate), "CN", certificate.name, reason)
    strategy = None
    if meter.strategy is not None:
        try:
            strategy = load_strategy(meter.strategy)
        except ValueError as error:
            raise InputError.single(str(path), f"{place}.strategy", meter.strategy, str(error)) from None
    source = _source(path, index, _named(meter.source, folder.name))
    terms = read_terms(folder)
    if terms is not None and source.fuse_w > terms.fuse_w:
        reason = (
            f"is {source.fuse_w} W on {source.phases} phases, more than the {terms.fuse_w} W that the market"
            f" has on record ({folder / TERMS}): it would refuse what is ordered beyond"
        )
        raise InputError.single(str(path), f"{place}.source.fuse_a", source.fuse_a, reason)
    return MeterSetup(folder.name, place, signer, files, strategy, source)


def _source(path: Path, index: int, document: dict[str, Any]) -> SourceSettings:
    place = ("meters", index, "source")
    kind = document.get("kind")
    if kind not in SOURCES:
        reason = f"is no kind of source: {', '.join(SOURCES)}"
        raise InputError.single(str(path), field_path((*place, "kind")), kind, reason)
    module, name = SOURCES[kind].split(":")
    model: type[SourceSettings] = getattr(importlib.import_module(module), name)
    return parsed(str(path), model, document, place)


def _named(value: Any, folder: str) -> Any:
    """``value`` with the folder's name put where ``{folder}`` stands."""
    if isinstance(value, str):
        return value.replace("{folder}", folder)
    if isinstance(value, dict):
        return {key: _named(item, folder) for key, item in value.items()}
    if isinstance(value, list):
        return [_named(item, folder) for item in value]
    return value


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
