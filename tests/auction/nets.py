"""The networks that the auction is judged on, with the sizes at which random books make limits bind."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pandapower as pp
import pandapower.networks as pn

from grid.catalogue import load_net
from grid.feeder import Feeder, feeder_from_net
from market.auction.book import Book
from tests.auction.books import book_of, random_orders

KERBER = Path(__file__).parents[1] / "cases" / "nets" / "kerber_landnetz_frozen.json"


@dataclass(frozen=True)
class Kind:
    """How to make a net; the loading limit and the largest order that make its limits bind."""

    make: Callable[[], Any]
    max_loading_percent: float
    energy_wh_max: int


def _meshed_oberrhein() -> Any:
    net = pn.mv_oberrhein()
    net.switch["closed"] = True
    return net


KINDS = {
    "rural1": Kind(lambda: load_net("simbench:1-LV-rural1--2-sw"), 40, 20_000),
    "rural3": Kind(lambda: load_net("simbench:1-LV-rural3--2-sw"), 40, 20_000),
    "semiurb5": Kind(lambda: load_net("simbench:1-LV-semiurb5--2-sw"), 40, 20_000),
    "mv_rural": Kind(lambda: load_net("simbench:1-MV-rural--2-sw"), 25, 400_000),
    "kerber_frozen": Kind(lambda: pp.from_json(str(KERBER)), 20, 10_000),
    "cigre_lv": Kind(pn.create_cigre_network_lv, 30, 20_000),
    "oberrhein_two_slacks": Kind(pn.mv_oberrhein, 40, 800_000),
    "oberrhein_meshed": Kind(_meshed_oberrhein, 20, 800_000),
}


@cache
def _made(name: str) -> tuple[Any, Feeder]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pandapower's own, about pandas
        net = KINDS[name].make()
        return net, feeder_from_net(net, name)


def feeder_of(name: str) -> Feeder:
    return _made(name)[1]


def net_of(name: str) -> Any:
    """The net, which a test must not change."""
    return _made(name)[0]


def fresh_net(name: str) -> Any:
    """A copy of the net that a test may change."""
    return copy.deepcopy(_made(name)[0])


def binding_book(name: str, seed: int, count: int = 120) -> Book:
    """A random book without firm energy, of a size that makes limits of this net bind more often than not."""
    kind = KINDS[name]
    orders = random_orders(feeder_of(name), seed, count, kind.energy_wh_max)
    return book_of(orders, firm=[], limits={"max_loading_percent": kind.max_loading_percent})
