"""The book of one interval: what the auction is asked to clear (design section 9).

Signs are injections: ``p_w`` and ``q_var`` are positive into the grid; an order's reactive
injection is ``tan_phi`` times its active injection.
"""

from __future__ import annotations

import hashlib
import json
import operator
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from grid.errors import InputError, Problem
from grid.feeder import Feeder, Ints, Objects
from market.messages.models import Price, Tariff
from market.messages.signing import canonical_json

UEUR_PER_EUR = 10**6
ENERGY_WH_MAX = 2**40
RESERVED_IDS = ("retailer", "network")

FiniteFloat = Annotated[float, Field(allow_inf_nan=False, strict=False)]


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)


class Interval(_Part):
    """A half-open UTC interval ``[start, start + minutes)``."""

    start: str
    minutes: Literal[5, 15, 30, 60] = 15

    @field_validator("start")
    @classmethod
    def _is_utc(cls, value: str) -> str:
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            raise ValueError("is not an ISO 8601 time such as 2016-06-15T12:00:00Z") from None
        if moment.tzinfo is None or moment.utcoffset():
            raise ValueError("is not a UTC time: end it with Z")
        return value

    @classmethod
    def at(cls, unix_time: int, minutes: Literal[5, 15, 30, 60] = 15) -> Interval:
        start = datetime.fromtimestamp(unix_time, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return cls(start=start, minutes=minutes)

    @property
    def unix_time(self) -> int:
        return int(datetime.fromisoformat(self.start).timestamp())

    @property
    def hours(self) -> float:
        return self.minutes / 60


class Limits(_Part):
    """Limits that override the net's own, where given, and the share by which all are narrowed.

    Of a voltage band the security margin takes that share of its width, half at each end.
    """

    v_min_pu: Annotated[FiniteFloat, Field(gt=0)] | None = None
    v_max_pu: Annotated[FiniteFloat, Field(gt=0)] | None = None
    max_loading_percent: Annotated[FiniteFloat, Field(gt=0)] | None = None
    security_margin_percent: Annotated[FiniteFloat, Field(ge=0, lt=100, exclude_if=operator.not_)] = 0.0


class Firm(_Part):
    """A fixed injection at a connection point; consumption is negative."""

    connection_point: str
    p_w: FiniteFloat
    q_var: FiniteFloat = 0.0


class BookOrder(_Part):
    """One bid or ask; a meter's order has one for each of its steps."""

    id: Annotated[str, Field(min_length=1, max_length=200)]
    connection_point: str
    side: Literal["bid", "ask"]
    energy_wh: Annotated[int, Field(gt=0, le=ENERGY_WH_MAX)]
    limit_price: Price
    tan_phi: Annotated[FiniteFloat, Field(ge=-10, le=10)] = 0.0
    min_fill_percent: Annotated[int, Field(ge=0, le=100)] = 0


class Book(_Part):
    """Everything that flows on one feeder in one interval, and at which prices it may be moved."""

    feeder: str | None = None
    interval: Interval
    tariff: Tariff
    limits: Limits = Limits()
    firm: Annotated[tuple[Firm, ...] | None, Field(strict=False)] = None
    orders: Annotated[tuple[BookOrder, ...], Field(strict=False)] = ()

    @model_validator(mode="after")
    def _limits_are_ordered(self) -> Book:
        low, high = self.limits.v_min_pu, self.limits.v_max_pu
        if low is not None and high is not None and low >= high:
            raise ValueError("limits.v_min_pu is not below limits.v_max_pu")
        return self

    @cached_property
    def order_ids(self) -> Objects:
        """The ids [o], as an array of objects."""
        ids = np.empty(len(self.orders), dtype=object)
        ids[:] = [order.id for order in self.orders]
        return ids

    @cached_property
    def by_id(self) -> Ints:
        """The places of the orders, sorted by id [o]."""
        ids = self.order_ids.tolist()
        return np.array(sorted(range(len(ids)), key=ids.__getitem__), dtype=np.int64)

    @cached_property
    def has_minima(self) -> bool:
        """Whether an order has a minimum fill."""
        return any(order.min_fill_percent for order in self.orders)

    @cached_property
    def sha256(self) -> str:
        """Hash of its canonical JSON; the feeder has a hash of its own."""
        return hashlib.sha256(canonical_json(self.model_dump(mode="json", exclude={"feeder"}))).hexdigest()


def validation_problems(source: str, error: ValidationError) -> list[Problem]:
    """Pydantic's findings as problems with field paths such as ``orders[3].energy_wh``."""
    problems = []
    for detail in error.errors(include_url=False):
        path = ""
        for part in detail["loc"]:
            path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else str(part)
        value: Any = detail["input"]
        if isinstance(value, dict | list | tuple | BaseModel):
            value = "…"
        if detail["type"] == "missing":
            value = None
        reason = detail["msg"].removeprefix("Value error, ")
        problems.append(Problem(source, path, value, reason[:1].lower() + reason[1:]))
    return problems


def _parts(document: object, name: str) -> list[tuple[int, dict[str, Any]]]:
    """The objects of a list in the document, by place, however wrong the rest may be."""
    items = document.get(name) if isinstance(document, dict) else None
    if not isinstance(items, list | tuple):
        return []
    return [(index, item) for index, item in enumerate(items) if isinstance(item, dict)]


def _order_problems(source: str, document: object) -> list[Problem]:
    """What is wrong with an order beside others and the tariff, each being well-formed or not."""
    problems = []
    seen: dict[str, int] = {}
    tariff = document.get("tariff") if isinstance(document, dict) else None
    floor, cap = (tariff.get(key) if isinstance(tariff, dict) else None for key in ("floor", "cap"))
    for index, order in _parts(document, "orders"):
        place, id_, limit = f"orders[{index}]", order.get("id"), order.get("limit_price")
        if isinstance(id_, str):
            if id_ in seen:
                reason = f"is the id of orders[{seen[id_]}] already"
                problems.append(Problem(source, f"{place}.id", id_, reason))
            seen.setdefault(id_, index)
            if id_ in RESERVED_IDS or id_.startswith("firm:"):
                problems.append(Problem(source, f"{place}.id", id_, "names a counterparty of trades already"))
        if type(floor) is type(cap) is type(limit) is int and not floor <= limit <= cap:
            reason = f"is outside the tariff's floor {floor} and cap {cap}"
            problems.append(Problem(source, f"{place}.limit_price", limit, reason))
    return problems


def unknown_point(source: str, place: str, connection_point: str, feeder: Feeder) -> Problem:
    """What is wrong with an order or firm energy at a point that the feeder does not have."""
    reason = f"is no connection point of {feeder.name} in service (bus:<index>, load:<index>, …)"
    return Problem(source, f"{place}.connection_point", connection_point, reason)


def _point_problems(source: str, document: object, feeder: Feeder) -> list[Problem]:
    """Connection points that the feeder does not have, in a book that may have other problems too."""
    return [
        unknown_point(source, f"{name}[{index}]", point, feeder)
        for name in ("firm", "orders")
        for index, item in _parts(document, name)
        if isinstance(point := item.get("connection_point"), str) and feeder.node_of(point) is None
    ]


def parse_book(document: object, source: str, feeder: Feeder | None = None) -> Book:
    """A checked book from decoded JSON; every problem is listed at once (:class:`InputError`).

    With a ``feeder`` the connection points are checked too.
    """
    problems: list[Problem] = []
    try:
        book = Book.model_validate(document)
    except ValidationError as error:
        problems += validation_problems(source, error)
    problems += _order_problems(source, document)
    if feeder is not None:
        problems += _point_problems(source, document, feeder)
    if problems:
        told = {problem.field: problem for problem in reversed(problems)}  # of one field the first
        raise InputError(problem for problem in problems if told[problem.field] is problem)
    return book


def read_book(path: Path) -> Book:
    """The book in a JSON file."""
    return parse_book(read_document(path), str(path))


def read_document(path: Path) -> object:
    """A book's JSON, not yet checked; NaN and Infinity are refused as JSON refuses them."""

    def refuse(constant: str) -> object:
        raise ValueError(f"{constant} is not a JSON number")

    try:
        document: object = json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)
    except OSError as error:
        raise InputError.single(str(path), "", error.strerror, "so the book cannot be read") from None
    except ValueError as error:
        raise InputError.single(str(path), "", str(error), "so it is no JSON document") from None
    return document
