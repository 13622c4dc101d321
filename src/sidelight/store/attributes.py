"""Conditions on the attributes of an event, as people write them: ``words>100``, ``kind=mail``.

The value is compared by its kind: a number with numbers, a text with texts (by code points). ``=``
also matches a text that reads the same. An event without the attribute meets no condition on it.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple, Self

import msgspec
from sqlalchemy import TextClause, text

from sidelight.exceptions import QueryError
from sidelight.record import text as encodable
from sidelight.record import to_json

_CONDITION: Final = re.compile(r"\s*([^=!<>]*[^=!<>\s])\s*(!=|>=|<=|=|>|<)\s*(.*?)\s*", re.DOTALL)
_LARGEST: Final = 2**63 - 1  # SQLite takes no larger integer as a parameter

POSTGRES_DOCUMENT: Final = (
    r"(CASE WHEN strpos(attributes::text, '\u0000') = 0 THEN attributes::text"
    r" ELSE regexp_replace(attributes::text, '(?<!\\)((?:\\\\)*)\\u0000', '\1␀', 'g') END)::jsonb"
)
"""The attributes as JSONB, which refuses NUL: NUL becomes ``␀``, as in ids."""

ATTRIBUTES_INDEX: Final = "events_by_attributes"
"""The index that an operator may add on PostgreSQL; `=` then finds few events at once."""
CREATE_INDEX: Final = (
    f"CREATE INDEX {ATTRIBUTES_INDEX} ON sidelight.events"
    f" USING gin (({POSTGRES_DOCUMENT}) jsonb_path_ops)"
)

# A row that a relay did not write may hold something else than JSON.
_SQLITE_ATTRIBUTE: Final = (
    "EXISTS (SELECT 1 FROM json_each(CASE WHEN json_valid(events.attributes)"
    " THEN events.attributes ELSE '{{}}' END) WHERE key = :name_{at} AND ({test}))"
)
_SQLITE_TESTS: Final = {
    "number": "type IN ('integer', 'real') AND atom {operator} :value_{at}",
    "text": "type = 'text' AND atom {operator} :value_{at}",
    "constant": "type = :value_{at}",
}
_SQLITE_SAME_TEXT: Final = "(type = 'text' AND atom = :text_{at})"
# `CASE` keeps PostgreSQL from casting a text that is no number.
_POSTGRES_ATTRIBUTE: Final = f"({POSTGRES_DOCUMENT} -> :name_{{at}})"
_POSTGRES_TESTS: Final = {
    "number": "CASE jsonb_typeof({attribute}) WHEN 'number'"
    " THEN ({attribute} #>> '{{}}')::numeric {operator} CAST(:value_{at} AS numeric)"
    " ELSE false END",
    "text": "CASE jsonb_typeof({attribute}) WHEN 'string'"
    """ THEN ({attribute} #>> '{{}}') COLLATE "C" {operator} :value_{at} ELSE false END""",
    "constant": "CAST({attribute} AS text) = :value_{at}",
}
_POSTGRES_SAME_TEXT: Final = "({attribute} = to_jsonb(CAST(:text_{at} AS text)))"


