"""``peergrid verify --proof``: a household's records against the chain alone."""

from __future__ import annotations

import json
from pathlib import Path

import click

from contracts.embedded import EmbeddedChain
from contracts.rpc import RpcChain
from grid.errors import InputError
from market.cli.chain import CHAIN
from market.cli.proof import DOES_NOT_PROVE, PROVES, check_proof, read_proof


def verify_proof(path: Path, rpc: str | None, out: Path | None, as_json: bool) -> bool:
    """Checks a proof and says what holds; False where something does not."""
    proof = read_proof(path)
    if (rpc is None) == (out is None):
        raise InputError.single(
            "--rpc, --out", "", rpc or "", "name one of the two: a node, or a run's folder"
        )
    if rpc is not None:
        wrong = check_proof(proof, RpcChain(rpc))
    else:
        assert out is not None
        if not (out / CHAIN).exists():
            raise InputError.single("--out", "", str(out), "holds no chain")
        chain = EmbeddedChain(out / CHAIN, lambda: 0, chain_id=proof.chain_id)
        try:
            wrong = check_proof(proof, chain)
        finally:
            chain.close()
    leaves = [leaf for batch in proof.batches for leaf in batch.leaves]
    if as_json:
        document = {
            "ok": not wrong,
            "wrong": wrong,
            "escrow": proof.escrow,
            "records": [{"kind": leaf.value[1], **json.loads(leaf.value[3])} for leaf in leaves],
            "proves": PROVES,
            "does_not_prove": DOES_NOT_PROVE,
        }
        click.echo(json.dumps(document, ensure_ascii=False))
        return not wrong
    for leaf in leaves:
        click.echo(f"{leaf.value[1]:<9} {leaf.value[3]}")
    for sentence in wrong:
        click.echo(f"WRONG: {sentence}")
    if not wrong:
        click.echo(f"holds on chain {proof.chain_id}, escrow {proof.escrow}: {PROVES}")
        click.echo(f"not proved: {DOES_NOT_PROVE}")
    return not wrong
