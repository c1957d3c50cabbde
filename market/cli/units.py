"""Numbers with their units, as the command and the report print them."""

from __future__ import annotations

NARROW_SPACE = "\u202f"


def kwh(energy_wh: int, decimals: int = 2) -> str:
    """Energy in kWh, thousands apart."""
    return f"{energy_wh / 1000:,.{decimals}f} kWh".replace(",", NARROW_SPACE)


def ct_per_kwh(price_ueur_per_kwh: float) -> str:
    """A price in euro cents per kWh."""
    return f"{price_ueur_per_kwh / 10_000:,.2f} ct/kWh".replace(",", NARROW_SPACE)


def eur(amount_neur: int, decimals: int = 2) -> str:
    """An amount of money in EUR."""
    return f"{amount_neur / 1_000_000_000:,.{decimals}f} EUR".replace(",", NARROW_SPACE)


def count(number: int) -> str:
    """A number of things, thousands apart."""
    return f"{number:,}".replace(",", NARROW_SPACE)


def percent(share: float, decimals: int = 1) -> str:
    """A share between 0 and 1 in percent."""
    return f"{100 * share:.{decimals}f} %"
