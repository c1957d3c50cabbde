"""The one error tree of Peergrid.

Every error a user can meet derives from :class:`PeergridError` and carries the
exit status of the command that ends with it.  Bad input is told as a list of
:class:`Problem`, one line each, naming where it stands, the field, the value and
what would be right.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


class PeergridError(Exception):
    """Anything that Peergrid refuses or fails at, in words for its user."""

    exit_status = 1


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with an input.

    ``source`` is the file or option, ``field`` the path inside it
    (``orders[3].energy_wh``), ``value`` what stood there: None for nothing, "…" for what is not to be shown,
    a whole table or a secret.
    """

    source: str
    field: str
    value: object
    reason: str

    def __str__(self) -> str:
        place = f"{self.source}: {self.field}" if self.field else self.source
        value = "" if self.value in (None, "…") else f"{self.value!r} "
        return f"{place}: {value}{self.reason}"


class InputError(PeergridError):
    """Bad usage or bad input: nothing was changed."""

    exit_status = 2

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))

    @classmethod
    def single(cls, source: str, field: str, value: object, reason: str) -> InputError:
        return cls([Problem(source, field, value, reason)])


class FeederError(InputError):
    """The feeder is unknown, or has something that the model does not represent."""


class PowerFlowError(PeergridError):
    """The AC power flow found no solution: the injections are beyond what the feeder can carry."""


class SolverError(PeergridError):
    """The solver ended in a state whose numbers must not be used."""


class BrokerError(PeergridError):
    """The MQTT broker could not be started or reached."""


class StoreError(PeergridError):
    """The database is not the one expected, or refused a write."""


class OtherStoreError(StoreError):
    """A database of other terms or of another Peergrid: trying again does not help."""

    exit_status = 2


class ChainError(PeergridError):
    """The chain refused a transaction, is not the one expected, or cannot be reached."""


class LedgerError(PeergridError):
    """An invariant of the ledger does not hold; nothing was written."""
