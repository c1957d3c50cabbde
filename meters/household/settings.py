"""What a scenario says about its households: one strict model."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Share = Annotated[float, Field(ge=0, le=1)]
Scale = Annotated[float, Field(ge=0, le=100)]
Power = Annotated[float, Field(gt=0, le=100_000)]
Energy = Annotated[float, Field(gt=0, le=1_000_000)]
Hour = Annotated[float, Field(ge=0, lt=24)]
Spread = Annotated[float, Field(ge=0, le=6)]
Price = Annotated[int, Field(ge=0, le=10_000_000)]


class HouseholdSettings(BaseModel):
    """Households of a feeder beyond its own data; energies Wh, powers W, hours UTC, prices µEUR/kWh.

    ``pv_scale`` and ``load_scale`` multiply the feeder's profiles; ``pv_inverter_ratio`` is an inverter's
    rating over the yearly peak of its modules. The share of households with an electric vehicle, and of
    those with a battery beyond the feeder's own, is drawn from the seed. A vehicle needs between
    ``ev_energy_min_wh`` and ``ev_energy_max_wh`` a day and stands at home from about
    ``ev_arrival_hour`` to about ``ev_departure_hour`` of the next day (normal, with the given spreads).
    ``pv_price_min`` and ``pv_price_max`` bound the marginal price of PV, drawn for each household;
    ``ev_price_min`` and ``ev_price_max`` what a vehicle's owner pays for charging without urgency.
    """

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)

    pv_scale: Scale = 1.0
    load_scale: Scale = 1.0
    pv_inverter_ratio: Annotated[float, Field(ge=0.3, le=1)] = 1.0
    pv_price_min: Price = 10_000
    pv_price_max: Price = 30_000
    battery_share: Share = 0.0
    battery_capacity_wh: Energy = 10_000
    battery_power_w: Power = 5_000
    battery_efficiency: Annotated[float, Field(ge=0.5, le=1)] = 0.9
    ev_share: Share = 0.0
    ev_power_w: Power = 11_000
    ev_energy_min_wh: Energy = 4_000
    ev_energy_max_wh: Energy = 16_000
    ev_arrival_hour: Hour = 17.5
    ev_arrival_spread: Spread = 1.5
    ev_departure_hour: Hour = 7.0
    ev_departure_spread: Spread = 0.75
    ev_price_min: Price = 310_000
    ev_price_max: Price = 450_000
    forecast: Literal["persistence", "seasonal", "analogues"] = "analogues"
    strategy: Literal["truthful"] = "truthful"

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        for name in ("pv_price", "ev_price", "ev_energy"):
            unit = "_wh" if name == "ev_energy" else ""
            low, high = getattr(self, f"{name}_min{unit}"), getattr(self, f"{name}_max{unit}")
            if low > high:
                raise ValueError(f"{name}_min{unit} {low} is above {name}_max{unit} {high}")
        if (
            self.ev_departure_hour + 4 * self.ev_departure_spread
            > self.ev_arrival_hour - 4 * self.ev_arrival_spread
        ):
            raise ValueError("ev_departure_hour and ev_arrival_hour are too near: stays could overlap")
        return self
