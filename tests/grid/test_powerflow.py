"""The power flow agrees with pandapower, and its sensitivities with finite differences."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandapower as pp
import pandapower.networks as pn
import pytest

from grid.catalogue import load_net
from grid.errors import FeederError, PowerFlowError
from grid.feeder import Feeder, feeder_from_arrays, feeder_from_net, feeder_to_arrays
from grid.powerflow import OperatingPoint, PowerFlow

KERBER = Path(__file__).parents[1] / "cases" / "nets" / "kerber_landnetz_frozen.json"


def _meshed_oberrhein() -> Any:
    net = pn.mv_oberrhein()
    net.switch["closed"] = True
    return net


def _three_voltage_levels() -> Any:
    net = pn.example_multivoltage()
    net.gen["in_service"] = False
    net.xward["in_service"] = False
    net.ward["in_service"] = False
    return net


def _taps_shunts_and_parts_out_of_service() -> Any:
    net = load_net("simbench:1-LV-rural1--2-sw")
    net.trafo["tap_changer_type"] = "Ratio"
    net.trafo["tap_pos"] = 2
    net.trafo["parallel"] = 2
    pp.create_shunt(net, net.line.to_bus.iloc[0], q_mvar=-0.01, p_mw=0.001)
    net.line.loc[net.line.index[2], "parallel"] = 2
    net.load.loc[net.load.index[0], "in_service"] = False
    return net


NETS: dict[str, Callable[[], Any]] = {
    "rural1": lambda: load_net("simbench:1-LV-rural1--2-sw"),
    "rural3": lambda: load_net("simbench:1-LV-rural3--2-sw"),
    "mv_rural": lambda: load_net("simbench:1-MV-rural--2-sw"),
    "cigre_lv": pn.create_cigre_network_lv,
    "oberrhein_two_slacks": pn.mv_oberrhein,
    "oberrhein_meshed": _meshed_oberrhein,
    "kerber_frozen": lambda: pp.from_json(str(KERBER)),
    "three_voltage_levels": _three_voltage_levels,
    "taps_shunts_out_of_service": _taps_shunts_and_parts_out_of_service,
}


@pytest.fixture(scope="module", params=sorted(NETS))
def solved(request: pytest.FixtureRequest) -> tuple[Any, Feeder]:
    """A pandapower net with its own power flow results, and its feeder."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pandapower's own, about pandas
        net = NETS[request.param]()
        feeder = feeder_from_net(net, request.param)
        pp.runpp(net, numba=False, tolerance_mva=1e-10)
    return net, feeder


def _injections(feeder: Feeder) -> tuple[np.ndarray, np.ndarray]:
    p_w, q_var = np.zeros(feeder.node_count), np.zeros(feeder.node_count)
    np.add.at(p_w, feeder.element_node, feeder.element_p_w)
    np.add.at(q_var, feeder.element_node, feeder.element_q_var)
    return p_w, q_var


def test_voltages_loadings_and_slack_power_agree_with_pandapower(solved: tuple[Any, Feeder]) -> None:
    net, feeder = solved
    flow = PowerFlow(feeder)
    point = flow.solve(*_injections(feeder))
    assert np.abs(point.v_pu[feeder.bus_node] - net.res_bus.vm_pu.loc[feeder.bus_index]).max() < 1e-8
    loading = point.loading * 100
    for name in np.unique(feeder.branch):
        table, index = str(name).split(":")
        theirs = net[f"res_{table}"].loading_percent[int(index)]
        assert loading[feeder.branch == name].max() == pytest.approx(theirs, abs=1e-6), name
    assert point.slack_w == pytest.approx(net.res_ext_grid.p_mw.sum() * 1e6, abs=1e-2)


