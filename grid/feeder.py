"""A distribution feeder as frozen arrays, made from a pandapower net.

Nodes are what is left of the net's in-service buses after closed bus-bus switches are fused
(plus the auxiliary nodes pandapower adds for open line ends and three-winding transformers).
Injections are positive into the grid.  Inside, power is per unit of ``base_va``, voltages and
admittances are complex per unit, and currents are scaled so that 1.0 is the rating of the branch.
"""

from __future__ import annotations

import copy
import hashlib
import json
import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from grid.errors import FeederError, Problem

Floats = npt.NDArray[np.float64]
Complexes = npt.NDArray[np.complex128]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Names = npt.NDArray[np.str_]
Objects = npt.NDArray[np.object_]

V_MIN_PU_DEFAULT = 0.9
V_MAX_PU_DEFAULT = 1.1
LOADING_PERCENT_DEFAULT = 100.0

# Elements that inject power: table, sign of p_mw as an injection.
_INJECTING = (("load", -1.0), ("sgen", 1.0), ("storage", -1.0))
_UNSUPPORTED = (
    "xward",
    "motor",
    "dcline",
    "svc",
    "ssc",
    "tcsc",
    "vsc",
    "line_dc",
    "asymmetric_load",
    "asymmetric_sgen",
)


@dataclass(frozen=True, eq=False)
class Feeder:
    """One distribution network, ready for power flow and clearing.

    n nodes (s of them slack), m limited branches, two ends each, e injecting elements.
    """

    name: str
    base_va: float
    """Base of the per-unit powers, VA."""

    bus_index: Ints
    """Energised buses, pandapower's table index, ascending."""
    bus_node: Ints
    """The node of each of them."""
    node_count: int
    slack: Ints
    """Slack nodes, ascending."""
    v_slack: Complexes
    """Their voltages, pu."""

    y_indptr: Ints
    y_indices: Ints
    y_data: Complexes
    """Bus admittance matrix [n, n], CSR, pu."""

    branch: Names
    """Limited branches: ``line:4``, ``trafo:0``, ``trafo3w:1``, m of them."""
    side: Names
    """The end of each limited current: ``from``/``to``, ``hv``/``mv``/``lv``."""
    branch_limit_percent: Floats
    """Largest loading of each limited current, percent of its rating."""
    rating_va: Floats
    """√3 · nominal voltage · rated current of each limited current, VA."""
    i_indptr: Ints
    i_indices: Ints
    i_data: Complexes
    """Limited currents as a linear map of node voltages [m, n], CSR; |I| = 1 is the rating."""

    v_min_pu: Floats
    v_max_pu: Floats
    """Voltage limits [n]; slack and auxiliary nodes have none (0, inf)."""
    v_bus: Ints
    """The bus that names the voltage limit of a node; −1 for auxiliary nodes."""

    element: Names
    """Injecting elements by name: ``load:7``, ``sgen:0``, ``storage:2``."""
    element_node: Ints
    element_bus: Ints
    element_p_w: Floats
    element_q_var: Floats
    """Their injections as the net has them (in service × scaling), W and var."""

    line_from: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    line_to: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    """For drawings: the nodes that each in-service branch joins [b]."""
    line_name: Names = field(default_factory=lambda: np.zeros(0, "<U16"))
    bus_x: Floats = field(default_factory=lambda: np.zeros(0))
    bus_y: Floats = field(default_factory=lambda: np.zeros(0))
    """Coordinates of ``bus_index`` where the net has them, else NaN."""

    @cached_property
    def admittance(self) -> sparse.csr_matrix:
        """Y_bus [n, n], complex pu."""
        shape = (self.node_count, self.node_count)
        return sparse.csr_matrix((self.y_data, self.y_indices, self.y_indptr), shape=shape)

    @cached_property
    def current_map(self) -> sparse.csr_matrix:
        """[m, n]: node voltages to limited currents, in units of their rating."""
        shape = (len(self.branch), self.node_count)
        return sparse.csr_matrix((self.i_data, self.i_indices, self.i_indptr), shape=shape)

    @cached_property
    def pq(self) -> Ints:
        """Nodes that are no slack, ascending."""
        return np.setdiff1d(np.arange(self.node_count), self.slack)

    @cached_property
    def _node_of_bus(self) -> dict[int, int]:
        return dict(zip(self.bus_index.tolist(), self.bus_node.tolist(), strict=True))

    @cached_property
    def _node_of_element(self) -> dict[str, int]:
        return dict(zip(self.element.tolist(), self.element_node.tolist(), strict=True))

    def node_of(self, connection_point: str) -> int | None:
        """The node of ``bus:12`` or ``load:7``; None where the feeder has no such point in service."""
        kind, _, index = connection_point.partition(":")
        if kind == "bus":
            return self._node_of_bus.get(int(index)) if index.isdecimal() else None
        return self._node_of_element.get(connection_point)

    @cached_property
    def sha256(self) -> str:
        """Hash of everything that a power flow or a limit depends on."""
        digest = hashlib.sha256()
        for name, value in self._arrays():
            if name in ("element_p_w", "element_q_var", "bus_x", "bus_y"):
                continue
            rounded = _nine_digits(value) if value.dtype.kind in "fc" else value
            digest.update(name.encode() + str(rounded.shape).encode() + rounded.tobytes())
        return digest.hexdigest()

    def _arrays(self) -> Iterator[tuple[str, npt.NDArray[Any]]]:
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, np.ndarray):
                yield item.name, value


