"""The queries that a generator of psycopg sends, and the text of each."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from psycopg import Error as PsycopgError
from psycopg import OperationalError
from psycopg.errors import SyntaxError as SyntaxErrorInSql

_WITHOUT_SYNC: Final = {"_execute_gen", "_executemany_gen_pipeline", "_fetch_gen"}


class OwnText(bytes):
    """Statements of sidelight, which leave the caller's savepoints and transaction as they were."""


class Query(NamedTuple):
    """A query of the caller, in the generator of a cursor that sends it."""

    cursor: Any
    text: Any

    @classmethod
    def of(cls, gen: Any) -> Query | None:
        """Find the query; None where a generator has none, or one of sidelight."""
        frame = getattr(gen, "gi_frame", None)
        known = {} if frame is None else frame.f_locals
        text = known.get("query")
        return None if text is None or type(text) is OwnText else cls(known.get("self"), text)

    def tags(self) -> list[bytes | None]:
        """Return the tags that the server has answered."""
        return [result.command_status for result in getattr(self.cursor, "_results", ())]


def plain(text: Any, connection: Any) -> str:
    """Return the text of a query."""
    if isinstance(text, str):
        return text
    if hasattr(text, "as_bytes"):  # a Composable
        text = text.as_bytes(connection)
    elif not isinstance(text, bytes):  # a Template
        return "".join(getattr(text, "strings", ()))
    return bytes(text).decode("utf-8", "surrogateescape")


def tells_no_end(gen: Any) -> bool:
    """Return whether a generator reads no answer to a Sync, which ends a pipeline's transaction."""
    return getattr(gen, "__name__", "") in _WITHOUT_SYNC


def is_unparsed(error: BaseException) -> bool:
    """Return whether the server could not parse a text; in a function, there is a context."""
    return isinstance(error, SyntaxErrorInSql) and not error.diag.context


def is_of_psycopg(error: BaseException) -> bool:
    """Return whether psycopg itself refuses a call; the server executes what was sent before."""
    is_of_server = isinstance(error, OperationalError) or getattr(error, "pgresult", None)
    return isinstance(error, PsycopgError) and not is_of_server
