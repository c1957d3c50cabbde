"""The report's pure parts: ticks, layout, price interval."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from market.drawing.curves import Curves, Step, price_interval
from market.drawing.feeder_map import Topology, layout, spanning_tree
from market.drawing.plot import clock_time, ticks
from market.drawing.units import eur, kwh, percent


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6), st.integers(3, 12))
def test_ticks_are_few_ordered_and_inside(low: float, span: float, count: int) -> None:
    found = ticks(low, low + span, count)
    assert 1 <= len(found) <= count + 1
    assert found == sorted(found)
    assert all(low - 1e-6 * span <= value <= low + span * (1 + 1e-6) for value in found)


@given(st.integers(1, 80), st.data())
def test_no_two_nodes_of_a_drawing_share_a_place(count: int, data: st.DataObject) -> None:
    parents = [data.draw(st.integers(0, node - 1)) for node in range(1, count)]
    extra = data.draw(st.lists(st.tuples(st.integers(0, count - 1), st.integers(0, count - 1)), max_size=5))
    branches = [(parent, node, f"line:{node}") for node, parent in enumerate(parents, 1)]
    branches += [(start, end, "tie") for start, end in extra]
    topology = Topology(count, [0], branches, [""] * count)
    places = layout(topology)
    assert len(set(places)) == count
    depth, parent, _ = spanning_tree(topology)
    assert all(depth[node] == depth[parent[node]] + 1 for node in range(1, count))


steps = st.lists(
    st.builds(Step, st.integers(1, 10_000), st.none() | st.integers(-100_000, 500_000)), max_size=12
)


@given(steps, steps)
def test_the_price_interval_lies_between_the_retailers_prices_and_balances(
    demand: list[Step], supply: list[Step]
) -> None:
    curves = Curves(demand, supply, 0, 0, 0, 0.0, 0, 280_000, 80_000)
    low, high = price_interval(curves)
    assert 80_000 <= low <= high <= 280_000
    middle = (low + high) / 2

    def energy(side: list[Step], takes: bool, at_limit: bool) -> int:
        return sum(
            step.energy_wh
            for step in side
            if step.price is None
            or (step.price > middle if takes else step.price < middle)
            or (at_limit and step.price == middle)
        )

    least = energy(demand, True, False) - energy(supply, False, True)
    most = energy(demand, True, True) - energy(supply, False, False)
    # Left-over demand is served by the retailer at its price only, left-over supply sold to it at its own.
    assert least <= 0 or middle == 280_000
    assert most >= 0 or middle == 80_000


def test_times_and_units_read_as_people_write_them() -> None:
    assert clock_time(0) == "00:00"
    assert clock_time(24) == "24:00"
    assert clock_time(25.5) == "01:30"
    assert kwh(1_234_567, 1) == "1\u202f234.6 kWh"
    assert eur(-1_500_000_000) == "−1.50 EUR"
    assert eur(-1) == "0.00 EUR"
    assert percent(0.123) == "12.3 %"
