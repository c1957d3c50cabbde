"""``peergrid chain``: deploy a market's contracts, see how they stand, deposit, withdraw, prove records."""

from __future__ import annotations

import json
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from grid.errors import InputError
from market.cli.messages import say

if TYPE_CHECKING:
    from contracts.sender import Patience, Sender
    from market.cli.chain_access import Access, Place
    from market.messages.signing import Signer

UEUR_PER_EUR = 1_000_000
PERMIT_VALID_S = 3600  # longer than any patience; a permit that was never mined is worth nothing then


@click.group("chain")
def command() -> None:
    """The market's contracts: --out names a run's own chain, --rpc and --deployment one on a node."""


def on_a_chain(function: Callable[..., None]) -> Callable[..., None]:
    """The options that say which chain, as a :class:`market.cli.chain_access.Place`."""

    @click.option("--out", type=click.Path(path_type=Path), help="Folder of a run, with its own chain.")
    @click.option("--rpc", metavar="URL", help="A node's JSON-RPC.")
    @click.option("--deployment", type=click.Path(path_type=Path), help="With --rpc: what deploy wrote.")
    @click.option("--at", type=int, metavar="SECONDS", help="With --out: its clock shows this time at least.")
    @click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
    @wraps(function)
    def wrapped(
        out: Path | None, rpc: str | None, deployment: Path | None, at: int | None, **rest: Any
    ) -> None:
        from market.cli.chain_access import Place

        function(place=Place(out, rpc, deployment, at), **rest)

    return wrapped


def with_a_key(function: Callable[..., None]) -> Callable[..., None]:
    """The options that say whose key signs and how long to wait."""
    for option in (
        click.option("--confirmations", type=click.IntRange(min=1), default=1, show_default=True),
        click.option("--household", metavar="NAME", help="With --out: a simulated household, as load:7."),
        click.option("--key", type=click.Path(path_type=Path), help="File with the wallet's key."),
    ):
        function = option(function)
    return function


@command.command("deploy")
@click.option("--rpc", metavar="URL", required=True, help="A node's JSON-RPC.")
@click.option("--key", type=click.Path(path_type=Path), required=True, help="File with the operator's key.")
@click.option("--settler", metavar="ADDRESS", required=True, help="Who may settle.")
@click.option("--stablecoin", metavar="ADDRESS", help="With 6 decimals and ERC-2612; without it a demo euro.")
@click.option("--name", default="Peergrid credit", show_default=True, help="The credit's name, for wallets.")
@click.option("--symbol", default="PGC", show_default=True)
@click.option("--withdrawal-delay", type=int, default=3 * 86400, show_default=True, metavar="SECONDS")
@click.option("--admin-delay", type=int, default=7 * 86400, show_default=True, metavar="SECONDS")
@click.option("--recovery-delay", type=int, default=7 * 86400, show_default=True, metavar="SECONDS")
@click.option("--position-max", default="1000", show_default=True, metavar="EUR", help="Of one position.")
@click.option("--window-max", default="100000", show_default=True, metavar="EUR", help="Of one window.")
@click.option("--guarantee-max", default="1000", show_default=True, metavar="EUR", help="Drawn in a window.")
@click.option("--window", type=int, default=86400, show_default=True, metavar="SECONDS")
@click.option("--confirmations", type=click.IntRange(min=1), default=1, show_default=True)
@click.option("--deployment", type=click.Path(path_type=Path), required=True, help="The file to write.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def deploy_contracts(
    rpc: str,
    key: Path,
    settler: str,
    stablecoin: str | None,
    name: str,
    symbol: str,
    withdrawal_delay: int,
    admin_delay: int,
    recovery_delay: int,
    position_max: str,
    window_max: str,
    guarantee_max: str,
    window: int,
    confirmations: int,
    deployment: Path,
    as_json: bool,
) -> None:
    """Create a market's contracts: escrow, meter registry and the timelock that is their admin.

    After an interruption the same command goes on; it never deploys twice into one file.
    """
    from pydantic import ValidationError

    from contracts.deployment import EscrowTerms, deploy
    from contracts.journal import SqliteJournal
    from contracts.rpc import RpcChain
    from contracts.sender import Sender
    from market.auction.book import validation_problems
    from meters.identity import read_key

    try:
        terms = EscrowTerms(
            name=name,
            symbol=symbol,
            withdrawal_delay_s=withdrawal_delay,
            admin_delay_s=admin_delay,
            recovery_delay_s=recovery_delay,
            position_debit_max=ueur(position_max, "--position-max"),
            window_debit_max=ueur(window_max, "--window-max"),
            guarantee_max=ueur(guarantee_max, "--guarantee-max"),
            window_s=window,
        )
    except ValidationError as error:
        raise InputError(validation_problems("deploy", error)) from None
    chain = RpcChain(rpc)
    journal = SqliteJournal(deployment.with_name(deployment.name + ".journal"))
    try:
        sender = Sender(chain, read_key(key), journal, patience(confirmations))
        made = deploy(
            chain,
            sender,
            journal,
            terms,
            address(settler, "--settler"),
            address(stablecoin, "--stablecoin") if stablecoin else None,
        )
    finally:
        journal.disconnect()
    made.write(deployment)
    show(made.model_dump(), as_json)


