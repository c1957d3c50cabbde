"""The feeder as pandapower sees it: limits from the net's tables, an AC power flow, and its gradients.

Nothing here comes from Peergrid's own feeder model.  Gradients follow from pandapower's admittances and
Jacobian at the solved voltages: for ``f(θ, |V|)``, ``Jᵀλ = ∂f/∂(θ, |V|)`` gives ``λ = ∂f/∂(p, q)``.
Injections are positive into the grid, W and var; currents and loadings are 1.0 at the rating.
"""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pandapower
from pandapower.pypower.dSbus_dV import dSbus_dV
from scipy import sparse
from scipy.sparse.linalg import splu

from grid.errors import PowerFlowError
from market.auction.book import Limits

Floats = npt.NDArray[np.float64]
Complexes = npt.NDArray[np.complex128]

TOLERANCE_MVA = 1e-9
V_MIN_PU_DEFAULT = 0.9
V_MAX_PU_DEFAULT = 1.1
LOADING_PERCENT_DEFAULT = 100.0

_INJECTING = (("load", -1.0), ("sgen", 1.0), ("storage", -1.0))


@dataclass(frozen=True)
class Element:
    """A load, generator or storage of the net: where it is, and what it injects in W and var."""

    bus: int
    p_w: float
    q_var: float


@dataclass(frozen=True)
class LimitedCurrent:
    """The current at one end of a branch: its loading, the limit on that, and the rating in VA."""

    element: str
    side: str
    loading: float
    limit: float
    rating_va: float
    branch: int
    """Row of the branch in pandapower's admittance matrices."""
    at_from_end: bool
    """Which of the two: ``Yf`` or ``Yt``."""

    @property
    def name(self) -> str:
        return f"{self.element}/{self.side}"


@dataclass(frozen=True)
class LimitedVoltage:
    """A node's voltage and the tightest limits of its buses, pu; named by its lowest bus."""

    bus: int
    node: int
    v_pu: float
    v_min_pu: float
    v_max_pu: float


def _column(table: Any, column: str, default: float) -> Floats:
    """A float column, with a default where it is missing or NaN."""
    if column not in table:
        return np.full(len(table), default)
    values = np.array(table[column], dtype=np.float64)
    return np.where(np.isnan(values), default, values)


class Network:
    """A pandapower net; it is copied, never changed."""

    def __init__(self, net: Any) -> None:
        self._net = copy.deepcopy(net)
        self.buses: frozenset[int] = frozenset(net.bus.index[net.bus.in_service.astype(bool)].tolist())
        """Buses in service, by pandapower's table index."""
        self.elements: dict[str, Element] = {}
        """Elements in service that inject power, by name such as ``load:7``."""
        for table, sign in _INJECTING:
            rows = net[table]
            for index, bus, active, scaling, p_mw, q_mvar in zip(
                rows.index, rows.bus, rows.in_service, rows.scaling, rows.p_mw, rows.q_mvar, strict=True
            ):
                if active and bus in self.buses:
                    q_var = 0.0 if np.isnan(q_mvar) else sign * q_mvar * scaling * 1e6
                    self.elements[f"{table}:{index}"] = Element(int(bus), sign * p_mw * scaling * 1e6, q_var)
            self._net[table]["in_service"] = False

    def bus_of(self, connection_point: str) -> int | None:
        """The bus of ``bus:12`` or ``load:7``; None where the net has no such point in service."""
        kind, _, index = connection_point.partition(":")
        if kind == "bus":
            return int(index) if index.isdecimal() and int(index) in self.buses else None
        element = self.elements.get(connection_point)
        return None if element is None else element.bus

    def solve(self, injections: Mapping[int, tuple[float, float]], limits: Limits) -> State:
        """pandapower's power flow with these injections (W, var) by bus and no others.

        Raises :class:`PowerFlowError` where pandapower finds no solution.
        """
        net = copy.copy(self._net)
        net.sgen = net.sgen.copy()
        level = logging.getLogger("pandapower").level
        logging.getLogger("pandapower").setLevel(logging.ERROR)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                if injections:
                    p_w, q_var = zip(*injections.values(), strict=True)
                    p_mw, q_mvar = np.array(p_w) / 1e6, np.array(q_var) / 1e6
                    pandapower.create_sgens(net, list(injections), p_mw=p_mw, q_mvar=q_mvar)
                pandapower.runpp(net, numba=False, tolerance_mva=TOLERANCE_MVA)
        except pandapower.LoadflowNotConverged:
            raise PowerFlowError("pandapower finds no power flow for these injections") from None
        finally:
            logging.getLogger("pandapower").setLevel(level)
        return State(net, limits)


