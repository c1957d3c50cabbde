"""A home's next day as a linear program: battery, vehicle and heat pump against prices that are expected.

Minimise what is bought less what is sold, the battery's wear, and what need is left unmet, minus what is
left in the stores at the end, so that in every step

    load + vehicle + heat pump + charge − discharge − solar = bought − sold

with the stores' balances between. The duals of the first balances say what one more kWh in the battery, the
vehicle or the heat store is worth now. Inside, energies are kWh and prices EUR/MWh.

The model is built once and told new numbers each time (Pyomo's mutable parameters with a persistent HiGHS):
about 3 ms a plan, a tenth of building it anew.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import highspy
import numpy as np
import pyomo.environ as pyo
from pyomo.contrib.solver.common.factory import SolverFactory
from pyomo.contrib.solver.common.results import TerminationCondition

from grid.errors import SolverError
from grid.feeder import Floats

STEPS = 24
_FUSE_KWH = 1_000.0
"""More than any connection carries in a step: keeps the program bounded at every price."""


@dataclass(frozen=True)
class Home:
    """What the program is told: Wh, µEUR/kWh; arrays [24], a value for each step.

    ``buy`` and ``sell`` are the prices that are expected (buy ≥ sell). ``battery_step`` is the most that goes
    in or out in a step, ``charged_part`` what is left of it each way, ``*_end`` what is in a store is worth
    at the end. ``ev_max`` is what the charger gives while the vehicle is at home, ``heat_out`` what house and
    losses take from the heat store. ``unmet`` is the price of need that stays unmet.
    """

    buy: Floats
    sell: Floats
    demand: Floats
    sun: Floats
    ev_max: Floats
    heat_max: Floats
    heat_out: Floats
    cop: Floats
    battery_max: float
    battery_step: float
    battery_stored: float
    battery_end: float
    charged_part: float
    wear: float
    ev_need: float
    unmet: float
    heat_store_max: float
    heat_stored: float
    heat_end: float


@dataclass(frozen=True)
class HomePlan:
    """What the program answers: ``cost_ueur``, and what a kWh more would be worth now, µEUR/kWh.

    ``battery_value`` and ``heat_value`` are of what is in the store, ``ev_value`` of what is in the vehicle.
    The arrays [24] are the plan, Wh; heat pump in electricity.
    """

    cost_ueur: float
    battery_value: float
    ev_value: float
    heat_value: float
    charge_wh: Floats
    discharge_wh: Floats
    ev_wh: Floats
    heat_pump_wh: Floats
    bought_wh: Floats
    sold_wh: Floats


# All arrays come before all numbers.
_EXAMPLE = Home(*[np.ones(STEPS)] * 8, *[1.0] * 11)  # type: ignore[arg-type]


def plan_home(home: Home) -> HomePlan:
    """The cheapest day. Raises :class:`SolverError` where there is none, which only bad numbers can do."""
    model, solver = _program()
    for name, values in _parameters(home).items():
        if not np.isfinite(values).all():
            raise SolverError(f"a home's plan was asked for with {name} that is not finite")
        parameter = getattr(model, name)
        if isinstance(values, float):
            parameter.value = values
        else:
            parameter.store_values(dict(enumerate(values.tolist())))
    _forget(solver, model)
    result = solver.solve(model)
    if result.termination_condition != TerminationCondition.convergenceCriteriaSatisfied:
        raise SolverError(f"no plan for a home: {result.termination_condition.name}")
    duals = result.solution_loader.get_duals([model.battery[0], model.heat[0], model.vehicle])
    flows = result.solution_loader.get_vars()

    def wh(variable: Any) -> Floats:
        return np.array([flows[variable[step]] * 1e3 for step in model.steps])

    return HomePlan(
        cost_ueur=float(result.incumbent_objective) * 1e3,
        battery_value=-duals[model.battery[0]] * 1e3,
        ev_value=duals[model.vehicle] * 1e3,
        heat_value=duals[model.heat[0]] * 1e3,
        charge_wh=wh(model.charged),
        discharge_wh=wh(model.discharged),
        ev_wh=wh(model.ev),
        heat_pump_wh=wh(model.heat_pump),
        bought_wh=wh(model.bought),
        sold_wh=wh(model.sold),
    )


def _forget(solver: Any, model: Any) -> None:
    """No other home's basis: the same numbers give the same plan, to which a test holds this.

    The one place that looks behind Pyomo's interface, which has no name for this. A Pyomo that keeps HiGHS
    elsewhere is told to build the model anew: the same plans in three times the time, which a test tells.
    """
    highs = getattr(solver, "_solver_model", None)
    if isinstance(highs, highspy.Highs):
        highs.clearSolver()
    else:
        solver.set_instance(model)


def _parameters(home: Home) -> dict[str, Floats | float]:
    """The model's parameters: kWh, EUR/MWh."""
    heat_out = home.heat_out / 1e3
    return {
        "buy": home.buy / 1e3,
        "sell": home.sell / 1e3,
        "demand": home.demand / 1e3,
        "sun": home.sun / 1e3,
        "ev_max": home.ev_max / 1e3,
        "heat_max": home.heat_max / 1e3,
        "heat_out": heat_out,
        "cop": home.cop,
        "battery_max": home.battery_max / 1e3,
        "battery_step": home.battery_step / 1e3,
        "battery_stored": home.battery_stored / 1e3,
        "battery_end": home.battery_end / 1e3,
        "charged_part": float(home.charged_part),
        "drawn_part": 1 / home.charged_part,
        "wear_each_way": home.wear / 2e3,
        "ev_need": home.ev_need / 1e3,
        "unmet": home.unmet / 1e3,
        "heat_store_max": home.heat_store_max / 1e3,
        "heat_taken": float(heat_out[0]) - home.heat_stored / 1e3,
        "heat_end": home.heat_end / 1e3,
    }


