"""Proofs that the chain commits to a household's own records, and their check against the chain alone."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from contracts import escrow_events
from contracts.chain import Chain
from contracts.market_contracts import MarketContracts
from grid.errors import InputError
from market.accounts.ledger import household as household_account
from market.accounts.merkle import LEAF_TYPES, SALT_BYTES, Kind, Leaf, climb
from market.auction.book import validation_problems
from market.messages.models import Address, Bytes32
from market.messages.signing import feeder_hash
from market.service.store import Store, commitments, money

PROVES = "the market put these records under the root of a batch on the chain and cannot change them any more"
DOES_NOT_PROVE = (
    "that they are true, nor that this escrow is your market's: compare its address with your own"
)


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ProvenLeaf(_Part):
    """A leaf as StandardMerkleTree takes it (salt, kind, interval start, content), and its path."""

    value: tuple[str, Kind, int, str]
    proof: tuple[Bytes32, ...]

    def leaf(self) -> Leaf:
        salt, kind, interval_start, content = self.value
        return Leaf(bytes.fromhex(salt.removeprefix("0x")), kind, interval_start, content)


class ProvenBatch(_Part):
    sequence: Annotated[int, Field(ge=0)]
    root: Bytes32
    block: Annotated[int, Field(ge=0)]
    leaves: tuple[ProvenLeaf, ...]


class Proof(_Part):
    """Everything that a household needs to check its records of an interval against the chain."""

    format: Literal["peergrid proof 1"] = "peergrid proof 1"
    chain_id: int
    escrow: Address
    market: str
    household: str
    interval_start: int
    leaf_types: tuple[str, ...] = LEAF_TYPES
    batches: tuple[ProvenBatch, ...]


def interval_start(text: str) -> int:
    """Unix seconds of a time in ISO 8601; without an offset it is UTC."""
    try:
        time = dt.datetime.fromisoformat(text)
    except ValueError:
        raise InputError.single("--interval", "", text, "is no time as 2016-06-15T12:00:00Z") from None
    return int((time if time.tzinfo else time.replace(tzinfo=dt.UTC)).timestamp())


def proof_document(store: Store, contracts: MarketContracts, household: str, start: int) -> dict[str, Any]:
    """The proof of a household's records of an interval, over all batches that brought some to the chain.

    Raises :class:`InputError` for a household or interval that the market does not know, or whose batch is
    not on the chain yet.
    """
    with store.reading() as connection:
        place = money.meter_at(connection, household)
        if place is None:
            raise InputError.single("--household", "", household, "is no connection point with a meter")
        meter, bus = place
        market = money.market_of(connection)
        batches = []
        for sequence in money.batches_of(connection, start):
            tree = commitments.batch_tree(connection, sequence)
            events = contracts.settled(feeder_hash(market), sequence)
            if tree is None or not events:
                continue
            own = [(leaf, path) for leaf, path in tree.proofs(household_account(meter))]
            public = [(leaf, path) for leaf, path in tree.proofs(commitments.PUBLIC) if _concerns(leaf, bus)]
            leaves = [
                ProvenLeaf.model_validate(
                    {"value": leaf.value(), "proof": ["0x" + sibling.hex() for sibling in path]}
                )
                for leaf, path in own + public
                if leaf.interval_start == start
            ]
            batches.append(
                ProvenBatch(
                    sequence=sequence,
                    root="0x" + tree.root.hex(),
                    block=events[0].block,
                    leaves=tuple(leaves),
                )
            )
    if not batches:
        raise InputError.single("--interval", "", start, "is in no batch on the chain")
    return Proof(
        chain_id=contracts.deployment.chain_id,
        escrow=contracts.deployment.escrow,
        market=market,
        household=household,
        interval_start=start,
        batches=tuple(batches),
    ).model_dump(mode="json")


def read_proof(path: Path) -> Proof:
    """Raises :class:`InputError` for what is no proof."""
    try:
        return Proof.model_validate_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError.single(str(path), "", error.strerror, "so the proof cannot be read") from None
    except ValidationError as error:
        raise InputError(validation_problems(str(path), error)) from None


def check_proof(proof: Proof, chain: Chain) -> list[str]:
    """What does not hold, one sentence each; nothing where all of it does."""
    wrong = []
    if chain.chain_id != proof.chain_id:
        wrong.append(f"the node is of chain {chain.chain_id}, the proof of {proof.chain_id}")
    elif not chain.code(proof.escrow):
        wrong.append(f"there is no contract at {proof.escrow}")
    if wrong:
        return wrong
    market = feeder_hash(proof.market)
    for batch in proof.batches:
        root = bytes.fromhex(batch.root[2:])
        events = escrow_events.settled(chain, proof.escrow, market, batch.sequence, batch.block, batch.block)
        if not events:
            wrong.append(f"batch {batch.sequence} was not settled in block {batch.block}")
        elif any(event.root != root for event in events):
            wrong.append(f"batch {batch.sequence} has the root 0x{events[0].root.hex()} on the chain")
        for number, proven in enumerate(batch.leaves):
            place = f"batch {batch.sequence}, leaf {number} ({proven.value[1]})"
            leaf = proven.leaf()
            if len(leaf.salt) != SALT_BYTES:
                wrong.append(f"{place}: its salt has {len(leaf.salt)} bytes, not {SALT_BYTES}")
            elif leaf.interval_start != proof.interval_start:
                wrong.append(f"{place}: it is of another interval")
            elif climb(leaf.hash(), [bytes.fromhex(sibling[2:]) for sibling in proven.proof]) != root:
                wrong.append(f"{place}: its path does not lead to the root")
    return wrong


def _concerns(leaf: Leaf, bus: int) -> bool:
    return leaf.kind != "price" or json.loads(leaf.content)["bus"] == bus