@command.command("status")
@on_a_chain
def show_status(place: Place, as_json: bool) -> None:
    """What the contracts hold, what bounds them, and whether every credit is backed."""
    from market.cli.chain_access import opened, opened_store
    from market.service.store import money

    with opened(place) as access:
        document = status(access)
    if place.out is not None:
        with opened_store(place.out) as store, store.reading() as connection:
            document["batches_pending"] = len(money.pending_batches(connection))
            document["batches_final"] = len(money.gas_by_batch(connection))
    show(document, as_json)


def status(access: Access) -> dict[str, Any]:
    contracts = access.contracts
    supply, pending, guarantee = contracts.total_supply(), contracts.pending_total(), contracts.guarantee()
    backing, limits = contracts.backing(), contracts.limits()
    return {
        "chain_id": access.chain.chain_id,
        "block": access.chain.block_number(),
        **{
            name: getattr(contracts.deployment, name)
            for name in ("escrow", "stablecoin", "registry", "timelock")
        },
        "supply_ueur": supply,
        "pending_withdrawals_ueur": pending,
        "guarantee_ueur": guarantee,
        "backing_ueur": backing,
        "backed": backing >= supply + pending + guarantee,
        "paused": contracts.paused(),
        "position_debit_max_ueur": limits.position_debit_max,
        "window_debit_max_ueur": limits.window_debit_max,
        "window_guarantee_max_ueur": limits.guarantee_max,
        "window_s": limits.window_s,
    }


@command.command("balances")
@click.argument("addresses", nargs=-1)
@on_a_chain
def show_balances(place: Place, addresses: tuple[str, ...], as_json: bool) -> None:
    """Credit, announced withdrawals and debts of ADDRESSES, or of every account there is."""
    from market.cli.chain_access import opened

    with opened(place) as access:
        asked = [address(text, "ADDRESSES") for text in addresses] or holders(access)
        rows = balances(access, asked)
    if as_json:
        click.echo(json.dumps({"accounts": rows}))
        return
    if not rows:
        say("nobody has or had credit in this market")
    for row in rows:
        extra = "".join(
            f", {what} {eur(row[key])}"
            for what, key in (("pending", "pending_ueur"), ("debt", "debt_ueur"))
            if row[key]
        )
        click.echo(f"{row['address']}  {row['name']:<14}  {eur(row['credit_ueur']):>18} EUR{extra}")


def holders(access: Access) -> list[str]:
    """The accounts of a run, or everybody who ever had credit."""
    if access.names:
        return sorted(access.names, key=lambda account: access.names[account])
    contracts = access.contracts
    ever = {account for transfer in contracts.transfers() for account in (transfer.sender, transfer.receiver)}
    return sorted(ever - {contracts.deployment.escrow, "0x" + "00" * 20})


def balances(access: Access, accounts: list[str]) -> list[dict[str, Any]]:
    credit, debts = access.contracts.balances(accounts), access.contracts.debts(accounts)
    rows = []
    for account in accounts:
        pending = access.contracts.pending_withdrawal(account)
        rows.append(
            {
                "address": account,
                "name": access.names.get(account, ""),
                "credit_ueur": credit[account],
                "pending_ueur": pending.amount_ueur,
                "due_at": pending.due_at,
                "debt_ueur": debts.get(account, 0),
            }
        )
    return rows


@command.command("mint")
@click.argument("amount", metavar="EUR")
@click.option("--to", metavar="ADDRESS", help="Whose they are; without it the key's own wallet's.")
@with_a_key
@on_a_chain
def mint_demo_euros(
    place: Place,
    amount: str,
    to: str | None,
    key: Path | None,
    household: str | None,
    confirmations: int,
    as_json: bool,
) -> None:
    """Create EUR of the demo euro, for trials: its owner, who deployed it, may."""

    def act(access: Access, sender: Sender, nonce: int, signer: Signer) -> str:
        receiver = address(to, "--to") if to else signer.address
        access.contracts.mint(sender, f"mint/{nonce}", receiver, ueur(amount, "EUR"))
        return receiver

    transact(place, key, household, confirmations, as_json, act)


