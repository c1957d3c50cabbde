"""The read API in Python: a market's tables as pandas data frames.

    from market.console.frames import MarketFrames

    with MarketFrames("out/run/market.sqlite") as market:
        market.tables                       # names, with what they hold
        market.table("trades")              # all of it
        market.table("prices", since=1465516800, until=1465520400)

Columns, units and order are those of the REST API and of the exports: one definition, in
``market.service.store.tables``. Integers that may be missing are pandas' nullable ``Int64``.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Literal

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from sqlalchemy import Connection

from grid.errors import InputError
from market.service.store.readonly import StoredMarket
from market.service.store.tables import TABLES, Table

FOREVER = 2**62
Form = Literal["csv", "parquet"]
_ROWS_AT_ONCE = 100_000
_ARROW = {"integer": pa.int64, "number": pa.float64, "text": pa.string}
_DTYPES = {"integer": "int64", "number": "float64", "text": "object"}


def frame(connection: Connection, table: Table, since: int = 0, until: int = FOREVER) -> pd.DataFrame:
    """The rows of a table between two times, with the types that its definition says."""
    return _typed(table, table.rows(connection, since, until))


def write(connection: Connection, table: Table, since: int, until: int, form: Form, file: BinaryIO) -> int:
    """Writes those rows as CSV or Parquet, some at a time, however many there are; how many there were."""
    count = 0
    parts = map(partial(_typed, table), table.parts(connection, since, until, _ROWS_AT_ONCE))
    if form == "csv":
        file.write(_typed(table, []).to_csv(index=False).encode())
        for part in parts:
            file.write(part.to_csv(index=False, header=False).encode())
            count += len(part)
        return count
    schema = pa.schema([pa.field(column.name, _ARROW[column.type]()) for column in table.columns])
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for part in parts:
            writer.write_table(pa.Table.from_pandas(part, schema=schema, preserve_index=False))
            count += len(part)
    return count


def _typed(table: Table, rows: Sequence[tuple[Any, ...]]) -> pd.DataFrame:
    found = pd.DataFrame(rows, columns=[column.name for column in table.columns], dtype="object")
    dtypes = {
        column.name: "Int64" if column.optional and column.type == "integer" else _DTYPES[column.type]
        for column in table.columns
    }
    return found.astype(dtypes)


class MarketFrames:
    """A stored market's tables as data frames; use it as a context manager. ``place`` is a database's file or
    URL, as ``postgresql+psycopg://reader@host/market``.
    """

    def __init__(self, place: str | Path) -> None:
        self._stored = StoredMarket(place)

    def __enter__(self) -> MarketFrames:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stored.close()

    @property
    def tables(self) -> dict[str, str]:
        """What there is, by name."""
        return {table.name: table.says for table in TABLES.values()}

    def table(self, name: str, since: int = 0, until: int = FOREVER) -> pd.DataFrame:
        """A table between two times, Unix seconds. Raises :class:`InputError` for a name that is none."""
        if name not in TABLES:
            raise InputError.single("table", "", name, f"is none of {', '.join(TABLES)}")
        with self._stored.reading() as connection:
            return frame(connection, TABLES[name], since, until)
