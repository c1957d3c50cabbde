"""All checks of a net, in the order in which one depends on the other."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from grid.errors import FeederError
from grid.feeder import Feeder, feeder_from_net
from grid.validation.connections import Connected, MeterRow, check_meters, connect
from grid.validation.equipment import equipment
from grid.validation.finding import Finding, sorted_findings
from grid.validation.operation import operation
from grid.validation.topology import topology


class Validation:
    """A pandapower net with its meters, checked.

    ``net`` is a copy with a connection point for every meter; ``feeder`` is None and ``connected`` empty
    where an error stands in the way.
    """

    def __init__(self, net: Any, name: str, meters: Sequence[MeterRow] = ()) -> None:
        self.net = copy.deepcopy(net)
        self.feeder: Feeder | None = None
        self.connected: list[Connected] = []
        found = [*equipment(self.net, name), *topology(self.net), *check_meters(self.net, meters)]
        if not _errors(found):
            self.connected = connect(self.net, meters)
            try:
                self.feeder = feeder_from_net(self.net, name)
            except FeederError as error:
                found += [Finding("error", "power flow", p.reason, (p.field,)) for p in error.problems]
            else:
                found += operation(self.feeder, self.connected)
                found += _others(self.feeder, self.connected)
        self.findings = sorted_findings(found)

    @property
    def errors(self) -> list[Finding]:
        return _errors(self.findings)


def _errors(findings: Sequence[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.severity == "error"]


def _others(feeder: Feeder, connected: Sequence[Connected]) -> list[Finding]:
    """What flows without a meter, and meters that the net has no load for."""
    if not connected:
        return []
    metered = {meter.connection_point for meter in connected}
    drawn = {str(name): -float(p_w) for name, p_w in zip(feeder.element, feeder.element_p_w, strict=True)}
    silent = tuple(name for name in drawn if name.startswith("load:") and name not in metered)
    found = []
    if silent:
        total = sum(drawn[name] for name in silent) / 1000
        words = f"{total:.1f} kW of load without a meter: the retailer supplies them, by forecast"
        found.append(Finding("note", "no meter", words, silent))
    empty = tuple(meter.meter for meter in connected if drawn[meter.connection_point] == 0)
    if empty:
        words = "the net has no load for it: without an order 0 W is forecast"
        found.append(Finding("warning", "meters", words, empty))
    return found
