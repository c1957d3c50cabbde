"""The chain as the engine needs it, made of a market's contracts and their settler's sender."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from contracts.chain import ContractRevertError
from contracts.escrow_events import Movements, SettledBatch
from contracts.market_contracts import MarketContracts, settlement_id
from contracts.sender import Sender
from market.messages.signing import feeder_hash
from market.service.clock import SimulatedClock
from market.service.ports import ChainBooks, OnChain, Sent, Settler, Standing

_LOOKS_MAX = 3
_REFUSED = {
    "EnforcedPause": "the contract is paused",
    "GuaranteeBeyondLimit": "shortfalls would draw more from the guarantee than they may in one window",
    "GuaranteeExhausted": "somebody cannot pay, and the guarantee does not suffice",
    "PositionBeyondLimit": "somebody would pay more in one batch than the contract lets the settler take",
    "WindowBeyondLimit": "more would move than the contract lets the settler move in one window",
}


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
        self._counted = Movements()
        self._next_block = contracts.deployment.first_block
        self._liable_s: int | None = None
        self._foreign: dict[int, SettledBatch] = {}

    def settle(self, sequence: int, root: bytes, positions: Mapping[str, int], at: int) -> Sent:
        if self._block_clock is not None:
            self._block_clock.advance_to(at)
        receipts = self._contracts.settle(self._sender, self._market, sequence, root, positions)
        # What was made for a wallet before another one took its place goes where all else went. That is asked
        # when the batch is there: nobody may have asked since the start, or since a wallet was handed over.
        for address in sorted(positions.keys() & self._successors(self._newest()).keys()):
            batch_id = f"{settlement_id(self._market, sequence, 0)}/follow/{address}"
            receipts.append(self._contracts.owners.follow(self._sender, batch_id, address))
        return Sent(receipts[-1].hash, sum(receipt.gas_used for receipt in receipts))

    def lost(self, batches: Mapping[int, Mapping[str, int]]) -> Sequence[int]:
        return self._contracts.unsettled(self._market, batches)

    def ahead(self, first: int) -> Sequence[OnChain]:
        if not self._contracts.is_settled(self._market, first):
            return ()
        if self._sender.has_mined(settlement_id(self._market, first, 0)):
            return ()
        found: list[OnChain] = []
        block, final = self._contracts.deployment.first_block, self._sender.final_block()
        while True:
            sequence = first + len(found)
            batch = self._foreign.get(sequence)
            if batch is None:
                batch = self._contracts.settled_batch(self._market, sequence, block)
            if batch is None:
                return found
            found.append(_on_chain(sequence, batch, final))
            if found[-1].is_final:  # it does not change any more
                self._foreign[sequence] = batch
            block = batch.block

    def standing(self) -> Standing:
        newest = self._newest()
        equity = Counter(self._counted.equity_ueur)
        # What is not final yet counts where it is to an account's disadvantage.
        equity.update(newest.lost_ueur)
        if self._liable_s is None:
            self._liable_s = self._contracts.withdrawal_delay_s()
        debts = self._contracts.debts(sorted(self._counted.short | newest.short))
        return Standing(equity, debts, self._liable_s, self._successors(newest))

    def credit_moved(self) -> Mapping[str, int]:
        newest = self._newest()
        found = Counter(self._counted.credit_ueur)
        found.update(newest.credit_ueur)
        return found

    def _newest(self, until: int | None = None) -> Movements:
        """What moved in blocks that are not final, up to ``until``; those that are have been counted then."""
        final = self._sender.final_block()
        if final >= self._next_block:
            self._counted.add(self._contracts.movements(self._next_block, final))
            self._next_block = final + 1
        return self._contracts.movements(
            self._next_block, self._contracts.block_number() if until is None else until
        )

    def _successors(self, newest: Movements) -> dict[str, str]:
        return {**self._counted.successors, **newest.successors}

    def balances(self, addresses: Sequence[str]) -> Mapping[str, int]:
        return self._contracts.balances(addresses)

    def total_supply(self) -> int:
        return self._contracts.total_supply()

    def books(self) -> ChainBooks:
        # Blocks may come while the node is asked: then what it said does not belong together.
        for _ in range(_LOOKS_MAX):
            books = self._books(self._contracts.block_number())
            if self._contracts.block_number() == books.block:
                break
        return books

    def _books(self, block: int) -> ChainBooks:
        newest = self._newest(block)
        announced = self._counted.lost_ueur.keys() | newest.lost_ueur.keys()
        pending = {address: self._contracts.pending_withdrawal(address) for address in sorted(announced)}
        return ChainBooks(
            block=block,
            supply_ueur=self._contracts.total_supply(),
            deposits_ueur=sum(self._counted.credit_ueur.values()) + sum(newest.credit_ueur.values()),
            backing_ueur=self._contracts.backing(),
            guarantee_ueur=self._contracts.guarantee(),
            withdrawals_ueur=self._contracts.pending_total(),
            paused=self._contracts.paused(),
            debts_ueur=self._contracts.debts(sorted(self._counted.short | newest.short)),
            withdrawals={
                address: (one.amount_ueur, one.due_at) for address, one in pending.items() if one.amount_ueur
            },
        )


def refused_because(error: ContractRevertError) -> str:
    """Why the contracts refuse a batch, in words that name nobody."""
    return _REFUSED.get(error.reason.name, f"the contracts refuse the batch ({error.reason.name})")


def _on_chain(sequence: int, batch: SettledBatch, final_block: int) -> OnChain:
    return OnChain(
        sequence,
        batch.root,
        batch.positions,
        batch.transaction,
        batch.gas,
        batch.at,
        batch.block <= final_block,
    )


class LateSettler:
    """A settler whose node may be away when the market begins: ``opened`` makes it, at the first call that
    reaches the node, and raises :class:`grid.errors.ChainError` until then.
    """

    def __init__(self, opened: Callable[[], Settler]) -> None:
        self._opened = opened
        self._known: Settler | None = None

    def _settler(self) -> Settler:
        if self._known is None:
            self._known = self._opened()
        return self._known

    def settle(self, sequence: int, root: bytes, positions: Mapping[str, int], at: int) -> Sent:
        return self._settler().settle(sequence, root, positions, at)

    def lost(self, batches: Mapping[int, Mapping[str, int]]) -> Sequence[int]:
        return self._settler().lost(batches)

    def ahead(self, first: int) -> Sequence[OnChain]:
        return self._settler().ahead(first)

    def standing(self) -> Standing:
        return self._settler().standing()

    def credit_moved(self) -> Mapping[str, int]:
        return self._settler().credit_moved()

    def balances(self, addresses: Sequence[str]) -> Mapping[str, int]:
        return self._settler().balances(addresses)

    def total_supply(self) -> int:
        return self._settler().total_supply()

    def books(self) -> ChainBooks:
        return self._settler().books()
