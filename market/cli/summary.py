"""The numbers of a day: one frozen model.

Everything but ``elapsed`` is the same for the same settings, to the last unit. Energies are Wh, prices
µEUR/kWh, ledger money nEUR, chain money µEUR, shares between 0 and 1.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Run(_Part):
    name: str
    feeder: str
    date: str
    seed: int
    households: int
    intervals: int
    cleared: int
    suspended: int


class Energy(_Part):
    """Traded, imported, exported and lost are of the schedule as cleared, the rest is what happened.

    ``consumption_wh`` includes what batteries lose, ``from_batteries_wh`` is by how much they hold less at
    the end than at the beginning, ``imbalance_wh`` is Σ |metered − awarded| over all households.
    """

    traded_locally_wh: int
    imported_wh: int
    exported_wh: int
    losses_wh: int
    consumption_wh: int
    solar_wh: int
    solar_curtailed_wh: int
    from_batteries_wh: int
    imbalance_wh: int


class Prices(_Part):
    """The lowest and the highest bus price (DLMP) of the day; None where nothing was cleared."""

    low: int | None
    high: int | None


class SelfSufficiency(_Part):
    """The share of consumption that needed no energy from the retailer.

    With the market that is what the feeder as a whole did not import; without it, what each household
    did not draw from the grid when it acts for itself.
    """

    with_market: float
    without_market: float


class Savings(_Part):
    """What the households paid less than the retail tariffs would have cost for the same metered energy.

    ``network_fees_neur`` is what they did not pay of the fees inside the retail tariff, ``energy_neur``
    the rest. ``households_worse_off`` paid more than at the retail tariffs. ``against_alone_neur`` is their
    gain over their own day without a market, ``households_worse_alone`` have none: see
    :mod:`market.cli.savings` for both yardsticks.
    """

    total_neur: int
    energy_neur: int
    network_fees_neur: int
    households_worse_off: int
    against_alone_neur: int
    households_worse_alone: int


class StrategySavings(_Part):
    """The mean gain of a strategy's households over their day alone, nEUR a household.

    ``ahead_neur`` is how much more that is than of households with the same devices and the usual strategy,
    over the ``compared`` of them that have such; ``ahead_error_neur`` its standard error.
    """

    strategy: str
    households: int
    mean_neur: int
    compared: int
    ahead_neur: int | None
    ahead_error_neur: int | None


class KindSavings(_Part):
    """The mean gain of households with the same devices and strategy, nEUR a household."""

    kind: str
    strategy: str
    households: int
    mean_neur: int


class Limit(_Part):
    """A limit that bound in ``intervals`` of them, and its highest shadow price."""

    element: str
    kind: str
    intervals: int
    shadow_price_max_eur_per_mwh: float


class Violations(_Part):
    """Limits broken by more than the tolerance, in how many intervals, and the extremes of the day.

    ``unsolvable`` counts intervals whose AC power flow has no solution at all.
    """

    count: int
    intervals: int
    unsolvable: int
    loading_max_percent: float | None
    v_min_pu: float | None
    v_max_pu: float | None


class Network(_Part):
    """``schedule`` is what was cleared, ``metered`` what flowed, ``ignored`` the books without limits."""

    intervals_bound: int
    limits: tuple[Limit, ...]
    schedule: Violations
    metered: Violations
    ignored: Violations


class Vehicles(_Part):
    """Departures, how many of them with less than was needed, and how much less."""

    departures: int
    short: int
    short_wh: int


class Heat(_Part):
    """Heat that lacked for the comfort bands of the heat pumps' stores."""

    lacking_wh: int


class Messages(_Part):
    """What meters sent and the market accepted, each of it covered by a receipt, and what it answered."""

    orders: int
    readings: int
    receipts: int
    awards: int


class Chain(_Part):
    """Settlement on the chain; ``setup_*`` is contracts, registration and deposits."""

    batches: int
    transfers: int
    gas: int
    setup_transactions: int
    setup_gas: int
    deposits_ueur: int
    total_supply_ueur: int
    balances_equal_ledger: bool


class Elapsed(_Part):
    """What depends on the machine: seconds by stage, and messages as they happened to be sent."""

    total_s: float
    stages_s: dict[str, float]
    broker: str
    messages_in: int
    receipts: int


class Summary(_Part):
    run: Run
    energy: Energy
    prices: Prices
    self_sufficiency: SelfSufficiency
    savings: Savings
    strategies: tuple[StrategySavings, ...]
    kinds: tuple[KindSavings, ...]
    network: Network
    vehicles: Vehicles
    heat: Heat
    accounts_neur: dict[str, int]
    messages: Messages
    chain: Chain
    elapsed: Elapsed