def test_sensitivities_agree_with_finite_differences(solved: tuple[Any, Feeder]) -> None:
    _, feeder = solved
    flow = PowerFlow(feeder)
    p_w, q_var = _injections(feeder)
    point = flow.solve(p_w, q_var)
    node = int(feeder.pq[len(feeder.pq) // 2])
    row = int(np.argmax(point.loading))
    nudge = np.zeros(feeder.node_count)
    nudge[node] = 200.0
    up, down = flow.solve(p_w + nudge, q_var), flow.solve(p_w - nudge, q_var)
    by_p, _ = point.slack_gradient
    assert by_p[node] == pytest.approx((up.slack_w - down.slack_w) / 400, rel=1e-5)
    by_p, by_q = flow.limit_gradient(point, np.array([row]), np.array([node]))
    expected = (up.loading[row] - down.loading[row]) / 400
    assert by_p[0, node] == pytest.approx(expected, rel=1e-4, abs=1e-13)
    up, down = flow.solve(p_w, q_var + nudge), flow.solve(p_w, q_var - nudge)
    assert by_q[1, node] == pytest.approx((up.v_pu[node] - down.v_pu[node]) / 400, rel=1e-5)


def test_a_feeder_survives_its_arrays(solved: tuple[Any, Feeder]) -> None:
    _, feeder = solved
    again = feeder_from_arrays({key: array.copy() for key, array in feeder_to_arrays(feeder).items()})
    assert again.sha256 == feeder.sha256
    assert again.node_of(str(feeder.element[0])) == feeder.element_node[0]


def test_the_sparse_path_gives_what_the_dense_path_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    feeder = feeder_from_net(pn.create_cigre_network_lv(), "cigre")
    p_w, q_var = _injections(feeder)
    dense = PowerFlow(feeder)
    monkeypatch.setattr("grid.powerflow.DENSE_NODES_MAX", 1)
    sparse = PowerFlow(feeder)
    ours, theirs = sparse.solve(p_w, q_var), dense.solve(p_w, q_var)
    assert np.abs(ours.v - theirs.v).max() < 1e-11
    assert np.allclose(ours.slack_gradient[0], theirs.slack_gradient[0], atol=1e-10)


def test_injections_beyond_what_the_feeder_carries_have_no_power_flow() -> None:
    feeder = feeder_from_net(pn.create_cigre_network_lv(), "cigre")
    p_w, q_var = _injections(feeder)
    with pytest.raises(PowerFlowError, match="more than it can carry"):
        PowerFlow(feeder).solve(p_w * 200, q_var)


def test_an_island_without_a_slack_is_refused_by_name() -> None:
    net = pn.create_cigre_network_lv()
    bus = pp.create_bus(net, 0.4)
    with pytest.raises(FeederError, match=f"bus:{bus}.*island without a slack"):
        feeder_from_net(net, "cigre")


def test_a_generator_that_holds_a_voltage_is_refused_by_name() -> None:
    net = pn.create_cigre_network_lv()
    pp.create_gen(net, 5, p_mw=0.01, vm_pu=1.0)
    with pytest.raises(FeederError, match=r"gen:0.*holds a voltage"):
        feeder_from_net(net, "cigre")


def test_curvature_agrees_with_differences_of_gradients(solved: tuple[Any, Feeder]) -> None:
    _, feeder = solved
    flow, random = PowerFlow(feeder), np.random.default_rng(1)
    p_w, q_var = _injections(feeder)
    point = flow.solve(p_w, q_var)
    nodes, tan_phi = random.choice(feeder.pq, 3), np.array([0.0, 0.4, -0.3])
    rows = np.argsort(-point.loading)[:2]
    weights_a, weights_v = np.array([2e4, 1e4]), np.array([3e5, 1e5])
    watched = feeder.pq[[len(feeder.pq) // 2, -1]]

    def gradient(at: OperatingPoint) -> tuple[np.ndarray, np.ndarray]:
        weights = np.concatenate([weights_a, weights_v])
        by_p, by_q = (
            slack + weights @ limits
            for slack, limits in zip(at.slack_gradient, flow.limit_gradient(at, rows, watched), strict=True)
        )
        return by_p, by_q

    found = flow.curvature(point, nodes, tan_phi, gradient(point), (rows, weights_a), (watched, weights_v))
    expected = np.zeros((3, 3))
    for k, (node, ratio) in enumerate(zip(nodes, tan_phi, strict=True)):
        nudge = np.zeros(feeder.node_count)
        nudge[node] = 200.0
        up = gradient(flow.solve(p_w + nudge, q_var + ratio * nudge))
        down = gradient(flow.solve(p_w - nudge, q_var - ratio * nudge))
        by_p, by_q = ((a - b) / 400 for a, b in zip(up, down, strict=True))
        expected[k] = by_p[nodes] + tan_phi * by_q[nodes]
    assert np.abs(found - expected).max() < 5e-3 * np.abs(expected).max()