def _nine_digits(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Rounded to nine significant digits of the largest: what differs between processors is less."""
    largest = np.abs(values[np.isfinite(values)]).max(initial=0.0)
    digits = 9 - int(np.ceil(np.log10(largest))) if largest > 0 else 0
    rounded: npt.NDArray[Any] = np.round(values, digits) + 0.0
    return rounded


def feeder_to_arrays(feeder: Feeder) -> dict[str, npt.NDArray[Any]]:
    """Everything of a feeder as arrays that ``numpy.savez`` takes."""
    return {item.name: np.asarray(getattr(feeder, item.name)) for item in fields(feeder)}


def feeder_from_arrays(arrays: dict[str, npt.NDArray[Any]]) -> Feeder:
    """The inverse of :func:`feeder_to_arrays`."""
    values: dict[str, Any] = {}
    for item in fields(Feeder):
        value = arrays[item.name]
        if value.ndim == 0:
            values[item.name] = value.item()
        else:
            value.flags.writeable = False
            values[item.name] = value
    return Feeder(**values)


def refused(net: Any, name: str) -> list[Problem]:
    """What the model does not represent, by name."""
    problems: list[Problem] = []

    def refuse(table: str, rows: Any, reason: str) -> None:
        problems.extend(Problem(name, f"{table}:{index}", "in service", reason) for index in rows)

    if len(net.gen):
        holding = net.gen.index[net.gen.in_service & ~net.gen.slack.astype(bool)]
        refuse("gen", holding, "holds a voltage (PV node), which is not supported")
    for table in _UNSUPPORTED:
        if table in net and len(net[table]) and "in_service" in net[table]:
            reason = f"is a {table}, which the feeder model does not represent"
            refuse(table, net[table].index[net[table].in_service.astype(bool)], reason)
    for column in ("const_z_p_percent", "const_i_p_percent", "const_z_q_percent", "const_i_q_percent"):
        if column in net.load:
            dependent = net.load.index[net.load.in_service & (net.load[column].fillna(0) != 0)]
            refuse("load", dependent, f"depends on voltage ({column}), which is not supported")
    if len(net.ward):
        constant = (net.ward[["ps_mw", "qs_mvar"]] != 0).any(axis=1) & net.ward.in_service
        refuse("ward", net.ward.index[constant], "has constant power: make it a load")
    if not (net.ext_grid.in_service.any() or (len(net.gen) and (net.gen.in_service & net.gen.slack).any())):
        problems.append(
            Problem(name, "ext_grid", None, "no slack: the feeder needs an external grid in service")
        )
    return problems


def _solve_unloaded(net: Any, name: str) -> Any:
    """The net without injections, solved once by pandapower for its matrices and numberings."""
    import pandapower as pp  # slow to import, and needed only where a net is not in the cache yet

    bare = copy.deepcopy(net)
    for table, _ in _INJECTING:
        bare[table]["in_service"] = False
    level = logging.getLogger("pandapower").level
    logging.getLogger("pandapower").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pp.runpp(bare, numba=False)
    except Exception as error:
        reason = f"pandapower finds no power flow even without load ({type(error).__name__}: {error})"
        raise FeederError([Problem(name, "net", "unloaded", reason)]) from error
    finally:
        logging.getLogger("pandapower").setLevel(level)
    return bare


def _column(table: Any, column: str, default: float) -> Floats:
    """A float column with a default where it is missing or NaN."""
    if column not in table:
        return np.full(len(table), default)
    values = np.array(table[column], dtype=np.float64)
    return np.where(np.isnan(values), default, values)


def _voltage_limits(
    net: Any, bus_index: Ints, bus_node: Ints, node_count: int, slack: Ints
) -> tuple[Floats, Floats, Ints]:
    """The tightest limits of each node's buses, and the lowest bus index as its name."""
    table = net.bus.loc[bus_index]
    v_min, v_max = np.zeros(node_count), np.full(node_count, np.inf)
    np.maximum.at(v_min, bus_node, _column(table, "min_vm_pu", V_MIN_PU_DEFAULT))
    np.minimum.at(v_max, bus_node, _column(table, "max_vm_pu", V_MAX_PU_DEFAULT))
    v_min[slack], v_max[slack] = 0.0, np.inf
    name = np.full(node_count, np.iinfo(np.int64).max)
    np.minimum.at(name, bus_node, bus_index)
    name[name == np.iinfo(np.int64).max] = -1
    return v_min, v_max, name


def _limited_currents(net: Any, internal: Any) -> dict[str, Any]:
    """The currents that have a rating: both ends of lines, each winding of transformers.

    A line's rating is max_i_ka · df · parallel, a winding's sn_mva · df · parallel / (√3 vn_kv):
    the definitions behind pandapower's ``loading_percent`` (``trafo_loading="current"``).
    """
    lookup = net._pd2ppc_lookups["branch"]
    in_service = np.asarray(internal["branch_is"], dtype=bool)
    position = np.cumsum(in_service) - 1
    base_kv = np.real(internal["bus"][:, 9])
    base_mva = float(internal["baseMVA"])
    ends = {
        "f": (sparse.csr_matrix(internal["Yf"]), np.real(internal["branch"][:, 0]).astype(int)),
        "t": (sparse.csr_matrix(internal["Yt"]), np.real(internal["branch"][:, 1]).astype(int)),
    }
    names: list[str] = []
    sides: list[str] = []
    percents: list[float] = []
    ratings_va: list[float] = []
    rows: list[sparse.csr_matrix] = []

    def add(table: str, offset: int, end: str, side: str, rating_ka: Floats) -> None:
        percent = _column(net[table], "max_loading_percent", LOADING_PERCENT_DEFAULT)
        y, nodes = ends[end]
        for row, index in enumerate(net[table].index):
            external = lookup[table][0] + offset + row
            if not in_service[external] or not np.isfinite(rating_ka[row]) or rating_ka[row] <= 0:
                continue
            branch = position[external]
            unit_ka = base_mva / (np.sqrt(3) * base_kv[nodes[branch]])
            names.append(f"{table}:{index}")
            sides.append(side)
            percents.append(float(percent[row]))
            ratings_va.append(float(rating_ka[row] / unit_ka) * base_mva * 1e6)
            rows.append(y[branch] * (unit_ka / rating_ka[row]))

    if len(net.line):
        rating = (
            _column(net.line, "max_i_ka", np.nan)
            * _column(net.line, "df", 1)
            * _column(net.line, "parallel", 1)
        )
        for end, side in (("f", "from"), ("t", "to")):
            add("line", 0, end, side, rating)
    if len(net.trafo):
        power = (
            _column(net.trafo, "sn_mva", np.nan)
            * _column(net.trafo, "df", 1)
            * _column(net.trafo, "parallel", 1)
        )
        for end, side in (("f", "hv"), ("t", "lv")):
            add("trafo", 0, end, side, power / (np.sqrt(3) * _column(net.trafo, f"vn_{side}_kv", np.nan)))
    if len(net.trafo3w):
        count = len(net.trafo3w)
        for block, (end, side) in enumerate((("f", "hv"), ("t", "mv"), ("t", "lv"))):
            power = _column(net.trafo3w, f"sn_{side}_mva", np.nan)
            volts = _column(net.trafo3w, f"vn_{side}_kv", np.nan)
            add("trafo3w", block * count, end, side, power / (np.sqrt(3) * volts))
    shape = (0, len(internal["bus"]))
    matrix = sparse.vstack(rows, format="csr") if rows else sparse.csr_matrix(shape, dtype=np.complex128)
    matrix.sort_indices()
    return {
        "branch": np.array(names, dtype=np.str_),
        "side": np.array(sides, dtype=np.str_),
        "branch_limit_percent": np.array(percents),
        "rating_va": np.array(ratings_va),
        "i_indptr": matrix.indptr.astype(np.int64),
        "i_indices": matrix.indices.astype(np.int64),
        "i_data": matrix.data.astype(np.complex128),
    }


def _elements(net: Any, node_of_bus: dict[int, int]) -> tuple[Names, Ints, Ints, Floats, Floats]:
    names, nodes, buses, p_w, q_var = [], [], [], [], []
    for table, sign in _INJECTING:
        rows = net[table]
        for index, bus, active, scaling, p_mw, q_mvar in zip(
            rows.index, rows.bus, rows.in_service, rows.scaling, rows.p_mw, rows.q_mvar, strict=True
        ):
            if not active or bus not in node_of_bus:
                continue
            names.append(f"{table}:{index}")
            nodes.append(node_of_bus[bus])
            buses.append(int(bus))
            p_w.append(sign * p_mw * scaling * 1e6)
            q_var.append(sign * (0.0 if np.isnan(q_mvar) else q_mvar) * scaling * 1e6)
    return (
        np.array(names, dtype=np.str_),
        np.array(nodes, dtype=np.int64),
        np.array(buses, dtype=np.int64),
        np.array(p_w, dtype=np.float64),
        np.array(q_var, dtype=np.float64),
    )


def _coordinates(net: Any, bus_index: Ints) -> tuple[Floats, Floats]:
    """Bus coordinates from ``bus.geo`` (GeoJSON points); NaN where there are none."""
    x, y = np.full(len(bus_index), np.nan), np.full(len(bus_index), np.nan)
    if "geo" in net.bus:
        for row, text in enumerate(net.bus.geo.loc[bus_index]):
            if isinstance(text, str) and text:
                x[row], y[row] = json.loads(text)["coordinates"][:2]
    return x, y


def _drawn_branches(net: Any, internal: Any) -> tuple[Ints, Ints, Names]:
    """Nodes that each in-service branch joins, and its name."""
    lookup = net._pd2ppc_lookups["branch"]
    external = np.flatnonzero(np.asarray(internal["branch_is"], dtype=bool))
    names = np.full(len(external), "", dtype="<U24")
    for table, (first, last) in lookup.items():
        if table not in net:
            continue
        inside = np.flatnonzero((external >= first) & (external < last))
        index = np.asarray(net[table].index)
        if len(index):
            names[inside] = [f"{table}:{index[(external[i] - first) % len(index)]}" for i in inside]
    ends = np.real(internal["branch"][:, :2]).astype(np.int64)
    return ends[:, 0], ends[:, 1], names


def feeder_from_net(net: Any, name: str) -> Feeder:
    """The feeder of a pandapower net.

    Raises :class:`FeederError` for what the model does not represent (generators that hold a
    voltage, islands without a slack, …), each by name.
    """
    problems = refused(net, name)
    if problems:
        raise FeederError(problems)
    bare = _solve_unloaded(net, name)
    internal = bare._ppc["internal"]
    node_count = len(internal["bus"])
    lookup = bare._pd2ppc_lookups["bus"]
    in_service = net.bus.index[net.bus.in_service.astype(bool)].to_numpy(dtype=np.int64)
    bus_index = np.sort(in_service)
    bus_node = np.asarray(lookup, dtype=np.int64)[bus_index]
    dark = bus_index[(bus_node < 0) | (bus_node >= node_count)]
    if len(dark):
        reason = "is in an island without a slack: connect it or take it out of service"
        raise FeederError(Problem(name, f"bus:{bus}", "in service", reason) for bus in dark)
    slack = np.sort(np.asarray(internal["ref"], dtype=np.int64))
    v_min, v_max, v_bus = _voltage_limits(net, bus_index, bus_node, node_count, slack)
    y = sparse.csr_matrix(internal["Ybus"])
    y.sort_indices()
    element, element_node, element_bus, p_w, q_var = _elements(
        net, dict(zip(bus_index.tolist(), bus_node.tolist(), strict=True))
    )
    line_from, line_to, line_name = _drawn_branches(bare, internal)
    bus_x, bus_y = _coordinates(net, bus_index)
    arrays: dict[str, Any] = {
        "name": np.array(name),
        "base_va": np.array(float(internal["baseMVA"]) * 1e6),
        "bus_index": bus_index,
        "bus_node": bus_node,
        "node_count": np.array(node_count),
        "slack": slack,
        "v_slack": np.asarray(internal["V"], dtype=np.complex128)[slack],
        "y_indptr": y.indptr.astype(np.int64),
        "y_indices": y.indices.astype(np.int64),
        "y_data": y.data.astype(np.complex128),
        **_limited_currents(bare, internal),
        "v_min_pu": v_min,
        "v_max_pu": v_max,
        "v_bus": v_bus,
        "element": element,
        "element_node": element_node,
        "element_bus": element_bus,
        "element_p_w": p_w,
        "element_q_var": q_var,
        "line_from": line_from,
        "line_to": line_to,
        "line_name": line_name,
        "bus_x": bus_x,
        "bus_y": bus_y,
    }
    return feeder_from_arrays(arrays)