class State:
    """A solved net: voltages, loadings and slack power by pandapower, and gradients of each."""

    def __init__(self, net: Any, limits: Limits) -> None:
        internal = net._ppc["internal"]
        self._internal = internal
        self._base_w = float(internal["baseMVA"]) * 1e6
        self._v: Complexes = np.asarray(internal["V"], dtype=np.complex128)
        self._slack = np.asarray(internal["ref"], dtype=np.int64)
        self.node_count = len(self._v)
        buses = np.sort(net.bus.index[net.bus.in_service.astype(bool)].to_numpy(dtype=np.int64))
        nodes = np.asarray(net._pd2ppc_lookups["bus"], dtype=np.int64)[buses]
        self.node_of_bus: dict[int, int] = dict(zip(buses.tolist(), nodes.tolist(), strict=True))
        """Node of each bus in service; closed bus-bus switches fuse buses into one node."""
        self.slack_w = 1e6 * float(net.res_ext_grid.p_mw.sum() + _slack_generation_mw(net))
        """Net active power from all slacks into the feeder (import > 0)."""
        self.voltages = tuple(_limited_voltages(net, limits, self.node_of_bus, set(self._slack.tolist())))
        self.currents = tuple(_limited_currents(net, limits))
        others = np.setdiff1d(np.arange(self.node_count), self._slack)
        v_pu = np.abs(self._v[others])
        self.v_min_pu = float(v_pu.min(initial=np.inf))
        """The lowest and the highest voltage of the nodes that are no slack."""
        self.v_max_pu = float(v_pu.max(initial=-np.inf))
        self._others = others

    def limits_document(self) -> dict[str, list[float | None]]:
        """The limits in the order of pandapower's nodes and branch ends, as the record's hash has them."""
        low, high = [0.0] * self.node_count, [np.inf] * self.node_count
        for voltage in self.voltages:
            low[voltage.node], high[voltage.node] = voltage.v_min_pu, voltage.v_max_pu
        return {
            "v_min_pu": np.round(low, 9).tolist(),
            "v_max_pu": [v if np.isfinite(v) else None for v in np.round(high, 9).tolist()],
            "loading": np.round([current.limit for current in self.currents], 9).tolist(),
        }

    @cached_property
    def _injection_slopes(self) -> tuple[Any, Any]:
        """∂S/∂θ and ∂S/∂|V| [n, n], complex pu."""
        by_magnitude, by_angle = dSbus_dV(sparse.csr_matrix(self._internal["Ybus"]), self._v)
        return sparse.csr_matrix(by_angle), sparse.csr_matrix(by_magnitude)

    @cached_property
    def _transposed_jacobian(self) -> Any:
        by_angle, by_magnitude = (slope[self._others][:, self._others] for slope in self._injection_slopes)
        jacobian = sparse.bmat(
            [[by_angle.real, by_magnitude.real], [by_angle.imag, by_magnitude.imag]], format="csc"
        )
        return splu(sparse.csc_matrix(jacobian.T))

    def _gradients(self, by_angle: Floats, by_magnitude: Floats) -> tuple[Floats, Floats]:
        """∂f/∂p and ∂f/∂q [k, n], per W and var, of quantities with these slopes [k, n] in θ and |V|."""
        count, others = len(by_angle), self._others
        by_p, by_q = np.zeros((count, self.node_count)), np.zeros((count, self.node_count))
        if count and len(others):
            slopes = np.hstack([by_angle[:, others], by_magnitude[:, others]])
            solved = self._transposed_jacobian.solve(np.ascontiguousarray(slopes.T)).T
            by_p[:, others], by_q[:, others] = np.hsplit(solved / self._base_w, 2)
        return by_p, by_q

    def slack_gradient(self) -> tuple[Floats, Floats]:
        """∂slack_w/∂p and ∂slack_w/∂q [n]; −1 for p at a slack node."""
        by_angle, by_magnitude = (
            np.asarray(slope[self._slack].real.sum(axis=0)) * self._base_w for slope in self._injection_slopes
        )
        by_p, by_q = self._gradients(np.atleast_2d(by_angle), np.atleast_2d(by_magnitude))
        by_p[0, self._slack] = -1.0
        return by_p[0], by_q[0]

    def voltage_gradients(self, nodes: Sequence[int]) -> tuple[Floats, Floats]:
        """∂|V|/∂p and ∂q [k, n], pu per W and var, of k nodes that are no slack."""
        by_magnitude = np.zeros((len(nodes), self.node_count))
        by_magnitude[np.arange(len(nodes)), list(nodes)] = 1.0
        return self._gradients(np.zeros_like(by_magnitude), by_magnitude)

    def current_gradients(self, currents: Sequence[LimitedCurrent]) -> tuple[Floats, Floats]:
        """∂loading/∂p and ∂q [k, n], ratings per W and var."""
        by_angle, by_magnitude = np.zeros((2, len(currents), self.node_count))
        direction = self._v / np.abs(self._v)
        for row, limited in enumerate(currents):
            matrix = self._internal["Yf" if limited.at_from_end else "Yt"]
            admittance = sparse.csr_matrix(matrix)[limited.branch].toarray().ravel()
            current = complex(admittance @ self._v)
            along = np.conj(current) / max(abs(current), 1e-12) * (self._base_w / limited.rating_va)
            by_angle[row] = (along * 1j * admittance * self._v).real
            by_magnitude[row] = (along * admittance * direction).real
        return self._gradients(by_angle, by_magnitude)


