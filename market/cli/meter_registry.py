"""``peergrid meter register`` and ``revoke``: meters onto the chain's registry, and out of the broker."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import TYPE_CHECKING

import click
from eth_hash.auto import keccak

from grid.errors import InputError
from market.cli.chain_commands import address
from market.cli.messages import say

if TYPE_CHECKING:
    from contracts.deployment import Deployment
    from contracts.registry import Registry
    from meters.enrol import RegistryEntry


@click.command("register")
@click.argument("entries", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="ENTRY...")
@click.option("--rpc", metavar="URL", required=True, help="A node's JSON-RPC.")
@click.option("--deployment", type=click.Path(path_type=Path), required=True, help="What deploy wrote.")
@click.option("--key", type=click.Path(path_type=Path), required=True, help="File with the registrar's key.")
@click.option("--confirmations", type=click.IntRange(min=1), default=1, show_default=True)
def register(entries: tuple[Path, ...], rpc: str, deployment: Path, key: Path, confirmations: int) -> None:
    """Bring enrolled meters onto the chain: ENTRY is a registry.json, or the folder that holds it.

    For the market's registrar, at first whoever deployed the contracts. Meters that are bound as their
    entry says are left alone, so the command can be given again after an interruption. Prints the ids of the
    meters that it bound.
    """
    from contracts.registry import SignedBinding
    from market.cli.chain_access import Place, opened, wallet
    from market.cli.chain_commands import patience
    from meters.enrol import REGISTRY_ENTRY, read_entry
    from meters.identity import read_key

    signer = read_key(key)
    files = [path / REGISTRY_ENTRY if path.is_dir() else path for path in entries]
    read = {str(file): read_entry(file) for file in files}
    place = Place(None, rpc, deployment, None)
    with opened(place) as access, wallet(place, access, signer, patience(confirmations)) as sender:
        if sender.resume():
            say("finished what an earlier command had signed")
        registry = access.contracts.registry
        new = [
            entry
            for file, entry in read.items()
            if not _is_bound(file, entry, registry, access.contracts.deployment)
        ]
        names = ",".join(f"{entry.meter}/{entry.nonce}" for entry in new)
        bindings = [SignedBinding(entry.binding(), entry.signature) for entry in new]
        registry.register(sender, f"register/{keccak(names.encode()).hex()}", bindings)
    say(f"bound {len(new)} of {len(read)} meters, the others were bound before")
    for entry in new:
        click.echo(entry.meter)


def _is_bound(file: str, entry: RegistryEntry, registry: Registry, deployment: Deployment) -> bool:
    """Whether the registry says what the entry says. Raises :class:`InputError` where it cannot come to."""
    for name, expected in (("chain_id", deployment.chain_id), ("registry", deployment.registry)):
        if getattr(entry, name) != expected:
            raise InputError.single(file, name, getattr(entry, name), f"is not the deployment's: {expected}")
    bound = registry.meter(entry.meter)
    if bound is not None:
        point = "0x" + bound.connection_point.hex()
        if (bound.owner, point) == (entry.owner, entry.connection_point_hash):
            return True
        reason = f"is bound to {bound.owner} at {point}: that owner has to revoke it first"
        raise InputError.single(file, "meter", entry.meter, reason)
    nonce = registry.nonce(entry.meter)
    if entry.nonce != nonce:
        raise InputError.single(file, "nonce", entry.nonce, f"is not {nonce}: enroll it with --nonce {nonce}")
    return False


@click.command("revoke")
@click.argument("meters", nargs=-1, required=True, metavar="METER...")
@click.option(
    "--authority",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="The market's authority, made by peergrid broker config.",
)
def revoke(meters: tuple[str, ...], authority: Path) -> None:
    """Take back the certificates of METERs (their ids): the broker lets them in no more.

    Then have the broker read the list: SIGHUP is enough for new connections, a restart ends one that stands
    too. What the registry on the chain says of a meter is its owner's to revoke.
    """
    from meters.certificates import Authority

    held, now = Authority(authority), dt.datetime.now(dt.UTC)
    for meter in [address(meter, "METER") for meter in meters]:
        count = held.revoke(meter, now)
        say(f"{meter}: {count} certificates revoked" if count else f"{meter}: was revoked before")
    say(f"have the broker read {held.revocations_path}: SIGHUP, or a restart to end connections that stand")
