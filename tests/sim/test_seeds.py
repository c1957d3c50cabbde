"""Promises of the simulation. A seed that fails is run again alone with ``PEERGRID_TEST_SEED=<number>``.

In simulated time: whatever network, disk, power and chain do, the day ends as one without faults, to the last
row. On the wall clock, in virtual time: no interval is lost, each is cleared or suspended once, all become
final, nothing receipted is missing, no order is taken after its gate, ledger and chain agree, everything
follows from the journal, and soon after the faults trading is normal.

``PEERGRID_TEST_SEEDS=<first>-<last>`` runs others than CI does.
"""

from __future__ import annotations

import os
import shutil
import sys
import traceback
from collections.abc import Callable
from itertools import chain, cycle, pairwise
from pathlib import Path

import pytest

from market.accounts.ledger import combine
from market.service.batching import Batches
from market.service.networks import Networks
from market.service.replay import Replay
from market.service.settling import Settling
from market.service.store import Store, intervals, money
from tests.faults.promise import promise
from tests.service.process import query
from tests.service.scene import SECONDS
from tests.sim.live_simulation import SETTINGS, World, simulate_live
from tests.sim.simulation import BY_METER, PHYSICS, rows, simulate

INTERVALS, LIVE_INTERVALS, CALM_INTERVALS = 3, 2, 3
SEEDS, LIVE_SEEDS = range(1, 171), range(171, 201)
SEEDS_LONG = 10_000
INTERVALS_LONG = 100_000
ENDS = ({"SETTLED"}, {"FINAL"})


def asked(usual: range) -> range:
    """The seeds to run."""
    if alone := os.environ.get("PEERGRID_TEST_SEED"):
        return range(int(alone), int(alone) + 1)
    if first_last := os.environ.get("PEERGRID_TEST_SEEDS"):
        first, last = map(int, first_last.split("-"))
        return range(first, last + 1)
    return usual


def check(folder: Path, seeds: range) -> None:
    calm = folder / "calm"
    calm.mkdir()
    simulate(calm, 0, INTERVALS)
    expected = rows(calm)
    begun_again = 0

    def day(one: Path, seed: int) -> None:
        nonlocal begun_again
        again, meters, _ = simulate(one, seed, INTERVALS)
        begun_again += again
        got = rows(one)
        for table in expected:
            assert got[table] == expected[table], f"seed {seed}: {table}"
        assert meters.receipted <= stored(one), f"seed {seed}: receipted and lost"

    each(folder, seeds, day)
    sys.stdout.write(f"{len(seeds)} seeds, {begun_again} times begun again\n")
    assert begun_again or len(seeds) == 1, "no fault has happened"


def each(folder: Path, seeds: range, run: Callable[[Path, int], None]) -> None:
    """Every seed on a disk of its own; one that fails holds up no other, and in the end all are named."""
    failed = []
    for seed in seeds:
        one = folder / "one"
        one.mkdir()
        try:
            run(one, seed)
        except Exception:
            traceback.print_exc()
            failed.append(seed)
        shutil.rmtree(one)
        if seed % 100 == 0:
            tell(f"seed {seed} is done, {len(failed)} failed")
    assert not failed, f"seeds {failed}"


def tell(words: str) -> None:
    sys.stdout.write(f"{words}\n")
    sys.stdout.flush()


def is_a_way(states: list[str]) -> bool:
    """Whether an interval went through its states one by one; only what a reorganisation took away is settled
    on the chain once more.
    """
    ways = chain(({"OPEN"}, {"CLOSED"}, {"CLEARED", "SUSPENDED"}, {"METERED"}), cycle(ENDS))
    return all(state in expected for state, expected in zip(states, ways, strict=False))


def stored(folder: Path) -> set[tuple[str, str, int]]:
    """Whose orders and readings the market has, or has refused by name."""
    return set(
        query(
            folder / "market.sqlite",
            "SELECT meter, 'order', version FROM orders UNION SELECT meter, 'reading', seq FROM reading"
            " UNION SELECT meter, 'reading', seq FROM reading_refused",
        )
    )


def check_live(folder: Path, seeds: range) -> None:
    begun_again = suspended = 0

    def market(one: Path, seed: int) -> None:
        nonlocal begun_again, suspended
        world = simulate_live(one, seed, LIVE_INTERVALS, CALM_INTERVALS)
        begun_again += world.begun - 1
        suspended += sound(world, f"seed {seed}")

    each(folder, seeds, market)
    sys.stdout.write(f"{len(seeds)} seeds, {begun_again} times begun again, {suspended} suspended\n")
    assert (begun_again and suspended) or len(seeds) == 1, "no fault has happened"


