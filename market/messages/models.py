"""What crosses the wire: one strict model for each message (design section 5).

All times are Unix seconds (UTC), energies whole Wh, prices whole µEUR/kWh, powers W.
Unknown fields and unknown versions are refused.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

UINT32_MAX = 2**32 - 1
UINT64_MAX = 2**64 - 1
INT32_MAX = 2**31 - 1
STEPS_MAX = 16
READINGS_MAX = 500

Address = Annotated[str, Field(pattern=r"^0x[0-9a-f]{40}$")]
Bytes32 = Annotated[str, Field(pattern=r"^0x[0-9a-f]{64}$")]
Signature = Annotated[str, Field(pattern=r"^0x[0-9a-f]{130}$")]
FeederId = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
UnixTime = Annotated[int, Field(ge=0, le=UINT64_MAX)]
EnergyWh = Annotated[int, Field(ge=0, le=UINT32_MAX)]
RegisterWh = Annotated[int, Field(ge=0, le=UINT64_MAX)]
Price = Annotated[int, Field(ge=-(2**53), le=2**53)]


class Side(IntEnum):
    """The side of an order step: a bid consumes, an ask generates."""

    BID = 0
    ASK = 1


class Quality(IntEnum):
    """How a register value came about."""

    MEASURED = 0
    ESTIMATED = 1


class ReceiptKind(IntEnum):
    READING = 0
    ORDER = 1


class ReceiptResult(IntEnum):
    ACCEPTED = 0
    DUPLICATE = 1
    REJECTED = 2


GateState = Literal["OPEN", "CLOSED", "SUSPENDED"]
ClearingStatus = Literal["CLEARED", "SUSPENDED"]


class Message(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)

    v: Literal[1] = 1


class Reading(Message):
    """A meter's cumulative registers at ``taken_at``; ``power_w`` > 0 is export."""

    meter: Address
    epoch: Annotated[int, Field(ge=0, le=UINT32_MAX)]
    seq: Annotated[int, Field(ge=0, le=UINT64_MAX)]
    taken_at: UnixTime
    import_wh: RegisterWh
    export_wh: RegisterWh
    power_w: Annotated[int, Field(ge=-INT32_MAX, le=INT32_MAX)]
    quality: Annotated[int, Field(ge=0, le=255)] = Quality.MEASURED
    sig: Signature


class ReadingEntry(BaseModel):
    """One reading inside a signed list; the list carries meter and signature."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    epoch: Annotated[int, Field(ge=0, le=UINT32_MAX)]
    seq: Annotated[int, Field(ge=0, le=UINT64_MAX)]
    taken_at: UnixTime
    import_wh: RegisterWh
    export_wh: RegisterWh
    power_w: Annotated[int, Field(ge=-INT32_MAX, le=INT32_MAX)]
    quality: Annotated[int, Field(ge=0, le=255)] = Quality.MEASURED


class Readings(Message):
    """Several readings of one meter under one signature."""

    meter: Address
    readings: Annotated[tuple[ReadingEntry, ...], Field(min_length=1, max_length=READINGS_MAX, strict=False)]
    sig: Signature


class Step(BaseModel):
    """A flexible step: up to ``energy_wh`` at ``limit_price`` or better."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    side: Annotated[int, Field(ge=0, le=1)]
    energy_wh: Annotated[int, Field(gt=0, le=UINT32_MAX)]
    limit_price: Price
    min_fill_percent: Annotated[int, Field(ge=0, le=100)] = 0


class Order(Message):
    """All that a meter will do in one interval: firm energy and flexible steps."""

    meter: Address
    feeder: FeederId
    interval_start: UnixTime
    version: Annotated[int, Field(ge=0, le=UINT32_MAX)]
    firm_import_wh: EnergyWh = 0
    firm_export_wh: EnergyWh = 0
    firm_q_var: Annotated[int, Field(ge=-INT32_MAX, le=INT32_MAX)] = 0
    steps: Annotated[tuple[Step, ...], Field(max_length=STEPS_MAX, strict=False)] = ()
    sig: Signature

    @model_validator(mode="after")
    def _one_firm_direction(self) -> Self:
        if self.firm_import_wh and self.firm_export_wh:
            raise ValueError("firm_import_wh and firm_export_wh cannot both be positive: net them")
        return self


class Status(Message):
    """Whether a meter is online (retained; the last will says offline)."""

    meter: Address
    online: bool
    since: UnixTime
    software: Annotated[str, Field(max_length=64)]


class Sync(Message):
    """Asks the market to send again the receipts and awards after ``since``."""

    meter: Address
    since: UnixTime


class Receipt(Message):
    """The market stored (or refused) what a meter sent, up to ``up_to`` (seq or version)."""

    meter: Address
    kind: Annotated[int, Field(ge=0, le=1)]
    up_to: Annotated[int, Field(ge=0, le=UINT64_MAX)]
    result: Annotated[int, Field(ge=0, le=2)]
    reason: Annotated[str, Field(max_length=300)] = ""
    field: Annotated[str, Field(max_length=100)] = ""
    received_at: UnixTime
    digest: Bytes32
    sig: Signature


class AwardStep(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    index: Annotated[int, Field(ge=0, lt=STEPS_MAX)]
    energy_wh: EnergyWh


class Award(Message):
    """What a meter's order got.

    ``price`` is the price of its steps (bids include the local fee), ``firm_price`` that of its
    firm energy, ``setpoint_w`` the net power it is to hold (export positive), ``amount_neur`` what
    it earns (> 0) or owes for the awarded energy. Steps that got nothing are left out.
    """

    meter: Address
    interval_start: UnixTime
    status: ClearingStatus
    price: Price
    firm_price: Price
    steps: Annotated[tuple[AwardStep, ...], Field(max_length=STEPS_MAX, strict=False)] = ()
    setpoint_w: Annotated[int, Field(ge=-INT32_MAX, le=INT32_MAX)]
    amount_neur: int
    proof: tuple[Bytes32, ...] = Field(default=(), strict=False)
    sig: Signature


class Tariff(BaseModel):
    """The prices of one interval, µEUR/kWh.

    ``import_price`` is what the retailer charges all in, ``import_fees`` the network charges and
    levies inside it, ``local_fee`` what energy traded inside the feeder pays instead of those.
    """

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    import_price: Price
    export_price: Price
    floor: Price
    cap: Price
    local_fee: Annotated[int, Field(ge=0, le=2**53)] = 0
    import_fees: Annotated[int, Field(ge=0, le=2**53)] = 0

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.floor <= self.export_price <= self.import_price <= self.cap:
            raise ValueError("floor <= export_price <= import_price <= cap does not hold")
        if self.local_fee > self.import_price - self.export_price:
            raise ValueError("local_fee is larger than import_price - export_price")
        return self


class Gate(Message):
    """Announces an interval's gate (retained, public)."""

    feeder: FeederId
    interval_start: UnixTime
    minutes: Literal[5, 15, 30, 60]
    opens_at: UnixTime
    closes_at: UnixTime
    tariff: Tariff
    state: GateState


class BusPrice(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    bus: Annotated[int, Field(ge=0)]
    price: Price


class Totals(BaseModel):
    """Energy of one cleared interval, Wh."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    import_wh: EnergyWh
    export_wh: EnergyWh
    losses_wh: int
    traded_wh: EnergyWh


class Clearing(Message):
    """The public result of an interval: no household's own energy."""

    feeder: FeederId
    interval_start: UnixTime
    status: ClearingStatus
    prices: Annotated[tuple[BusPrice, ...], Field(strict=False)]
    totals: Totals
    root: Bytes32
    sig: Signature
