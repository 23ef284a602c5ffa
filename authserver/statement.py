"""A statement for the busiest paths: written once in SQLAlchemy's Core, run past its engine where that is worth it.

On PostgreSQL `Database.ask` hands the text to asyncpg as it is, which costs a tenth of what a session takes. On SQLite
it goes through SQLAlchemy like everything else. Types are converted as SQLAlchemy would.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import CTE, ColumnElement, Dialect, Executable, bindparam, func, select
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.types import TypeEngine

Converter = Callable[[Any], Any]
Row = dict[str, Any]


Kinds = Mapping[str, type[TypeEngine[Any]] | TypeEngine[Any]]
"""Parameters by name, each with its type."""
Given = Mapping[str, ColumnElement[Any]]
"""What a statement is about: the parameters of one, or the columns of many."""


def one(kinds: Kinds) -> Given:
    """Return the parameters of a statement that is about one thing."""
    return {name: bindparam(name, type_=kind) for name, kind in kinds.items()}


def many(kinds: Kinds, name: str) -> CTE:
    """Return a table of that name whose columns are the same parameters, each a list now; on PostgreSQL."""
    lists = {name: bindparam(name, type_=ARRAY(kind, dimensions=1)) for name, kind in kinds.items()}
    return select(*(func.unnest(lists[name], type_=kind).label(name) for name, kind in kinds.items())).cte(name)


def columns(table: CTE) -> Given:
    """Return its columns by name."""
    return dict(table.c.items())


class Statement:
    """A SELECT, INSERT, UPDATE or DELETE whose parameters are `bindparam`s."""

    def __init__(self, construct: Executable) -> None:
        self.construct = construct
        self.writes = construct.is_dml
        self._prepared: _Prepared | None = None

    def prepared(self, dialect: Dialect) -> "_Prepared":
        """Return it as asyncpg takes it; compiled once."""
        if self._prepared is None:
            self._prepared = _Prepared(self.construct, dialect)
        return self._prepared


class _Prepared:
    """Text with numbered parameters, and what to do with values on their way in and out."""

    def __init__(self, construct: Executable, dialect: Dialect) -> None:
        compiled = construct.compile(dialect=dialect)  # type: ignore[attr-defined]
        assert isinstance(compiled, SQLCompiler)
        self.text = str(compiled)
        self._constants = compiled.params
        self._parameters = [
            (name, compiled.binds[name].type.dialect_impl(dialect).bind_processor(dialect))
            for name in compiled.positiontup or ()
        ]
        columns = construct.exported_columns.values()  # type: ignore[attr-defined]
        self._columns = [
            (column.name, column.type.dialect_impl(dialect).result_processor(dialect, None)) for column in columns
        ]

    def arguments(self, values: Mapping[str, Any]) -> list[Any]:
        """Return the values in the order of the text's numbers."""
        given = {**self._constants, **values}
        return [convert(given[name]) if convert else given[name] for name, convert in self._parameters]

    def row(self, record: Sequence[Any] | None) -> Row | None:
        """Return what the statement answered, by the names of its columns."""
        return None if record is None else self.rows([record])[0]

    def rows(self, records: Sequence[Sequence[Any]]) -> list[Row]:
        """Return all that the statement answered, in the same form."""
        return [
            {
                name: convert(value) if convert else value
                for (name, convert), value in zip(self._columns, record, strict=True)
            }
            for record in records
        ]
