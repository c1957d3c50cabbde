"""What stands in a household: PV, battery, electric vehicle, heat pump. Pure; energies Wh on the AC side."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from grid.feeder import Floats
from meters.household.weather import YEAR_MEAN_C, coefficient_of_performance, outdoor_c


@dataclass(frozen=True)
class Pv:
    """PV behind an inverter of ``rated_w``; ``price`` µEUR/kWh is what producing costs its owner."""

    rated_w: float
    price: int

    def available_w(self, modules_w: float) -> float:
        """What the inverter can feed in of what the modules give, W."""
        return min(max(modules_w, 0.0), self.rated_w)

    @staticmethod
    def delivered_wh(available_wh: float, load_wh: float, offered_wh: int, awarded_wh: int) -> float:
        """What the inverter gives: an award below the offer curtails, a full award lets all flow.

        The offer is what the household's own load leaves over, so that load is served besides the award.
        """
        return available_wh if awarded_wh >= offered_wh else min(available_wh, awarded_wh + load_wh)


@dataclass(frozen=True)
class Battery:
    """A battery; ``efficiency`` is that of a full cycle, half of it lost each way (√efficiency)."""

    capacity_wh: float
    power_w: float
    efficiency: float

    @property
    def one_way(self) -> float:
        return float(self.efficiency**0.5)

    def charge_room_wh(self, stored_wh: float, hours: float) -> float:
        """The most it can take from the grid in ``hours``."""
        return min(self.power_w * hours, max(0.0, self.capacity_wh - stored_wh) / self.one_way)

    def discharge_room_wh(self, stored_wh: float, hours: float) -> float:
        """The most it can give to the grid in ``hours``."""
        return min(self.power_w * hours, max(0.0, stored_wh) * self.one_way)

    def run(
        self, stored_wh: float, charge_wh: float, discharge_wh: float, hours: float
    ) -> tuple[float, float]:
        """Follows an award as far as it can: (stored energy after it, net energy into the grid).

        Charging and discharging at once is netted first: no energy is burnt.
        """
        net = discharge_wh - charge_wh
        if net >= 0:
            net = min(net, self.discharge_room_wh(stored_wh, hours))
            after = stored_wh - net / self.one_way
        else:
            net = -min(-net, self.charge_room_wh(stored_wh, hours))
            after = stored_wh - net * self.one_way
        return min(max(after, 0.0), self.capacity_wh), net


@dataclass(frozen=True)
class Stay:
    """A vehicle at home in [arrival, departure), Unix seconds, that needs ``need_wh`` by its departure."""

    arrival: int
    departure: int
    need_wh: float


@dataclass(frozen=True)
class Ev:
    """A vehicle's charger; ``price`` µEUR/kWh is what its owner pays to have it charged sooner."""

    power_w: float
    price: int

    def charge_room_wh(self, remaining_wh: float, hours: float) -> float:
        return min(self.power_w * hours, max(0.0, remaining_wh))


@dataclass(frozen=True)
class HeatPump:
    """A heat pump of at most ``power_w`` (electric) and the store that it heats.

    The store's heat is counted from the lower edge of the comfort band (``low_c``) and reaches
    ``capacity_wh`` at its upper edge (``high_c``). It loses ``loss_w_per_k`` for each kelvin above
    ``room_c``, at the lower edge too. The pump can run at any power between nothing and ``power_w``; its
    source is the ``ground`` or the outdoor air, its flow as warm as the band's upper edge. Heat is in
    thermal Wh, ``cop`` heat per electricity.
    """

    power_w: float
    capacity_wh: float
    loss_w_per_k: float
    low_c: float = 35.0
    high_c: float = 50.0
    room_c: float = 20.0
    ground: bool = False

    def cop(self, time: int | Floats) -> Floats:
        """Heat per electricity at ``time`` (Unix seconds); the ground is as warm as the year's mean."""
        source_c = np.full(np.shape(time), YEAR_MEAN_C) if self.ground else outdoor_c(time)
        return coefficient_of_performance(source_c, self.high_c, ground=self.ground)

    def loss_wh(self, stored_wh: float, hours: float) -> float:
        """The heat lost in ``hours`` at the temperature of their beginning; below the band it goes on."""
        kelvin = (self.high_c - self.low_c) * stored_wh / self.capacity_wh + self.low_c - self.room_c
        return self.loss_w_per_k * kelvin * hours

    def least_wh(self, stored_wh: float, demand_wh: float, cop: float, hours: float) -> float:
        """The electricity without which the store would leave the comfort band below, as far as the power
        reaches."""
        lacking_wh = demand_wh + self.loss_wh(stored_wh, hours) - stored_wh
        return min(self.power_w * hours, max(0.0, lacking_wh / cop))

    def most_wh(self, stored_wh: float, demand_wh: float, cop: float, hours: float) -> float:
        """The most electricity that it can take without leaving the band above, and not below the least."""
        room_wh = self.capacity_wh + demand_wh + self.loss_wh(stored_wh, hours) - stored_wh
        return min(self.power_w * hours, max(0.0, room_wh / cop))

    def run(
        self, stored_wh: float, electric_wh: float, demand_wh: float, cop: float, hours: float
    ) -> tuple[float, float, float]:
        """Takes ``electric_wh`` within its power and the comfort band: (heat stored after it, electricity
        taken, heat that lacks for the band's lower edge).

        Lacking heat stays lacking: the house is that much colder, and the store is told as empty.
        """
        least_wh = self.least_wh(stored_wh, demand_wh, cop, hours)
        most_wh = self.most_wh(stored_wh, demand_wh, cop, hours)
        taken_wh = min(max(electric_wh, least_wh), most_wh)
        after_wh = stored_wh + taken_wh * cop - demand_wh - self.loss_wh(stored_wh, hours)
        return min(max(after_wh, 0.0), self.capacity_wh), taken_wh, max(0.0, -after_wh)
