"""A market's operator on a node, until it is killed. Run by tests/cli/test_chain.py.

Arguments: the node's URL, the folder of its journal, and the household's address. It deploys, deposits 60 EUR
for the household, settles batch after batch, and prints ``settled N`` for each.
"""

from __future__ import annotations

import sys
from itertools import count
from pathlib import Path

from eth_hash.auto import keccak

from contracts.deployment import EscrowTerms, deploy
from contracts.journal import SqliteJournal
from contracts.market_contracts import MarketContracts
from contracts.rpc import RpcChain
from contracts.sender import Patience, Sender
from market.messages.signing import Signer, feeder_hash

DEPLOYMENT = "deployment.json"
TERMS = EscrowTerms(
    name="Operated", symbol="OP", position_debit_max=10**9, window_debit_max=10**12, guarantee_max=0
)


def main(url: str, folder: Path, household: str) -> None:
    operator, settler = Signer(keccak(b"the operator")), Signer(keccak(b"the settler"))
    chain = RpcChain(url)
    for address in (operator.address, settler.address, household):
        chain._ask("anvil_setBalance", address, hex(10**24))
    journal = SqliteJournal(folder / "operator.sqlite")
    patience = Patience(poll_s=0.01)
    by_operator, by_settler = (Sender(chain, signer, journal, patience) for signer in (operator, settler))
    deployment = deploy(chain, by_operator, journal, TERMS, settler.address)
    contracts = MarketContracts(chain, deployment)
    contracts.fund(by_operator, "fund", {household: 60_000_000, operator.address: 10_000_000})
    deployment.write(folder / DEPLOYMENT)
    for sequence in count():
        net = {household: 1000 + sequence, operator.address: -1000 - sequence}
        contracts.settle(by_settler, feeder_hash("operated"), sequence, bytes(32), net)
        print(f"settled {sequence}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3])
