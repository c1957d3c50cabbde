"""A market's contracts as Python calls: register meters, fund accounts, settle, and read what came of it.

Amounts are µEUR, addresses lower-case hex. What changes the chain goes through a :class:`Sender` under a
batch id and can be called again after a crash with the same arguments: nothing happens twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from eth_hash.auto import keccak

from contracts.artifacts import Artifact, load
from contracts.chain import TRANSACTION_GAS_MAX, Call, Chain, Receipt
from contracts.deployment import Deployment
from contracts.permit import Permit, sign_permit
from contracts.positions import pack_positions
from contracts.sender import Sender
from market.messages.signing import Binding, Signer

T = TypeVar("T")

_TRANSFER = keccak(b"Transfer(address,address,uint256)")
_NOBODY = "0x" + "00" * 20

# Upper bounds of gas, with room to spare: what is not used is not paid.
_GAS_BASE = 150_000
_GAS_BINDING = 140_000
_GAS_DEPOSIT = 90_000
_GAS_PERMIT_DEPOSIT = 150_000
_GAS_POSITION = 30_000
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
class BoundMeter:
    """Whose a registered meter is, and the salted hash of where it stands."""

    owner: str
    connection_point: bytes


@dataclass(frozen=True)
class PendingWithdrawal:
    amount_ueur: int
    due_at: int


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

    def meter(self, meter: str) -> BoundMeter | None:
        """What a meter is bound to; None where it is not."""
        ((owner, connection_point),) = self._read(self._registry, "meterOf", meter)
        return None if owner == _NOBODY else BoundMeter(owner, connection_point)

    def meter_nonce(self, meter: str) -> int:
        """The nonce that a meter's next binding has to have."""
        return self._integer(self._registry, "nonces", meter)

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
    ) -> Receipt:
        """Moves what each account gets (> 0) or owes (< 0); ``sender`` must be the settler.

        ``market`` is :func:`market.messages.signing.feeder_hash` of its id, ``root`` commits the records
        behind the positions. A batch that was settled before, by this sender, returns its receipt again.

        Raises :class:`ContractRevertError` with the contract's reason, for one ``ERC20InsufficientBalance``
        where an account owes more than it has: then nothing of the batch was applied. ValueError where the
        positions are none.
        """
        gas = min(TRANSACTION_GAS_MAX, _GAS_BASE + _GAS_POSITION * len(net_ueur))
        call = self._escrow.write("settle", market, sequence, root, pack_positions(net_ueur), gas=gas)
        return sender.send(f"settle/{market.hex()}/{sequence}", call)

    def is_settled(self, market: bytes, sequence: int) -> bool:
        (settled,) = self._read(self._escrow, "isSettled", market, sequence)
        return bool(settled)

    # What there is

    def balances(self, addresses: Iterable[str]) -> dict[str, int]:
        """The credit of each address, µEUR."""
        found: dict[str, int] = {}
        for chunk in _chunks(list(addresses), _READS_MAX):
            calls = [self._escrow.artifact.call_data("balanceOf", address) for address in chunk]
            (results,) = self._read(self._escrow, "multicall", calls)
            for address, result in zip(chunk, results, strict=True):
                (found[address],) = self._escrow.artifact.result("balanceOf", result)
        return found

    def total_supply(self) -> int:
        """All credit there is, µEUR."""
        return self._integer(self._escrow, "totalSupply")

    def backing(self) -> int:
        """The stablecoin that the escrow holds, µEUR: the supply and the announced withdrawals."""
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

    def _read(self, contract: _Contract, function: str, *arguments: object) -> tuple[Any, ...]:
        data = self._chain.call(contract.write(function, *arguments, gas=_GAS_READ), _NOBODY)
        return contract.artifact.result(function, data)

    def _integer(self, contract: _Contract, function: str, *arguments: object) -> int:
        (value,) = self._read(contract, function, *arguments)
        return int(value)


@dataclass(frozen=True)
class _Contract:
    artifact: Artifact
    address: str

    def write(self, function: str, *arguments: object, gas: int) -> Call:
        data = self.artifact.call_data(function, *arguments)
        return Call(f"{self.artifact.contract}.{function}", self.address, data, gas)


def _chunks(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    return (items[start : start + size] for start in range(0, len(items), size))