def sound(world: World, name: str) -> int:
    """Checks what must hold of a market that was stopped a while after its last fault; how many were
    suspended.
    """
    database = world.folder / "market.sqlite"
    states = dict(query(database, "SELECT interval_start, state FROM interval ORDER BY interval_start"))
    assert all(later - earlier == SECONDS for earlier, later in pairwise(states)), f"{name}: a gap"
    # What meters said late is in the next batch; what came to nothing is final with it.
    unsent = (
        "SELECT interval_start FROM posting LEFT JOIN batch ON sequence = batch WHERE state IS NOT 'FINAL'"
    )
    waiting = {start for (start,) in query(database, unsent)}
    ended = {start for start in states if start + 2 * SECONDS <= world.clock.now()}
    assert {states[start] for start in ended - waiting} <= {"FINAL"}, f"{name}: {states}"
    assert {states[start] for start in ended} <= {"FINAL", "SETTLED"}, f"{name}: {states}"
    went: dict[int, list[str]] = {}
    for start, state in query(database, "SELECT interval_start, state FROM transition ORDER BY 1, number"):
        went.setdefault(start, []).append(state)
    assert all(map(is_a_way, went.values())), f"{name}: {went}"
    late = query(
        database,
        "SELECT COUNT(*) FROM orders JOIN interval USING (interval_start) WHERE received_at > closes_at",
    )
    assert late == [(0,)], f"{name}: an order after its gate"
    assert world.meters.receipted <= stored(world.folder), f"{name}: receipted and lost"
    clearings = query(database, "SELECT interval_start, status FROM clearing ORDER BY 1")
    told = sum(topic.endswith("/clearing") for topic in world.meters.told)
    assert told >= len(clearings), f"{name}: a clearing was not published"
    assert clearings[-1][1] == "CLEARED", f"{name}: all is well and yet the last one is not cleared"
    with (
        Store(database, {}) as store,
        Store(world.folder / "replayed.sqlite", {}) as scratch,
    ):
        assert (found := Replay(store, scratch, lambda _: PHYSICS).run()) is None, f"{name}: {found}"
        settling = Settling(
            SETTINGS, BY_METER, store, Networks(SETTINGS, BY_METER, PHYSICS), Batches(store, b"")
        )
        with store.reading() as connection:
            recent = intervals.incomplete_intervals(connection, world.clock.now() - 7 * SECONDS)
            for start in intervals.settled_between(connection, 0, max(ended, default=0) + 1):
                said, settled = settling._energies(connection, start), intervals.metered(connection, start)
                assert said == settled or start in recent, f"{name}: {start} is not settled on what was said"
                posted, cleared = money.postings(connection, start), settling._cleared(connection, start)
                carried = settling._carried(cleared, settled, posted, {})
                owed = settling._settlement(cleared, settled, carried).postings
                assert combine(posted) == combine(owed), f"{name}: {start} was not posted as it came to"
    # A market that could not begin before its faults had ended has nothing settled yet.
    total = query(database, "SELECT COALESCE(SUM(amount_neur), 0) FROM posting")
    assert total == [(0,)], f"{name}: money from nowhere"
    final: dict[int, dict[str, int]] = {}
    for sequence, address, amount_ueur in query(
        database,
        "SELECT sequence, address, amount_ueur FROM position JOIN batch USING (sequence)"
        " JOIN account USING (account) WHERE state = 'FINAL'",
    ):
        final.setdefault(sequence, {})[address] = amount_ueur
    sent = {sequence: world.chain.settled[sequence] for sequence in final}
    assert final == sent, f"{name}: ledger and chain differ"
    return sum(status == "SUSPENDED" for _, status in clearings)


def test_seeds(folder: Path) -> None:
    promise("whatever network, disk, power and chain do, a day ends as one without faults, to the last row")
    check(folder, asked(SEEDS))


def test_seeds_on_the_wall_clock(folder: Path) -> None:
    promise("whatever fails when, every interval is cleared or suspended once, settled, final and proven")
    check_live(folder, asked(LIVE_SEEDS))


@pytest.mark.long
@pytest.mark.timeout(36_000)
def test_many_seeds(folder: Path) -> None:
    promise(f"the same for {SEEDS_LONG} seeds, a fifth of them on the wall clock")
    seeds = asked(range(1, SEEDS_LONG + 1))
    days = len(seeds) * 4 // 5
    check(folder, seeds[:days])
    check_live(folder, seeds[days:])


@pytest.mark.long
@pytest.mark.timeout(36_000)
def test_a_market_of_100_000_intervals(folder: Path) -> None:
    promise(f"a market of {INTERVALS_LONG} intervals with faults all the time is as sound as a short one")
    count = int(os.environ.get("PEERGRID_TEST_INTERVALS", INTERVALS_LONG))
    world = simulate_live(folder, 1, count, CALM_INTERVALS, rarity=10, tell=tell)
    suspended = sound(world, "the long market")
    sys.stdout.write(f"{count} intervals, {world.begun} times begun, {suspended} suspended\n")
