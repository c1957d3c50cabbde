"""Deployment: the same contracts after a crash, and no others on the wrong chain."""

from __future__ import annotations

from pathlib import Path

import pytest

from contracts.artifacts import load
from contracts.chain import Call
from contracts.deployment import Deployment, EscrowTerms, deploy
from contracts.embedded import EmbeddedChain
from contracts.market_contracts import MarketContracts
from grid.errors import ChainError, InputError


def test_a_deployment_is_read_back_as_it_was_written(stand, tmp_path: Path) -> None:
    path = tmp_path / "deployment.json"
    stand.deployment.write(path)
    assert Deployment.read(path) == stand.deployment


@pytest.mark.parametrize(
    ("text", "field"),
    [("{", ""), ('{"chain_id": 1}', "stablecoin"), ('{"chain_id": -1}', "chain_id")],
)
def test_a_file_that_is_no_deployment_is_refused_by_field(tmp_path: Path, text: str, field: str) -> None:
    path = tmp_path / "deployment.json"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        Deployment.read(path)
    assert field in [problem.field for problem in caught.value.problems]


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        Deployment.read(tmp_path / "deployment.json")


def test_to_deploy_again_gives_the_same_contracts(stand) -> None:
    block = stand.chain.block_number()
    terms = EscrowTerms(name="Other", symbol="O", position_debit_max=1, window_debit_max=1, guarantee_max=1)
    sender = stand.sender(stand.operator)
    assert deploy(stand.chain, sender, stand.journal, terms, stand.settler.address) == stand.deployment
    assert stand.chain.block_number() == block


def test_another_chain_is_refused(stand, tmp_path: Path) -> None:
    other = EmbeddedChain(tmp_path / "other.sqlite", lambda: 1000, chain_id=5)
    with pytest.raises(ChainError, match="chain 5, the contracts stand on 28773"):
        MarketContracts(other, stand.deployment)
    other.close()


def test_an_address_without_code_is_refused(stand, tmp_path: Path) -> None:
    wrong = stand.deployment.model_copy(update={"escrow": "0x" + "77" * 20})
    with pytest.raises(ChainError, match="escrow: there is no contract at 0x7777"):
        MarketContracts(stand.chain, wrong)
    empty = EmbeddedChain(tmp_path / "empty.sqlite", lambda: 1000)
    with pytest.raises(ChainError, match="stablecoin: there is no contract"):
        MarketContracts(empty, stand.deployment)
    empty.close()


def test_an_escrow_needs_a_stablecoin_with_six_decimals(stand) -> None:
    # The registry is no token at all.
    creation = load("MarketEscrow").creation(
        "X", "X", stand.deployment.registry, (0, 0), *[stand.operator.address] * 3, 1, 1, 1, 1
    )
    with pytest.raises(ChainError):
        stand.sender(stand.operator).send("x", Call("deploy", None, creation, 5_000_000))
