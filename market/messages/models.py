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
UnixTime = Annotated[int, Field(ge=0, le=UINT64_MAX, json_schema_extra={"x-unit": "Unix s, UTC"})]
EnergyWh = Annotated[int, Field(ge=0, le=UINT32_MAX, json_schema_extra={"x-unit": "Wh"})]
RegisterWh = Annotated[int, Field(ge=0, le=UINT64_MAX, json_schema_extra={"x-unit": "Wh"})]
PowerW = Annotated[int, Field(ge=-INT32_MAX, le=INT32_MAX, json_schema_extra={"x-unit": "W"})]
Price = Annotated[int, Field(ge=-(2**53), le=2**53, json_schema_extra={"x-unit": "µEUR/kWh"})]
Fee = Annotated[int, Field(ge=0, le=2**53, json_schema_extra={"x-unit": "µEUR/kWh"})]


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
    model_config = ConfigDict(
        strict=True, frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True
    )

    v: Literal[1] = 1
    """The version of this format; another one is refused."""


class Reading(Message):
    """A meter's cumulative registers at ``taken_at``; ``power_w`` > 0 is export."""

    meter: Address
    """The meter's id: the lower-case address of its key."""
    epoch: Annotated[int, Field(ge=0, le=UINT32_MAX)]
    """Rises by one when the registers were reset or the meter was replaced."""
    seq: Annotated[int, Field(ge=0, le=UINT64_MAX)]
    """Number of the reading in its epoch: 0, 1, 2, … without a gap. (meter, epoch, seq) is its identity."""
    taken_at: UnixTime
    """When the registers were read, on the meter's clock."""
    import_wh: RegisterWh
    """Register of all energy ever drawn from the grid in this epoch."""
    export_wh: RegisterWh
    """Register of all energy ever fed into the grid in this epoch."""
    power_w: PowerW
    """Power at that moment, > 0 into the grid."""
    quality: Annotated[int, Field(ge=0, le=255)] = Quality.MEASURED
    """0 measured, 1 estimated by the meter."""
    sig: Signature
    """The meter's EIP-712 signature."""


class ReadingEntry(BaseModel):
    """One reading inside a signed list; the list carries meter and signature."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", use_attribute_docstrings=True)

    epoch: Annotated[int, Field(ge=0, le=UINT32_MAX)]
    """Rises by one when the registers were reset or the meter was replaced."""
    seq: Annotated[int, Field(ge=0, le=UINT64_MAX)]
    """Number of the reading in its epoch: 0, 1, 2, … without a gap. (meter, epoch, seq) is its identity."""
    taken_at: UnixTime
    """When the registers were read, on the meter's clock."""
    import_wh: RegisterWh
    """Register of all energy ever drawn from the grid in this epoch."""
    export_wh: RegisterWh
    """Register of all energy ever fed into the grid in this epoch."""
    power_w: PowerW
    """Power at that moment, > 0 into the grid."""
    quality: Annotated[int, Field(ge=0, le=255)] = Quality.MEASURED
    """0 measured, 1 estimated by the meter."""


class Readings(Message):
    """Several readings of one meter under one signature."""

    meter: Address
    """The meter's id: the lower-case address of its key."""
    readings: Annotated[tuple[ReadingEntry, ...], Field(min_length=1, max_length=READINGS_MAX, strict=False)]
    """In ascending order of (epoch, seq)."""
    sig: Signature
    """The meter's EIP-712 signature of the whole list."""


