"""``peergrid chain owner`` on a node: handed over, recovered, vetoed, and announced behind the timelock."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from eth_hash.auto import keccak

from contracts.rpc import RpcChain
from market.messages.signing import Signer
from meters.identity import write_key
from tests.cli.conftest import Outcome
from tests.contracts.anvil import Anvil

pytestmark = pytest.mark.needs("anvil")
EUR = 1_000_000
RECOVERY_S, ADMIN_S = 3600, 86_400
Peergrid = Callable[..., Outcome]


@dataclass(frozen=True)
class Stand:
    """A deployed market on a node; everybody has ether, and ``old`` 10 EUR of credit."""

    folder: Path
    node: RpcChain
    peergrid: Peergrid
    chain: tuple[object, ...]

    def key(self, name: str) -> Path:
        path = self.folder / f"{name}.key"
        if not path.exists():
            write_key(path, keccak(name.encode()))
            self.node._ask("anvil_setBalance", self.address(name), hex(10**20))
        return path

    @staticmethod
    def address(name: str) -> str:
        return Signer(keccak(name.encode())).address

    def owner(self, *arguments: object, key: str) -> Outcome:
        return self.peergrid("chain", "owner", *arguments, *self.chain, "--key", self.key(key))

    def credit(self, name: str) -> int:
        shown = self.peergrid("chain", "balances", self.address(name), *self.chain, "--json")
        credit: int = shown.document["accounts"][0]["credit_ueur"]
        return credit

    def wallet(self, name: str) -> str:
        shown = self.peergrid("chain", "owner", "show", self.address(name), *self.chain, "--json")
        wallet: str = shown.document["wallet"]
        return wallet

    def wait(self, seconds: int) -> None:
        self.node._ask("evm_increaseTime", seconds)
        self.node._ask("evm_mine")


@pytest.fixture(scope="module")
def anvil() -> Iterator[Anvil]:
    node = Anvil()
    yield node
    node.end()


@pytest.fixture
def stand(tmp_path: Path, anvil: Anvil, peergrid: Peergrid) -> Stand:
    made = tmp_path / "market.json"
    chain = ("--rpc", anvil.url, "--deployment", made)
    stand = Stand(tmp_path, RpcChain(anvil.url), peergrid, chain)
    operator = ("--key", stand.key("operator"))
    delays = ("--withdrawal-delay", 600, "--admin-delay", ADMIN_S, "--recovery-delay", RECOVERY_S)
    deployed = peergrid("chain", "deploy", *chain, *operator, "--settler", stand.address("settler"), *delays)
    assert deployed.status == 0, deployed.err
    assert peergrid("chain", "mint", 10, "--to", stand.address("old"), *chain, *operator).status == 0
    assert peergrid("chain", "deposit", 10, *chain, "--key", stand.key("old")).status == 0
    return stand


def test_an_owner_offers_and_the_new_wallet_accepts(stand: Stand) -> None:
    offer = stand.folder / "offer.json"
    offered = stand.owner("offer", "--to", stand.address("new"), "--out", offer, key="old")
    assert (offered.status, offered.out.strip()) == (0, str(offer)), offered.err
    assert stand.wallet("old") == stand.address("old"), "nothing was sent"
    foreign = stand.owner("accept", offer, key="thief")
    assert foreign.status == 2
    assert "subject" in foreign.err
    accepted = stand.owner("accept", offer, "--payer", stand.key("operator"), key="new")
    assert accepted.status == 0, accepted.err
    assert "peergrid member owner" in accepted.err
    assert stand.wallet("old") == stand.address("new")
    assert (stand.credit("old"), stand.credit("new")) == (0, 10 * EUR)
    again = stand.owner("accept", offer, key="new")
    assert again.status == 1
    assert "InvalidAccountNonce" in again.err
    late = stand.peergrid("chain", "withdraw", 1, *stand.chain, "--key", stand.key("old"))
    assert "AlreadySucceeded" in late.err
    assert stand.owner("follow", stand.address("old"), key="thief").status == 0
    assert "NoSuccessor" in stand.owner("follow", stand.address("new"), key="thief").err


def test_a_lost_key_is_recovered_when_nobody_vetoes(stand: Stand) -> None:
    old, new = stand.address("old"), stand.address("new")
    assert "NoRecovery" in stand.owner("announce", old, "--to", new, key="friend").err
    named = stand.owner("recovery", stand.address("friend"), "--json", key="old")
    assert named.document["recovery"] == stand.address("friend")
    assert "NotSignedBy" in stand.owner("announce", old, "--to", new, key="thief").err
    announced = stand.owner("announce", old, "--to", new, "--json", key="friend")
    assert announced.document["announced"] == new
    assert "VetoStillPossible" in stand.owner("accept", old, key="new").err
    vetoed = stand.owner("veto", "--json", key="old")
    assert vetoed.document["announced"] is None
    assert "has nothing announced" in stand.owner("veto", key="old").err
    stand.wait(RECOVERY_S)
    assert "NotAnnounced" in stand.owner("accept", old, key="new").err

    assert stand.owner("announce", old, "--to", new, key="friend").status == 0
    stand.wait(RECOVERY_S)
    accepted = stand.owner("accept", old, "--json", key="new")
    assert accepted.document == {
        "owner": old,
        "wallet": new,
        "recovery": stand.address("friend"),
        "announced": None,
        "due_at": None,
    }
    assert stand.credit("new") == 10 * EUR


def test_without_a_recovery_address_the_operator_proposes_behind_the_timelock(stand: Stand) -> None:
    old, new = stand.address("old"), stand.address("new")
    asked = ("propose", old, "--to", new)
    assert stand.owner(*asked, key="thief").status == 1
    assert stand.owner(*asked, key="operator").status == 0
    early = stand.owner(*asked, "--apply", key="operator")
    assert early.status == 1
    assert "TimelockUnexpectedOperationState" in early.err
    stand.wait(ADMIN_S)
    applied = stand.owner(*asked, "--apply", "--json", key="operator")
    assert applied.document["announced"] == new, applied.err
    assert "VetoStillPossible" in stand.owner("accept", old, key="new").err
    stand.wait(RECOVERY_S)
    assert stand.owner("accept", old, key="new").status == 0
    assert stand.wallet("old") == new
    assert stand.credit("new") == 10 * EUR
