"""Devices that already speak MQTT: each kind is a page that turns payloads into counters and powers."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from meters.adapters.dsmr import Dsmr
from meters.adapters.generic import Generic
from meters.adapters.homeassistant import HomeAssistant
from meters.adapters.shelly import Shelly
from meters.adapters.tasmota import Tasmota

AnyAdapter = Annotated[Tasmota | Shelly | Dsmr | HomeAssistant | Generic, Field(discriminator="adapter")]
"""Kinds of devices, by ``adapter = "…"`` in a configuration, and what may be said of each."""
