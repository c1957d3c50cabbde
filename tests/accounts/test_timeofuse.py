"""Prices by time of use: every moment has one tariff, also where clocks change; parts add up to the price."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest
from pydantic import ValidationError

from market.accounts.timeofuse import TimeOfUse
from market.messages.models import Tariff

DAY = {"import_price": 300_000, "export_price": 80_000, "floor": -500_000, "cap": 2_000_000}
NIGHT = DAY | {"import_price": 200_000}


def schedule(*bands: dict[str, Any], timezone: str = "Europe/Berlin") -> TimeOfUse:
    return TimeOfUse.model_validate({"timezone": timezone, "bands": list(bands)})


def band(name: str, tariff: dict[str, int], *hours: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "tariff": tariff, "hours": list(hours), **more}


@pytest.mark.parametrize(
    ("moment", "name"),
    [
        ("2026-11-20T21:45:00+01:00", "day"),
        ("2026-11-20T22:00:00+01:00", "night"),  # Friday's night
        ("2026-11-21T05:45:00+01:00", "night"),  # reaches into Saturday
        ("2026-11-21T06:00:00+01:00", "day"),
        ("2026-11-21T22:00:00+01:00", "day"),  # Saturday has none of its own
        ("2026-11-23T05:45:00+01:00", "day"),  # nor has Sunday
        ("2026-03-29T01:45:00+01:00", "day"),
        ("2026-06-15T22:00:00+02:00", "night"),  # by the local clock, in summer too
        ("2026-06-15T22:00:00+01:00", "night"),
        ("2026-06-15T21:45:00+02:00", "day"),
    ],
)
def test_a_night_goes_over_midnight_by_the_local_clock(moment: str, name: str) -> None:
    weekdays = ["mon", "tue", "wed", "thu", "fri"]
    prices = schedule(band("night", NIGHT, "22:00-06:00", days=weekdays), band("day", DAY))
    assert prices.band_at(int(datetime.fromisoformat(moment).timestamp())).name == name


@pytest.mark.parametrize(
    ("bands", "words"),
    [
        ([band("a", DAY, "00:00-24:00"), band("b", DAY, "06:00-06:05")], "mon 06:00 is in two bands: a, b"),
        ([band("a", DAY, "00:05-24:00")], "mon 00:00 is in no band"),
        ([band("a", DAY), band("b", DAY)], "'b' has no hours"),
        ([band("a", DAY, "7-8")], "no span of hours"),
        ([], "at least 1 item"),
    ],
)
def test_a_week_with_gaps_or_overlaps_is_refused(bands: list[dict[str, Any]], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        schedule(*bands)


def test_an_unknown_time_zone_is_refused() -> None:
    with pytest.raises(ValidationError, match="is no time zone"):
        schedule(band("a", DAY), timezone="Europe/Nowhere")


PARTS = {"energy": 162_101, "network": 70_000, "levies": 20_000, "vat": 47_899}


def test_a_tariff_without_parts_reads_as_before() -> None:
    plain = Tariff(**DAY)
    assert set(plain.model_dump()) == {*DAY, "local_fee", "import_fees"}
    with_parts = Tariff.model_validate({**DAY, "import_fees": 90_000, "import_parts": PARTS})
    assert Tariff.model_validate_json(with_parts.model_dump_json()) == with_parts


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"import_fees": 90_000, "import_parts": PARTS | {"vat": 47_900}}, "add up to 300001"),
        ({"import_fees": 90_001, "import_parts": PARTS}, "is not network . levies"),
        ({"export_parts": {"energy": 79_999}}, "export_parts add up to 79999"),
        ({"local_fee": 5, "local_parts": {"energy": 5}}, "its price is the auction's"),
        ({"import_fees": 300_001}, "import_fees of 300001 is above import_price of 300000"),
    ],
)
def test_parts_that_do_not_add_up_are_refused(more: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        Tariff.model_validate({**DAY, **more})


def test_fees_are_above_the_price_in_an_hour_whose_energy_is_below_zero() -> None:
    parts = {"energy": -40_000, "network": 70_000, "levies": 20_000, "vat": 9_500}
    prices = {**DAY, "export_price": 0, "import_price": 59_500, "import_fees": 90_000, "import_parts": parts}
    assert Tariff.model_validate(prices).import_fees == 90_000
    assert Tariff.model_validate({**DAY, "export_price": -9, "import_price": -5}).import_fees == 0
