"""Numbers with their units, as the command and the report print them."""

from __future__ import annotations

NARROW_SPACE = "\u202f"


def plain(number: float, decimals: int) -> str:
    """A number with thousands apart and a real minus."""
    text = f"{number:,.{decimals}f}".replace(",", NARROW_SPACE)
    return text.replace("-", "−") if text.strip("-0.") else text.lstrip("-")


def kwh(energy_wh: int, decimals: int = 2) -> str:
    """Energy in kWh."""
    return f"{plain(energy_wh / 1000, decimals)} kWh"


def ct_per_kwh(price_ueur_per_kwh: float) -> str:
    """A price in euro cents per kWh."""
    return f"{plain(price_ueur_per_kwh / 10_000, 2)} ct/kWh"


def eur(amount_neur: int, decimals: int = 2) -> str:
    """An amount of money in EUR."""
    return f"{plain(amount_neur / 1_000_000_000, decimals)} EUR"


def count(number: int) -> str:
    """A number of things."""
    return plain(number, 0)


def percent(share: float, decimals: int = 1) -> str:
    """A share, 1 for all of it, in percent."""
    return f"{plain(100 * share, decimals)} %"


def shadow_price(price: float, kind: str) -> str:
    """What one more unit of a limit would be worth: a MWh of rated power, or 0.01 pu for an hour."""
    return f"{plain(price, 1)} {'EUR/MWh' if kind == 'current' else 'EUR/h per 0.01 pu'}"
