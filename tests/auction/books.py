"""Books for the auction's tests, and pandapower as the judge of what they clear to."""

from __future__ import annotations

import copy
import functools
import warnings
from typing import Any

import numpy as np
import pandapower as pp

from grid.catalogue import load_net
from grid.feeder import Feeder
from market.auction.book import Book, parse_book
from market.auction.record import ClearingRecord

TARIFF = {"import_price": 300_000, "export_price": 80_000, "floor": -500_000, "cap": 2_000_000}


def book_of(
    orders: list[dict[str, Any]],
    firm: list[dict[str, Any]] | None = None,
    limits: dict[str, float] | None = None,
    minutes: int = 15,
    **tariff: int,
) -> Book:
    document: dict[str, Any] = {
        "interval": {"start": "2016-06-15T12:00:00Z", "minutes": minutes},
        "tariff": {**TARIFF, **tariff},
        "limits": limits or {},
        "orders": orders,
    }
    if firm is not None:
        document["firm"] = firm
    return parse_book(document, "book")


def order(id_: str, side: str, bus: int, energy_wh: int, limit_price: int, **more: Any) -> dict[str, Any]:
    return {
        "id": id_,
        "connection_point": f"bus:{bus}",
        "side": side,
        "energy_wh": energy_wh,
        "limit_price": limit_price,
        **more,
    }


@functools.cache
def _loaded(name: str) -> Any:
    return load_net(name)


def fresh_net(name: str) -> Any:
    """A pandapower net of one's own; loading it again from SimBench takes seconds."""
    return copy.deepcopy(_loaded(name))


def random_orders(feeder: Feeder, seed: int, count: int, energy_wh_max: int) -> list[dict[str, Any]]:
    """Bids and asks at random buses, with many equal prices."""
    random = np.random.default_rng(seed)
    buses = feeder.bus_index[~np.isin(feeder.bus_node, feeder.slack)]
    return [
        order(
            f"o{index}",
            "ask" if random.random() < 0.5 else "bid",
            int(random.choice(buses)),
            int(random.integers(1, energy_wh_max)),
            int(random.integers(0, 24)) * 15_000,
        )
        for index in range(count)
    ]


def violations_by_pandapower(net: Any, feeder: Feeder, book: Book, record: ClearingRecord) -> list[str]:
    """What pandapower's own power flow finds beyond the limits (by 1e-4 pu; slack buses have none)."""
    for table in ("load", "sgen", "storage"):
        if book.firm is not None and len(net[table]):
            net[table]["in_service"] = False
    points = {item.id: item for item in book.orders}
    hours = book.interval.hours
    for fill in record.fills:
        item = points[fill.order_id]
        p_mw = fill.energy_wh / hours / 1e6 * (1 if item.side == "ask" else -1)
        bus = int(item.connection_point.removeprefix("bus:"))
        pp.create_sgen(net, bus, p_mw=p_mw, q_mvar=item.tan_phi * p_mw)
    for firm in book.firm or ():
        bus = int(firm.connection_point.removeprefix("bus:"))
        pp.create_sgen(net, bus, p_mw=firm.p_w / 1e6, q_mvar=firm.q_var / 1e6)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pp.runpp(net, numba=False, tolerance_mva=1e-9)
    limits = book.limits
    found = []
    slack = set(feeder.bus_index[np.isin(feeder.bus_node, feeder.slack)].tolist())
    for bus in feeder.bus_index.tolist():
        if bus in slack:
            continue
        v = net.res_bus.vm_pu[bus]
        low = limits.v_min_pu if limits.v_min_pu is not None else _own(net.bus, bus, "min_vm_pu", 0.9)
        high = limits.v_max_pu if limits.v_max_pu is not None else _own(net.bus, bus, "max_vm_pu", 1.1)
        if not low - 1e-4 <= v <= high + 1e-4:
            found.append(f"bus:{bus} {v:.5f} pu")
    for table in ("line", "trafo", "trafo3w"):
        for index in net[table].index:
            loading = net[f"res_{table}"].loading_percent[index]
            own = _own(net[table], index, "max_loading_percent", 100.0)
            most = limits.max_loading_percent if limits.max_loading_percent is not None else own
            if loading > most + 1e-2:
                found.append(f"{table}:{index} {loading:.3f} %")
    return found


def _own(table: Any, index: int, column: str, default: float) -> float:
    value = table[column][index] if column in table else np.nan
    return default if np.isnan(value) else float(value)
