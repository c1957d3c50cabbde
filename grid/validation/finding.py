"""What a check of a net has found."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
_NAMED_MAX = 5


@dataclass(frozen=True)
class Finding:
    """``error``: no market can run on it; ``warning``: a wrong net is likely, or a limit is missing;
    ``note``: to be known. ``elements`` are what it is about (``line:4``, ``meter:…``), ``check`` is its kind.
    """

    severity: Severity
    check: str
    text: str
    elements: tuple[str, ...] = ()

    def __str__(self) -> str:
        named = ", ".join(self.elements[:_NAMED_MAX])
        more = len(self.elements) - _NAMED_MAX
        rest = f" and {more} more" if more > 0 else ""
        return f"{self.check}: {named}{rest}{': ' if named else ''}{self.text}"

    def document(self) -> dict[str, Any]:
        """As JSON values."""
        return {**vars(self), "elements": list(self.elements)}


def sorted_findings(findings: Iterable[Finding]) -> list[Finding]:
    """Errors first, otherwise as they were found."""
    return sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))
