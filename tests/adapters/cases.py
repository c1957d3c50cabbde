"""Recorded payloads: what real devices said, with the source of each in its file (tests/cases/adapters).

``device`` are the settings of the adapter, ``messages`` what was on the broker, ``said`` what is known after
each of them: [import Wh, export Wh, power W into the grid, resolution Wh], or null where no sample is.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter

from meters.adapters import AnyAdapter
from meters.adapters.interface import Adapter

FOLDER = Path(__file__).parents[1] / "cases" / "adapters"
_DEVICE: TypeAdapter[Adapter] = TypeAdapter(AnyAdapter)


@dataclass(frozen=True)
class Recorded:
    topic: str
    payload: bytes
    retained: bool


@dataclass(frozen=True)
class Case:
    name: str
    source: str
    settings: dict[str, object]
    messages: tuple[Recorded, ...]
    said: list[list[int] | None]

    @property
    def device(self) -> Adapter:
        return device_of(self.settings)


def device_of(settings: dict[str, object]) -> Adapter:
    """The adapter as a configuration file makes it."""
    return _DEVICE.validate_python(settings)


def case(name: str) -> Case:
    content = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    messages = tuple(
        Recorded(m["topic"], m["payload"].encode(), m.get("retained", False)) for m in content["messages"]
    )
    return Case(name, content["source"], content["device"], messages, content["said"])


NAMES = sorted(path.stem for path in FOLDER.glob("*.json"))
