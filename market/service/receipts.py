"""When receipts leave: refusals and orders' at once, cumulative ones of readings at most one a second and
epoch, the first at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from market.messages.models import ReceiptKind, ReceiptResult
from market.service.answer import Answer

PAUSE_S = 1.0
_REMEMBERED_MAX = 100_000


class Pacing:
    """``now_s`` is a monotonic time."""

    def __init__(self) -> None:
        self._owed: dict[tuple[str, int], Answer] = {}
        self._told_s: dict[tuple[str, int], float] = {}

    def due(self, answers: Iterable[Answer], now_s: float) -> Iterator[Answer]:
        """What to send now of new answers and of those put off."""
        for answer in answers:
            if answer.kind != ReceiptKind.READING or answer.result == ReceiptResult.REJECTED:
                yield answer
            else:
                key = (answer.meter, answer.epoch)
                self._owed[key] = answer
        late = now_s - PAUSE_S
        for key in [key for key in self._owed if self._told_s.get(key, late) <= late]:
            self._told_s[key] = now_s
            yield self._owed.pop(key)
        if len(self._told_s) > _REMEMBERED_MAX:
            self._told_s = {key: told for key, told in self._told_s.items() if told > late}

    def rest(self) -> list[Answer]:
        """All that was put off."""
        owed, self._owed = list(self._owed.values()), {}
        return owed

    @property
    def owes(self) -> bool:
        return bool(self._owed)
