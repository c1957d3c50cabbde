"""Where a market's contracts stand, and how they get there."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from contracts.artifacts import load
from contracts.chain import TRANSACTION_GAS_MAX, Call, Chain
from contracts.journal import Journal
from contracts.sender import Sender, contract_address
from grid.errors import ChainError, InputError, Problem
from market.messages.models import Address

UINT32_MAX = 2**32 - 1
UINT56_MAX = 2**56 - 1


class Deployment(BaseModel):
    """The contracts of one market on one chain, and the block before which there is none of them."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    chain_id: Annotated[int, Field(gt=0)]
    stablecoin: Address
    escrow: Address
    registry: Address
    timelock: Address
    first_block: Annotated[int, Field(ge=0)]

    def write(self, path: Path) -> None:
        """Writes a JSON file, whole or not at all."""
        unfinished = path.with_name(path.name + ".new")
        with unfinished.open("w") as file:
            file.write(self.model_dump_json(indent=1) + "\n")
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)

    @classmethod
    def read(cls, path: Path) -> Deployment:
        """Raises :class:`InputError` where the file is none."""
        try:
            return cls.model_validate_json(path.read_text())
        except OSError as error:
            raise InputError.single(str(path), "", str(path), f"cannot be read: {error.strerror}") from error
        except ValidationError as error:
            raise InputError(
                Problem(str(path), ".".join(map(str, item["loc"])), item["input"], item["msg"])
                for item in error.errors()
            ) from error

    def check(self, chain: Chain) -> None:
        """Raises :class:`ChainError` unless ``chain`` is the one deployed to and has code at every
        address.
        """
        if chain.chain_id != self.chain_id:
            raise ChainError(f"the node is of chain {chain.chain_id}, the contracts stand on {self.chain_id}")
        for name in ("stablecoin", "escrow", "registry", "timelock"):
            address = getattr(self, name)
            if not chain.code(address):
                raise ChainError(f"{name}: there is no contract at {address} on chain {chain.chain_id}")


class EscrowTerms(BaseModel):
    """What an escrow is made with; amounts are µEUR. ``guarantee_max`` is what shortfalls may draw from the
    guarantee in one window, ``recovery_delay_s`` how long an owner can veto a successor that somebody else
    announced.
    """

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    name: Annotated[str, Field(min_length=1, max_length=64)]
    symbol: Annotated[str, Field(min_length=1, max_length=16)]
    withdrawal_delay_s: Annotated[int, Field(ge=0, le=UINT32_MAX)] = 3 * 86400
    position_debit_max: Annotated[int, Field(gt=0, le=UINT56_MAX)]
    window_debit_max: Annotated[int, Field(gt=0, le=UINT56_MAX)]
    guarantee_max: Annotated[int, Field(ge=0, le=UINT56_MAX)]
    window_s: Annotated[int, Field(gt=0, le=UINT32_MAX)] = 86400
    admin_delay_s: Annotated[int, Field(gt=0, le=UINT32_MAX)] = 7 * 86400
    recovery_delay_s: Annotated[int, Field(gt=0, le=UINT32_MAX)] = 7 * 86400

    @model_validator(mode="after")
    def _members_can_leave_before_a_change(self) -> Self:
        if self.admin_delay_s <= self.withdrawal_delay_s:
            raise ValueError("admin_delay_s must be longer than withdrawal_delay_s")
        return self


def deploy(
    chain: Chain,
    sender: Sender,
    journal: Journal,
    terms: EscrowTerms,
    settler: str,
    stablecoin: str | None = None,
) -> Deployment:
    """Creates a market's contracts: ``sender`` becomes pauser and registrar, ``settler`` may settle.

    Admin of escrow and registry is a timelock, on which ``sender`` proposes and executes.

    Without the address of a stablecoin a demo euro is made, which ``sender`` owns. To call it again after a
    crash gives the same contracts, not others: the journal knows what was sent.
    """

    def create(name: str, *arguments: object) -> tuple[str, int]:
        call = Call(f"deploy {name}", None, load(name).creation(*arguments), TRANSACTION_GAS_MAX)
        batch_id = f"deploy/{name}"
        receipt = sender.send(batch_id, call)
        return contract_address(journal.attempts(batch_id)[-1]), receipt.block

    operator = sender.address
    timelock, first_block = create("MarketTimelock", terms.admin_delay_s, operator)
    if stablecoin is None:
        stablecoin, _ = create("DemoEuro", operator)
    escrow, _ = create(
        "MarketEscrow",
        terms.name,
        terms.symbol,
        stablecoin,
        (terms.withdrawal_delay_s, terms.recovery_delay_s),
        timelock,
        settler,
        operator,
        terms.position_debit_max,
        terms.window_debit_max,
        terms.guarantee_max,
        terms.window_s,
    )
    registry, _ = create("MeterRegistry", timelock, operator, escrow)
    deployment = Deployment(
        chain_id=chain.chain_id,
        stablecoin=stablecoin,
        escrow=escrow,
        registry=registry,
        timelock=timelock,
        first_block=first_block,
    )
    deployment.check(chain)
    return deployment
