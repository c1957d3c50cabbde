"""What becomes of registers."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from market.accounts.metering import Flag, Metered, Registers, metered_energy


def at(taken_at: int, import_wh: int, export_wh: int = 0, *, epoch: int = 0, quality: int = 0) -> Registers:
    return Registers(epoch, taken_at, taken_at, import_wh, export_wh, quality)


def test_registers_within_thirty_seconds_of_the_boundaries_count_as_they_are() -> None:
    assert metered_energy([at(30, 100), at(870, 350, 7)], 0, 900) == Metered(250, 7, Flag.MEASURED)
    assert metered_energy([at(0, 100, quality=1), at(900, 350)], 0, 900) == Metered(250, 0, Flag.ESTIMATED)


def test_a_register_read_elsewhere_is_interpolated_and_flagged() -> None:
    readings = [at(0, 0), at(1800, 1001)]
    assert metered_energy(readings, 0, 900) == Metered(500, 0, Flag.INTERPOLATED)
    assert metered_energy(readings, 900, 1800) == Metered(501, 0, Flag.INTERPOLATED)


def test_no_energy_is_told_across_a_new_epoch_a_gap_or_a_register_that_runs_backwards() -> None:
    assert metered_energy([at(0, 100), at(900, 5, epoch=1)], 0, 900) is None
    assert metered_energy([at(0, 100)], 0, 900) is None
    assert metered_energy([at(0, 100), at(900, 99)], 0, 900) is None


@given(
    st.lists(st.integers(0, 900), min_size=2, max_size=9),
    st.lists(st.integers(0, 500), min_size=9, max_size=9),
)
def test_interpolated_intervals_add_up_to_the_exact_total(offsets, steps) -> None:
    times = [0, *sorted({300 * offset for offset in offsets}), 300 * 901]
    registers, total = [], 0
    for index, taken_at in enumerate(times):
        total += steps[index % len(steps)]
        registers.append(at(taken_at, total))
    ends = list(range(0, 300 * 901, 900))
    parts = [metered_energy(registers, a, b) for a, b in pairwise(ends)]
    whole = metered_energy(registers, ends[0], ends[-1])
    assert whole is not None
    assert sum(part.import_wh for part in parts if part) == whole.import_wh