def _slack_generation_mw(net: Any) -> float:
    """What generators that act as a slack feed in."""
    if not len(net.gen):
        return 0.0
    return float(net.res_gen.p_mw[net.gen.in_service.astype(bool) & net.gen.slack.astype(bool)].sum())


def _limited_voltages(
    net: Any, limits: Limits, node_of_bus: Mapping[int, int], slack: set[int]
) -> Iterable[LimitedVoltage]:
    """Every node that has buses and is no slack, by ascending bus."""
    table = net.bus
    own_low = dict(zip(table.index.tolist(), _column(table, "min_vm_pu", V_MIN_PU_DEFAULT), strict=True))
    own_high = dict(zip(table.index.tolist(), _column(table, "max_vm_pu", V_MAX_PU_DEFAULT), strict=True))
    buses_of: dict[int, list[int]] = {}
    for bus, node in node_of_bus.items():
        buses_of.setdefault(node, []).append(bus)
    share = limits.security_margin_percent / 100
    for node, buses in buses_of.items():
        if node in slack:
            continue
        low = max(float(own_low[bus]) for bus in buses) if limits.v_min_pu is None else limits.v_min_pu
        high = min(float(own_high[bus]) for bus in buses) if limits.v_max_pu is None else limits.v_max_pu
        inward = (high - low) * share / 2
        yield LimitedVoltage(
            bus=buses[0],
            node=node,
            v_pu=float(net.res_bus.vm_pu[buses[0]]),
            v_min_pu=low + inward,
            v_max_pu=high - inward,
        )


_WINDINGS = {
    "trafo": (("hv", 0, True), ("lv", 0, False)),
    "trafo3w": (("hv", 0, True), ("mv", 1, False), ("lv", 2, False)),
}
"""Each winding's side, which of the table's blocks of branches it is, and whether at the from end."""


def _limited_currents(net: Any, limits: Limits) -> Iterable[LimitedCurrent]:
    """Both ends of lines, every winding of transformers, where in service and rated.

    A line is rated max_i_ka · df · parallel, a winding sn_mva · df · parallel / (√3 · vn_kv).
    """
    in_service = np.asarray(net._ppc["internal"]["branch_is"], dtype=bool)
    row_of = np.cumsum(in_service) - 1
    first = {table: bounds[0] for table, bounds in net._pd2ppc_lookups["branch"].items()}

    def rated(
        table: str, side: str, block: int, at_from_end: bool, rating_ka: Floats, base_kv: Floats
    ) -> Iterable[LimitedCurrent]:
        rows = net[table]
        own = _column(rows, "max_loading_percent", LOADING_PERCENT_DEFAULT)
        flowing_ka = net[f"res_{table}"][f"i_{side}_ka"].to_numpy(dtype=np.float64)
        for row, index in enumerate(rows.index):
            branch = first[table] + block * len(rows) + row
            if not in_service[branch] or not rating_ka[row] > 0 or not np.isfinite(rating_ka[row]):
                continue
            percent = own[row] if limits.max_loading_percent is None else limits.max_loading_percent
            yield LimitedCurrent(
                element=f"{table}:{index}",
                side=side,
                loading=float(flowing_ka[row] / rating_ka[row]),
                limit=float(percent) / 100 * (1 - limits.security_margin_percent / 100),
                rating_va=float(np.sqrt(3) * base_kv[row] * rating_ka[row] * 1e6),
                branch=int(row_of[branch]),
                at_from_end=at_from_end,
            )

    if len(net.line):
        line = net.line
        rating_ka = _column(line, "max_i_ka", np.nan) * _column(line, "df", 1) * _column(line, "parallel", 1)
        for side, at_from_end in (("from", True), ("to", False)):
            base_kv = _bus_kv(net, line[f"{side}_bus"])
            yield from rated("line", side, 0, at_from_end, rating_ka, base_kv)
    for table, windings in _WINDINGS.items():
        rows = net[table]
        if not len(rows):
            continue
        for side, block, at_from_end in windings:
            size = "sn_mva" if table == "trafo" else f"sn_{side}_mva"
            power = _column(rows, size, np.nan)
            if table == "trafo":
                power = power * _column(rows, "df", 1) * _column(rows, "parallel", 1)
            rating_ka = power / (np.sqrt(3) * _column(rows, f"vn_{side}_kv", np.nan))
            base_kv = _bus_kv(net, rows[f"{side}_bus"])
            yield from rated(table, side, block, at_from_end, rating_ka, base_kv)


def _bus_kv(net: Any, buses: Any) -> Floats:
    return np.asarray(net.bus.vn_kv.loc[buses].to_numpy(dtype=np.float64))
