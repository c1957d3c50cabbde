"""Settles batch after batch until it is killed; started again, it goes on. Run by test_crashes.py.

Arguments: the folder of the chain and the journal, and the number of batches. It prints ``settled N`` once
batch N is reported as final.
"""

from __future__ import annotations

import sys
from pathlib import Path

from eth_hash.auto import keccak

from contracts.deployment import EscrowTerms, deploy
from contracts.embedded import EmbeddedChain
from contracts.journal import SqliteJournal
from contracts.market_contracts import MarketContracts
from contracts.sender import Sender
from market.messages.signing import Signer, feeder_hash

MARKET = feeder_hash("crashes")
TERMS = EscrowTerms(
    name="Crashes", symbol="CR", position_debit_max=10**6, window_debit_max=10**9, guarantee_max=0
)
HOLDERS = [Signer(keccak(f"holder {number}".encode())).address for number in range(12)]
DEPOSIT_UEUR = 1_000_000


def net(sequence: int) -> dict[str, int]:
    """Every batch moves another amount, so that one that counted twice would show."""
    giver = sequence % len(HOLDERS)
    others = [holder for number, holder in enumerate(HOLDERS) if number != giver]
    return {HOLDERS[giver]: -(sequence + 1) * len(others), **dict.fromkeys(others, sequence + 1)}


def main(folder: Path, batches: int) -> None:
    operator, settler = Signer(keccak(b"operator")), Signer(keccak(b"settler"))
    chain = EmbeddedChain(folder / "chain.sqlite", lambda: 1_466_000_000, [operator.address, settler.address])
    journal = SqliteJournal(folder / "journal.sqlite")
    by_operator, by_settler = Sender(chain, operator, journal), Sender(chain, settler, journal)
    for sender in (by_operator, by_settler):
        sender.resume()
    contracts = MarketContracts(chain, deploy(chain, by_operator, journal, TERMS, settler.address))
    contracts.fund(by_operator, "fund", dict.fromkeys(HOLDERS, DEPOSIT_UEUR))
    for sequence in range(batches):
        contracts.settle(by_settler, MARKET, sequence, bytes(32), net(sequence))
        print(f"settled {sequence}", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
