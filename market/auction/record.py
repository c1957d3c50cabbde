"""The clearing record: what an interval's auction came to (design section 9).

Energies are Wh, prices µEUR/kWh, injections positive into the grid. Its integers are exact; the
certificate carries what a verifier needs to recompute optimality without a solver.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import GenericAlias
from typing import Any, ClassVar, Literal, TypeVar, get_args, overload

import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from market.auction.book import Interval
from market.messages.signing import canonical_json


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


Line = TypeVar("Line")


class Lines(Sequence[Line]):
    """Lines of one kind, kept by columns: an interval may have many, and each is made when it is looked at.

    Equal to any sequence of equal lines.
    """

    def __init__(self, kind: Callable[..., Line], *columns: npt.NDArray[Any]) -> None:
        self._kind = kind
        self._columns = columns

    @cached_property
    def _lines(self) -> tuple[Line, ...]:
        return tuple(map(self._kind, *(column.tolist() for column in self._columns)))

    @classmethod
    def of(cls, lines: Sequence[Line]) -> Lines[Line]:
        """Lines that are there already."""
        made = cls.__new__(cls)
        made.__dict__["_lines"] = tuple(lines)
        return made

    @overload
    def __getitem__(self, index: int) -> Line: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Line]: ...
    def __getitem__(self, index: int | slice) -> Line | Sequence[Line]:
        return self._lines[index]

    def __len__(self) -> int:
        return len(self._columns[0]) if "_columns" in self.__dict__ else len(self._lines)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and self._lines == tuple(other)

    def __hash__(self) -> int:
        return hash(self._lines)

    def __repr__(self) -> str:
        return repr(self._lines)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        listed = handler.generate_schema(GenericAlias(tuple, (*get_args(source), ...)))
        read = core_schema.no_info_after_validator_function(cls.of, listed)
        return core_schema.json_or_python_schema(
            json_schema=read,
            python_schema=core_schema.union_schema([core_schema.is_instance_schema(cls), read]),
            serialization=core_schema.plain_serializer_function_ser_schema(tuple, return_schema=listed),
        )


# Plain classes are made ten times as fast as models, and checked alike where a record is read.
@dataclass(slots=True, unsafe_hash=True)
class Fill:
    """What an order got: ``price`` is what it pays or earns, fees included."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    order_id: str
    energy_wh: int
    price: int


@dataclass(slots=True, unsafe_hash=True)
class Trade:
    """Energy from a seller to a buyer; the network keeps the difference of the two prices.

    Counterparties are order ids, ``firm:<connection point>``, ``retailer`` or ``network``.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    buy: str
    sell: str
    energy_wh: int
    buy_price: int
    sell_price: int


@dataclass(slots=True, unsafe_hash=True)
class NodePrice:
    """The DLMP of a bus and its parts, which add up to it exactly; ``price_q`` is per kvarh."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    bus: int
    price: int
    energy: int
    losses: int
    congestion: int
    voltage: int
    price_q: int


class BindingLimit(_Part):
    """A limit that binds. Currents tell ``loading_percent``, voltages ``v_pu``."""

    element: str
    side: str | None = None
    kind: Literal["current", "v_min", "v_max"]
    loading_percent: float | None = None
    v_pu: float | None = None
    shadow_price_eur_per_mwh: float


class AcCheck(_Part):
    """What the AC power flow of the rounded awards says; ``None`` where it has no solution."""

    v_min_pu: float | None
    v_max_pu: float | None
    loading_max_percent: float | None
    violations: int
    slack_mismatch_w: float
    iterations: int
    stale_rows: int


class Certificate(_Part):
    """Primal and dual objective of the last linear program, and the hashes of what it was about."""

    primal_eur: float
    dual_eur: float
    gap_eur: float
    feeder_sha256: str
    limits_sha256: str
    book_sha256: str
    duals: dict[str, float]


class MinimumFills(_Part):
    """How good the choice of orders with a minimum fill is, before rounding, by the search that made it.

    ``proven`` is that no other choice in which nobody who was taken loses is worth more; else the search
    ended before. ``bound_eur`` is what none could be worth more than, ``None`` where that is not known.
    """

    proven: bool
    welfare_eur: float | None
    bound_eur: float | None

    @property
    def missed_eur(self) -> float | None:
        """What another choice might be worth more, at most; ``None`` where that is not known."""
        if self.proven:
            return 0.0
        if self.welfare_eur is None or self.bound_eur is None:
            return None
        return max(self.bound_eur - self.welfare_eur, 0.0)


class Setpoint(_Part):
    """A relieving setpoint of a suspended interval: the energy an order should move."""

    order_id: str
    energy_wh: int


class ClearingRecord(_Part):
    status: Literal["cleared", "suspended"]
    reason: str | None = None
    feeder: str
    interval: Interval
    welfare_eur: float
    import_wh: int
    export_wh: int
    losses_wh: int
    fills: Lines[Fill]
    trades: Lines[Trade]
    prices: Lines[NodePrice]
    binding: tuple[BindingLimit, ...]
    setpoints: tuple[Setpoint, ...] = ()
    paradoxically_rejected: tuple[str, ...] = ()
    """Orders left out for their minimum fill although their price was met."""
    minimum_fills: MinimumFills | None = None
    """Of a cleared book that has orders with a minimum fill."""
    ac: AcCheck
    certificate: Certificate | None

    def json_document(self) -> dict[str, object]:
        """The record as JSON values; what is seldom there is left out where it is empty."""
        document = self.model_dump(mode="json")
        for optional in ("reason", "setpoints", "paradoxically_rejected", "minimum_fills"):
            if not document[optional]:
                del document[optional]
        for limit in document["binding"]:
            for optional in ("side", "loading_percent", "v_pu"):
                if limit[optional] is None:
                    del limit[optional]
        return document


NOT_CHECKED = AcCheck(
    v_min_pu=None,
    v_max_pu=None,
    loading_max_percent=None,
    violations=0,
    slack_mismatch_w=0.0,
    iterations=0,
    stale_rows=0,
)
"""What AC says where there was no power flow to look at."""


def suspended_record(
    feeder: str,
    interval: Interval,
    reason: str,
    *,
    ac: AcCheck = NOT_CHECKED,
    setpoints: tuple[Setpoint, ...] = (),
) -> ClearingRecord:
    """The record of an interval without trades (design rule 11)."""
    return ClearingRecord(
        status="suspended",
        reason=reason,
        feeder=feeder,
        interval=interval,
        welfare_eur=0.0,
        import_wh=0,
        export_wh=0,
        losses_wh=0,
        fills=Lines.of(()),
        trades=Lines.of(()),
        prices=Lines.of(()),
        binding=(),
        setpoints=setpoints,
        ac=ac,
        certificate=None,
    )


def sha256_of(value: object) -> str:
    """sha256 of canonical JSON, hex."""
    return hashlib.sha256(canonical_json(value)).hexdigest()