class Condition(NamedTuple):
    """One condition on an attribute.

    Attributes:
        name: of the attribute, as the point names it.
        operator: one of = != > >= < <=.
        kind: of the value: "number", "text" or "constant" (true, false, null).
        value: the value as Python has it.
        written: the text that the value reads as.
    """

    name: str
    operator: str
    kind: str
    value: Any
    written: str

    @classmethod
    def parse(cls, written: object) -> Self:
        """Read a condition.

        Raises:
            QueryError: it is none.
        """
        found = (
            _CONDITION.fullmatch(encodable(written, sys.maxsize))
            if isinstance(written, str)
            else None
        )
        if found is None:
            raise QueryError(
                argument="where",
                problem=f"{written!r} is no condition",
                remedy="write name=value, or one of != > >= < <= between them: words>100",
            )
        name, operator, value = found.groups()
        if not value:
            raise QueryError(
                argument="where",
                problem=f"{written!r} has no value",
                remedy=f'write one behind {operator}, or {name}{operator}"" for the empty text',
            )
        if value[0] in "=<>":
            raise QueryError(
                argument="where",
                problem=f"{operator}{value[0]} in {written!r} is no comparison",
                remedy="write one of = != > >= < <=, and a text that begins with one in quotes:"
                f' {name}="{value}"',
            )
        kind, plain = _kind_of(value)
        if kind == "constant" and operator not in {"=", "!="}:
            raise QueryError(
                argument="where",
                problem=f"{written!r} compares {value}, which has no order",
                remedy=f"write {name}={value} or {name}!={value}",
            )
        return cls(name, operator, kind, plain, plain if kind == "text" else value)

    def sql(self, dialect: str, at: int) -> TextClause:
        """Return the condition on a row of `events` in SQL; every value is a parameter.

        Args:
            dialect: "sqlite" or "postgresql".
            at: the number of this condition in its statement.
        """
        operator = "=" if self.operator == "!=" else self.operator
        is_sqlite = dialect == "sqlite"
        tests, same = (
            (_SQLITE_TESTS, _SQLITE_SAME_TEXT)
            if is_sqlite
            else (_POSTGRES_TESTS, _POSTGRES_SAME_TEXT)
        )
        test = tests[self.kind]
        if operator == "=" and self.kind != "text":
            test = f"({test}) OR {same}"
        if self.operator == "!=":
            test = f"NOT ({test})"
        if is_sqlite:
            test = _SQLITE_ATTRIBUTE.replace("{test}", test)
        elif self.operator == "!=":
            test = f"{{attribute}} IS NOT NULL AND {test}"
        made = test.format(at=at, operator=operator, attribute=_POSTGRES_ATTRIBUTE.format(at=at))
        # PostgreSQL would round a float to 15 digits, and reads a text as it is.
        value = self.value if is_sqlite else self.written
        given = {f"name_{at}": self.name, f"value_{at}": value, f"text_{at}": self.written}
        return _clause(made, given)

    def containment(self, at: int) -> TextClause | None:
        """Return what PostgreSQL's index knows of the events that meet the condition.

        Return None where the index knows nothing of them.

        Args:
            at: the number of this condition in its statement.
        """
        name = to_json(self.name)
        as_text = f"{{{name}:{to_json(self.written)}}}"
        document = as_text if self.kind == "text" else f"{{{name}:{self.written}}}"
        if self.operator != "=" or "\\u0000" in as_text:
            return None
        either = " OR ".join(
            f"{POSTGRES_DOCUMENT} @> CAST(:{given}_{at} AS jsonb)" for given in ("as_is", "as_text")
        )
        return _clause(either, {f"as_is_{at}": document, f"as_text_{at}": as_text})


def _clause(made: str, given: Mapping[str, Any]) -> TextClause:
    """Make a clause of those parameters that occur in it."""
    # SQLAlchemy reads a colon before a word as a parameter, also that of a cast.
    escaped = made.replace("::", r"\:\:").replace("(?:", r"(?\:")
    used = {name: value for name, value in given.items() if f":{name}" in made}
    return text(f"({escaped})").bindparams(**used)


def conditions_of(where: str | Sequence[str]) -> tuple[Condition, ...]:
    """Read one condition or several.

    Raises:
        QueryError: one of them is none.
    """
    written = [where] if isinstance(where, str) else where
    if not isinstance(written, Sequence):
        written = [written]
    return tuple(map(Condition.parse, written))


def _kind_of(written: str) -> tuple[str, Any]:
    try:
        value = msgspec.json.decode(written)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):  # a text that looks nested
        return "text", written
    if value is None or isinstance(value, bool):
        return "constant", written
    if isinstance(value, int) and abs(value) > _LARGEST:
        return "number", float(value)
    if isinstance(value, int | float):
        return "number", value
    return "text", value if isinstance(value, str) else written
