"""The one settings model of a simulated market: a scenario file, the environment, and flags.

A later source wins: the model's defaults, the scenario's TOML, ``PEERGRID_*`` variables, then flags.
``PEERGRID_MARKET__SETTLE_EVERY`` is ``market.settle_every``; values are written as in TOML, a bare word is a
string. Nothing is converted silently and nothing unknown is passed over; every problem names its source,
field and value.
"""

from __future__ import annotations

import datetime as dt
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from feeders import scenario_names, scenario_path
from grid.errors import InputError, Problem
from market.auction.book import Limits, validation_problems
from market.messages.models import Tariff
from market.service.settings import SettleEvery
from meters.household.settings import HouseholdSettings

DEFAULT_SCENARIO = "rural3-noon"
ENVIRONMENT_PREFIX = "PEERGRID_"
# Read elsewhere: they are about this process, not about a market.
NO_SETTINGS = ("PEERGRID_DEBUG", "PEERGRID_CACHE_DIR", "PEERGRID_TEST_ALL", "PEERGRID_TEST_LONG")
INTERVAL_S = 900
PROFILE_YEAR = 2016
DEFAULT_DATE = dt.date(PROFILE_YEAR, 6, 9)

Document = Mapping[str, Any]


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)


class MarketSection(_Part):
    """What an operator decides. Prices are µEUR/kWh, ``gate_closure_s`` is before an interval's start.

    ``patience_s`` is how long the market waits in real time for a meter that says nothing: long, so that a
    slow machine gives the same day as a fast one.
    """

    tariff: Tariff = Tariff(
        import_price=300_000,
        export_price=80_000,
        floor=-500_000,
        cap=2_000_000,
        local_fee=20_000,
        import_fees=100_000,
    )
    limits: Limits = Limits()
    gate_closure_s: Annotated[int, Field(gt=0, lt=INTERVAL_S)] = 300
    settle_every: SettleEvery = "hour"
    patience_s: Annotated[float, Field(gt=0, le=3600)] = 120.0


class Settings(_Part):
    """One simulated day. ``name`` is the market's id on the wire, ``feeder`` the net's name."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
    feeder: Annotated[str, Field(min_length=1)]
    date: dt.date
    intervals: Annotated[int, Field(gt=0, le=35_136)] = 96
    seed: Annotated[int, Field(ge=0, le=2**63 - 1)] = 1
    market: MarketSection = MarketSection()
    households: HouseholdSettings = HouseholdSettings()

    @field_validator("date")
    @classmethod
    def _has_profiles(cls, value: dt.date) -> dt.date:
        if value.year != PROFILE_YEAR:
            raise ValueError(f"is outside {PROFILE_YEAR}, the year of the profiles")
        return value

    @property
    def first_interval_start(self) -> int:
        """Unix seconds of the day's first interval: midnight UTC."""
        return int(dt.datetime.combine(self.date, dt.time(), dt.UTC).timestamp())


def date_from(text: str) -> dt.date | str:
    """A date as TOML has it; what is none stays what it is, for the model to refuse."""
    try:
        return dt.date.fromisoformat(text)
    except ValueError:
        return text


def slug(name: str) -> str:
    """A feeder's name as it stands in topics: lower case, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:63].rstrip("-")


def _from_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError.single(str(path), "", error.strerror, "so the scenario cannot be read") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError.single(str(path), "", str(error), "so it is no TOML document") from None


def _toml_value(text: str) -> Any:
    """A value as TOML writes it; what is no TOML value is a string."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    """The settings in ``PEERGRID_*`` variables, nested by double underscores."""
    document: dict[str, Any] = {}
    for name in sorted(environment):
        if not name.startswith(ENVIRONMENT_PREFIX) or name in NO_SETTINGS:
            continue
        *tables, key = name.removeprefix(ENVIRONMENT_PREFIX).lower().split("__")
        table = document
        for part in tables:
            table = table.setdefault(part, {})
        table[key] = _toml_value(environment[name])
    return document


def _merged(low: Document, high: Document) -> dict[str, Any]:
    merged = dict(low)
    for key, value in high.items():
        if isinstance(value, Mapping) and isinstance(merged.get(key), Mapping):
            merged[key] = _merged(merged[key], value)
        else:
            merged[key] = value
    return merged


def _holds(document: Document, path: tuple[int | str, ...]) -> bool:
    """Whether a source says anything about the setting at ``path``."""
    here: Any = document
    for part in path:
        if not isinstance(here, Mapping):
            return True
        if part not in here:
            return False
        here = here[part]
    return True


def merge_sources(sources: list[tuple[str, Document]]) -> Settings:
    """Settings from ``(name of the source, document)`` pairs, later ones winning.

    Raises :class:`InputError` with a problem for everything that is wrong, each naming its source.
    """
    document: dict[str, Any] = {}
    for _, source in sources:
        document = _merged(document, source)
    try:
        return Settings.model_validate(document)
    except ValidationError as error:
        paths = [detail["loc"] for detail in error.errors(include_url=False)]
        problems = []
        for path, problem in zip(paths, validation_problems("", error), strict=True):
            said = [name for name, source in sources if _holds(source, path)]
            origin = said[-1] if said else sources[0][0]
            value = str(problem.value) if isinstance(problem.value, dt.date) else problem.value
            problems.append(Problem(origin, problem.field, value, problem.reason))
        raise InputError(problems) from None


def read_settings(
    feeder: str | None, scenario: Path | None, environment: Mapping[str, str], flags: Document
) -> Settings:
    """The settings of one run.

    ``feeder`` is a shipped scenario's name or any feeder's name; ``scenario`` is one's own file.
    """
    sources: list[tuple[str, Document]] = []
    if scenario is not None:
        sources.append((str(scenario), {"name": slug(scenario.resolve().parent.name)}))
        sources.append((str(scenario), _from_toml(scenario)))
    elif feeder is None or feeder in scenario_names():
        name = feeder or DEFAULT_SCENARIO
        path = scenario_path(name)
        assert path is not None
        sources.append((str(path), {"name": name}))
        sources.append((str(path), _from_toml(path)))
    else:
        sources.append(("--feeder", {"name": slug(feeder), "date": DEFAULT_DATE}))
    sources.append(("the environment", from_environment(environment)))
    if feeder is not None and feeder not in scenario_names():
        sources.append(("--feeder", {"feeder": feeder}))
    sources.append(("the command line", flags))
    settings = merge_sources(sources)
    last = settings.date + dt.timedelta(seconds=INTERVAL_S * settings.intervals - 1)
    if last.year != PROFILE_YEAR:
        reason = f"go beyond the profiles, which end with {PROFILE_YEAR}"
        raise InputError.single("the command line", "intervals", settings.intervals, reason)
    return settings
