"""The power flow agrees with pandapower's, whatever a balanced net is made of."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pandapower as pp
import pandapower.networks as pn
import pytest

from grid.catalogue import load_net
from grid.errors import FeederError
from grid.feeder import feeder_from_net
from grid.powerflow import DENSE_NODES_MAX, PowerFlow


def _phase_shift_and_taps() -> Any:
    net = pn.create_cigre_network_mv()
    net.trafo["shift_degree"] = 150
    net.trafo["tap_changer_type"], net.trafo["tap_side"] = "Ideal", "hv"
    net.trafo["tap_step_degree"], net.trafo["tap_pos"], net.trafo["tap_neutral"] = 2.0, 2, 0
    return net


def _cross_regulators_and_two_slacks_of_other_angle() -> Any:
    net = pn.mv_oberrhein()
    net.switch["closed"] = True
    net.trafo["tap_changer_type"], net.trafo["tap_step_degree"] = "Symmetrical", 90.0
    net.trafo["tap_pos"] = 3
    second = net.ext_grid.index[1]
    net.ext_grid.loc[second, ["vm_pu", "va_degree"]] = [1.01, 1.0]
    return net


def _a_slack_out_of_service() -> Any:
    net = pn.mv_oberrhein()
    net.switch["closed"] = True
    net.ext_grid.loc[net.ext_grid.index[1], "in_service"] = False
    return net


def _a_generator_as_second_slack() -> Any:
    net = pn.create_cigre_network_mv()
    pp.create_gen(net, 9, p_mw=0.5, vm_pu=1.0, slack=True)
    return net


def _two_slacks_at_one_bus() -> Any:
    net = pn.create_cigre_network_lv()
    pp.create_ext_grid(net, net.ext_grid.bus.iloc[0])
    return net


def _impedance_ward_and_shunt_in_steps() -> Any:
    net = pn.create_cigre_network_mv()
    pp.create_impedance(net, 5, 6, rft_pu=0.01, xft_pu=0.02, sn_mva=1.0, rtf_pu=0.011)
    pp.create_ward(net, 7, 0, 0, 0.1, 0.05)
    pp.create_shunt(net, 8, q_mvar=-0.2, p_mw=0.01, step=2)
    return net


def _switches_with_impedance_and_open_ones() -> Any:
    net = pn.create_cigre_network_mv()
    pp.create_transformer(net, 0, 1, "25 MVA 110/20 kV")
    pp.create_switch(net, 1, net.trafo.index[-1], "t", closed=False)
    line = net.line.index[-1]
    pp.create_switch(net, int(net.line.from_bus.loc[line]), line, "l", closed=False)
    other = pp.create_bus(net, 20.0)
    pp.create_switch(net, 5, other, "b", z_ohm=0.01)
    pp.create_load(net, other, p_mw=0.1, q_mvar=0.02)
    return net


def _a_bus_and_its_parts_out_of_service() -> Any:
    net = pn.create_cigre_network_lv()
    net.bus.loc[net.bus.index[-1], "in_service"] = False
    return net


NETS: dict[str, Callable[[], Any]] = {
    "phase shift and taps": _phase_shift_and_taps,
    "cross regulators, two slacks of other angle": _cross_regulators_and_two_slacks_of_other_angle,
    "a slack out of service": _a_slack_out_of_service,
    "a generator as second slack": _a_generator_as_second_slack,
    "two slacks at one bus": _two_slacks_at_one_bus,
    "impedance, ward, shunt in steps": _impedance_ward_and_shunt_in_steps,
    "switches with impedance, open ones": _switches_with_impedance_and_open_ones,
    "a bus out of service": _a_bus_and_its_parts_out_of_service,
    "semiurb5": lambda: load_net("simbench:1-LV-semiurb5--2-sw"),
    "dickert": pn.create_dickert_lv_network,
    "ring": pn.simple_mv_open_ring_net,
    "more than 3,000 buses": pn.lv_schutterwald,
}


@pytest.mark.parametrize("name", sorted(NETS))
def test_voltages_angles_loadings_and_slack_power_are_pandapower_s(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pandapower's own, about pandas
        net = NETS[name]()
        feeder = feeder_from_net(net, name)
        pp.runpp(net, numba=False, tolerance_mva=1e-10)
    assert (len(feeder.pq) > DENSE_NODES_MAX) == (name == "more than 3,000 buses")  # then by sparse factors
    p_w, q_var = np.zeros(feeder.node_count), np.zeros(feeder.node_count)
    np.add.at(p_w, feeder.element_node, feeder.element_p_w)
    np.add.at(q_var, feeder.element_node, feeder.element_q_var)
    point = PowerFlow(feeder).solve(p_w, q_var)
    theirs = net.res_bus.loc[feeder.bus_index]
    v = theirs.vm_pu.to_numpy() * np.exp(1j * np.deg2rad(theirs.va_degree.to_numpy()))
    assert np.abs(point.v[feeder.bus_node] - v).max() < 1e-8
    for ends in np.unique(feeder.branch):
        table, index = str(ends).split(":")
        loading = point.loading[feeder.branch == ends].max() * 100
        assert loading == pytest.approx(net[f"res_{table}"].loading_percent[int(index)], abs=1e-6), ends
    slack_mw = net.res_ext_grid.p_mw.sum() + (net.res_gen.p_mw.sum() if len(net.gen) else 0.0)
    assert point.slack_w == pytest.approx(slack_mw * 1e6, abs=1e-2)


def test_a_line_that_is_cut_leaves_an_island_whose_buses_are_named() -> None:
    net = load_net("simbench:1-LV-rural1--2-sw")
    net.line.loc[net.line.index[3], "in_service"] = False
    with pytest.raises(FeederError, match=r"bus:\d+.*island without a slack") as caught:
        feeder_from_net(net, "cut")
    assert all(problem.field.startswith("bus:") for problem in caught.value.problems)
