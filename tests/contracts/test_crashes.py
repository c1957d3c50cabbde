"""SIGKILL at any moment: nothing that was reported is lost, and nothing happens twice."""

from __future__ import annotations

import random
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path

from contracts.artifacts import load
from contracts.chain import Call
from contracts.embedded import EmbeddedChain
from contracts.journal import SqliteJournal
from contracts.market_contracts import MarketContracts
from contracts.sender import Sender
from market.messages.signing import Signer

SETTLER = Path(__file__).with_name("crashing_settler.py")
BATCHES = 60
KILLS = 6


def run_until_killed(folder: Path, chance: random.Random) -> tuple[set[int], bool]:
    """Lets the settler work for a random while; what it reported, and whether it came to its end."""
    process = subprocess.Popen(
        [sys.executable, SETTLER, str(folder), str(BATCHES)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout
    # Start-up takes longer than the work: count from the first sign of life, or kill during the set-up.
    if chance.random() < 0.7:
        first = process.stdout.readline()
        time.sleep(chance.uniform(0, 0.25))
    else:
        first = ""
        time.sleep(chance.uniform(0.3, 1.2))
    process.kill()
    rest, _ = process.communicate()
    reported = {
        int(line.split()[1]) for line in (first + rest).splitlines(keepends=True) if line.endswith("\n")
    }
    return reported, process.returncode != -signal.SIGKILL


def test_a_settler_that_is_killed_again_and_again_settles_every_batch_once(tmp_path: Path) -> None:
    chance = random.Random(4)
    settler = runpy.run_path(str(SETTLER))
    reported: set[int] = set()
    for _ in range(KILLS):
        before, finished = run_until_killed(tmp_path, chance)
        reported |= before
        if finished:
            break

    subprocess.run([sys.executable, SETTLER, str(tmp_path), str(BATCHES)], check=True, capture_output=True)

    chain = EmbeddedChain(tmp_path / "chain.sqlite", lambda: 0)
    journal = SqliteJournal(tmp_path / "journal.sqlite")
    operator = Signer(settler["keccak"](b"operator"))
    contracts = MarketContracts(
        chain,
        settler["deploy"](
            chain, Sender(chain, operator, journal), journal, settler["TERMS"], operator.address
        ),
    )
    expected = dict.fromkeys(settler["HOLDERS"], settler["DEPOSIT_UEUR"])
    for sequence in range(BATCHES):
        for holder, amount in settler["net"](sequence).items():
            expected[holder] += amount
    assert reported
    assert contracts.balances(expected) == expected
    assert contracts.total_supply() == sum(expected.values())
    # Each transaction has a block of its own: deploy 4, mint, approve, deposit, and the batches.
    assert chain.block_number() == 7 + BATCHES
    assert not journal.pending(operator.address)
    journal.disconnect()
    chain.close()


def test_a_transaction_that_was_reported_survives_sigkill(tmp_path: Path) -> None:
    program = f"""
import os, signal
from pathlib import Path
from contracts.embedded import EmbeddedChain
from contracts.chain import Call, Fees
from contracts.sender import sign_transaction
from market.messages.signing import Signer
signer = Signer(b"\\1" * 32)
chain = EmbeddedChain(Path({str(tmp_path / "chain.sqlite")!r}), lambda: 1000, [signer.address])
for nonce in range(3):
    call = Call("pay", signer.address, b"", 21000)
    chain.send_raw(sign_transaction(signer, chain.chain_id, nonce, chain.fees(), call))
os.kill(os.getpid(), signal.SIGKILL)
"""
    process = subprocess.run([sys.executable, "-c", program], check=False)
    assert process.returncode == -signal.SIGKILL

    chain = EmbeddedChain(tmp_path / "chain.sqlite", lambda: 1000)
    signer = Signer(b"\1" * 32)
    assert chain.block_number() == 3
    assert chain.nonce(signer.address) == 3
    # It goes on from there, and it runs contracts.
    sender = Sender(chain, signer, SqliteJournal(tmp_path / "journal.sqlite"))
    call = Call("deploy", None, load("DemoEuro").creation(signer.address), 3_000_000)
    assert sender.send("deploy", call).block == 4
    chain.close()
