"""pandapower's own power flow as the judge of stored clearings."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pandapower
import pytest

from grid.catalogue import load_net
from market.auction.book import Book
from market.auction.record import ClearingRecord
from market.auction.schedule import injections_of


def stored_clearings(folder: Path) -> list[tuple[Book, ClearingRecord]]:
    """The books and records of a run, in order."""
    with sqlite3.connect(folder / "market.sqlite") as connection:
        rows = connection.execute("SELECT book, record FROM clearing ORDER BY interval_start").fetchall()
    return [
        (Book.model_validate_json(book), ClearingRecord.model_validate_json(record)) for book, record in rows
    ]


class Oracle:
    """A net without its own injections, on which schedules are tried."""

    def __init__(self, feeder: str) -> None:
        self._net: Any = load_net(feeder)
        self._bus_of_load = {f"load:{index}": int(bus) for index, bus in self._net.load.bus.items()}
        for table in ("load", "sgen", "storage"):
            self._net[table].drop(self._net[table].index, inplace=True)

    def judge(self, book: Book, record: ClearingRecord) -> None:
        """Asserts that a clearing's schedule keeps every limit, and that its slack energy is what it says."""
        net = self._net
        net.load.drop(net.load.index, inplace=True)
        injections = injections_of(book, record)
        buses = [self._bus_of_load[point] for point in injections]
        p_w, q_var = np.array(list(injections.values())).T
        pandapower.create_loads(net, buses, p_mw=-p_w / 1e6, q_mvar=-q_var / 1e6)
        pandapower.runpp(net, numba=False, tolerance_mva=1e-9)
        others = net.bus.index.difference(net.ext_grid.bus)
        voltages = net.res_bus.vm_pu[others]
        highest = net.bus.max_vm_pu[others] if book.limits.v_max_pu is None else book.limits.v_max_pu
        lowest = net.bus.min_vm_pu[others] if book.limits.v_min_pu is None else book.limits.v_min_pu
        assert (voltages <= highest + 1e-4).all()
        assert (voltages >= lowest - 1e-4).all()
        assert (net.res_line.loading_percent <= 100.01).all()
        assert (net.res_trafo.loading_percent <= 100.01).all()
        slack_wh = float(net.res_ext_grid.p_mw.sum()) * 1e6 * book.interval.hours
        assert abs(slack_wh - (record.import_wh - record.export_wh)) <= 0.5 + 1e-3
        assert record.ac.v_max_pu == pytest.approx(float(voltages.max()), abs=1e-6)
        assert record.ac.v_min_pu == pytest.approx(float(voltages.min()), abs=1e-6)
