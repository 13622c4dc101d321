"""Parse times as people and programs write them, into nanoseconds since 1970 (UTC), and back.

A day is an interval: as the start of a range it means its first moment, as the end its last. A time
without a zone is UTC.
"""

from __future__ import annotations

import time
from datetime import UTC, date, datetime, timedelta
from typing import Final, TypeAlias

from sidelight.exceptions import QueryError
from sidelight.record import parse_duration

When: TypeAlias = datetime | date | timedelta | str
"""A datetime, a day, an age, or one of these as text (``2026-07-25``, ``2026-07-25T10:00:00Z``,
``15m``)."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_MILLISECOND_NS: Final = 1_000_000
_LAST: Final = 2**63 - 1


def from_ns(ns: int) -> datetime:
    """Return the time ``ns`` nanoseconds after 1970 (UTC), cut to the microsecond."""
    return _EPOCH + timedelta(0, 0, ns // 1000)


def whole_ms(ns: int) -> int:
    """Return a time (ns), rounded up to a whole millisecond, because words show no more of it."""
    return -(-ns // _MILLISECOND_NS) * _MILLISECOND_NS


def is_age(when: object) -> bool:
    """Return whether a time is an age, which counts back from now."""
    return isinstance(when, timedelta) or (
        isinstance(when, str) and parse_duration(when) is not None
    )


def beginning_ns(argument: str, when: When) -> int:
    """Return the first moment (ns since 1970) of a range that begins at ``when``.

    Raises:
        QueryError: ``when`` is not a time; the error names the argument.
    """
    return _ns(_parsed(argument, when), days=0)


def end_ns(argument: str, when: When) -> int:
    """Return the first moment (ns since 1970) after a range that ends at ``when``.

    Raises:
        QueryError: ``when`` is not a time; the error names the argument.
    """
    return _ns(_parsed(argument, when), days=1)


def window_ns(since: When | None, until: When | None) -> tuple[int | None, int | None]:
    """Return the first moment of a range and the first after it; None where it is open.

    Raises:
        QueryError: one of them is not a time, or the range ends before it begins.
    """
    begin = None if since is None else beginning_ns("since", since)
    end = None if until is None else end_ns("until", until)
    if begin is not None and end is not None and (begin > end or 0 < begin == end < _LAST):
        raise QueryError(
            argument="since",
            problem=f"{since} is not earlier than until: {until}",
            remedy="exchange the two, or give a later end",
        )
    return begin, end


def day_of(argument: str, when: When) -> date:
    """Return the day (UTC) that contains ``when``.

    Raises:
        QueryError: ``when`` is not a time; the error names the argument.
    """
    parsed = _parsed(argument, when)
    return parsed.astimezone(UTC).date() if isinstance(parsed, datetime) else parsed


def _ns(when: datetime | date, *, days: int) -> int:
    if not isinstance(when, datetime):
        since = datetime(when.year, when.month, when.day, tzinfo=UTC) - _EPOCH
        since += timedelta(days=days)
    else:
        since = when - _EPOCH
    return min(max(0, since // _MICROSECOND * 1000), _LAST)


def _parsed(argument: str, when: object) -> datetime | date:
    """Return a datetime with its zone, or a day."""
    given = when
    if isinstance(when, str):
        when = _from_text(argument, when.strip())
    if isinstance(when, timedelta):
        try:
            when = from_ns(time.time_ns()) - when
        except OverflowError:
            raise _not_a_time(argument, given) from None
    if isinstance(when, datetime):
        return when if when.tzinfo else when.replace(tzinfo=UTC)
    if isinstance(when, date):
        return when
    raise _not_a_time(argument, when)


def _from_text(argument: str, text: str) -> datetime | date | timedelta:
    if (age := parse_duration(text)) is not None:
        return age
    for form in (date, datetime):
        try:
            return form.fromisoformat(text)
        except ValueError:
            continue
    raise _not_a_time(argument, text)


def _not_a_time(argument: str, value: object) -> QueryError:
    return QueryError(
        argument=argument,
        problem=f"{value!r} is not a time",
        remedy="write 2026-07-25, 2026-07-25T10:00:00Z or how long ago: 15m, 2h, 7d",
    )
