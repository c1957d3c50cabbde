"""What a verification found: one line for each thing that was checked."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

Subject = Literal[
    "format",
    "order limits",
    "prices",
    "ties",
    "balance",
    "optimality",
    "AC feasibility",
    "AC complementarity",
]
SUBJECTS: tuple[Subject, ...] = get_args(Subject)

PROVES = (
    "this result is feasible and first-order optimal for this book on this feeder, "
    "by pandapower's power flow and its Jacobian"
)
DOES_NOT_PROVE = (
    "that the book is complete, forecasts honest, readings true, or the optimum global; "
    "nor, where several limits bind and dual prices are not unique, which of the optimal prices was taken; "
    "nor that no other choice of orders with a minimum fill is worth more"
)


@dataclass(frozen=True)
class Check:
    """One thing that must hold: ``measured`` may be at most ``tolerance``, in ``unit``."""

    subject: Subject
    name: str
    measured: float
    tolerance: float
    unit: str
    says: str

    @property
    def ok(self) -> bool:
        return self.measured <= self.tolerance


def by_subject(checks: Iterable[Check]) -> tuple[Check, ...]:
    return tuple(sorted(checks, key=lambda check: SUBJECTS.index(check.subject)))


@dataclass(frozen=True)
class Report:
    feeder: str
    interval_start: str
    status: str
    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        return all(check.ok for check in self.checks)

    def of(self, subject: Subject) -> tuple[Check, ...]:
        return tuple(check for check in self.checks if check.subject == subject)

    def json_document(self) -> dict[str, object]:
        """The report as JSON values; what is not finite is null."""
        return {
            "ok": self.ok,
            "feeder": self.feeder,
            "interval_start": self.interval_start,
            "status": self.status,
            "checks": [
                {
                    "subject": check.subject,
                    "name": check.name,
                    "ok": check.ok,
                    "measured": check.measured if abs(check.measured) < float("inf") else None,
                    "tolerance": check.tolerance,
                    "unit": check.unit,
                    "says": check.says,
                }
                for check in self.checks
            ],
            "proves": PROVES,
            "does_not_prove": DOES_NOT_PROVE,
        }