@cache
def _program() -> tuple[Any, Any]:
    """The model and its solver: one of each for all homes of this process."""
    solver = SolverFactory("highs")
    solver.config.load_solutions = False
    solver.config.raise_exception_on_nonoptimal_result = False
    solver.config.threads = 1
    updates = solver.config.auto_updates
    for name in updates:
        updates[name] = name == "update_parameters"  # nothing else ever changes
    model = home_model()
    solver.set_instance(model)
    return model, solver


def home_model() -> Any:
    """The program as a Pyomo model; its parameters are set before it is solved."""
    model = pyo.ConcreteModel()
    model.steps = pyo.RangeSet(0, STEPS - 1)
    for name, values in _parameters(_EXAMPLE).items():
        index = () if isinstance(values, float) else (model.steps,)
        setattr(model, name, pyo.Param(*index, mutable=True, initialize=1.0))

    def flow(most: Any) -> Any:
        return pyo.Var(model.steps, bounds=lambda _, step: (0, most(step)))

    model.bought = flow(lambda _: _FUSE_KWH)
    model.sold = flow(lambda _: _FUSE_KWH)
    model.solar = flow(lambda step: model.sun[step])
    model.charged = flow(lambda _: model.battery_step)
    model.discharged = flow(lambda _: model.battery_step)
    model.in_battery = flow(lambda _: model.battery_max)
    model.ev = flow(lambda step: model.ev_max[step])
    model.heat_pump = flow(lambda step: model.heat_max[step])
    model.in_store = flow(lambda _: model.heat_store_max)
    model.cold = flow(lambda _: _FUSE_KWH)
    model.too_warm = flow(lambda _: _FUSE_KWH)
    model.short = pyo.Var(bounds=(0, _FUSE_KWH))

    model.house = pyo.Constraint(model.steps, rule=_house)
    model.battery = pyo.Constraint(model.steps, rule=_battery)
    model.heat = pyo.Constraint(model.steps, rule=_heat)
    model.vehicle = pyo.Constraint(rule=_vehicle)
    model.cost = pyo.Objective(rule=_cost)
    return model


# Each right side is one parameter, each coefficient one at most: what the solver is told again is then read,
# not computed.


def _house(m: Any, step: int) -> Any:
    used = m.ev[step] + m.heat_pump[step] + m.charged[step] + m.sold[step]
    return m.discharged[step] + m.solar[step] + m.bought[step] - used == m.demand[step]


def _battery(m: Any, step: int) -> Any:
    taken = m.charged_part * m.charged[step] - m.drawn_part * m.discharged[step]
    if step == 0:
        return m.in_battery[step] - taken == m.battery_stored
    return m.in_battery[step] - m.in_battery[step - 1] - taken == 0


def _heat(m: Any, step: int) -> Any:
    made = m.cop[step] * m.heat_pump[step] + m.cold[step] - m.too_warm[step]
    if step == 0:
        return made - m.in_store[step] == m.heat_taken
    return m.in_store[step - 1] + made - m.in_store[step] == m.heat_out[step]


def _vehicle(m: Any) -> Any:
    return sum(m.ev[step] for step in m.steps) + m.short == m.ev_need


def _cost(m: Any) -> Any:
    last = STEPS - 1
    trade = sum(m.buy[step] * m.bought[step] - m.sell[step] * m.sold[step] for step in m.steps)
    worn = sum(m.charged[step] + m.discharged[step] for step in m.steps)
    unmet = m.short + sum(m.cold[step] + m.too_warm[step] for step in m.steps)
    left = m.battery_end * m.in_battery[last] + m.heat_end * m.in_store[last]
    return trade + m.wear_each_way * worn + m.unmet * unmet - left
