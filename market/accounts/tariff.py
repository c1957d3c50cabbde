"""Which price energy has when it is settled (rules 6 and 9 of design section 3), µEUR/kWh.

``dlmp`` is the clearing's price at the bus: what a seller gets there. A buyer pays the local fee on top.
"""

from __future__ import annotations

from market.messages.models import PriceParts, Tariff


def auction_import_price(tariff: Tariff) -> int:
    """What import costs inside the auction: a bid pays the local fee besides, and so the import price at the
    slack.
    """
    return tariff.import_price - tariff.local_fee


def firm_import_price(tariff: Tariff, dlmp: int) -> int:
    """Firm demand pays its bus price and the local fee, and never more than the import tariff."""
    return min(tariff.import_price, dlmp + tariff.local_fee)


def firm_export_price(tariff: Tariff, dlmp: int) -> int:
    """Firm generation earns its bus price, and never less than the export tariff."""
    return max(tariff.export_price, dlmp)


def short_price(tariff: Tariff, dlmp: int) -> int:
    """What a household pays that took more, or gave less, than its award.

    The local fee belongs to it as to every purchase at the bus: without it, a buyer who said nothing would
    pay less than one who bid.
    """
    return min(max(tariff.import_price, dlmp + tariff.local_fee), tariff.cap)


def long_price(tariff: Tariff, dlmp: int) -> int:
    """What a household earns that gave more, or took less, than its award."""
    return max(min(tariff.export_price, dlmp), tariff.floor)


def retail_neur(tariff: Tariff, net_wh: int) -> int:
    """What net energy (export positive) earns (> 0) or costs at the retail tariffs, nEUR."""
    return net_wh * (tariff.export_price if net_wh > 0 else tariff.import_price)


def import_parts(tariff: Tariff) -> PriceParts:
    """What the import price is made of; without parts, what is known of it: fees and the rest."""
    fees = tariff.import_fees
    return tariff.import_parts or PriceParts(energy=tariff.import_price - fees, network=fees)


def export_parts(tariff: Tariff) -> PriceParts:
    """What the export price is made of."""
    return tariff.export_parts or PriceParts(energy=tariff.export_price)


def local_parts(tariff: Tariff) -> PriceParts:
    """What the local fee is made of."""
    return tariff.local_parts or PriceParts(network=tariff.local_fee)
