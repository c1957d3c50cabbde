"""Whether the chain's meter registry agrees with the market on who its members are.

A meter that it does not bind, binds to another wallet or at another connection point is barred: it has no
order accepted, and its energy is the retailer's to bill. Nobody else waits for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from eth_hash.auto import keccak

from contracts.registry import BoundMeter
from market.service.ports import Standing
from market.service.settings import Member


class Registered:
    """``look`` tells every binding on the chain, by meter, and may raise :class:`grid.errors.ChainError`;
    ``salt`` is what connection points are hashed with there; without it places are not compared.
    """

    def __init__(self, look: Callable[[], Mapping[str, BoundMeter]], salt: bytes | None) -> None:
        self._look = look
        self._salt = salt
        self._bound: Mapping[str, BoundMeter] | None = None

    def look(self) -> None:
        """Asks the chain anew."""
        self._bound = self._look()

    def problem(self, member: Member, standing: Standing) -> str:
        """What the registry has against a member; empty where it has nothing, or was not reached yet."""
        if self._bound is None:
            return ""
        bound = self._bound.get(member.meter)
        if bound is None:
            return f"the chain's registry does not know meter {member.meter}"
        owner = standing.wallet(bound.owner)
        if owner != standing.wallet(member.owner):
            return f"the chain's registry has {member.meter} as {owner}'s, not {member.owner}'s"
        point = member.connection_point
        if self._salt is not None and bound.connection_point != keccak(self._salt + point.encode()):
            return f"the chain's registry does not have {member.meter} at {point}"
        return ""

    def problems(self, members: Iterable[Member], standing: Standing) -> dict[str, str]:
        """The same of all to whom it has something against, by meter."""
        found = {member.meter: self.problem(member, standing) for member in members}
        return {meter: problem for meter, problem in sorted(found.items()) if problem}
