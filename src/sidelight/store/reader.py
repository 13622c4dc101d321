"""The connection that answers questions, and what all questions share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar, Unpack

from sqlalchemy import CursorResult, Executable, text
from sqlalchemy.exc import SQLAlchemyError

from sidelight.exceptions import StoreError
from sidelight.host import log_warning
from sidelight.settings import public_url, settle
from sidelight.store.arguments import Id
from sidelight.store.attributes import ATTRIBUTES_INDEX
from sidelight.store.engine import connect
from sidelight.store.filters import EventFilters
from sidelight.store.selection import Row, Selection
from sidelight.store.times import When

if TYPE_CHECKING:
    from types import TracebackType

_T = TypeVar("_T")


class Reader:
    """A store, opened for reading; the base of `Store`. See there."""

    def __init__(self, url: str | None = None) -> None:
        settled = settle(url).require_store()
        self.url: Final = public_url(settled)
        self._address: Final = settled
        self.unreadable: Final[Counter[str]] = Counter()
        self._engine = connect(settled, create=False, read_only=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()

    def _selection(
        self,
        artifact_id: Id | None = None,
        since: When | None = None,
        until: When | None = None,
        **filters: Unpack[EventFilters],
    ) -> Selection:
        return Selection.of(
            self._engine.dialect.name,
            has_index=filters.get("where") is not None and self._has_index(),
            artifact_id=artifact_id,
            since=since,
            until=until,
            **filters,
        )

    def _has_index(self) -> bool:
        """Return whether an operator has added the index of attributes."""
        if self._engine.dialect.name == "sqlite":
            return False
        found = text(f"SELECT to_regclass('sidelight.{ATTRIBUTES_INDEX}') IS NOT NULL")
        return bool(self._read(found)[0][0])

    def _read(self, query: Executable) -> Sequence[Row]:
        return self._answer(query, CursorResult.all)

    def _read_values(self, query: Executable) -> Sequence[tuple[Any, ...]]:
        """Read rows of the driver, for many of them."""

        def fetched(result: Any) -> Sequence[tuple[Any, ...]]:
            rows: Sequence[tuple[Any, ...]] = result.cursor.fetchall()
            return rows

        return self._answer(query, fetched)

    def _answer(self, query: Executable, rows_of: Callable[[CursorResult[Any]], _T]) -> _T:
        try:
            with self._engine.connect() as connection:
                return rows_of(connection.execute(query))
        except (SQLAlchemyError, self._engine.dialect.loaded_dbapi.Error) as error:
            raise StoreError(
                url=self.url,
                problem=getattr(error, "orig", None) or error,
                remedy="see `sidelight doctor`",
            ) from error

    def _readable(self, table: str, rows: Iterable[Row], make: Callable[[Row], _T]) -> list[_T]:
        """Convert rows; count those that do not have the form that a relay writes.

        The first such row of a table is logged.
        """
        made = []
        for row in rows:
            try:
                made.append(make(row))
            except Exception as error:  # noqa: BLE001  # a row may hold anything
                self.unreadable[table] += 1
                if self.unreadable[table] == 1:
                    log_warning("sidelight: rows of %s cannot be read: %s", table, error)
        return made


def checked_text(value: object) -> str:
    """Return the text of a column.

    Raises:
        ValueError: it is none.
    """
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is no text")  # noqa: TRY004  # of the row
    return value


def checked_time(value: object) -> int:
    """Return the time (ns since 1970) of a column.

    Raises:
        ValueError: it is none.
    """
    if type(value) is not int:
        raise ValueError(f"{value!r} is no time")
    return value
