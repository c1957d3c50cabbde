"""What a run of the bench is: the same for the market, the load and the report."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from eth_hash.auto import keccak

from market.messages.models import Tariff
from market.messages.signing import Domain, Signer
from market.service.settings import MarketSettings, Member, Role, Treasury

FEEDER = "bench"
DOMAIN = Domain(31337, "0x" + "be" * 20)
TAKEN_AT = 1_465_948_800


@dataclass(frozen=True)
class Plan:
    """``rate`` messages a second for ``seconds`` over ``connections``, ``per_message`` readings in each.

    ``folder`` is where database and results go; the broker listens on ``port``.
    """

    port: int
    folder: str
    connections: int
    rate: int
    seconds: float
    per_message: int

    @property
    def messages(self) -> int:
        """How many each connection sends."""
        return max(1, round(self.rate * self.seconds / self.connections))

    def sent_after_s(self, number: int, connection: int) -> float:
        """When a connection is to send its ``number``-th message: evenly, the connections in turn."""
        return (number * self.connections + connection) / self.rate


@cache
def signer(role: str) -> Signer:
    return Signer(keccak(b"peergrid bench " + role.encode()))


def meter(index: int) -> Signer:
    return signer(f"meter {index}")


def settings() -> MarketSettings:
    roles: tuple[Role, ...] = ("retailer", "network", "imbalance", "rounding")
    return MarketSettings(
        feeder=FEEDER,
        feeder_name=FEEDER,
        seed=0,
        first_interval_start=TAKEN_AT,
        intervals=1,
        tariff=Tariff(import_price=300_000, export_price=80_000, floor=-500_000, cap=2_000_000),
        clock_skew_s=60,
        treasuries={role: Treasury(address=signer(role).address, deposit_ueur=0) for role in roles},
    )


def members(count: int) -> list[Member]:
    return [
        Member(
            meter=meter(index).address,
            owner=signer(f"owner {index}").address,
            connection_point=f"load:{index}",
            bus=0,
            deposit_ueur=0,
        )
        for index in range(count)
    ]
