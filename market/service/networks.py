"""The network that each interval is cleared and settled on: the configured one, or what it was changed to.

A change counts from an interval on; earlier intervals keep theirs, since their books name it.
"""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import Connection

from grid.errors import FeederError, Problem
from market.auction.book import Book
from market.service.ports import Network, Physics
from market.service.roster import members_at
from market.service.settings import MarketSettings, Member
from market.service.store import terms


class Networks:
    """``physics`` is that of the configured network, where ``members`` say their buses."""

    def __init__(self, settings: MarketSettings, members: Mapping[str, Member], physics: Physics) -> None:
        self.configured = Network(settings.feeder_name, settings.limits)
        self._members = members
        self._known: dict[Network, Physics] = {self.configured: physics}

    def named(self, connection: Connection, start: int) -> Network:
        """The network of the interval at ``start``, whether it can be had or not."""
        change = terms.grid_of(connection, start)
        return self.configured if change is None else Network(change.feeder_name, change.limits)

    def at(self, connection: Connection, start: int) -> Network:
        """The same. Raises :class:`InputError` where it is not to be had, or not what it was any more."""
        change = terms.grid_of(connection, start)
        if change is None:
            return self.configured
        network = Network(change.feeder_name, change.limits)
        self.check(network, change.feeder_sha256, start)
        return network

    def check(self, network: Network, feeder_sha256: str, start: int) -> None:
        """Raises :class:`InputError` where a network is not to be had, is another one than ``feeder_sha256``
        says, or lacks the connection point of a member of the interval at ``start``.
        """
        physics = self.physics(network)
        if physics.feeder_sha256 != feeder_sha256:
            reason = f"was changed: its sha256 is {physics.feeder_sha256}, not {feeder_sha256}"
            raise FeederError([Problem("feeder", "name", network.feeder_name, reason)])
        for member in members_at(self._members, start).values():
            physics.bus_of(member.connection_point)

    def physics(self, network: Network) -> Physics:
        if network not in self._known:
            self._known[network] = self._known[self.configured].changed(network)
        return self._known[network]

    def of(self, book: Book) -> Physics:
        """The physics of the network that a book names."""
        return self.physics(Network(book.feeder or self.configured.feeder_name, book.limits))

    def bus_of(self, connection: Connection, start: int, connection_point: str) -> int:
        """The bus of a connection point in the network of the interval at ``start``, or raises."""
        return self.physics(self.named(connection, start)).bus_of(connection_point)

    def placed(self, book: Book, members: Mapping[str, Member]) -> Mapping[str, Member]:
        """``members`` at their buses in the network that a book names."""
        network = Network(book.feeder or self.configured.feeder_name, book.limits)
        if network == self.configured:
            return members
        bus_of = self.physics(network).bus_of
        return {
            meter: member.model_copy(update={"bus": bus_of(member.connection_point)})
            for meter, member in members.items()
        }
