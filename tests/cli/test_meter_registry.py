"""From ``peergrid broker config`` to a meter on the chain's registry, each step by its command."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from eth_hash.auto import keccak

from contracts.deployment import Deployment
from contracts.registry import Registry
from contracts.rpc import RpcChain
from market.messages.signing import Signer
from meters.identity import write_key
from tests.cli.conftest import Outcome
from tests.contracts.anvil import Anvil

pytestmark = pytest.mark.needs("anvil")
OWNER_SECRET = keccak(b"an owner")
OWNER = Signer(OWNER_SECRET).address
Peergrid = Callable[..., Outcome]


@pytest.fixture
def anvil() -> Iterator[Anvil]:
    node = Anvil()
    yield node
    node.end()


def test_enrolled_meters_come_onto_the_chain_once(tmp_path: Path, anvil: Anvil, peergrid: Peergrid) -> None:
    secret, node = keccak(b"a registrar"), RpcChain(anvil.url)
    key, deployment_file = tmp_path / "registrar.key", tmp_path / "market.json"
    write_key(key, secret)
    node._ask("anvil_setBalance", Signer(secret).address, hex(10**24))
    chain = ("--rpc", anvil.url, "--key", key, "--deployment", deployment_file)
    assert peergrid("chain", "deploy", *chain, "--settler", OWNER).status == 0
    deployment = Deployment.read(deployment_file)
    assert peergrid("broker", "config", "--feeder", "village", "--out", tmp_path / "broker").status == 0

    def enroll(place: str, **changes: object) -> Path:
        given = {
            "--owner": OWNER,
            "--connection-point": place,
            "--chain-id": deployment.chain_id,
            "--registry": deployment.registry,
            "--authority": tmp_path / "broker" / "authority",
            "--out": tmp_path / place.replace(":", "-"),
        }
        flags = [part for pair in (given | changes).items() for part in pair]
        outcome = peergrid("meter", "enroll", *flags)
        assert outcome.status == 0, outcome.err
        return Path(str(given["--out"]))

    folders = [enroll("load:1"), enroll("load:2")]
    entries = [json.loads((folder / "registry.json").read_text()) for folder in folders]
    first = peergrid("meter", "register", folders[0], *chain)
    assert (first.status, first.out.split()) == (0, [entries[0]["meter"]]), first.err
    both = peergrid("meter", "register", folders[0], folders[1] / "registry.json", *chain)
    assert (both.status, both.out.split()) == (0, [entries[1]["meter"]]), both.err
    again = peergrid("meter", "register", *folders, *chain)
    assert (again.status, again.out) == (0, "")
    assert "bound 0 of 2" in again.err

    registry = Registry(node, deployment.registry)
    for entry in entries:
        bound = registry.meter(entry["meter"])
        assert bound is not None
        assert (bound.owner, "0x" + bound.connection_point.hex()) == (OWNER, entry["connection_point_hash"])

    owner_key, word = tmp_path / "owner.key", tmp_path / "release.json"
    write_key(owner_key, OWNER_SECRET)
    spare = tmp_path / "spare"
    enroll("load:1", **{"--out": spare})
    new = json.loads((spare / "registry.json").read_text())["meter"]
    broken, known = entries[1]["meter"], chain[:2] + chain[4:]
    strangers = peergrid("meter", "release", broken, "--by", new, *chain, "--out", word)
    assert strangers.status == 2
    assert f"does not own {broken}" in strangers.err
    elsewhere = peergrid("meter", "release", broken, "--by", new, *known, "--key", owner_key, "--out", word)
    assert elsewhere.status == 0, elsewhere.err
    mismatch = peergrid("meter", "replace", word, spare, *chain)
    assert mismatch.status == 1
    assert "ReplacementMismatch" in mismatch.err, "the spare was enrolled for another place"
    here = entries[0]["meter"]
    assert (
        peergrid("meter", "release", here, "--by", new, *known, "--key", owner_key, "--out", word).status == 0
    )
    for _ in range(2):
        replaced = peergrid("meter", "replace", word, spare, *chain)
        assert replaced.status == 0, replaced.err
    assert registry.meter(here) is None
    stands = registry.meter(new)
    assert stands is not None
    assert "0x" + stands.connection_point.hex() == entries[0]["connection_point_hash"]
    entries[0] = json.loads((spare / "registry.json").read_text())

    def altered(**changes: object) -> Path:
        file = tmp_path / "altered.json"
        file.write_text(json.dumps({**entries[0], **changes}))
        return file

    stranger = Signer(keccak(b"a stranger")).address
    for changes, problem in (
        ({"chain_id": 1}, "chain_id: 1 is not the deployment's: 31337"),
        ({"owner": stranger}, f"is bound to {OWNER}"),
        ({"meter": stranger, "nonce": 4}, "nonce: 4 is not 0: enroll it with --nonce 0"),
        ({"v": 1}, "v: 1 is no field here"),
    ):
        refused = peergrid("meter", "register", altered(**changes), *chain)
        assert refused.status == 2
        assert "altered.json" in refused.err
        assert problem in refused.err
    forged = peergrid("meter", "register", altered(meter=stranger), *chain)
    assert forged.status == 1
    assert "NotSignedByMeter" in forged.err
