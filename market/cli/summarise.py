"""From what the store and the chain tell of a day to its summary: pure functions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from market.accounts.ledger import MARKET_ACCOUNTS, NETWORK, NEUR_PER_UEUR, ROUNDING, Kind, household
from market.accounts.tariff import retail_neur
from market.cli.alone import Alone
from market.cli.chain import MarketChain
from market.cli.day import Day, DayInterval
from market.cli.savings import Gain, by_kind, by_strategy, gains
from market.cli.settings import Settings
from market.cli.summary import (
    Chain,
    Elapsed,
    Energy,
    Heat,
    Limit,
    Messages,
    Network,
    Prices,
    Run,
    Savings,
    SelfSufficiency,
    Summary,
    Vehicles,
    Violations,
)
from market.drawing.interval import neighbours_wh
from meters.fleet import Comfort
from meters.household.sites import Household

SHARE_DECIMALS = 4


def summarise(
    settings: Settings,
    day: Day,
    homes: Mapping[str, Household],
    alone: Alone,
    comfort: Comfort,
    chain: Chain,
    elapsed: Elapsed,
) -> Summary:
    """All numbers of one finished day; ``homes`` is by meter."""
    cleared = sum(interval.record.status == "cleared" for interval in day.intervals)
    energy = _energy(day, alone, comfort)
    gained = gains(day, homes, alone, comfort.at_hand_wh, settings.market.tariff)
    readings, orders = day.messages["readings"], day.messages["orders"]
    return Summary(
        run=Run(
            name=settings.name,
            feeder=settings.feeder,
            date=settings.date.isoformat(),
            seed=settings.seed,
            households=len(day.accounts) - len(MARKET_ACCOUNTS),
            intervals=len(day.intervals),
            cleared=cleared,
            suspended=len(day.intervals) - cleared,
        ),
        energy=energy,
        prices=_prices(day),
        self_sufficiency=SelfSufficiency(
            with_market=_share_kept(energy.imported_wh, energy.consumption_wh),
            without_market=_share_kept(alone.import_wh, alone.consumption_wh),
        ),
        savings=_savings(day, gained),
        strategies=by_strategy(gained, settings.households.strategy),
        kinds=by_kind(gained),
        network=_network(day),
        vehicles=Vehicles(
            departures=comfort.ev_departures, short=comfort.ev_unmet, short_wh=comfort.ev_unmet_wh
        ),
        heat=Heat(lacking_wh=comfort.heat_lacking_wh),
        accounts_neur=_accounts(day),
        messages=Messages(
            orders=orders, readings=readings, receipts=orders + readings, awards=day.messages["awards"]
        ),
        chain=chain,
        elapsed=elapsed,
    )


def _share_kept(import_wh: float, consumption_wh: float) -> float:
    """The share of consumption that was not imported; without consumption there is nothing to import."""
    if consumption_wh <= 0:
        return 1.0
    return round(max(0.0, 1 - import_wh / consumption_wh), SHARE_DECIMALS)


def metered_net_wh(interval: DayInterval) -> dict[str, int]:
    """Metered net energy into the grid by meter, where the registers tell it."""
    return {meter: energy.net_wh for meter, energy in interval.metered.items() if energy is not None}


def imbalance_wh(interval: DayInterval) -> int:
    """Energy that flowed otherwise than awarded, summed over the households regardless of direction."""
    return sum(
        abs(posting.energy_wh)
        for posting in interval.postings
        if posting.kind == Kind.IMBALANCE and posting.account not in MARKET_ACCOUNTS
    )


def _energy(day: Day, alone: Alone, comfort: Comfort) -> Energy:
    metered = [energy for interval in day.intervals for energy in interval.metered.values() if energy]
    solar_wh = round(alone.pv_available_wh) - comfort.pv_curtailed_wh
    from_batteries_wh = round(alone.battery_wh) - comfort.battery_wh
    drawn_wh = sum(energy.import_wh for energy in metered)
    fed_in_wh = sum(energy.export_wh for energy in metered)
    records = [interval.record for interval in day.intervals]
    return Energy(
        traded_locally_wh=sum(neighbours_wh(interval.book, interval.record) for interval in day.intervals),
        imported_wh=sum(record.import_wh for record in records),
        exported_wh=sum(record.export_wh for record in records),
        losses_wh=sum(record.losses_wh for record in records),
        consumption_wh=drawn_wh + solar_wh + from_batteries_wh - fed_in_wh,
        solar_wh=solar_wh,
        solar_curtailed_wh=comfort.pv_curtailed_wh,
        from_batteries_wh=from_batteries_wh,
        imbalance_wh=sum(imbalance_wh(interval) for interval in day.intervals),
    )


def _prices(day: Day) -> Prices:
    known = [node.price for interval in day.intervals for node in interval.record.prices]
    if not known:
        return Prices(low=None, high=None)
    return Prices(low=min(known), high=max(known))


def _savings(day: Day, gained: Sequence[Gain]) -> Savings:
    actual: defaultdict[str, int] = defaultdict(int)
    retail: defaultdict[str, int] = defaultdict(int)
    fees_neur = 0
    for interval in day.intervals:
        for posting in interval.postings:
            actual[posting.account] += posting.amount_neur
        for meter, net_wh in metered_net_wh(interval).items():
            retail[household(meter)] += retail_neur(interval.tariff, net_wh)
        fees_neur += _fees_avoided_neur(interval)
    saved = {account: actual[account] - cost for account, cost in retail.items()}
    total = sum(saved.values())
    return Savings(
        total_neur=total,
        energy_neur=total - fees_neur,
        network_fees_neur=fees_neur,
        households_worse_off=sum(amount < 0 for amount in saved.values()),
        against_alone_neur=sum(gain.neur for gain in gained),
        households_worse_alone=sum(gain.neur < 0 for gain in gained),
    )


def _fees_avoided_neur(interval: DayInterval) -> int:
    """The retail tariff's fees on all energy drawn, less those on what was imported and the local fee on the
    rest.
    """
    tariff, import_wh = interval.tariff, interval.record.import_wh
    drawn_wh = sum(max(0, -net_wh) for net_wh in metered_net_wh(interval).values())
    posted_neur = sum(
        posting.amount_neur
        for posting in interval.postings
        if posting.kind == Kind.FEES and posting.account == NETWORK
    )
    local_neur = posted_neur - import_wh * tariff.local_fee
    return (drawn_wh - import_wh) * tariff.import_fees - local_neur


def _network(day: Day) -> Network:
    bound: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
    for interval in day.intervals:
        found: dict[tuple[str, str], float] = {}
        for limit in interval.record.binding:
            name = (limit.element, str(limit.kind))
            found[name] = max(found.get(name, 0.0), limit.shadow_price_eur_per_mwh)
        for key, price in found.items():
            bound[key].append(price)
    ordered = sorted(bound.items(), key=lambda item: (-len(item[1]), item[0]))
    return Network(
        intervals_bound=sum(bool(interval.record.binding) for interval in day.intervals),
        limits=tuple(
            Limit(element=element, kind=kind, intervals=len(prices), shadow_price_max_eur_per_mwh=max(prices))
            for (element, kind), prices in ordered
        ),
        schedule=_violations([interval.record.ac.model_dump() for interval in day.intervals]),
        metered=_violations([interval.delivered for interval in day.intervals]),
        ignored=_violations([interval.without_network.get("ac", {}) for interval in day.intervals]),
    )


def _violations(checks: Sequence[Mapping[str, Any]]) -> Violations:
    """From the AC checks of all intervals; one without voltages found no solution."""
    solved = [check for check in checks if check.get("v_min_pu") is not None]
    counts = [int(check["violations"]) for check in solved]
    return Violations(
        count=sum(counts),
        intervals=sum(count > 0 for count in counts),
        unsolvable=len(checks) - len(solved),
        loading_max_percent=max((check["loading_max_percent"] for check in solved), default=None),
        v_min_pu=min((check["v_min_pu"] for check in solved), default=None),
        v_max_pu=max((check["v_max_pu"] for check in solved), default=None),
    )


def _accounts(day: Day) -> dict[str, int]:
    """What the day left in the market's accounts and with all households together, nEUR; they sum to zero."""
    totals = {"households": 0}
    for state in day.accounts:
        key = state.account if state.account in MARKET_ACCOUNTS else "households"
        totals[key] = totals.get(key, 0) + state.ledger_neur
    return totals


