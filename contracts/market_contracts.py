"""A market's contracts as Python calls: register meters, fund accounts, settle, and read what came of it.

Amounts are µEUR, addresses lower-case hex. What changes the chain goes through a :class:`Sender` under a
batch id and can be called again after a crash with the same arguments: nothing happens twice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from eth_abi.abi import decode
from eth_hash.auto import keccak

from contracts.artifacts import Artifact, load
from contracts.chain import TRANSACTION_GAS_MAX, Call, Chain, Receipt
from contracts.deployment import Deployment
from contracts.permit import Permit, sign_permit
from contracts.positions import chunks_of, pack_positions
from contracts.replacement import Replacement
from contracts.sender import Sender
from market.messages.signing import Binding, Signer

T = TypeVar("T")

_TRANSFER = keccak(b"Transfer(address,address,uint256)")
_SETTLED = keccak(b"Settled(bytes32,uint64,uint32,bytes32,uint256,uint256)")
_DEPOSITED = keccak(b"Deposited(address,address,uint256)")
_ANNOUNCED = keccak(b"WithdrawalAnnounced(address,uint256,uint256,uint256)")
_COVERED = keccak(b"ShortfallCovered(address,uint256,uint256,uint256)")
_REPAID = keccak(b"DebtRepaid(address,uint256,uint256)")
_NOBODY = "0x" + "00" * 20

# Upper bounds of gas, with room to spare: what is not used is not paid.
_GAS_BASE = 150_000
_GAS_BINDING = 140_000
_GAS_DEPOSIT = 90_000
_GAS_PERMIT_DEPOSIT = 150_000
# A debtor that is short costs most: its debt is a new slot, and its credit is made before it is taken.
_GAS_POSITION = 50_000
_GAS_REPLACEMENT = 200_000
_GAS_READ = TRANSACTION_GAS_MAX

# How many of them fit into one transaction.
_BINDINGS_MAX = 100
_DEPOSITS_MAX = 100
_READS_MAX = 500


@dataclass(frozen=True)
class SignedBinding:
    """A binding and the meter's signature of it (hex, r ‖ s ‖ v)."""

    binding: Binding
    signature: str


@dataclass(frozen=True)
class SignedReplacement:
    """An owner's word that a meter replaces a broken one, and its signature of that (hex, r ‖ s ‖ v)."""

    replacement: Replacement
    signature: str


@dataclass(frozen=True)
class BoundMeter:
    """Whose a registered meter is, and the salted hash of where it stands."""

    owner: str
    connection_point: bytes


@dataclass(frozen=True)
class PendingWithdrawal:
    amount_ueur: int
    due_at: int


@dataclass(frozen=True)
class Settled:
    """One chunk of a batch, as the chain has it; amounts µEUR."""

    chunk: int
    root: bytes
    positions: int
    volume_ueur: int
    block: int
    transaction: str


@dataclass(frozen=True)
class Limits:
    """What bounds the settler: the largest debit of a position and of a window (µEUR), and its length."""

    position_debit_max: int
    window_debit_max: int
    window_s: int


@dataclass
class Movements:
    """What accounts got (> 0) and gave up (< 0) other than by settlement, µEUR.

    ``credit_ueur`` is what that made of their credit; ``equity_ueur`` leaves out what the guarantee lent
    them, and ``lost_ueur`` (≤ 0) is the part of it that they took out.
    """

    credit_ueur: Counter[str] = field(default_factory=Counter)
    equity_ueur: Counter[str] = field(default_factory=Counter)
    lost_ueur: Counter[str] = field(default_factory=Counter)

    def deposited(self, account: str, words: Sequence[int]) -> None:
        self.credit_ueur[account] += words[0]
        self.equity_ueur[account] += words[0]

    def announced(self, account: str, words: Sequence[int]) -> None:
        self.credit_ueur[account] -= words[0]
        self.equity_ueur[account] -= words[0]
        self.lost_ueur[account] -= words[0]

    def covered(self, account: str, words: Sequence[int]) -> None:
        from_withdrawal, from_guarantee, _ = words
        self.credit_ueur[account] += from_withdrawal + from_guarantee
        self.equity_ueur[account] += from_withdrawal

    def repaid(self, account: str, words: Sequence[int]) -> None:
        self.credit_ueur[account] -= words[0]

    def add(self, later: Movements) -> None:
        # Counter.update adds, and keeps what is below zero.
        self.credit_ueur.update(later.credit_ueur)
        self.equity_ueur.update(later.equity_ueur)
        self.lost_ueur.update(later.lost_ueur)


