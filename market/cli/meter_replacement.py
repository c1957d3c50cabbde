"""``peergrid meter release`` and ``replace``: a new meter in a broken one's place on the chain's registry.

The owner gives its word, the new device its own (``peergrid meter enroll``), the registrar brings both.
"""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path

import click

from grid.errors import InputError
from market.cli.chain_commands import address
from market.cli.messages import say

_DAY_S = 86_400
_rpc = click.option("--rpc", metavar="URL", required=True, help="A node's JSON-RPC.")
_deployment = click.option(
    "--deployment", type=click.Path(path_type=Path), required=True, help="What deploy wrote."
)


@click.command("release")
@click.argument("broken", metavar="METER")
@click.option("--by", required=True, help="The id of the meter that takes its place.")
@_rpc
@_deployment
@click.option("--key", type=click.Path(path_type=Path), required=True, help="File with the owner's key.")
@click.option("--days", type=click.IntRange(1, 365), default=30, show_default=True, help="How long it holds.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), default=Path("release.json"))
def release(broken: str, by: str, rpc: str, deployment: Path, key: Path, days: int, out: Path) -> None:
    """Say, as the owner of METER, that another meter takes its place: for the registrar to bring.

    Nothing is sent to the chain. It counts once.
    """
    from contracts.deployment import Deployment
    from contracts.replacement import Replacement
    from market.cli.chain_access import Place, opened
    from market.messages.signing import Domain
    from meters.enrol import Release
    from meters.identity import read_key

    owner, meter = read_key(key), address(broken, "METER")
    made = Deployment.read(deployment)
    with opened(Place(None, rpc, deployment, None)) as access:
        bound = access.contracts.registry.meter(meter)
        if bound is None or bound.owner != owner.address:
            whose = "nobody" if bound is None else bound.owner
            raise InputError.single(str(key), "", owner.address, f"does not own {meter}: {whose} does")
        nonce = access.contracts.registry.nonce(owner.address)
    word = Replacement(meter, address(by, "--by"), nonce, int(time.time()) + days * _DAY_S)
    domain = Domain(made.chain_id, made.registry)
    signature = owner.sign_digest(domain.digest(word.struct_hash()))
    given = Release(**asdict(word), signature=signature)
    try:
        out.write_text(given.model_dump_json(indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise InputError.single("--out", "", str(out), f"cannot be written: {error.strerror}") from None
    click.echo(str(out))


@click.command("replace")
@click.argument("word", type=click.Path(path_type=Path), metavar="RELEASE")
@click.argument("entry", type=click.Path(path_type=Path))
@_rpc
@_deployment
@click.option("--key", type=click.Path(path_type=Path), required=True, help="File with the registrar's key.")
@click.option("--confirmations", type=click.IntRange(min=1), default=1, show_default=True)
def replace(word: Path, entry: Path, rpc: str, deployment: Path, key: Path, confirmations: int) -> None:
    """Bring a replacement onto the chain: RELEASE is what the old meter's owner wrote, ENTRY what the new
    meter did when it was enrolled at the same connection point (registry.json, or its folder).

    Then `peergrid member replace` tells the market from which interval on.
    """
    from contracts.registry import SignedBinding, SignedReplacement
    from contracts.replacement import Replacement
    from market.cli.chain_access import Place, opened, wallet
    from market.cli.chain_commands import patience
    from meters.configuration import parsed_json, read_text
    from meters.enrol import REGISTRY_ENTRY, Release, read_entry
    from meters.identity import read_key

    signer = read_key(key)
    given = parsed_json(str(word), Release, read_text(word))
    new = read_entry(entry / REGISTRY_ENTRY if entry.is_dir() else entry)
    if new.meter != given.meter:
        raise InputError.single(str(word), "meter", given.meter, f"is not the enrolled one: {new.meter}")
    place = Place(None, rpc, deployment, None)
    with opened(place) as access, wallet(place, access, signer, patience(confirmations)) as sender:
        sender.resume()
        registry = access.contracts.registry
        bound = registry.meter(new.meter)
        if bound is not None and bound.owner == new.owner:
            say(f"{new.meter} is {new.owner}'s already")
            return
        replacement = Replacement(given.broken, given.meter, given.nonce, given.deadline)
        registry.replace(
            sender,
            f"replace/{given.broken}/{given.meter}/{given.nonce}",
            SignedReplacement(replacement, given.signature),
            SignedBinding(new.binding(), new.signature),
        )
    say(f"{new.meter} stands where {given.broken} stood")
    click.echo(new.meter)
