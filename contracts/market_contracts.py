"""A market's contracts as Python calls: fund accounts, settle, withdraw, and read what came of it.

Amounts are µEUR, addresses lower-case hex. What changes the chain goes through a :class:`Sender` under a
batch id and can be called again after a crash with the same arguments: nothing happens twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from eth_hash.auto import keccak

from contracts import escrow_events
from contracts.chain import TRANSACTION_GAS_MAX, Chain, Receipt
from contracts.contract import GAS_BASE, Contract, parts_of
from contracts.deployment import Deployment
from contracts.escrow_events import Movements, Settled, SettledBatch, Transfer
from contracts.owners import Owners
from contracts.permit import Permit, sign_permit
from contracts.positions import chunks_of, pack_positions
from contracts.registry import Registry
from contracts.sender import Sender
from market.messages.signing import Signer

_GAS_DEPOSIT = 90_000
_GAS_PERMIT_DEPOSIT = 150_000
# A debtor that is short costs most: its debt is a new slot, and its credit is made before it is taken.
_GAS_POSITION = 50_000

# How many of them fit into one transaction.
_DEPOSITS_MAX = 100
_READS_MAX = 500


@dataclass(frozen=True)
class PendingWithdrawal:
    amount_ueur: int
    due_at: int


@dataclass(frozen=True)
class Limits:
    """What bounds the settler: the largest debit of a position and of a window, the most that shortfalls
    draw from the guarantee in a window (µEUR), and its length.
    """

    position_debit_max: int
    window_debit_max: int
    guarantee_max: int
    window_s: int


class MarketContracts:
    """The contracts of a deployment. Raises :class:`ChainError` at once where they do not stand on
    ``chain``.
    """

    def __init__(self, chain: Chain, deployment: Deployment) -> None:
        deployment.check(chain)
        self._chain = chain
        self.deployment = deployment
        self._stablecoin = Contract(chain, "DemoEuro", deployment.stablecoin)
        self._escrow = Contract(chain, "MarketEscrow", deployment.escrow)
        self.registry = Registry(chain, deployment.registry)
        self.owners = Owners(chain, deployment)
        self._timelock = Contract(chain, "MarketTimelock", deployment.timelock)

    # Money in and out

    def fund(self, sender: Sender, batch_id: str, amounts_ueur: Mapping[str, int]) -> list[Receipt]:
        """Mints demo euros to ``sender``, their owner, and deposits them for accounts, in a few
        transactions.
        """
        deposits = [(account, amount) for account, amount in sorted(amounts_ueur.items()) if amount]
        total = sum(amount for _, amount in deposits)
        escrow = self.deployment.escrow
        receipts = [
            self.mint(sender, f"{batch_id}/mint", sender.address, total),
            sender.send(f"{batch_id}/approve", self._stablecoin.write("approve", escrow, total)),
        ]
        for number, chunk in enumerate(parts_of(deposits, _DEPOSITS_MAX)):
            calls = [self._escrow.artifact.call_data("depositFor", *deposit) for deposit in chunk]
            gas = GAS_BASE + _GAS_DEPOSIT * len(chunk)
            call = self._escrow.write("multicall", calls, gas=gas)
            receipts.append(sender.send(f"{batch_id}/deposit/{number}", call))
        return receipts

    def mint(self, sender: Sender, batch_id: str, account: str, amount_ueur: int) -> Receipt:
        """Creates demo euros; ``sender`` must own the demo euro."""
        return sender.send(batch_id, self._stablecoin.write("mint", account, amount_ueur))

    def permit(self, holder: Signer, amount_ueur: int, deadline: int) -> Permit:
        """The holder's signed word that the escrow may take ``amount_ueur`` of its stablecoin until
        ``deadline``.
        """
        (separator,) = self._stablecoin.read("DOMAIN_SEPARATOR")
        nonce = self._stablecoin.integer("nonces", holder.address)
        return sign_permit(holder, separator, self.deployment.escrow, amount_ueur, nonce, deadline)

    def deposit_with_permits(self, sender: Sender, batch_id: str, permits: Sequence[Permit]) -> list[Receipt]:
        """Deposits for each permit's owner what the owner pays; anyone may be ``sender``."""
        receipts = []
        for number, chunk in enumerate(parts_of(permits, _DEPOSITS_MAX)):
            calls = [
                self._escrow.artifact.call_data(
                    "depositWithPermit",
                    permit.owner,
                    permit.amount_ueur,
                    permit.deadline,
                    permit.signature[64],
                    permit.signature[:32],
                    permit.signature[32:64],
                )
                for permit in chunk
            ]
            gas = GAS_BASE + _GAS_PERMIT_DEPOSIT * len(chunk)
            call = self._escrow.write("multicall", calls, gas=gas)
            receipts.append(sender.send(f"{batch_id}/{number}", call))
        return receipts

    def announce_withdrawal(self, sender: Sender, batch_id: str, amount_ueur: int) -> Receipt:
        """Takes ``amount_ueur`` out of the sender's credit; it is paid after the escrow's delay."""
        call = self._escrow.write("announceWithdrawal", amount_ueur)
        return sender.send(batch_id, call)

    def withdraw(self, sender: Sender, batch_id: str, account: str) -> Receipt:
        """Pays ``account`` what is due to it; anyone may be ``sender``."""
        return sender.send(batch_id, self._escrow.write("withdraw", account))

    def pending_withdrawal(self, account: str) -> PendingWithdrawal:
        ((amount, due_at),) = self._escrow.read("pendingWithdrawal", account)
        return PendingWithdrawal(amount, due_at)

    # Settlement

    def settle(
        self, sender: Sender, market: bytes, sequence: int, root: bytes, net_ueur: Mapping[str, int]
    ) -> list[Receipt]:
        """Moves what each account gets (> 0) or owes (< 0), chunk by chunk; ``sender`` must be the settler.

        ``market`` is :func:`market.messages.signing.feeder_hash` of its id, ``root`` commits the records
        behind the positions. A batch that was settled before, by this sender, returns its receipts again.

        Raises :class:`ContractRevertError` with the contract's reason, for one ``GuaranteeExhausted`` where
        an account owes more than it and the guarantee have: then nothing of the chunk was applied, and the
        batch waits. ValueError where the positions are none.
        """
        receipts = []
        for chunk, positions in enumerate(chunks_of(net_ueur)):
            gas = min(TRANSACTION_GAS_MAX, GAS_BASE + _GAS_POSITION * len(positions))
            packed = pack_positions(positions)
            call = self._escrow.write("settle", market, sequence, chunk, root, packed, gas=gas)
            receipts.append(sender.send(settlement_id(market, sequence, chunk), call))
        return receipts

    def is_settled(self, market: bytes, sequence: int, chunk: int = 0) -> bool:
        (settled,) = self._escrow.read("isSettled", market, sequence, chunk)
        return bool(settled)

    def unsettled(self, market: bytes, batches: Mapping[int, Mapping[str, int]]) -> list[int]:
        """Those of ``batches`` (net positions, µEUR by account, by sequence) that the chain does not have
        whole.
        """
        chunks = [(s, chunk) for s, net in sorted(batches.items()) for chunk in range(len(chunks_of(net)))]
        settled = self._answers("isSettled", [(market, *chunk) for chunk in chunks])
        return sorted({chunk[0] for chunk, done in zip(chunks, settled, strict=True) if not done})

    def settled_batch(
        self, market: bytes, sequence: int, from_block: int | None = None
    ) -> SettledBatch | None:
        """A batch as the chain has it from a block on; None where it has nothing of it."""
        first = self.deployment.first_block if from_block is None else from_block
        last, escrow = self._chain.block_number(), self.deployment.escrow
        return escrow_events.settled_batch(self._chain, escrow, market, sequence, first, last)

    def settled(self, market: bytes, sequence: int) -> list[Settled]:
        """What the chain says of a batch, by chunk."""
        first, last = self.deployment.first_block, self._chain.block_number()
        return escrow_events.settled(self._chain, self.deployment.escrow, market, sequence, first, last)

    # Guarantee, debts, pause

    def deposit_guarantee(self, sender: Sender, batch_id: str, amount_ueur: int) -> list[Receipt]:
        """Adds stablecoin of ``sender``'s to what stands in for debtors that cannot pay."""
        escrow = self.deployment.escrow
        approve = self._stablecoin.write("approve", escrow, amount_ueur)
        deposit = self._escrow.write("depositGuarantee", amount_ueur)
        return [sender.send(f"{batch_id}/approve", approve), sender.send(f"{batch_id}/deposit", deposit)]

    def guarantee(self) -> int:
        """What is left of the guarantee, µEUR."""
        return self._escrow.integer("guarantee")

    def pending_total(self) -> int:
        """All announced withdrawals that are not paid, µEUR."""
        return self._escrow.integer("pendingTotal")

    def withdrawal_delay_s(self) -> int:
        """How long after its announcement a withdrawal is paid."""
        return self._escrow.integer("withdrawalDelay")

    def paused(self) -> bool:
        (paused,) = self._escrow.read("paused")
        return bool(paused)

    def debts(self, addresses: Iterable[str]) -> dict[str, int]:
        """What accounts owe to the guarantee, µEUR, without those that owe nothing.

        Each of these is barred from ordering until it has repaid.
        """
        return {account: debt for account, debt in self._each("debtOf", addresses).items() if debt}

    def collect_debt(self, sender: Sender, batch_id: str, account: str) -> Receipt:
        """Repays what ``account`` owes out of its credit, as far as that goes; anyone may be ``sender``."""
        return sender.send(batch_id, self._escrow.write("collectDebt", account))

    # Under the timelock

    def propose_limits(self, sender: Sender, proposal: str, limits: Limits) -> Receipt:
        """Announces new bounds of the settler under a name of their own; ``sender`` must be the operator."""
        delay_s = self._timelock.integer("getMinDelay")
        arguments = (*self._limits_operation(proposal, limits), delay_s)
        call = self._timelock.write("schedule", *arguments)
        return sender.send(f"{proposal}/schedule", call)

    def apply_limits(self, sender: Sender, proposal: str, limits: Limits) -> Receipt:
        """Sets bounds that were announced under this name, once the timelock's delay is over."""
        call = self._timelock.write("execute", *self._limits_operation(proposal, limits))
        return sender.send(f"{proposal}/execute", call)

    def limits(self) -> Limits:
        """The settler's bounds now."""
        ((position_debit_max, window_debit_max, window_s, _, _),) = self._escrow.read("limits")
        guarantee_max, _, _ = self._escrow.read("guaranteeLimit")
        return Limits(position_debit_max, window_debit_max, guarantee_max, window_s)

    def _limits_operation(self, proposal: str, limits: Limits) -> tuple[object, ...]:
        """Target, value, data, predecessor and salt of the timelock's operation."""
        data = self._escrow.artifact.call_data(
            "setLimits",
            limits.position_debit_max,
            limits.window_debit_max,
            limits.guarantee_max,
            limits.window_s,
        )
        return self.deployment.escrow, 0, data, bytes(32), keccak(proposal.encode())

    # What there is

    def balances(self, addresses: Iterable[str]) -> dict[str, int]:
        """The credit of each address, µEUR."""
        return self._each("balanceOf", addresses)

    def total_supply(self) -> int:
        """All credit there is, µEUR."""
        return self._escrow.integer("totalSupply")

    def backing(self) -> int:
        """The stablecoin that the escrow holds, µEUR: supply, announced withdrawals and guarantee."""
        return self._stablecoin.integer("balanceOf", self.deployment.escrow)

    def stablecoin_balance(self, account: str) -> int:
        return self._stablecoin.integer("balanceOf", account)

    def transfers(self, from_block: int | None = None, to_block: int | None = None) -> list[Transfer]:
        """The credit's ``Transfer`` events of these blocks, both inclusive; all of them by default."""
        first = self.deployment.first_block if from_block is None else from_block
        last = self._chain.block_number() if to_block is None else to_block
        return escrow_events.transfers(self._chain, self.deployment.escrow, first, last)

    def movements(self, from_block: int, to_block: int) -> Movements:
        """What came to accounts and left them in these blocks other than by settlement."""
        return escrow_events.movements(self._chain, self.deployment.escrow, from_block, to_block)

    def block_number(self) -> int:
        return self._chain.block_number()

    def _each(self, function: str, addresses: Iterable[str]) -> dict[str, int]:
        """What a function of the escrow says of each address."""
        asked = list(addresses)
        return dict(zip(asked, self._answers(function, [(address,) for address in asked]), strict=True))

    def _answers(self, function: str, calls: Sequence[tuple[object, ...]]) -> list[Any]:
        """What a function of the escrow returns for each list of arguments."""
        found: list[Any] = []
        for part in parts_of(calls, _READS_MAX):
            data = [self._escrow.artifact.call_data(function, *arguments) for arguments in part]
            (results,) = self._escrow.read("multicall", data)
            for result in results:
                found += self._escrow.artifact.result(function, result)
        return found


def settlement_id(market: bytes, sequence: int, chunk: int) -> str:
    """What a sender knows a batch's transaction by."""
    return f"settle/{market.hex()}/{sequence}/{chunk}"
