"""``peergrid chain owner``: another wallet takes an owner's place, with its meters, credit and debts.

The owner offers and the new wallet accepts; or, where the owner's key is lost, its recovery address or the
operator behind the timelock announces it, the owner does not veto, and the new wallet accepts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from grid.errors import InputError
from market.cli.chain_commands import address, on_a_chain, patience, show, with_a_key
from market.cli.messages import say
from market.messages.models import Address, Signature, UnixTime
from meters.configuration import Part, parsed_json, read_text

if TYPE_CHECKING:
    from contracts.owners import Announcement
    from contracts.sender import Sender
    from contracts.succession import Word, WordKind
    from market.cli.chain_access import Access, Place
    from market.messages.signing import Signer

_DAY_S = 86_400
_NOBODY = "0x" + "00" * 20


class Offer(Part):
    """An owner's signed word that ``subject`` takes its place, for that one to accept."""

    kind: Literal["Succession"]
    owner: Address
    subject: Address
    nonce: int
    deadline: UnixTime
    signature: Signature


@click.group("owner")
def command() -> None:
    """Another wallet takes an owner's place, for good: with all its meters, its credit and its debts."""


def _paying(function: Callable[..., None]) -> Callable[..., None]:
    """The options that say whose word it is and who sends it, as ``act(do)``; ``do`` sends one transaction
    and returns whose wallet it was about.
    """

    @with_a_key
    @on_a_chain
    @click.option(
        "--payer",
        type=click.Path(path_type=Path),
        help="File with the key that sends it and pays the gas; without it the same one.",
    )
    @wraps(function)
    def wrapped(
        place: Place,
        key: Path | None,
        household: str | None,
        payer: Path | None,
        confirmations: int,
        as_json: bool,
        **rest: Any,
    ) -> None:
        from market.cli.chain_access import sending, signer_of
        from meters.identity import read_key

        def act(do: Callable[[Access, Sender, str, Signer], str]) -> None:
            place.check()
            signer = signer_of(place, key, household)
            pays = read_key(payer) if payer else signer
            with sending(place, pays, patience(confirmations)) as (access, sender, is_free):
                owner = signer.address
                if is_free:
                    batch_id = f"{function.__name__}/{access.chain.nonce(pays.address)}"
                    owner = do(access, sender, batch_id, signer)
                document = _standing(access, owner)
            show(document, as_json)

        function(act=act, **rest)

    return wrapped


def _standing(access: Access, owner: str) -> dict[str, Any]:
    owners = access.contracts.owners
    announced = owners.announced(owner)
    return {
        "owner": owner,
        "wallet": owners.wallet(owner),
        "recovery": owners.recovery(owner),
        "announced": announced.successor if announced else None,
        "due_at": announced.due_at if announced else None,
    }


def _word(access: Access, kind: WordKind, owner: str, subject: str, signer: str, days: int = 1) -> Word:
    from contracts.succession import Word

    deadline = access.next_block_at + days * _DAY_S
    return Word(kind, owner, subject, access.contracts.owners.nonce(signer), deadline)


@command.command("show")
@click.argument("wallet", metavar="ADDRESS")
@on_a_chain
def show_owner(place: Place, wallet: str, as_json: bool) -> None:
    """Which wallet stands in for ADDRESS now, who may recover it, and what is announced."""
    from market.cli.chain_access import opened

    with opened(place) as access:
        show(_standing(access, address(wallet, "ADDRESS")), as_json)


@command.command("recovery")
@click.argument("recovery", metavar="ADDRESS|none")
@_paying
def name_recovery(act: Callable[..., None], recovery: str) -> None:
    """Name who may announce a new wallet for the key's own, should the key be lost."""

    def do(access: Access, sender: Sender, batch_id: str, signer: Signer) -> str:
        named = _NOBODY if recovery == "none" else address(recovery, "ADDRESS")
        word = _word(access, "Recovery", signer.address, named, signer.address)
        owners = access.contracts.owners
        owners.name_recovery(sender, batch_id, word, word.signed_by(signer, owners.domain))
        return signer.address

    act(do)