def chain_summary(day: Day, opened: MarketChain) -> Chain:
    """What the chain has of the day, read from the chain, and whether it is what the ledger says."""
    contracts = opened.contracts
    expected = ledger_on_chain_ueur(day)
    escrow = contracts.deployment.escrow
    moved = [transfer for transfer in contracts.transfers() if escrow in (transfer.sender, transfer.receiver)]
    supply = contracts.total_supply()
    deposits = sum(state.deposit_ueur for state in day.accounts)
    return Chain(
        batches=len(day.gas),
        transfers=len(moved),
        gas=sum(day.gas),
        setup_transactions=opened.setup_transactions,
        setup_gas=opened.setup_gas,
        deposits_ueur=deposits,
        total_supply_ueur=supply,
        balances_equal_ledger=supply == deposits and contracts.balances(expected) == expected,
    )


def ledger_on_chain_ueur(day: Day) -> dict[str, int]:
    """What each holder must have on the chain, µEUR: the deposit and the floor of the ledger's balance.

    The rounding account holds what the floors leave over.
    """
    expected = {
        state.address: state.deposit_ueur + state.ledger_neur // NEUR_PER_UEUR for state in day.accounts
    }
    rounding = next(state for state in day.accounts if state.account == ROUNDING)
    total = sum(state.deposit_ueur for state in day.accounts)
    others = sum(amount for address, amount in expected.items() if address != rounding.address)
    expected[rounding.address] = total - others
    return expected
