"""Judging readings, and how far each meter's are settled.

In every epoch a meter counts its readings 0, 1, 2, …; a receipt is cumulative within the epoch of the message
whose digest it carries. A seq is settled when its reading is stored, or when the meter signed it and the
market refused it by name: then waiting for it would stop the receipts for ever. What is not the meter's
(bad signature, another format) settles nothing: anybody could say it. A meter that has lost a reading goes
on in a new epoch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from sqlalchemy import Connection

from market.accounts.metering import BOUNDARY_TOLERANCE_S
from market.messages.models import Reading, ReadingEntry, Readings, ReceiptKind, ReceiptResult
from market.service.answer import Answer
from market.service.parse import Heard, entries_of
from market.service.roster import members_at
from market.service.settings import MarketSettings, Member
from market.service.store import Store, alarms, input_journal, inputs, progress, recovery
from market.service.store.inputs import StoredReading

AHEAD_MAX = 10_000
"""How far beyond a gap readings are taken."""
_EPOCHS_REMEMBERED = 4
"""Of each meter; older ones are looked up when a message comes for them."""

_Key = tuple[str, int, int]
_EpochKey = tuple[str, int]
_Problem = tuple[str, str, bool]
"""Reason, field, and whether the refusal settles the seq."""


@dataclass(slots=True)
class _Progress:
    """What is settled of an epoch: everything up to ``up_to``, and some ahead of a gap."""

    up_to: int = -1
    digest: bytes = b""
    ahead: dict[int, bytes] = field(default_factory=dict)

    def has(self, seq: int) -> bool:
        return seq <= self.up_to or seq in self.ahead

    def add(self, seq: int, digest: bytes) -> None:
        if seq == self.up_to + 1:
            self._reach(seq, digest)
        elif seq > self.up_to:
            self.ahead[seq] = digest

    def skip_to(self, seq: int, digest: bytes) -> None:
        """What is missing before ``seq`` is not waited for."""
        if seq - 1 > self.up_to:
            self._reach(seq - 1, digest)

    def _reach(self, seq: int, digest: bytes) -> None:
        self.up_to, self.digest = seq, digest
        while self.ahead and (following := self.ahead.pop(self.up_to + 1, None)) is not None:
            self.up_to, self.digest = self.up_to + 1, following


@dataclass(slots=True)
class Batch:
    """What one transaction is to write, and whom it has to answer."""

    now: int
    stored: dict[_Key, StoredReading] = field(default_factory=dict)
    refused: list[progress.Refused] = field(default_factory=list)
    is_new: dict[_EpochKey, bool] = field(default_factory=dict)
    """Whose epochs were spoken of, and whether with anything new."""
    heard: set[str] = field(default_factory=set)
    """Who spoke for the first time since a recovery."""


class ReadingDesk:
    """Takes readings into batches; remembers what the store says, and is loaded anew when that fails."""

    def __init__(self, settings: MarketSettings, members: Mapping[str, Member], store: Store) -> None:
        self._members = members
        self._skew_s = settings.clock_skew_s
        self._store = store
        self._progress: dict[str, dict[int, _Progress]] = {}
        self._read_at: dict[int, set[str]] = {}
        self._unheard: set[str] = set()
        """Meters whose next reading goes on from wherever it is: what came before was lost here."""
        # Readings of a former process may have come in late and not been looked at yet.
        with store.reading() as connection:
            self._late_from = input_journal.unsettled_readings_from(connection)
        self.reload()

    def reload(self) -> None:
        self._progress = {}
        with self._store.reading() as connection:
            self._unheard = recovery.unheard_since(connection)
            for meter, epoch in progress.epochs(connection, _EPOCHS_REMEMBERED):
                self._progress_of(connection, meter, epoch)
        for boundary in list(self._read_at):
            self.watch_boundary(boundary)

    def watch_boundary(self, boundary: int) -> None:
        """Remember from now on who was read at ``boundary``, and forget earlier boundaries."""
        tolerance = BOUNDARY_TOLERANCE_S
        with self._store.reading() as connection:
            read = inputs.meters_read_at(connection, boundary - tolerance, boundary + tolerance)
        self._read_at = {boundary: read}

    def unread(self, boundary: int) -> set[str]:
        """The meters without a reading within ± 30 s of a watched boundary."""
        expected = members_at(self._members, boundary - 1).keys() | members_at(self._members, boundary).keys()
        return expected - self._read_at[boundary]

    def take_late(self) -> int | None:
        """Since last asked, the earliest time of a reading that came after a later boundary was watched, or
        before any was, as after a restart between two gates; None where none did.
        """
        late_from, self._late_from = self._late_from, None
        return late_from

    def progress_answers(self, meter: str, now: int) -> list[Answer]:
        """How far a meter's readings are settled, one answer an epoch."""
        epochs = sorted(self._progress.get(meter, ()))
        return [a for epoch in epochs if (a := self._answer((meter, epoch), now, is_new=False)) is not None]

    def judge(self, tx: Connection, said: Heard, message: Reading | Readings, batch: Batch) -> list[Answer]:
        """Adds to the batch what is acceptable; a message with something that is not is answered once, with
        the first such reading.
        """
        refusals: list[tuple[int, str, str]] = []
        for index, entry in enumerate(entries_of(message)):
            problem = self._judge_entry(tx, said, entry, message.sig, batch)
            if problem is not None:
                place = f"readings[{index}]." if isinstance(message, Readings) else ""
                refusals.append((entry.seq, problem[0], place + problem[1]))
        if not refusals:
            return []
        seq, reason, blamed = refusals[0]
        if len(refusals) > 1:
            reason += f" (and {len(refusals) - 1} more readings of this list are refused)"
        return [
            Answer(
                said.meter,
                ReceiptKind.READING,
                seq,
                ReceiptResult.REJECTED,
                said.digest,
                batch.now,
                reason,
                blamed,
            )
        ]

    def write(self, tx: Connection, batch: Batch) -> list[Answer]:
        """Writes the batch; the cumulative answers to it."""
        inputs.add_readings(tx, batch.stored.values())
        progress.refuse(tx, batch.refused)
        recovery.heard(tx, batch.heard)
        changed = [key for key, is_new in batch.is_new.items() if is_new]
        settled = [(meter, epoch, self._progress[meter][epoch]) for meter, epoch in changed]
        progress.put(tx, ((meter, epoch, s.up_to, s.digest) for meter, epoch, s in settled))
        answers = [self._answer(key, batch.now, is_new=is_new) for key, is_new in batch.is_new.items()]
        for meter in {meter for meter, _ in batch.is_new}:
            self._forget_old(meter)
        return [answer for answer in answers if answer is not None]

    def _judge_entry(
        self, tx: Connection, said: Heard, entry: Reading | ReadingEntry, sig: str, batch: Batch
    ) -> _Problem | None:
        meter, epoch, seq = said.meter, entry.epoch, entry.seq
        sequence = self._progress_of(tx, meter, epoch)
        batch.is_new.setdefault((meter, epoch), False)
        if meter in self._unheard:
            sequence.skip_to(seq, said.digest)
            self._unheard.discard(meter)
            batch.heard.add(meter)
            batch.is_new[meter, epoch] = True
        known = None
        if sequence.has(seq):
            pending = batch.stored.get((meter, epoch, seq))
            known = pending.entry if pending else inputs.stored_reading(tx, meter, epoch, seq)
        if known is not None:
            if _content(known) == _content(entry):
                return None
            reason = f"epoch {epoch} seq {seq} is stored with other content"
            alarms.add_evidence(tx, batch.now, meter, said.digest, said.topic, said.payload, reason)
            return reason, "seq", False
        problem = self._problem(entry, sequence, batch.now)
        if problem is None:
            batch.stored[meter, epoch, seq] = StoredReading(meter, entry, said.digest, sig, batch.now)
            self._note_time(meter, entry.taken_at)
        elif problem[2]:
            batch.refused.append((meter, epoch, seq, said.digest, problem[0]))
        else:
            return problem
        sequence.add(seq, said.digest)
        batch.is_new[meter, epoch] = True
        return problem

    def _problem(self, entry: Reading | ReadingEntry, sequence: _Progress, now: int) -> _Problem | None:
        if entry.seq > sequence.up_to + AHEAD_MAX:
            missing = sequence.up_to + 1
            return f"seq {missing} is missing since long: send it, or begin a new epoch", "seq", False
        if self._skew_s is not None and entry.taken_at > now + self._skew_s:
            return f"is {entry.taken_at - now} s ahead of the market's clock", "taken_at", True
        return None

    def _note_time(self, meter: str, taken_at: int) -> None:
        is_late = not self._read_at
        for boundary, meters in self._read_at.items():
            if abs(taken_at - boundary) <= BOUNDARY_TOLERANCE_S:
                meters.add(meter)
            elif taken_at < boundary:
                is_late = True
        if is_late:
            self._late_from = min(taken_at, taken_at if self._late_from is None else self._late_from)

    def _progress_of(self, connection: Connection, meter: str, epoch: int) -> _Progress:
        epochs = self._progress.setdefault(meter, {})
        sequence = epochs.get(epoch)
        if sequence is None:
            up_to, digest = progress.of(connection, meter, epoch) or (-1, b"")
            ahead = progress.ahead(connection, meter, epoch, up_to)
            sequence = epochs[epoch] = _Progress(up_to, digest, ahead)
        return sequence

    def _forget_old(self, meter: str) -> None:
        epochs = self._progress[meter]
        for epoch in sorted(epochs)[:-_EPOCHS_REMEMBERED]:
            del epochs[epoch]

    def _answer(self, key: _EpochKey, now: int, *, is_new: bool) -> Answer | None:
        """None while the epoch's first reading is missing: there is nothing to say yet."""
        meter, epoch = key
        sequence = self._progress[meter][epoch]
        if sequence.up_to < 0:
            return None
        result = ReceiptResult.ACCEPTED if is_new else ReceiptResult.DUPLICATE
        return Answer(meter, ReceiptKind.READING, sequence.up_to, result, sequence.digest, now, epoch=epoch)


def _content(entry: Reading | ReadingEntry) -> tuple[int, ...]:
    return (
        entry.epoch,
        entry.seq,
        entry.taken_at,
        entry.import_wh,
        entry.export_wh,
        entry.power_w,
        entry.quality,
    )
