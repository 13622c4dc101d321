"""Durations, times, sizes and numbers in words and symbols, for people."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Final

from sidelight.record import visible

_UNITS: Final = ((1_000, "ns"), (1_000_000, "µs"), (1_000_000_000, "ms"))
_SECOND: Final = 1_000_000_000

_SYMBOLS: Final = {
    # outcomes
    "started": "▸",
    "succeeded": "✓",
    "failed": "✗",
    "abandoned": "⊘",
    "emitted": "•",
    # waits for an expected event
    "kept": "✓",
    "late": "✗",
    "waiting": "▸",
    "overdue": "✗",
    # ends of processes
    "exited": "✓",
    "died": "✝",
    # findings of the doctor
    "ok": "✓",
    "note": "!",
    "wrong": "✗",
}


def duration(ns: int | None) -> str:
    """``850 ns``, ``12.3 µs``, ``4.56 ms``, ``1.23 s``, ``2 min 5 s``, ``3 h 12 min``, ``2 d 4 h``.

    None is an empty text.
    """
    if ns is None:
        return ""
    if ns < 0:
        return f"-{duration(-ns)}"
    for end, unit in _UNITS:
        if ns < end * 0.9995:
            return f"{_three_digits(ns * 1000 / end)} {unit}"
    return _long_duration(ns)


def _long_duration(ns: int) -> str:
    if ns < 59.95 * _SECOND:
        return f"{_three_digits(ns / _SECOND)} s"
    seconds = round(ns / _SECOND)
    if seconds < 3600:
        return _two_units(*divmod(seconds, 60), "min", "s")
    if seconds < 86_400:
        return _two_units(*divmod(round(seconds / 60), 60), "h", "min")
    return _two_units(*divmod(round(seconds / 3600), 24), "d", "h")


def _two_units(large: int, small: int, large_unit: str, small_unit: str) -> str:
    return f"{large} {large_unit} {small} {small_unit}" if small else f"{large} {large_unit}"


def _three_digits(value: float) -> str:
    if value == int(value) and value < 1000:
        return str(int(value))
    return f"{value:.2f}" if value < 9.995 else f"{value:.1f}" if value < 99.95 else f"{value:.0f}"


def no_such_name(argument: str, name: str, close: str) -> str:
    """Return the hint for a name that a store does not know.

    Args:
        argument: "type", "organization_id", "service" or "host".
        name: the name.
        close: the known names that it looks like, or "".
    """
    what, name = argument.removesuffix("_id"), visible(name)
    if argument in {"service", "host"}:
        text, listed = f"no process in the store has the {what} {name}", ""
    else:
        text = f"no event in the store has the {what} {name}"
        listed = f"; `sidelight counts --by {what}` lists them"
    return f"{text}; did you mean {close}?" if close else f"{text}{listed}"


def symbol(state: str) -> str:
    """Return the character for an outcome or another state, the same wherever it is shown."""
    return _SYMBOLS.get(state, "?")


def whole_seconds(ns: int) -> str:
    """Return a duration without its fraction of a second; one below a second as it is."""
    return duration(ns if abs(ns) < _SECOND else ns // _SECOND * _SECOND)


def moment(when: datetime, *, today: date | None = None) -> str:
    """Return a time (UTC) to the millisecond; the date is left out where it is ``today``."""
    when = when.astimezone(UTC)
    clock = f"{when:%H:%M:%S}.{when.microsecond // 1000:03}"
    return clock if when.date() == today else f"{when:%Y-%m-%d} {clock}"


def ago(when: datetime) -> str:
    """Return how long ago a time was, or how far ahead it is."""
    passed = (datetime.now(UTC) - when).total_seconds()
    if abs(passed) < 1:
        return "just now"
    ns = round(abs(passed)) * _SECOND
    return f"{duration(ns)} ago" if passed > 0 else f"in {duration(ns)}"


def size(count: int) -> str:
    """Return a number of bytes with a unit."""
    value = float(count)
    units = ["bytes", "kB", "MB", "GB"]
    while value >= 999.5 and len(units) > 1:
        value /= 1000
        del units[0]
    return f"{_three_digits(value)} {units[0]}"


def number(count: int) -> str:
    """Return a count with commas between thousands."""
    return f"{count:,}"


def plural(count: int, noun: str, nouns: str | None = None) -> str:
    """``1 record``, ``12,345 records``."""
    return f"{number(count)} {noun if count == 1 else nouns or f'{noun}s'}"
