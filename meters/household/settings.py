"""What a scenario says about its households: one strict model."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from meters.strategies import load_strategy

Share = Annotated[float, Field(ge=0, le=1)]
Scale = Annotated[float, Field(ge=0, le=100)]
Power = Annotated[float, Field(gt=0, le=100_000)]
Energy = Annotated[float, Field(gt=0, le=1_000_000)]
Hour = Annotated[float, Field(ge=0, lt=24)]
Spread = Annotated[float, Field(ge=0, le=6)]
Price = Annotated[int, Field(ge=0, le=10_000_000)]

_RANGES = (
    ("pv_price", ""),
    ("ev_price", ""),
    ("ev_energy", "_wh"),
    ("heat_loss", "_w_per_k"),
    ("pv_peak", "_w"),
)


class HouseholdSettings(BaseModel):
    """Households of a feeder beyond its own data; energies Wh, powers W, hours UTC, prices µEUR/kWh.

    ``pv_scale`` and ``load_scale`` multiply the feeder's profiles; ``pv_inverter_ratio`` is an inverter's
    rating over the yearly peak of its modules. The share of households with an electric vehicle, and of
    those with a battery beyond the feeder's own, is drawn from the seed. A vehicle needs between
    ``ev_energy_min_wh`` and ``ev_energy_max_wh`` a day and stands at home from about
    ``ev_arrival_hour`` to about ``ev_departure_hour`` of the next day (normal, with the given spreads).
    ``pv_price_min`` and ``pv_price_max`` bound the marginal price of PV, drawn for each household;
    ``ev_price_min`` and ``ev_price_max`` what a vehicle's owner pays for charging sooner.

    Loads that the feeder's data call heat pumps are heat pumps. Of the other households the share
    ``heat_pump_share`` has one besides, for a house that loses between ``heat_loss_min_w_per_k`` and
    ``heat_loss_max_w_per_k``. A store holds the heat of ``heat_store_hours`` at full power.

    ``pv_share`` is the share of households with a roof of its own beyond the feeder's generators, modelled
    by pvlib at ``latitude`` and ``longitude`` (degrees north and east; SimBench's feeders lie near Schwerin):
    between ``pv_peak_min_w`` and ``pv_peak_max_w`` of modules, tilt and azimuth drawn.

    ``strategy`` is what a household goes by, ``strategies`` gives others to shares of those that own a device
    with a choice (PV, battery, vehicle, heat pump), drawn from the seed.
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
    heat_pump_share: Share = 0.0
    heat_loss_min_w_per_k: Annotated[float, Field(gt=0, le=10_000)] = 100.0
    heat_loss_max_w_per_k: Annotated[float, Field(gt=0, le=10_000)] = 250.0
    heat_store_hours: Annotated[float, Field(gt=0, le=48)] = 2.0
    pv_share: Share = 0.0
    pv_peak_min_w: Power = 4_000
    pv_peak_max_w: Power = 12_000
    latitude: Annotated[float, Field(ge=-66, le=66)] = 53.65
    longitude: Annotated[float, Field(ge=-180, le=180)] = 11.41
    strategy: str = "truthful"
    strategies: dict[str, Share] = Field(default_factory=dict)

    @field_validator("strategy")
    @classmethod
    def _is_installed(cls, name: str) -> str:
        load_strategy(name)
        return name

    @field_validator("strategies")
    @classmethod
    def _are_installed(cls, shares: dict[str, float]) -> dict[str, float]:
        for name in shares:
            try:
                load_strategy(name)
            except ValueError as error:
                raise ValueError(f"{name!r} {error}") from None
        if sum(shares.values()) > 1:
            raise ValueError(f"the shares sum to {sum(shares.values()):g}, above 1")
        return shares

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        for name, unit in _RANGES:
            low, high = getattr(self, f"{name}_min{unit}"), getattr(self, f"{name}_max{unit}")
            if low > high:
                raise ValueError(f"{name}_min{unit} {low} is above {name}_max{unit} {high}")
        if (
            self.ev_departure_hour + 4 * self.ev_departure_spread
            > self.ev_arrival_hour - 4 * self.ev_arrival_spread
        ):
            raise ValueError("ev_departure_hour and ev_arrival_hour are too near: stays could overlap")
        return self
