"""A device on a home broker as a kind of source: what a user says of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from grid.errors import InputError
from meters.adapters import AnyAdapter
from meters.adapters.listening import MqttSource, Place
from meters.adapters.relay import Relay
from meters.adapters.shelly import Shelly
from meters.adapters.tasmota import Tasmota
from meters.configuration import read_text
from meters.identity import check_private
from meters.mqtt import Login, Trust
from meters.source import SourceSettings, Surroundings


class MqttSourceSettings(SourceSettings):
    """A device on the broker at ``host``; ``device`` says which, and in whose language it speaks."""

    kind: Literal["mqtt"]
    host: str = "127.0.0.1"
    port: Annotated[int, Field(gt=0, lt=65536)] = 1883
    user: str | None = None
    password_file: str | None = None
    tls: bool = False
    """The broker speaks TLS (mostly on port 8883); its certificate has to be for ``host``."""
    ca_file: str | None = None
    """Whose certificates it has, for a home's own authority; without it those that this machine trusts."""
    device: AnyAdapter
    invert: bool = False
    """It stands the other way round, as a plug in front of a generator: what it counts as drawn is fed in."""
    stale_s: Annotated[int, Field(ge=60, le=86_400)] = 900
    """How old what was last heard may be."""
    estimate: bool = False
    """It counts no energy: integrate its power, and mark every reading as estimated."""
    relay: Relay | None = None
    """Its relay, where a generator is behind it and the market may switch it."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.relay is not None and not isinstance(self.device, Tasmota | Shelly):
            raise ValueError(f"relay: a device of kind {self.device.adapter} has none that could be switched")
        if (self.password_file is None) != (self.user is None):
            raise ValueError("user and password_file belong together")
        if self.ca_file is not None and not self.tls:
            raise ValueError("ca_file is for tls = true")
        if self.estimate and self.device.counts:
            raise ValueError("estimate: its energy is counted, not estimated")
        if not self.estimate and not self.device.counts:
            raise ValueError("device: it counts no energy; estimate = true integrates its power")
        return self

    async def open(self, around: Surroundings) -> MqttSource:
        place = Place(self.host, self.port, self._login(around.base), self._trusted(around.base))
        source = MqttSource(
            self.device,
            place,
            around,
            invert=self.invert,
            fuse_w=self.fuse_w,
            stale_s=self.stale_s,
            estimate=self.estimate,
            relay=self.relay,
        )
        around.stack.push_async_callback(source.close)
        source.start()
        return source

    def _trusted(self, base: Path) -> Trust | None:
        if not self.tls or self.ca_file is None:
            return Trust(None) if self.tls else None
        path = base / self.ca_file
        read_text(path)
        return Trust(path)

    def _login(self, base: Path) -> Login | None:
        if self.user is None or self.password_file is None:
            return None
        path = base / self.password_file
        check_private(path)
        try:
            return Login(self.user, path.read_text(encoding="utf-8").strip())
        except (OSError, UnicodeDecodeError) as error:
            raise InputError.single(str(path), "", str(error), "so the password cannot be read") from None