class Step(BaseModel):
    """A flexible step: up to ``energy_wh`` at ``limit_price`` or better."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", use_attribute_docstrings=True)

    side: Annotated[int, Field(ge=0, le=1)]
    """0 bid (consumes), 1 ask (generates)."""
    energy_wh: Annotated[int, Field(gt=0, le=UINT32_MAX, json_schema_extra={"x-unit": "Wh"})]
    """The most it will take or give."""
    limit_price: Price
    """The dearest a bid pays or the cheapest an ask takes."""
    min_fill_percent: Annotated[int, Field(ge=0, le=100, json_schema_extra={"x-unit": "%"})] = 0
    """Less than this is no use to it: all or nothing below."""


class Order(Message):
    """All that a meter will do in one interval: firm energy and flexible steps."""

    meter: Address
    """The meter's id: the lower-case address of its key."""
    feeder: FeederId
    """The market's id, as in the topic."""
    interval_start: UnixTime
    """Start of the interval that it is for."""
    version: Annotated[int, Field(ge=0, le=UINT32_MAX)]
    """A higher version replaces a lower one until gate closure; unique for the meter."""
    firm_import_wh: EnergyWh = 0
    """Energy that will be drawn whether or not it trades."""
    firm_export_wh: EnergyWh = 0
    """Energy that will be fed in whether or not it trades; one of the two is 0."""
    firm_q_var: Annotated[int, Field(ge=-INT32_MAX, le=INT32_MAX, json_schema_extra={"x-unit": "var"})] = 0
    """Reactive power of the firm energy, > 0 into the grid."""
    steps: Annotated[tuple[Step, ...], Field(max_length=STEPS_MAX, strict=False)] = ()
    """Flexible energy; a step's place in the list is its index in the award."""
    sig: Signature
    """The meter's EIP-712 signature."""

    @model_validator(mode="after")
    def _one_firm_direction(self) -> Self:
        if self.firm_import_wh and self.firm_export_wh:
            raise ValueError("firm_import_wh and firm_export_wh cannot both be positive: net them")
        return self


class Status(Message):
    """Whether a meter is online (retained; the last will says offline)."""

    meter: Address
    """The meter's id."""
    online: bool
    """False in the last will and on leaving."""
    since: UnixTime
    """Since when, on the meter's clock."""
    software: Annotated[str, Field(max_length=64)]
    """Name and version, free text."""


class Sync(Message):
    """Asks the market to send again the receipts and awards after ``since``."""

    meter: Address
    """The meter's id."""
    since: UnixTime
    """Receipts and awards of intervals that start later are sent again."""


class Receipt(Message):
    """The market stored (or refused) what a meter sent, up to ``up_to`` (seq or version)."""

    meter: Address
    """The meter whom it answers."""
    kind: Annotated[int, Field(ge=0, le=1)]
    """0 reading, 1 order."""
    up_to: Annotated[int, Field(ge=0, le=UINT64_MAX)]
    """Readings: every seq of the message's epoch up to this one is stored or was refused by name.
    Orders: the version.
    """
    result: Annotated[int, Field(ge=0, le=2)]
    """0 accepted, 1 duplicate (stored before), 2 rejected."""
    reason: Annotated[str, Field(max_length=300)] = ""
    """Why it was rejected, in words."""
    field: Annotated[str, Field(max_length=100)] = ""
    """The field to blame, in a rejection."""
    received_at: UnixTime
    """When the market stored or refused it, on the market's clock."""
    digest: Bytes32
    """The EIP-712 digest of the message that ends at up_to; where no message could be read, keccak256
    of the bytes.
    """
    sig: Signature
    """The market's EIP-712 signature."""


