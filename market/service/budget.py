"""How many messages of each meter are looked at: a flood costs the meter that sends it, not the others.

A message within the budget is judged and answered. One beyond it is acknowledged to the broker and dropped
unread, before any signature is checked, and nothing is answered: to its meter it is as good as lost, and
comes again by its own backoff. So nothing that a receipt covers was ever dropped.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass

STRANGERS = ""
"""All meters that are not of this market share one budget."""


@dataclass(frozen=True)
class Allowance:
    """Messages a second in the long run, and at once after a silence. A question for what was missed
    (``sync``) counts as ``sync_cost`` messages.
    """

    per_s: float = 50.0
    burst: float = 1_000.0
    sync_cost: float = 20.0


class Budget:
    """A bucket of tokens for each meter that has spoken; ``now_s`` is a monotonic time."""

    def __init__(self, members: Container[str], allowance: Allowance) -> None:
        self._members = members
        self._allowance = allowance
        self._buckets: dict[str, tuple[float, float]] = {}

    def owner(self, meter: str) -> str:
        """Whose budget a message on a meter's topic is charged to."""
        return meter if meter in self._members else STRANGERS

    def spend(self, owner: str, now_s: float, *, is_sync: bool) -> bool:
        """Whether a message may be looked at; takes it off the budget."""
        allowance = self._allowance
        tokens, since_s = self._buckets.get(owner, (allowance.burst, now_s))
        tokens = min(allowance.burst, tokens + (now_s - since_s) * allowance.per_s)
        cost = allowance.sync_cost if is_sync else 1.0
        allowed = tokens >= cost
        self._buckets[owner] = (tokens - cost if allowed else tokens, now_s)
        return allowed
