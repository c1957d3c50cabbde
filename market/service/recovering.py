"""The way back of a market whose database is older than its chain: restored from a backup.

Batches of the lost time moved money that stands; what they followed from is gone. Taken in are their
positions, as postings that bring the ledger to the chain, and the boundary until which they paid. Nothing
before it is settled again; whatever nobody paid is settled at the retail tariffs, on what the registers say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection

from market.accounts.metering import BOUNDARY_TOLERANCE_S
from market.service.clock import utc
from market.service.ports import OnChain
from market.service.settings import MarketSettings
from market.service.store import alarms, disputes, intervals, money, recovery


class RecoveringError(Exception):
    """Why batches cannot be taken in."""


def document(batch: OnChain) -> dict[str, Any]:
    """A batch as JSON values, for the journal."""
    return {**vars(batch), "root": batch.root.hex(), "positions": dict(batch.positions)}


def _batch(written: Mapping[str, Any]) -> OnChain:
    return OnChain(**{**written, "root": bytes.fromhex(written["root"])})


def recover(tx: Connection, settings: MarketSettings, body: Mapping[str, Any], reason: str, at: int) -> None:
    """Takes in ``body["batches"]``. ``body["paid_until"]`` is the end of the last interval that they paid;
    None where that is beyond doubt. Raises :class:`RecoveringError`.
    """
    batches = [_batch(written) for written in body["batches"]]
    if not batches:
        raise RecoveringError("the chain has shown no batch that this database lacks")
    if batches[0].sequence != money.first_unsent(tx):
        raise RecoveringError(f"batch {batches[0].sequence} is not the next one here: try again")
    known, shared = recovery.accounts_by_address(tx), recovery.shared_addresses(tx, batches)
    for batch in batches:
        if not batch.is_final:
            raise RecoveringError(f"batch {batch.sequence} is not final on the chain yet: try again later")
        for address in sorted(batch.positions.keys() - known.keys()):
            raise RecoveringError(
                f"batch {batch.sequence} paid wallet {address}, which has no account here: enter its member"
                " again first, or restore a newer copy"
            )
    known_until = _known_until(tx, settings, batches[0].sequence)
    paid_until = _paid_until(settings, batches, known_until, body.get("paid_until"))
    _check_stopped(tx, settings, paid_until)

    _close_disputes(tx, paid_until, at)
    postings = recovery.take_in(tx, settings.feeder, batches, paid_until, at)
    last = paid_until - settings.seconds
    settled = intervals.state_of(tx, last) in ("SETTLED", "FINAL")
    revision = intervals.revision_of(tx, last) + 1 if settled else 0
    money.add_postings(tx, last, revision, postings, batches[-1].sequence)
    intervals.set_revision(tx, last, revision)
    words = f"paid by batches {batches[0].sequence} to {batches[-1].sequence}, whose records are lost"
    recovery.close_intervals(tx, paid_until, at, words)
    recovery.enter(tx, at, batches, known_until, paid_until, reason)
    alarms.raise_alarm(
        tx,
        at,
        "chain",
        "database",
        f"batches {batches[0].sequence} to {batches[-1].sequence} were taken in from the chain: what was"
        f" between {utc(known_until)} and {utc(paid_until)} is known in sum only ({reason})"
        + "".join(f"; all that wallet {address} got is booked to {known[address]}" for address in shared),
    )


def _known_until(tx: Connection, settings: MarketSettings, first: int) -> int:
    """The end of what the batch before ``first`` settled."""
    newest = recovery.settled_until(tx, first)
    if newest is None:
        return max(settings.first_interval_start, recovery.closed_before(tx))
    every = settings.settled_every_s
    return -(-(newest + settings.seconds) // every) * every


def _paid_until(
    settings: MarketSettings, batches: Sequence[OnChain], known_until: int, told: int | None
) -> int:
    """The end of the last interval that batches paid. A batch is made when an interval is settled that ends a
    period, soon after that: their number and the last one's time tell the same, or people must.
    """
    every = settings.settled_every_s
    by_count = known_until + len(batches) * every
    by_time = (batches[-1].at - BOUNDARY_TOLERANCE_S) // every * every
    if told is None:
        if by_count != by_time:
            raise RecoveringError(
                f"their number says that the batches paid until {utc(by_count)}, the time of the last one"
                f" that it was {utc(by_time)}: tell with --paid-until (the market's log has a line for each"
                " interval that was settled)"
            )
        return by_time
    if told % settings.seconds or not known_until <= told:
        raise RecoveringError(f"{utc(told)} is no boundary of intervals from {utc(known_until)} on")
    return told


def _check_stopped(tx: Connection, settings: MarketSettings, paid_until: int) -> None:
    """Every interval that was paid is here, and over."""
    newest, uncleared = intervals.newest_start(tx), intervals.first_uncleared(tx)
    if newest is None or newest + settings.seconds < paid_until:
        raise RecoveringError(f"the market's intervals do not reach {utc(paid_until)} yet")
    if intervals.state_of(tx, paid_until - settings.seconds) is None:
        raise RecoveringError(f"the market had not begun before {utc(paid_until)}")
    if uncleared is not None and uncleared < paid_until:
        raise RecoveringError(f"interval {utc(uncleared)} is not over yet: try again")


def _close_disputes(tx: Connection, paid_until: int, at: int) -> None:
    """What was decided in the lost time was paid then; nobody knows it any more."""
    for dispute in disputes.everything(tx):
        if dispute.closed_at is None and dispute.interval_start < paid_until:
            words = "what the chain paid stands: a decision before the database was restored is lost"
            disputes.close_one(tx, dispute.id, at, "dismissed", words, None)
