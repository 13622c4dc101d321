"""The tables for SQLAlchemy, in which questions and the pruner are written; see `tables`."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    cast,
)
from sqlalchemy.types import TypeEngine, UserDefinedType

from sidelight.store import tables

metadata: Final = MetaData()


class _PostgresType(UserDefinedType[str]):
    """A type of PostgreSQL that Python reads as text; SQLAlchemy's dialect is slow to import."""

    cache_ok = True

    def __init__(self, name: str) -> None:
        self.name = name

    def get_col_spec(self, **_: object) -> str:
        return self.name

    def column_expression(self, colexpr: ColumnElement[Any]) -> ColumnElement[Any]:
        return cast(colexpr, Text)


_TYPES: Final[dict[tables.Kind, TypeEngine[Any]]] = {
    "t": Text().with_variant(Text(collation="C"), "postgresql"),
    "n": BigInteger(),
    "u": String(36).with_variant(_PostgresType("UUID"), "postgresql"),
    "j": Text().with_variant(_PostgresType("JSON"), "postgresql"),
    "i": Integer(),
}


def _table(described: tables.Table) -> Table:
    columns = (
        Column(
            column.name,
            _TYPES[column.kind],
            primary_key=column.name in described.key,
            nullable=column.optional,
        )
        for column in described.columns
    )
    return Table(described.name, metadata, *columns)


(
    events,
    event_counts,
    artifacts,
    losses,
    costs,
    attribution_work,
    processes,
    deliveries,
    open_calls,
    retention,
    erasures,
    _,
) = map(_table, tables.TABLES)
