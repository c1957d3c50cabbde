"""An EVM in this process: py-evm with the Prague rules, its state in one SQLite file.

Each transaction is mined at once into a block of its own and is durable before :meth:`EmbeddedChain.send_raw`
returns, so it survives SIGKILL. Nobody else can reach this chain: it stands in for a network, not for trust
in one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from threading import RLock
from typing import Any

from eth.abc import BlockHeaderAPI, ReceiptAPI
from eth.chains.base import MiningChain
from eth.db import trie as block_tries
from eth.db.atomic import AtomicDB
from eth.db.chain import ChainDB
from eth.exceptions import CanonicalHeadNotFound, VMError
from eth.exceptions import TransactionNotFound as UnknownTransaction
from eth.typing import AccountDetails, HeaderParams
from eth.vm.forks.prague import PragueVM
from eth.vm.spoof import SpoofTransaction
from eth_bloom.bloom import BloomFilter
from eth_typing import Address, BlockNumber, Hash32
from eth_utils.exceptions import ValidationError
from rlp.exceptions import DecodingError, DeserializationError
from trie.hexary import HexaryTrie

from contracts.chain import Call, ContractRevertError, Fees, Log, Receipt, TransactionRefusedError
from contracts.chain_store import ChainStore
from grid.errors import ChainError

EMBEDDED_CHAIN_ID = 28773
BLOCK_GAS_MAX = 30_000_000
_GENESIS_ETHER = 10**24
_SUCCEEDED = b"\x01"
_OF_ONE_BLOCK = (
    HexaryTrie._cached_create_node_to_db_mapping,
    block_tries._make_trie_root_and_nodes,
    ChainDB._get_block_transactions,
)
"""Caches of py-evm for who imports and replays blocks. They hold up to 4096 nodes, each with the whole state
that it was a part of, and 128 blocks: here no block comes twice.
"""


class _Chain(MiningChain):
    vm_configuration = ((BlockNumber(0), PragueVM),)

    def create_header_from_parent(self, parent_header: BlockHeaderAPI, **parameters: Any) -> BlockHeaderAPI:
        # The gas limit stays what it is instead of drifting with use.
        return super().create_header_from_parent(
            parent_header, **{**parameters, "gas_limit": parent_header.gas_limit}
        )


class EmbeddedChain:
    """A node of a chain with one member; see :class:`contracts.chain.Chain`. Threads may share it.

    A block's time is ``clock()``, or one second after the block before it where the clock has not moved:
    blocks must follow each other in time.
    """

    def __init__(
        self,
        path: Path,
        clock: Callable[[], int],
        funded: Iterable[str] = (),
        chain_id: int = EMBEDDED_CHAIN_ID,
    ) -> None:
        """Opens the chain in ``path``, or makes it there with a million ether for each of the ``funded``
        addresses.

        Raises :class:`ChainError` where the file is another chain's or another process has it open.
        """
        self._clock = clock
        self._lock = RLock()
        self._store = ChainStore(path)
        self._kind: type[_Chain] = type("_Chain", (_Chain,), {"chain_id": chain_id})
        known = self._store.about("chain_id")
        if known is None:
            self._create(funded)
        elif int(known) != chain_id:
            self._store.close()
            raise ChainError(f"{path}: is chain {known}, not {chain_id}")
        self._chain = self._open()

    @property
    def chain_id(self) -> int:
        return int(self._chain.chain_id)

    def close(self) -> None:
        with self._lock:
            self._store.close()

    def check_same(self) -> None:
        """Nobody can replace a chain in this process."""

    def finalized_block(self) -> int:
        """Each block is on the disk and has no rival."""
        return self.block_number()

    def block_number(self) -> int:
        with self._lock:
            return int(self._chain.get_canonical_head().block_number)

    def block_time(self, block: int | None = None) -> int:
        """The time of a mined block, by default the last one."""
        with self._lock:
            if block is None:
                return int(self._chain.get_canonical_head().timestamp)
            return int(self._chain.get_canonical_block_header_by_number(BlockNumber(block)).timestamp)

    def code(self, address: str) -> bytes:
        with self._lock:
            return bytes(self._chain.get_vm().state.get_code(_address(address)))

    def nonce(self, address: str) -> int:
        with self._lock:
            return int(self._chain.get_vm().state.get_nonce(_address(address)))

    def fees(self) -> Fees:
        # Nobody competes for room in a block. The base fee cannot double before the next one.
        with self._lock:
            base_fee = self._chain.header.base_fee_per_gas or 0
            return Fees(fee_max=2 * base_fee + 1, tip_max=0)

    def call(self, call: Call, sender: str) -> bytes:
        with self._lock:
            # Without a base fee the call is free, as eth_call is; the state it leaves is dropped.
            vm = self._chain.get_vm(self._next_header().copy(base_fee_per_gas=0))
            transaction = vm.create_unsigned_transaction(
                nonce=vm.state.get_nonce(_address(sender)),
                gas_price=0,
                gas=call.gas,
                to=_address(call.to) if call.to else Address(b""),
                value=0,
                data=call.data,
            )
            # A spoofed transaction stands for a signed one, but py-evm's types do not say so.
            spoofed: Any = SpoofTransaction(transaction, from_=_address(sender))
            computation = vm.state.apply_transaction(spoofed)
            if computation.is_error:
                output = bytes(computation.output)
                if output:
                    raise ContractRevertError(call.what, output)
                raise ChainError(
                    f"{call.what}: {type(computation.error).__name__} {computation.error}".strip()
                )
            return bytes(computation.output)

    def send_raw(self, raw: bytes) -> None:
        with self._lock:
            self._chain.header = self._next_header()
            try:
                transaction = self._chain.get_vm().get_transaction_builder().decode(raw)
                # py-evm does not look at the chain id of typed transactions.
                if transaction.chain_id != self.chain_id:
                    raise ValidationError(f"it is for chain {transaction.chain_id}")
                self._chain.mine_all([transaction], mix_hash=Hash32(bytes(32)))
                self._store.commit()
                for cache in _OF_ONE_BLOCK:
                    cache.cache_clear()
            except (ValidationError, VMError, DecodingError, DeserializationError) as error:
                self._reset()
                raise TransactionRefusedError(f"the embedded chain refused a transaction: {error}") from error
            except BaseException:
                self._reset()
                raise

    def receipt(self, transaction_hash: str) -> Receipt | None:
        with self._lock:
            try:
                block, index = self._chain.get_canonical_transaction_index(_hash(transaction_hash))
            except UnknownTransaction:
                return None
            receipt = self._chain.get_transaction_receipt_by_index(block, index)
        # A block has one transaction, so what is used up to it is what it used.
        return Receipt(transaction_hash, int(block), int(receipt.gas_used), receipt.state_root == _SUCCEEDED)

    def logs(self, address: str, topics: Sequence[bytes], from_block: int, to_block: int) -> list[Log]:
        wanted = (_address(address), *topics)
        found: list[Log] = []
        with self._lock:
            for number in range(from_block, min(to_block, self.block_number()) + 1):
                header = self._chain.get_canonical_block_header_by_number(BlockNumber(number))
                bloom = BloomFilter(header.bloom)
                if all(item in bloom for item in wanted):
                    found.extend(self._block_logs(header, wanted[0], tuple(topics)))
        return found

    def _block_logs(self, header: BlockHeaderAPI, address: bytes, topics: tuple[bytes, ...]) -> list[Log]:
        vm = self._chain.get_vm_class(header)
        builder = vm.get_transaction_builder()
        transactions = self._chain.chaindb.get_block_transactions(header, builder)
        receipts: Iterable[ReceiptAPI] = self._chain.chaindb.get_receipts(header, vm.get_receipt_builder())
        logs = (
            (transaction.hash, log)
            for transaction, receipt in zip(transactions, receipts, strict=True)
            for log in receipt.logs
        )
        found = []
        for index, (transaction_hash, log) in enumerate(logs):
            log_topics = tuple(topic.to_bytes(32, "big") for topic in log.topics)
            if log.address == address and log_topics[: len(topics)] == topics:
                found.append(
                    Log(
                        address="0x" + log.address.hex(),
                        topics=log_topics,
                        data=bytes(log.data),
                        block=int(header.block_number),
                        transaction="0x" + transaction_hash.hex(),
                        index=index,
                    )
                )
        return found

    def _next_header(self) -> BlockHeaderAPI:
        earliest = self._chain.get_canonical_head().timestamp + 1
        return self._chain.header.copy(timestamp=max(self._clock(), earliest))

    def _create(self, funded: Iterable[str]) -> None:
        parameters: dict[str, HeaderParams] = {
            "coinbase": Address(bytes(20)),
            "difficulty": 0,
            "extra_data": b"",
            "gas_limit": BLOCK_GAS_MAX,
            "mix_hash": Hash32(bytes(32)),
            "nonce": bytes(8),
            "timestamp": self._clock(),
        }
        account: AccountDetails = {"balance": _GENESIS_ETHER, "nonce": 0, "code": b"", "storage": {}}
        self._kind.from_genesis(
            AtomicDB(self._store), parameters, {_address(address): account for address in funded}
        )
        self._store.commit(chain_id=str(self._kind.chain_id))

    def _open(self) -> MiningChain:
        try:
            chain: MiningChain = self._kind(AtomicDB(self._store))
        except CanonicalHeadNotFound as error:
            raise ChainError(f"the embedded chain has no head: {error}") from error
        return chain

    def _reset(self) -> None:
        """Back to the last durable block: nothing of a transaction that was not mined stays."""
        self._store.discard()
        self._chain = self._open()


def _address(address: str) -> Address:
    return Address(bytes.fromhex(address[2:]))


def _hash(value: str) -> Hash32:
    return Hash32(bytes.fromhex(value[2:]))