@dataclass(frozen=True)
class Transfer:
    """One ``Transfer`` event of the credit. In a settlement one side is always the escrow, as clearing
    account.
    """

    block: int
    transaction: str
    index: int
    sender: str
    receiver: str
    amount_ueur: int


class MarketContracts:
    """The contracts of a deployment. Raises :class:`ChainError` at once where they do not stand on
    ``chain``.
    """

    def __init__(self, chain: Chain, deployment: Deployment) -> None:
        deployment.check(chain)
        self._chain = chain
        self.deployment = deployment
        self._stablecoin = _Contract(load("DemoEuro"), deployment.stablecoin)
        self._escrow = _Contract(load("MarketEscrow"), deployment.escrow)
        self._registry = _Contract(load("MeterRegistry"), deployment.registry)
        self._timelock = _Contract(load("MarketTimelock"), deployment.timelock)

    # Meters

    def register_meters(
        self, sender: Sender, batch_id: str, bindings: Sequence[SignedBinding]
    ) -> list[Receipt]:
        """Binds meters to owners and connection points; ``sender`` must be the registrar."""
        receipts = []
        for number, chunk in enumerate(_chunks(bindings, _BINDINGS_MAX)):
            structs = [
                (b.meter, b.owner, b.connection_point, b.nonce, b.deadline)
                for b in (signed.binding for signed in chunk)
            ]
            signatures = [bytes.fromhex(signed.signature[2:]) for signed in chunk]
            gas = _GAS_BASE + _GAS_BINDING * len(chunk)
            call = self._registry.write("register", structs, signatures, gas=gas)
            receipts.append(sender.send(f"{batch_id}/{number}", call))
        return receipts

    def revoke_meter(self, sender: Sender, batch_id: str, meter: str) -> Receipt:
        """Unbinds a meter; ``sender`` must be its owner."""
        return sender.send(batch_id, self._registry.write("revoke", meter, gas=_GAS_BASE))

    def replace_meter(
        self, sender: Sender, batch_id: str, replacement: SignedReplacement, binding: SignedBinding
    ) -> Receipt:
        """Puts a new meter in a broken one's place; ``sender`` must be the registrar."""
        word, device = replacement.replacement, binding.binding
        call = self._registry.write(
            "replace",
            (word.broken, word.meter, word.nonce, word.deadline),
            bytes.fromhex(replacement.signature[2:]),
            (device.meter, device.owner, device.connection_point, device.nonce, device.deadline),
            bytes.fromhex(binding.signature[2:]),
            gas=_GAS_REPLACEMENT,
        )
        return sender.send(batch_id, call)

    def meter(self, meter: str) -> BoundMeter | None:
        """What a meter is bound to; None where it is not."""
        ((owner, connection_point),) = self._read(self._registry, "meterOf", meter)
        return None if owner == _NOBODY else BoundMeter(owner, connection_point)

    def registry_nonce(self, signer: str) -> int:
        """The nonce that a meter's next binding, or an owner's next replacement, has to have."""
        return self._integer(self._registry, "nonces", signer)

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
            sender.send(
                f"{batch_id}/approve", self._stablecoin.write("approve", escrow, total, gas=_GAS_BASE)
            ),
        ]
        for number, chunk in enumerate(_chunks(deposits, _DEPOSITS_MAX)):
            calls = [self._escrow.artifact.call_data("depositFor", *deposit) for deposit in chunk]
            gas = _GAS_BASE + _GAS_DEPOSIT * len(chunk)
            call = self._escrow.write("multicall", calls, gas=gas)
            receipts.append(sender.send(f"{batch_id}/deposit/{number}", call))
        return receipts

    def mint(self, sender: Sender, batch_id: str, account: str, amount_ueur: int) -> Receipt:
        """Creates demo euros; ``sender`` must own the demo euro."""
        return sender.send(batch_id, self._stablecoin.write("mint", account, amount_ueur, gas=_GAS_BASE))

    def permit(self, holder: Signer, amount_ueur: int, deadline: int) -> Permit:
        """The holder's signed word that the escrow may take ``amount_ueur`` of its stablecoin until
        ``deadline``.
        """
        (separator,) = self._read(self._stablecoin, "DOMAIN_SEPARATOR")
        nonce = self._integer(self._stablecoin, "nonces", holder.address)
        return sign_permit(holder, separator, self.deployment.escrow, amount_ueur, nonce, deadline)

    def deposit_with_permits(self, sender: Sender, batch_id: str, permits: Sequence[Permit]) -> list[Receipt]:
        """Deposits for each permit's owner what the owner pays; anyone may be ``sender``."""
        receipts = []
        for number, chunk in enumerate(_chunks(permits, _DEPOSITS_MAX)):
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
            gas = _GAS_BASE + _GAS_PERMIT_DEPOSIT * len(chunk)
            call = self._escrow.write("multicall", calls, gas=gas)
            receipts.append(sender.send(f"{batch_id}/{number}", call))
        return receipts

    def announce_withdrawal(self, sender: Sender, batch_id: str, amount_ueur: int) -> Receipt:
        """Takes ``amount_ueur`` out of the sender's credit; it is paid after the escrow's delay."""
        call = self._escrow.write("announceWithdrawal", amount_ueur, gas=_GAS_BASE)
        return sender.send(batch_id, call)

    def withdraw(self, sender: Sender, batch_id: str, account: str) -> Receipt:
        """Pays ``account`` what is due to it; anyone may be ``sender``."""
        return sender.send(batch_id, self._escrow.write("withdraw", account, gas=_GAS_BASE))

    def pending_withdrawal(self, account: str) -> PendingWithdrawal:
        ((amount, due_at),) = self._read(self._escrow, "pendingWithdrawal", account)
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
            gas = min(TRANSACTION_GAS_MAX, _GAS_BASE + _GAS_POSITION * len(positions))
            packed = pack_positions(positions)
            call = self._escrow.write("settle", market, sequence, chunk, root, packed, gas=gas)
            receipts.append(sender.send(f"settle/{market.hex()}/{sequence}/{chunk}", call))
        return receipts

    def is_settled(self, market: bytes, sequence: int, chunk: int = 0) -> bool:
        (settled,) = self._read(self._escrow, "isSettled", market, sequence, chunk)
        return bool(settled)

    def settled(self, market: bytes, sequence: int) -> list[Settled]:
        """What the chain says of a batch, by chunk."""
        first, last = self.deployment.first_block, self._chain.block_number()
        return settled_events(self._chain, self.deployment.escrow, market, sequence, first, last)

    # Guarantee, debts, pause

    def deposit_guarantee(self, sender: Sender, batch_id: str, amount_ueur: int) -> list[Receipt]:
        """Adds stablecoin of ``sender``'s to what stands in for debtors that cannot pay."""
        escrow = self.deployment.escrow
        approve = self._stablecoin.write("approve", escrow, amount_ueur, gas=_GAS_BASE)
        deposit = self._escrow.write("depositGuarantee", amount_ueur, gas=_GAS_BASE)
        return [sender.send(f"{batch_id}/approve", approve), sender.send(f"{batch_id}/deposit", deposit)]

    def guarantee(self) -> int:
        """What is left of the guarantee, µEUR."""
        return self._integer(self._escrow, "guarantee")

    def pending_total(self) -> int:
        """All announced withdrawals that are not paid, µEUR."""
        return self._integer(self._escrow, "pendingTotal")

    def paused(self) -> bool:
        (paused,) = self._read(self._escrow, "paused")
        return bool(paused)

    def debts(self, addresses: Iterable[str]) -> dict[str, int]:
        """What accounts owe to the guarantee, µEUR, without those that owe nothing.

        Each of these is barred from ordering until it has repaid.
        """
        return {account: debt for account, debt in self._each("debtOf", addresses).items() if debt}

    def collect_debt(self, sender: Sender, batch_id: str, account: str) -> Receipt:
        """Repays what ``account`` owes out of its credit, as far as that goes; anyone may be ``sender``."""
        return sender.send(batch_id, self._escrow.write("collectDebt", account, gas=_GAS_BASE))

    # Under the timelock

    def propose_limits(self, sender: Sender, proposal: str, limits: Limits) -> Receipt:
        """Announces new bounds of the settler under a name of their own; ``sender`` must be the operator."""
        delay_s = self._integer(self._timelock, "getMinDelay")
        arguments = (*self._limits_operation(proposal, limits), delay_s)
        call = self._timelock.write("schedule", *arguments, gas=_GAS_BASE)
        return sender.send(f"{proposal}/schedule", call)

    def apply_limits(self, sender: Sender, proposal: str, limits: Limits) -> Receipt:
        """Sets bounds that were announced under this name, once the timelock's delay is over."""
        call = self._timelock.write("execute", *self._limits_operation(proposal, limits), gas=_GAS_BASE)
        return sender.send(f"{proposal}/execute", call)

    def limits(self) -> Limits:
        """The settler's bounds now."""
        ((position_debit_max, window_debit_max, window_s, _, _),) = self._read(self._escrow, "limits")
        return Limits(position_debit_max, window_debit_max, window_s)

    def _limits_operation(self, proposal: str, limits: Limits) -> tuple[object, ...]:
        """Target, value, data, predecessor and salt of the timelock's operation."""
        data = self._escrow.artifact.call_data(
            "setLimits", limits.position_debit_max, limits.window_debit_max, limits.window_s
        )
        return self.deployment.escrow, 0, data, bytes(32), keccak(proposal.encode())

    # What there is

    def balances(self, addresses: Iterable[str]) -> dict[str, int]:
        """The credit of each address, µEUR."""
        return self._each("balanceOf", addresses)

    def total_supply(self) -> int:
        """All credit there is, µEUR."""
        return self._integer(self._escrow, "totalSupply")

    def backing(self) -> int:
        """The stablecoin that the escrow holds, µEUR: supply, announced withdrawals and guarantee."""
        return self._integer(self._stablecoin, "balanceOf", self.deployment.escrow)

    def stablecoin_balance(self, account: str) -> int:
        return self._integer(self._stablecoin, "balanceOf", account)

    def transfers(self, from_block: int | None = None, to_block: int | None = None) -> list[Transfer]:
        """The credit's ``Transfer`` events of these blocks, both inclusive; all of them by default."""
        first = self.deployment.first_block if from_block is None else from_block
        last = self._chain.block_number() if to_block is None else to_block
        return [
            Transfer(
                block=log.block,
                transaction=log.transaction,
                index=log.index,
                sender="0x" + log.topics[1][12:].hex(),
                receiver="0x" + log.topics[2][12:].hex(),
                amount_ueur=int.from_bytes(log.data, "big"),
            )
            for log in self._chain.logs(self.deployment.escrow, [_TRANSFER], first, last)
        ]

    def movements(self, from_block: int, to_block: int) -> Movements:
        """What came to accounts and left them in these blocks other than by settlement."""
        found = Movements()
        for name, apply in (
            (_DEPOSITED, found.deposited),
            (_ANNOUNCED, found.announced),
            (_COVERED, found.covered),
            (_REPAID, found.repaid),
        ):
            for log in self._chain.logs(self.deployment.escrow, [name], from_block, to_block):
                words = [int.from_bytes(log.data[at : at + 32], "big") for at in range(0, len(log.data), 32)]
                apply("0x" + log.topics[-1][12:].hex(), words)
        return found

    def block_number(self) -> int:
        return self._chain.block_number()

    def _each(self, function: str, addresses: Iterable[str]) -> dict[str, int]:
        """What a function of the escrow says of each address."""
        found: dict[str, int] = {}
        for chunk in _chunks(list(addresses), _READS_MAX):
            calls = [self._escrow.artifact.call_data(function, address) for address in chunk]
            (results,) = self._read(self._escrow, "multicall", calls)
            for address, result in zip(chunk, results, strict=True):
                (found[address],) = self._escrow.artifact.result(function, result)
        return found

    def _read(self, contract: _Contract, function: str, *arguments: object) -> tuple[Any, ...]:
        data = self._chain.call(contract.write(function, *arguments, gas=_GAS_READ), _NOBODY)
        return contract.artifact.result(function, data)

    def _integer(self, contract: _Contract, function: str, *arguments: object) -> int:
        (value,) = self._read(contract, function, *arguments)
        return int(value)


def settled_events(
    chain: Chain, escrow: str, market: bytes, sequence: int, from_block: int, to_block: int
) -> list[Settled]:
    """What ``escrow`` recorded of a batch in these blocks, both inclusive, by chunk."""
    found = []
    for log in chain.logs(escrow, [_SETTLED, market, sequence.to_bytes(32, "big")], from_block, to_block):
        chunk, root, positions, volume = decode(("uint32", "bytes32", "uint256", "uint256"), log.data)
        found.append(Settled(chunk, root, positions, volume, log.block, log.transaction))
    return sorted(found, key=lambda event: event.chunk)


@dataclass(frozen=True)
class _Contract:
    artifact: Artifact
    address: str

    def write(self, function: str, *arguments: object, gas: int) -> Call:
        data = self.artifact.call_data(function, *arguments)
        return Call(f"{self.artifact.contract}.{function}", self.address, data, gas)


def _chunks(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    return (items[start : start + size] for start in range(0, len(items), size))
