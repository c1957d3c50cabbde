"""What a table is: its columns in words, and the query that reads it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import ColumnElement, Connection, Select

Type = Literal["integer", "number", "text"]


@dataclass(frozen=True)
class Column:
    name: str
    type: Type
    says: str
    optional: bool = False


@dataclass(frozen=True)
class Table:
    """``query`` has a column for each of ``columns``, and a fixed order; ``time`` is what it is read by."""

    name: str
    says: str
    columns: Sequence[Column]
    query: Select[Any]
    time: ColumnElement[int] | None = None

    @property
    def timed(self) -> bool:
        return self.time is not None

    def rows(
        self, connection: Connection, since: int, until: int, limit: int | None = None, offset: int = 0
    ) -> list[tuple[Any, ...]]:
        """Rows in a fixed order; ``limit`` None is all of them."""
        found = connection.execute(self._between(since, until).limit(limit).offset(offset))
        return [tuple(row) for row in found]

    def parts(
        self, connection: Connection, since: int, until: int, rows_max: int
    ) -> Iterator[list[tuple[Any, ...]]]:
        """The same rows, some at a time."""
        some = {"yield_per": rows_max}
        for part in connection.execute(self._between(since, until), execution_options=some).partitions():
            yield [tuple(row) for row in part]

    def _between(self, since: int, until: int) -> Select[Any]:
        if self.time is None:
            return self.query
        return self.query.where(self.time >= since, self.time < until)


def whole(name: str, says: str, optional: bool = False) -> Column:
    return Column(name, "integer", says, optional)


def number(name: str, says: str, optional: bool = False) -> Column:
    return Column(name, "number", says, optional)


def text(name: str, says: str, optional: bool = False) -> Column:
    return Column(name, "text", says, optional)


START = whole("interval_start", "start of the interval, Unix seconds")
METER = text("meter", "address of the meter's key")
