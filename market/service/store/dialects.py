"""What SQLite and PostgreSQL write differently, under one name each, for queries that run on both."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, ColumnElement, Float, case, cast, column, func, literal_column
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.sql.selectable import TableValuedAlias

from market.service.store.schema import Whole


class document(FunctionElement[Any]):  # noqa: N801  a function of SQL
    """A text column that holds a JSON document, as one: ``document(column)["member", "of it"]``."""

    type = JSON()
    inherit_cache = True


@compiles(document, "sqlite")
def _document_text(element: document, compiler: SQLCompiler, **options: Any) -> str:
    return str(compiler.process(element.clauses, **options))


@compiles(document, "postgresql")
def _document_json(element: document, compiler: SQLCompiler, **options: Any) -> str:
    return f"CAST({compiler.process(element.clauses, **options)} AS JSON)"


def text_of(of: Any, *path: str) -> ColumnElement[str]:
    """A member of a document as text; NULL where there is none."""
    found: ColumnElement[str] = of[path if len(path) > 1 else path[0]].as_string()
    return found


def whole_of(of: Any, *path: str) -> ColumnElement[int]:
    """A member of a document that is an integer."""
    return cast(text_of(of, *path), Whole)


def number_of(of: Any, *path: str) -> ColumnElement[float]:
    """A member of a document that is a number."""
    return cast(text_of(of, *path), Float(53))


class _items(FunctionElement[Any]):  # noqa: N801
    name = "items"
    inherit_cache = True


@compiles(_items, "sqlite")
def _items_json_each(element: _items, compiler: SQLCompiler, **options: Any) -> str:
    text, member = (compiler.process(clause, **options) for clause in element.clauses)
    return f"json_each({text}, '$.' || {member})"


@compiles(_items, "postgresql")
def _items_lateral(element: _items, compiler: SQLCompiler, **options: Any) -> str:
    text, member = (compiler.process(clause, **options) for clause in element.clauses)
    listed = f"json_array_elements(CAST({text} AS JSON) -> {member})"
    return f"LATERAL (SELECT * FROM {listed} WITH ORDINALITY AS listed (value, id))"  # noqa: S608


def items_of(text: ColumnElement[str], member: str) -> TableValuedAlias:
    """The items of a list in a document, to be selected beside the document's own row: each one's ``value``,
    a document, and ``id``, which grows along the list.
    """
    listed = _items(text, literal_column(f"'{member}'"))
    return listed.table_valued(
        column("value", JSON()), column("id", Whole), name="item", joins_implicitly=True
    )


class in_bytes(FunctionElement[Any]):  # noqa: N801
    """A text to order by, by its bytes, whatever language the database is set up in."""

    inherit_cache = True


@compiles(in_bytes, "sqlite")
def _as_it_is(element: in_bytes, compiler: SQLCompiler, **options: Any) -> str:
    return str(compiler.process(element.clauses, **options))


@compiles(in_bytes, "postgresql")
def _collated(element: in_bytes, compiler: SQLCompiler, **options: Any) -> str:
    return f'{compiler.process(element.clauses, **options)} COLLATE "C"'


def total(amount: Any) -> ColumnElement[int]:
    """A sum of whole numbers as a whole number; NULL of nothing."""
    return cast(func.sum(amount), Whole)


def count_if(condition: Any) -> ColumnElement[int]:
    """How many rows it holds for; NULL of no rows."""
    return total(case((condition, 1), else_=0))


def positive(amount: Any) -> ColumnElement[int]:
    """An amount, 0 in place of what is below."""
    return case((amount > 0, amount), else_=0)
