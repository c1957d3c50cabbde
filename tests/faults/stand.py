"""Who takes part in the fault tests; imports little, so that a killed process is soon back."""

from __future__ import annotations

from eth_hash.auto import keccak

from market.messages.models import Tariff
from market.messages.signing import Domain, Signer
from market.service.settings import MarketSettings, Member, Role, Treasury

FEEDER_ID = "faults"
START = 1_465_948_800
DOMAIN = Domain(1337, "0x" + "11" * 20)
ROLES: tuple[Role, ...] = ("retailer", "network", "imbalance", "rounding")


def signer(role: str) -> Signer:
    return Signer(keccak(b"test of faults" + role.encode()))


METERS = [signer(f"meter:{index}") for index in range(8)]
MARKET = signer("market")
MEMBERS = [
    Member(
        meter=meter.address,
        owner=signer(f"owner:{index}").address,
        connection_point=f"load:{index}",
        bus=index,
        deposit_ueur=0,
    )
    for index, meter in enumerate(METERS)
]


def settings() -> MarketSettings:
    return MarketSettings(
        feeder=FEEDER_ID,
        feeder_name=FEEDER_ID,
        seed=1,
        first_interval_start=START,
        intervals=1,
        tariff=Tariff(import_price=300_000, export_price=80_000, floor=-500_000, cap=2_000_000),
        treasuries={role: Treasury(address=signer(role).address, deposit_ueur=0) for role in ROLES},
    )
