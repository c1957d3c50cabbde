"""A node behind a URL: anvil, a company's own node, a public network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from requests import exceptions
from web3 import HTTPProvider
from web3.types import RPCEndpoint

from contracts.chain import (
    Call,
    ContractRevertError,
    Fees,
    Log,
    Receipt,
    TransactionRefusedError,
    WrongChainError,
)
from grid.errors import ChainError, InputError

_TIMEOUT_S = 10.0


class RpcChain:
    """A node that speaks Ethereum's JSON-RPC over HTTP; see :class:`contracts.chain.Chain`.

    Raises :class:`InputError` for what is no URL.
    """

    def __init__(self, url: str) -> None:
        if not url.startswith(("http://", "https://")):
            raise InputError.single("--rpc", "", url, "is not a node's URL, as http://127.0.0.1:8545")
        # Providers put keys into paths and queries: neither is ever told.
        parts = urlsplit(url)
        self._url = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
        # web3 would send a transaction again by itself after an error; when to do that is the sender's to
        # decide.
        self._provider = HTTPProvider(
            url, request_kwargs={"timeout": _TIMEOUT_S}, exception_retry_configuration=None
        )
        self._chain_id, self._genesis = self._identity()

    @property
    def chain_id(self) -> int:
        return self._chain_id

    def check_same(self) -> None:
        chain_id, genesis = self._identity()
        if chain_id != self._chain_id:
            raise WrongChainError(f"{self._url} is of chain {chain_id} now, not {self._chain_id}")
        if genesis != self._genesis:
            raise WrongChainError(f"{self._url} is another chain {chain_id} now: it began with {genesis}")

    def finalized_block(self) -> int:
        return int(self._ask("eth_getBlockByNumber", "finalized", False)["number"], 16)

    def block_number(self) -> int:
        return int(self._ask("eth_blockNumber"), 16)

    def block_time(self, block: int | None = None) -> int:
        which = "latest" if block is None else hex(block)
        return int(self._ask("eth_getBlockByNumber", which, False)["timestamp"], 16)

    def code(self, address: str) -> bytes:
        return _bytes(self._ask("eth_getCode", address, "latest"))

    def nonce(self, address: str) -> int:
        return int(self._ask("eth_getTransactionCount", address, "latest"), 16)

    def fees(self) -> Fees:
        tip = int(self._ask("eth_maxPriorityFeePerGas"), 16)
        base_fee = int(self._ask("eth_getBlockByNumber", "latest", False)["baseFeePerGas"], 16)
        return Fees(fee_max=2 * base_fee + tip, tip_max=tip)

    def call(self, call: Call, sender: str) -> bytes:
        request = {"from": sender, "data": "0x" + call.data.hex(), "gas": hex(call.gas)}
        if call.to is not None:
            request["to"] = call.to
        answer = self._request("eth_call", request, "latest")
        if "error" not in answer:
            return _bytes(answer["result"])
        data = _revert_data(answer["error"])
        if data:
            raise ContractRevertError(call.what, data)
        raise ChainError(f"{call.what}: {_message(answer['error'])}")

    def send_raw(self, raw: bytes) -> None:
        answer = self._request("eth_sendRawTransaction", "0x" + raw.hex())
        if "error" in answer:
            raise TransactionRefusedError(f"{self._url} refused a transaction: {_message(answer['error'])}")

    def receipt(self, transaction_hash: str) -> Receipt | None:
        found = self._ask("eth_getTransactionReceipt", transaction_hash)
        if found is None or found["blockNumber"] is None:
            return None
        return Receipt(
            hash=transaction_hash,
            block=int(found["blockNumber"], 16),
            gas_used=int(found["gasUsed"], 16),
            succeeded=int(found["status"], 16) == 1,
        )

    def logs(self, address: str, topics: Sequence[bytes], from_block: int, to_block: int) -> list[Log]:
        if from_block > to_block:  # nodes differ: some say that there is nothing, some that this is an error
            return []
        wanted = {
            "address": address,
            "topics": ["0x" + topic.hex() for topic in topics],
            "fromBlock": hex(from_block),
            "toBlock": hex(to_block),
        }
        return [
            Log(
                address=log["address"].lower(),
                topics=tuple(map(_bytes, log["topics"])),
                data=_bytes(log["data"]),
                block=int(log["blockNumber"], 16),
                transaction=log["transactionHash"],
                index=int(log["logIndex"], 16),
            )
            for log in self._ask("eth_getLogs", wanted)
        ]

    def _identity(self) -> tuple[int, str]:
        """Chain id and hash of the first block."""
        return int(self._ask("eth_chainId"), 16), str(self._ask("eth_getBlockByNumber", "0x0", False)["hash"])

    def _ask(self, method: str, *parameters: object) -> Any:
        answer = self._request(method, *parameters)
        if "error" in answer:
            raise ChainError(f"{self._url}: {method}: {_message(answer['error'])}")
        return answer["result"]

    def _request(self, method: str, *parameters: object) -> dict[str, Any]:
        try:
            return dict(self._provider.make_request(RPCEndpoint(method), list(parameters)))
        except exceptions.Timeout:
            raise ChainError(f"{self._url}: {method}: no answer within {_TIMEOUT_S:g} s") from None
        except exceptions.ConnectionError:
            raise ChainError(f"{self._url}: {method}: the node cannot be reached") from None
        except (OSError, ValueError) as error:
            # requests' other errors are OSErrors, and what is no JSON is a ValueError.
            raise ChainError(f"{self._url}: {method}: no valid answer ({type(error).__name__})") from None


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text[2:])


def _message(error: object) -> str:
    return str(error.get("message", error)) if isinstance(error, dict) else str(error)


def _revert_data(error: object) -> bytes:
    """What the contract reverted with: nodes put it in ``data``, some of them one level deeper."""
    data = error.get("data") if isinstance(error, dict) else None
    if isinstance(data, dict):
        data = data.get("data")
    return _bytes(data) if isinstance(data, str) and data.startswith("0x") else b""
