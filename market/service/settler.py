"""The chain as the engine needs it, made of a market's contracts and their settler's sender."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from contracts.market_contracts import MarketContracts
from contracts.sender import Sender
from market.messages.signing import feeder_hash
from market.service.clock import SimulatedClock
from market.service.ports import Sent


class ContractSettler:
    """A :class:`market.service.ports.Settler` on the contracts of ``feeder``'s market.

    ``block_clock`` is the clock that the chain takes its block times from, where those are simulated: a batch
    is mined at the time it was made, however long that takes.
    """

    def __init__(
        self, contracts: MarketContracts, sender: Sender, feeder: str, block_clock: SimulatedClock | None
    ) -> None:
        self._contracts = contracts
        self._sender = sender
        self._market = feeder_hash(feeder)
        self._block_clock = block_clock

    def settle(self, sequence: int, root: bytes, positions: Mapping[str, int], at: int) -> Sent:
        if self._block_clock is not None:
            self._block_clock.advance_to(at)
        receipts = self._contracts.settle(self._sender, self._market, sequence, root, positions)
        return Sent(receipts[-1].hash, sum(receipt.gas_used for receipt in receipts))

    def balances(self, addresses: Sequence[str]) -> Mapping[str, int]:
        return self._contracts.balances(addresses)

    def total_supply(self) -> int:
        return self._contracts.total_supply()
