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
        self._first = {member.meter: member for member in members}
        self._changes: list[membership.Change] = []
        self._newest: Mapping[str, Member] = self._first
        self._by_count: dict[int, Mapping[str, Member]] = {}

    def load(self, connection: Connection) -> None:
        """Takes the changes from the store."""
        self._changes = membership.changes(connection)
        joined = {change.meter: change.member for change in self._changes if change.member is not None}
        self._newest = self._first | joined
        self._by_count = {}

    def at(self, start: int) -> Mapping[str, Member]:
        """The members of the interval at ``start``."""
        count = sum(change.first_start <= start for change in self._changes)
        if not count:
            return self._founders()
        if count not in self._by_count:
            members = dict(self._founders())
            for change in self._changes[:count]:
                members.pop(change.meter, None)
                if change.member is not None:
                    members[change.meter] = change.member
            self._by_count[count] = members
        return self._by_count[count]

    def later(self, start: int, meter: str) -> bool:
        """Whether a meter has a change after ``start``."""
        return any(change.first_start > start and change.meter == meter for change in self._changes)

    def _founders(self) -> Mapping[str, Member]:
        """Those whom the configuration names and no change made members."""
        if not self._changes:
            return self._first
        return {meter: member for meter, member in self._first.items() if not self._joined_later(meter)}

    def _joined_later(self, meter: str) -> bool:
        first = next((change for change in self._changes if change.meter == meter), None)
        return first is not None and first.joins

    def __getitem__(self, meter: str) -> Member:
        return self._newest[meter]

    def __iter__(self) -> Iterator[str]:
        return iter(self._newest)

    def __len__(self) -> int:
        return len(self._newest)


def members_at(members: Mapping[str, Member], start: int) -> Mapping[str, Member]:
    """The members of an interval; those of a mapping that is no roster have part in all."""
    return members.at(start) if isinstance(members, Roster) else members