class AwardStep(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", use_attribute_docstrings=True)

    index: Annotated[int, Field(ge=0, lt=STEPS_MAX)]
    """Place of the step in the order."""
    energy_wh: EnergyWh
    """What it got."""


class Award(Message):
    """What a meter's order got.

    ``price`` is the price of its steps (bids include the local fee), ``firm_price`` that of its
    firm energy, ``setpoint_w`` the net power it is to hold (export positive), ``amount_neur`` what
    it earns (> 0) or owes for the awarded energy. Steps that got nothing are left out.
    """

    meter: Address
    """The meter's id."""
    interval_start: UnixTime
    """Start of the interval."""
    status: ClearingStatus
    """SUSPENDED: no trades, everyone at the retail tariffs."""
    price: Price
    """Price of its steps; bids include the local fee."""
    firm_price: Price
    """Price of its firm energy."""
    steps: Annotated[tuple[AwardStep, ...], Field(max_length=STEPS_MAX, strict=False)] = ()
    """What the steps got; those that got nothing are left out."""
    setpoint_w: PowerW
    """Net power to hold over the interval, > 0 into the grid."""
    amount_neur: Annotated[int, Field(json_schema_extra={"x-unit": "nEUR"})]
    """Earned (> 0) or owed for the awarded energy."""
    sig: Signature
    """The market's EIP-712 signature."""


class PriceParts(BaseModel):
    """What a price is made of, µEUR/kWh; a rebate is negative."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", use_attribute_docstrings=True)

    energy: Price = 0
    """For the energy itself and its sale."""
    network: Price = 0
    """Network charges."""
    levies: Price = 0
    """Levies, and taxes other than VAT."""
    vat: Price = 0
    """Value added tax on all of it."""

    @property
    def total(self) -> int:
        return self.energy + self.network + self.levies + self.vat


Parts = Annotated[PriceParts | None, Field(exclude_if=lambda parts: parts is None)]
"""Left out where a tariff has none: then it reads, and hashes, as it did before there were parts."""


class Tariff(BaseModel):
    """The prices of one interval, µEUR/kWh.

    ``import_price`` is what the retailer charges all in, ``import_fees`` the network charges and
    levies inside it, ``local_fee`` what energy traded inside the feeder pays instead of those. Where parts
    are given, they add up to the price exactly.
    """

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", use_attribute_docstrings=True)

    import_price: Price
    """What the retailer charges, all in."""
    export_price: Price
    """What the retailer pays."""
    floor: Price
    """No limit price may be below."""
    cap: Price
    """No limit price may be above."""
    local_fee: Fee = 0
    """What energy traded inside the feeder pays for the network."""
    import_fees: Fee = 0
    """Network charges and levies inside import_price."""
    import_parts: Parts = None
    """What import_price is made of."""
    export_parts: Parts = None
    """What export_price is made of."""
    local_parts: Parts = None
    """What local_fee is made of: no energy, whose price is the auction's."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.floor <= self.export_price <= self.import_price <= self.cap:
            raise ValueError("floor <= export_price <= import_price <= cap does not hold")
        if self.local_fee > self.import_price - self.export_price:
            raise ValueError("local_fee is larger than import_price - export_price")
        for name, parts, price in (
            ("import_parts", self.import_parts, self.import_price),
            ("export_parts", self.export_parts, self.export_price),
            ("local_parts", self.local_parts, self.local_fee),
        ):
            if parts is not None and parts.total != price:
                raise ValueError(f"{name} add up to {parts.total} and not to {price}")
        if self.import_parts is None and self.import_fees > max(0, self.import_price):
            # An hour with energy below zero may have that: its parts say so.
            raise ValueError(
                f"import_fees of {self.import_fees} is above import_price of {self.import_price}, which it is"
                " part of: import_parts are needed where energy is below zero"
            )
        if self.import_parts and self.import_fees != self.import_parts.network + self.import_parts.levies:
            raise ValueError("import_fees is not network + levies of import_parts")
        if self.local_parts and self.local_parts.energy:
            raise ValueError("local_parts have energy: its price is the auction's")
        return self


class Gate(Message):
    """Announces an interval's gate (retained, public)."""

    feeder: FeederId
    """The market's id."""
    interval_start: UnixTime
    """Start of the interval."""
    minutes: Literal[5, 15, 30, 60]
    """Its length."""
    opens_at: UnixTime
    """From when orders are taken."""
    closes_at: UnixTime
    """Until when, inclusive, on the market's clock."""
    tariff: Tariff
    """Prices of the interval."""
    state: GateState
    """OPEN: send orders now."""


class BusPrice(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", use_attribute_docstrings=True)

    bus: Annotated[int, Field(ge=0)]
    """Index of the bus in the feeder."""
    price: Price
    """Its price in this interval."""


class Totals(BaseModel):
    """Energy of one cleared interval, Wh."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", use_attribute_docstrings=True)

    import_wh: EnergyWh
    """From the retailer."""
    export_wh: EnergyWh
    """To the retailer."""
    losses_wh: Annotated[int, Field(json_schema_extra={"x-unit": "Wh"})]
    """In lines and transformers."""
    traded_wh: EnergyWh
    """Between the meters."""


class Clearing(Message):
    """The public result of an interval: no household's own energy."""

    feeder: FeederId
    """The market's id."""
    interval_start: UnixTime
    """Start of the interval."""
    status: ClearingStatus
    """CLEARED or SUSPENDED."""
    prices: Annotated[tuple[BusPrice, ...], Field(strict=False)]
    """The price at every bus."""
    totals: Totals
    """Energy of the interval."""
    root: Bytes32
    """Hash that the chain commits to."""
    sig: Signature
    """The market's EIP-712 signature."""
