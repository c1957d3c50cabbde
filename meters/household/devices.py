"""What stands in a household: PV, battery, electric vehicle. Pure; energies Wh on the AC side."""

from __future__ import annotations

from dataclasses import dataclass


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
    """A vehicle's charger; ``price`` µEUR/kWh is what its owner pays without urgency."""

    power_w: float
    price: int

    def charge_room_wh(self, remaining_wh: float, hours: float) -> float:
        return min(self.power_w * hours, max(0.0, remaining_wh))
