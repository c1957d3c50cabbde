"""What is ordered fits through the fuse: firm energy first, then what is worth most."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from market.messages.models import Side
from meters.strategies.interface import OfferedStep
from meters.trader import Proposal


def bid(energy_wh: int, limit_price: int) -> OfferedStep:
    return OfferedStep("ev", Side.BID, energy_wh, limit_price)


def ask(energy_wh: int, limit_price: int) -> OfferedStep:
    return OfferedStep("pv", Side.ASK, energy_wh, limit_price)


def test_an_evening_by_hand() -> None:
    """3 × 21 A carry 3,622 Wh: the house goes first, then both halves of the car, the rest to the battery."""
    battery = OfferedStep("battery", Side.BID, 898, 200_000)
    proposal = Proposal(400, 0, 0, (battery, bid(1375, 250_000), bid(1375, 400_000)))
    cut = proposal.within_fuse(3622)
    assert cut.steps == (OfferedStep("battery", Side.BID, 472, 200_000), *proposal.steps[1:])
    assert proposal.within_fuse(3000).steps == (bid(1225, 250_000), bid(1375, 400_000))


def test_cheap_asks_go_before_dear_ones() -> None:
    proposal = Proposal(0, 100, 0, (ask(500, 90_000), ask(500, 10_000)))
    assert proposal.within_fuse(700).steps == (ask(100, 90_000), ask(500, 10_000))


steps = st.lists(
    st.builds(
        OfferedStep,
        st.sampled_from(["pv", "battery", "ev"]),
        st.sampled_from(Side),
        st.integers(1, 9_000),
        st.integers(-100_000, 400_000),
    ),
    max_size=8,
).map(tuple)


@given(st.integers(0, 9_000), st.integers(0, 9_000), steps, st.integers(0, 12_000))
def test_it_fits_each_way_and_gives_up_no_more_than_it_must(
    firm_import_wh: int, firm_export_wh: int, steps: tuple[OfferedStep, ...], fuse_wh: int
) -> None:
    proposal = Proposal(firm_import_wh, firm_export_wh, -5, steps, "memory")
    cut = proposal.within_fuse(fuse_wh)
    assert (cut.firm_q_var, cut.memory) == (-5, "memory")
    assert cut.within_fuse(fuse_wh) == cut
    for side, asked_wh, kept_wh in (
        (Side.BID, firm_import_wh, cut.firm_import_wh),
        (Side.ASK, firm_export_wh, cut.firm_export_wh),
    ):
        assert kept_wh == min(asked_wh, fuse_wh)
        asked_wh += sum(step.energy_wh for step in steps if step.side == side)
        kept_wh += sum(step.energy_wh for step in cut.steps if step.side == side)
        assert kept_wh == min(asked_wh, fuse_wh)
    assert all(step.energy_wh > 0 for step in cut.steps)
