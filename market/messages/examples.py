"""One signed example of every message, made with keys that everybody knows: for documents and first tests.

The meter's secret is 32 bytes of 0x11, the market's 32 bytes of 0x22, the domain chain 1337 and contract
0x00000000000000000000000000000000000000aa. A firmware that makes the same signatures speaks the format.
"""

from __future__ import annotations

from market.messages.models import (
    Award,
    AwardStep,
    BusPrice,
    Clearing,
    Gate,
    Message,
    Order,
    PriceParts,
    Reading,
    ReadingEntry,
    Readings,
    Receipt,
    ReceiptKind,
    ReceiptResult,
    Side,
    Status,
    Step,
    Sync,
    Tariff,
    Totals,
)
from market.messages.signing import UNSIGNED, Domain, Signer, message_digest

DOMAIN = Domain(1337, "0x" + "00" * 19 + "aa")
METER = Signer(b"\x11" * 32)
MARKET = Signer(b"\x22" * 32)
FEEDER = "rural3-noon"
_START = 1_465_992_000  # 2016-06-15T12:00:00Z


def examples() -> dict[str, Message]:
    """By the message's name, in the order of a meter's day."""
    meter = METER.address
    gate = Gate(
        feeder=FEEDER,
        interval_start=_START,
        minutes=15,
        opens_at=_START - 900,
        closes_at=_START - 300,
        tariff=Tariff(
            import_price=300_000,
            export_price=80_000,
            floor=-500_000,
            cap=2_000_000,
            local_fee=30_000,
            import_fees=90_000,
            import_parts=PriceParts(energy=162_101, network=70_000, levies=20_000, vat=47_899),
        ),
        state="OPEN",
    )
    reading = METER.sign(
        DOMAIN,
        Reading(
            meter=meter,
            epoch=0,
            seq=41,
            taken_at=_START - 900,
            import_wh=1_204_877,
            export_wh=310_020,
            power_w=-640,
            sig=UNSIGNED,
        ),
    )
    entries = tuple(
        ReadingEntry(
            epoch=0,
            seq=42 + number,
            taken_at=_START + 900 * number,
            import_wh=1_205_040 + 155 * number,
            export_wh=310_020,
            power_w=-620,
        )
        for number in range(2)
    )
    readings = METER.sign(DOMAIN, Readings(meter=meter, readings=entries, sig=UNSIGNED))
    order = METER.sign(
        DOMAIN,
        Order(
            meter=meter,
            feeder=FEEDER,
            interval_start=_START,
            version=41,
            firm_import_wh=160,
            firm_q_var=-55,
            steps=(
                Step(side=Side.BID, energy_wh=2_750, limit_price=215_000),
                Step(side=Side.ASK, energy_wh=900, limit_price=95_000, min_fill_percent=50),
            ),
            sig=UNSIGNED,
        ),
    )
    receipt = MARKET.sign(
        DOMAIN,
        Receipt(
            meter=meter,
            kind=ReceiptKind.ORDER,
            up_to=order.version,
            result=ReceiptResult.ACCEPTED,
            received_at=_START - 720,
            digest="0x" + message_digest(DOMAIN, order).hex(),
            sig=UNSIGNED,
        ),
    )
    award = MARKET.sign(
        DOMAIN,
        Award(
            meter=meter,
            interval_start=_START,
            status="CLEARED",
            price=148_000,
            firm_price=148_000,
            steps=(AwardStep(index=0, energy_wh=2_750),),
            setpoint_w=-11_640,
            amount_neur=-(160 + 2_750) * 148_000,
            sig=UNSIGNED,
        ),
    )
    clearing = MARKET.sign(
        DOMAIN,
        Clearing(
            feeder=FEEDER,
            interval_start=_START,
            status="CLEARED",
            prices=(BusPrice(bus=0, price=145_000), BusPrice(bus=1, price=148_000)),
            totals=Totals(import_wh=0, export_wh=812, losses_wh=31, traded_wh=2_910),
            root="0x" + "5a" * 32,
            sig=UNSIGNED,
        ),
    )
    return {
        "gate": gate,
        "reading": reading,
        "readings": readings,
        "order": order,
        "status": Status(meter=meter, online=True, since=_START - 900, software="example 1"),
        "sync": Sync(meter=meter, since=_START - 3_600),
        "receipt": receipt,
        "award": award,
        "clearing": clearing,
    }
