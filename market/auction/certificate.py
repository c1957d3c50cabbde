"""The certificate of a clearing: what its welfare is, and what no other awards could exceed.

Everything is linearised at the awards' own operating point.  The bound is the Lagrangian of that linear
program at the published duals (weak duality): anyone can recompute it without a solver.
"""

from __future__ import annotations

import numpy as np

from grid.feeder import Floats
from market.auction.book import Book
from market.auction.columns import Columns
from market.auction.prices import Prices
from market.auction.record import Certificate, sha256_of
from market.auction.rows import LimitKey
from market.auction.whole import WholeAwards


def objectives(columns: Columns, kw: Floats, net_import_kw: float, prices: Prices) -> tuple[float, float]:
    """Welfare of groups running at ``kw`` [g], and the bound on it, both in EUR for the interval.

    ``net_import_kw`` is the AC slack power that goes with ``kw``.
    """
    sign, limit = columns.group_sign, columns.group_price / 1e3
    tariff = (columns.import_price if net_import_kw > 0 else columns.export_price) / 1e3
    # EUR/MWh · kW is 1e-3 EUR/h, and so is a dual in EUR/h per pu times 1e3.
    primal = -float((sign * limit) @ kw) - tariff * net_import_kw
    rent = sign * (prices.point[columns.group_point] / 1e3 - limit)
    unused = float(np.maximum(rent, 0.0) @ columns.group_kw - rent @ kw)
    unused += (tariff - prices.energy / 1e3) * net_import_kw
    for row, dual in zip(prices.rows, prices.limit_duals, strict=True):
        unused -= float(dual) * 1e3 * row.excess_pu
    share = columns.hours / 1e3
    return primal * share, (primal + unused) * share


def limit_name(columns: Columns, key: LimitKey) -> str:
    """The element a limit belongs to: ``line:4``, ``trafo:0``, ``bus:12``."""
    feeder = columns.feeder
    return str(feeder.branch[key.index]) if key.kind == "current" else f"bus:{feeder.v_bus[key.index]}"


def _dual_name(columns: Columns, key: LimitKey) -> str:
    side = str(columns.feeder.side[key.index]) if key.kind == "current" else key.kind
    return f"{limit_name(columns, key)}/{side}"


def certificate(book: Book, columns: Columns, awards: WholeAwards, prices: Prices) -> Certificate:
    """The certificate of whole awards; duals are µEUR/kWh for energy, EUR/h per pu for limits."""
    kw = awards.group_wh / columns.hours / 1e3
    primal, bound = objectives(columns, kw, awards.point.slack_w / 1e3, prices)
    duals = {"energy": round(prices.energy, 6)}
    for row, dual in zip(prices.rows, prices.limit_duals, strict=True):
        duals[_dual_name(columns, row.key)] = round(float(dual), 9)
    limits = columns.limits
    return Certificate(
        primal_eur=primal,
        dual_eur=bound,
        gap_eur=bound - primal,
        feeder_sha256=columns.feeder.sha256,
        limits_sha256=sha256_of(
            {
                "v_min_pu": np.round(limits.v_min_pu, 9).tolist(),
                "v_max_pu": [None if not np.isfinite(v) else round(float(v), 9) for v in limits.v_max_pu],
                "loading": np.round(limits.loading, 9).tolist(),
            }
        ),
        book_sha256=book.sha256,
        duals=duals,
    )