@command.command("deposit")
@click.argument("amount", metavar="EUR")
@with_a_key
@on_a_chain
def make_deposit(
    place: Place, amount: str, key: Path | None, household: str | None, confirmations: int, as_json: bool
) -> None:
    """Turn EUR of the wallet's stablecoin into credit, by one transaction with an ERC-2612 permit."""

    def act(access: Access, sender: Sender, nonce: int, signer: Signer) -> str:
        deadline = access.next_block_at + PERMIT_VALID_S
        permit = access.contracts.permit(signer, ueur(amount, "EUR"), deadline)
        access.contracts.deposit_with_permits(sender, f"deposit/{nonce}", [permit])
        return signer.address

    transact(place, key, household, confirmations, as_json, act)


@command.command("withdraw")
@click.argument("amount", metavar="[EUR]", required=False)
@click.option("--all", "everything", is_flag=True, help="Announce all the credit there is.")
@with_a_key
@on_a_chain
def make_withdrawal(
    place: Place,
    amount: str | None,
    everything: bool,
    key: Path | None,
    household: str | None,
    confirmations: int,
    as_json: bool,
) -> None:
    """Announce the withdrawal of EUR; without EUR, be paid what was announced and is due.

    The market's operator is not needed for either.
    """
    if amount is not None and everything:
        raise InputError.single("--all", "", amount, "is more than one amount")

    def act(access: Access, sender: Sender, nonce: int, signer: Signer) -> str:
        contracts, batch_id = access.contracts, f"withdraw/{nonce}"
        if amount is None and not everything:
            contracts.withdraw(sender, batch_id, signer.address)
        else:
            held = contracts.balances([signer.address])[signer.address]
            contracts.announce_withdrawal(sender, batch_id, held if amount is None else ueur(amount, "EUR"))
        return signer.address

    transact(place, key, household, confirmations, as_json, act)


def transact(
    place: Place,
    key: Path | None,
    household: str | None,
    confirmations: int,
    as_json: bool,
    act: Callable[[Access, Sender, int, Signer], str],
) -> None:
    """Does one thing in the name of a wallet, and shows how the account stands then that ``act`` returns."""
    from market.cli.chain_access import sending, signer_of

    place.check()
    signer = signer_of(place, key, household)
    with sending(place, signer, patience(confirmations)) as (access, sender, is_free):
        changed = signer.address
        if is_free:
            changed = act(access, sender, access.chain.nonce(signer.address), signer)
        (row,) = balances(access, [changed])
        row["stablecoin_ueur"] = access.contracts.stablecoin_balance(changed)
    show(row, as_json)


@command.command("proof")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder of the market's run.")
@click.option(
    "--household", metavar="NAME", required=True, help="Whose records: a connection point, as load:7."
)
@click.option(
    "--interval", metavar="TIME", required=True, help="Start of the interval, as 2016-06-15T12:00:00Z."
)
def make_proof(out: Path, household: str, interval: str) -> None:
    """Print what proves a household's award, metered energy and postings of an interval, as JSON.

    `peergrid verify --proof` checks it against the chain alone.
    """
    from market.cli.chain_access import Place, opened, opened_store
    from market.cli.proof import interval_start, proof_document

    start = interval_start(interval)
    with opened(Place(out, None, None, None)) as access, opened_store(out) as store:
        document = proof_document(store, access.contracts, household, start)
    click.echo(json.dumps(document, indent=1, ensure_ascii=False))


def patience(confirmations: int) -> Patience:
    from contracts.sender import Patience

    return Patience(confirmations=confirmations)


def ueur(text: str, source: str) -> int:
    """An amount in EUR with up to six decimals, above zero, as µEUR."""
    try:
        amount = Decimal(text) * UEUR_PER_EUR
    except InvalidOperation:
        amount = Decimal("NaN")
    if not amount.is_finite() or amount != int(amount) or amount <= 0:
        raise InputError.single(source, "", text, "is not a positive amount of EUR with up to 6 decimals")
    return int(amount)


def address(text: str, source: str) -> str:
    digits = text.lower().removeprefix("0x")
    if len(digits) != 40 or any(digit not in "0123456789abcdef" for digit in digits):
        raise InputError.single(source, "", text, "is not an address: 0x and 40 hexadecimal digits")
    return "0x" + digits


def eur(amount_ueur: int) -> str:
    return f"{Decimal(amount_ueur) / UEUR_PER_EUR:,.6f}"


def show(document: dict[str, Any], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(document))
        return
    width = max(map(len, document))
    for name, value in document.items():
        click.echo(f"{name:<{width}}  {value}")
