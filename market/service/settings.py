"""What an operator decides about one market: one strict model."""

from __future__ import annotations

import hashlib
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, model_validator

from market.auction.book import Limits
from market.messages.models import Address, FeederId, Tariff, UnixTime
from market.messages.signing import canonical_json

SettleEvery = Literal["interval", "hour", "day"]
Role = Literal["retailer", "network", "imbalance", "rounding"]
DATABASE = "market.sqlite"
"""A market's database in its folder, where no other is named."""


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)


def _within_interval(value: int, info: ValidationInfo) -> int:
    """What is shorter than an interval."""
    minutes = info.data.get("minutes")
    if minutes is not None and value >= 60 * minutes:
        raise ValueError(f"is not below the interval's length of {60 * minutes} s")
    return value


def _before_interval(value: int, info: ValidationInfo) -> int:
    """What ends before the interval begins, where a market has no end: simulated time waits for it."""
    gate_closure_s = info.data.get("gate_closure_s")
    if info.data.get("intervals") is None and gate_closure_s is not None and value > gate_closure_s:
        raise ValueError(
            f"is above gate_closure_s of {gate_closure_s} s: awards would come after the interval began"
        )
    return value


def every_role(value: dict[Role, Any]) -> dict[Role, Any]:
    """One of each of the market's own accounts."""
    if missing := [role for role in get_args(Role) if role not in value]:
        raise ValueError(f"lacks {', '.join(missing)}")
    return value


# A market's times, as its configuration and its settings have them, in this order: each is checked against
# those before it.
Minutes = Literal[5, 15, 30, 60]
GateClosure = Annotated[int, Field(gt=0, validate_default=True), AfterValidator(_within_interval)]
ClearingTime = Annotated[int, Field(gt=0, validate_default=True), AfterValidator(_before_interval)]
MeteringTime = Annotated[int, Field(ge=30, validate_default=True), AfterValidator(_within_interval)]


class Member(_Part):
    """One registered meter and the household behind it.

    ``tan_phi_ppm`` is the fixed tan φ of its flexible energy in millionths, ``fuse_w`` the most it can draw,
    ``deposit_ueur`` what its owner has in the escrow when the market starts.
    """

    meter: Address
    owner: Address
    connection_point: Annotated[str, Field(min_length=1, max_length=100)]
    bus: Annotated[int, Field(ge=0)]
    tan_phi_ppm: Annotated[int, Field(ge=-10_000_000, le=10_000_000)] = 0
    fuse_w: Annotated[int, Field(gt=0, le=10_000_000)] = 43_500
    deposit_ueur: Annotated[int, Field(ge=0)]


class Treasury(_Part):
    """A named account of the market's own: its holder on the chain and its deposit."""

    address: Address
    deposit_ueur: Annotated[int, Field(ge=0)]


class MarketSettings(_Part):
    """One market on one feeder from ``first_interval_start`` for ``intervals`` intervals, or without end.

    ``gate_closure_s`` is the time from gate closure to the interval's start, ``clearing_s`` that from gate
    closure to the clearing's deadline, ``metering_s`` how long after an interval's end its readings are
    waited for, ``dispute_window_s`` how long a household may contest it.
    ``patience_s`` is the longest that a market in simulated time waits in real time for what is
    missing (its time only goes on when all have spoken, or then). ``clock_skew_s`` is how far a reading's
    time may be ahead of the market's clock; None in simulated time, where the market's clock stands until its
    meters have read theirs.
    """

    feeder: FeederId
    feeder_name: Annotated[str, Field(min_length=1)]
    seed: Annotated[int, Field(ge=0, le=2**63 - 1)]
    minutes: Minutes = 15
    first_interval_start: UnixTime
    intervals: Annotated[int, Field(gt=0, le=10_000_000)] | None = None
    gate_closure_s: GateClosure = 300
    clearing_s: ClearingTime = 120
    metering_s: MeteringTime = 180
    dispute_window_s: Annotated[int, Field(ge=0)] = 14 * 86_400
    tariff: Tariff
    limits: Limits = Limits()
    settle_every: SettleEvery = "hour"
    patience_s: Annotated[float, Field(gt=0)] = 30.0
    clock_skew_s: Annotated[int, Field(ge=0)] | None = None
    treasuries: Annotated[dict[Role, Treasury], AfterValidator(every_role)]
    configuration_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] = "0" * 64

    @model_validator(mode="after")
    def _on_a_boundary(self) -> Self:
        if self.first_interval_start % (60 * self.minutes):
            raise ValueError(f"first_interval_start is not on a boundary of {self.minutes} minutes")
        return self

    @property
    def seconds(self) -> int:
        """The length of an interval, s."""
        return 60 * self.minutes

    @property
    def settled_every_s(self) -> int:
        """How much time a settlement batch covers, s."""
        return {"interval": self.seconds, "hour": 3600, "day": 86_400}[self.settle_every]

    def start_of(self, index: int) -> int:
        """Start of the ``index``-th interval, Unix seconds."""
        return self.first_interval_start + index * self.seconds

    def identity(self) -> dict[str, str]:
        """What a database must have been made with to be opened with these settings.

        The terms of a market without end may change, and its journal says when; its feeder stays.
        """
        if self.intervals is None:
            return {"feeder": self.feeder, "feeder_name": self.feeder_name, "minutes": str(self.minutes)}
        document = self.model_dump(
            mode="json",
            exclude={"patience_s", "clock_skew_s", "clearing_s", "metering_s", "dispute_window_s"},
        )
        return {
            "feeder": self.feeder,
            "feeder_name": self.feeder_name,
            "seed": str(self.seed),
            "settings_sha256": hashlib.sha256(canonical_json(document)).hexdigest(),
        }
