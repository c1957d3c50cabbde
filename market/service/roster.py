"""The members of a market by interval: who joined, left, moved or got another meter, and from when on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from sqlalchemy import Connection

from market.service.settings import Member
from market.service.store import membership


class Roster(Mapping[str, Member]):
    """As a mapping, everybody who is, was or will be a member, as last registered: they may speak.

    :meth:`at` is who has part in an interval.
    """

    def __init__(self, members: Iterable[Member]) -> None:
        self.founders = {member.meter: member for member in members}
        self._changes: list[membership.Change] = []
        self._newest: Mapping[str, Member] = self.founders
        self._by_count: dict[int, Mapping[str, Member]] = {}

    def load(self, connection: Connection) -> None:
        """Takes the changes from the store. Of whom something was changed, the configuration's word counts no
        more: first terms are those in the journal.
        """
        self._changes = membership.changes(connection)
        if self._changes:
            begun = membership.founders(connection)
            changed = {change.meter for change in self._changes}
            first = {meter: member for meter, member in begun.items() if meter in changed}
            known = {**self.founders, **first}
            self.founders = {m: member for m, member in known.items() if m in first or m not in changed}
        joined = {change.meter: change.member for change in self._changes if change.member is not None}
        self._newest = self.founders | joined
        self._by_count = {}

    def at(self, start: int) -> Mapping[str, Member]:
        """The members of the interval at ``start``."""
        count = sum(change.first_start <= start for change in self._changes)
        if not count:
            return self.founders
        if count not in self._by_count:
            members = dict(self.founders)
            for change in self._changes[:count]:
                members.pop(change.meter, None)
                if change.member is not None:
                    members[change.meter] = change.member
            self._by_count[count] = members
        return self._by_count[count]

    def has_change(self, meter: str, first_start: int) -> bool:
        """Whether a meter has a change from ``first_start`` on, or a later one."""
        return any(change.first_start >= first_start and change.meter == meter for change in self._changes)

    def later(self, start: int) -> list[Member]:
        """How members will be registered after ``start`` who are not yet."""
        return [c.member for c in self._changes if c.first_start > start and c.member is not None]

    def __getitem__(self, meter: str) -> Member:
        return self._newest[meter]

    def __iter__(self) -> Iterator[str]:
        return iter(self._newest)

    def __len__(self) -> int:
        return len(self._newest)


def members_at(members: Mapping[str, Member], start: int) -> Mapping[str, Member]:
    """The members of an interval; those of a mapping that is no roster have part in all."""
    return members.at(start) if isinstance(members, Roster) else members