@command.command("offer")
@click.option("--to", required=True, metavar="ADDRESS", help="The new wallet.")
@click.option("--days", type=click.IntRange(1, 365), default=30, show_default=True, help="How long it holds.")
@click.option("--out", "file", type=click.Path(dir_okay=False, path_type=Path), default=Path("offer.json"))
@click.option("--key", type=click.Path(path_type=Path), required=True, help="File with the old wallet's key.")
@click.option("--rpc", metavar="URL", required=True, help="A node's JSON-RPC.")
@click.option("--deployment", type=click.Path(path_type=Path), required=True, help="What deploy wrote.")
def offer(to: str, days: int, file: Path, key: Path, rpc: str, deployment: Path) -> None:
    """Say, as an owner, that another wallet takes one's place: for that one to accept.

    Nothing is sent to the chain. It counts once.
    """
    from market.cli.chain_access import Place, opened
    from meters.identity import read_key

    owner, successor = read_key(key), address(to, "--to")
    with opened(Place(None, rpc, deployment, None)) as access:
        word = _word(access, "Succession", owner.address, successor, owner.address, days)
        signature = word.signed_by(owner, access.contracts.owners.domain)
    given = Offer.model_validate({**asdict(word), "signature": signature})
    try:
        file.write_text(given.model_dump_json(indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise InputError.single("--out", "", str(file), f"cannot be written: {error.strerror}") from None
    click.echo(str(file))


@command.command("accept")
@click.argument("old", metavar="OFFER|ADDRESS")
@_paying
def accept(act: Callable[..., None], old: str) -> None:
    """Take an owner's place with the key's wallet: by its OFFER, at once, or, of the ADDRESS for which it was
    announced, when that is due.
    """

    def do(access: Access, sender: Sender, batch_id: str, signer: Signer) -> str:
        owners = access.contracts.owners
        if Path(old).exists():
            given = parsed_json(old, Offer, read_text(Path(old)))
            word, by_owner = _offered(given), given.signature
            if word.subject != signer.address:
                raise InputError.single(old, "subject", word.subject, f"is not the key's: {signer.address}")
            owners.hand_over(sender, batch_id, word, by_owner, word.signed_by(signer, owners.domain))
        else:
            owner = address(old, "OFFER|ADDRESS")
            word = _word(access, "Succession", owner, signer.address, signer.address)
            owners.accept(sender, batch_id, word, word.signed_by(signer, owners.domain))
        say("tell the market, by `peergrid member owner`, so that it pays to the new wallet")
        return word.owner

    act(do)


def _offered(given: Offer) -> Word:
    from contracts.succession import Word

    return Word(**given.model_dump(exclude={"signature"}))


@command.command("announce")
@click.argument("owner", metavar="ADDRESS")
@click.option("--to", required=True, metavar="ADDRESS", help="The new wallet.")
@_paying
def announce(act: Callable[..., None], owner: str, to: str) -> None:
    """Announce, as the recovery address of the owner ADDRESS, a new wallet: it can accept after a delay."""

    def do(access: Access, sender: Sender, batch_id: str, signer: Signer) -> str:
        old, owners = address(owner, "ADDRESS"), access.contracts.owners
        word = _word(access, "Succession", old, address(to, "--to"), signer.address)
        owners.announce(sender, batch_id, word, word.signed_by(signer, owners.domain))
        return old

    act(do)


@command.command("veto")
@_paying
def veto(act: Callable[..., None]) -> None:
    """End what was announced for the key's own wallet."""

    def do(access: Access, sender: Sender, batch_id: str, signer: Signer) -> str:
        owners = access.contracts.owners
        announced: Announcement | None = owners.announced(signer.address)
        if announced is None:
            raise InputError.single("--key", "", signer.address, "has nothing announced for it")
        word = _word(access, "Veto", signer.address, announced.successor, signer.address)
        owners.veto(sender, batch_id, word, word.signed_by(signer, owners.domain))
        return signer.address

    act(do)


@command.command("propose")
@click.argument("owner", metavar="ADDRESS")
@click.option("--to", required=True, metavar="ADDRESS", help="The new wallet.")
@click.option("--apply", "due", is_flag=True, help="When the timelock's delay is over: tell the owner.")
@_paying
def propose(act: Callable[..., None], owner: str, to: str, due: bool) -> None:
    """Announce, as the market's operator, a new wallet for the owner ADDRESS, who named no recovery address.

    It stands on the timelock first. With --apply, later, it is announced to the owner, who can veto it.
    """

    def do(access: Access, sender: Sender, _batch_id: str, _signer: Signer) -> str:
        old, owners = address(owner, "ADDRESS"), access.contracts.owners
        (owners.apply if due else owners.propose)(sender, old, address(to, "--to"))
        return old

    act(do)


@command.command("follow")
@click.argument("owner", metavar="ADDRESS")
@_paying
def follow(act: Callable[..., None], owner: str) -> None:
    """Move what came to ADDRESS after another wallet took its place on to that one. Anyone may."""

    def do(access: Access, sender: Sender, batch_id: str, _signer: Signer) -> str:
        old = address(owner, "ADDRESS")
        access.contracts.owners.follow(sender, batch_id, old)
        return old

    act(do)
