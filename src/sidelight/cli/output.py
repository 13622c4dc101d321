"""What the commands print: consoles, and times, durations and names as people read them."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from sidelight.store import from_ns

if TYPE_CHECKING:
    from sidelight.store import Event

T = TypeVar("T")

_WORTH_A_WORD: Final = 1.0  # seconds that a command may be silent
_PIPED_WIDTH: Final = 400
"""Columns where nobody said how many there are: nothing is cut or folded in a pipe."""

LOOKS: Final[Mapping[str, tuple[str, str]]] = {
    "started": ("▸", "blue"),
    "succeeded": ("✓", "green"),
    "failed": ("✗", "red"),
    "closed": ("◂", "yellow"),
    "emitted": ("•", "cyan"),
}
"""Symbol and colour of each outcome."""

_UNITS: Final = ((1_000, "ns"), (1_000_000, "µs"), (1_000_000_000, "ms"))
_SECOND: Final = 1_000_000_000


def console() -> Console:
    """Where answers go."""
    piped = not sys.stdout.isatty() and "COLUMNS" not in os.environ
    return Console(width=_PIPED_WIDTH if piped else None, highlight=False, emoji=False)


def complain(message: object) -> None:
    """Say on stderr what is wrong."""
    Console(stderr=True, highlight=False, emoji=False).print(
        Text(clean(str(message), keep="\n"), style="red"), soft_wrap=True
    )


def remark(message: object) -> None:
    """Say something on stderr that is no answer and no error."""
    Console(stderr=True, highlight=False, emoji=False).print(
        Text(clean(str(message), keep="\n"), style="dim"), soft_wrap=True
    )


def print_json(items: Iterable[object]) -> None:
    """One JSON object per line."""
    for item in items:
        if dump := getattr(item, "model_dump_json", None):
            line = dump()
        else:
            plain = dataclasses.asdict(item) if dataclasses.is_dataclass(item) else item  # type: ignore[arg-type]
            line = msgspec.json.encode(plain).decode()
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()


@contextlib.contextmanager
def stdout_kept_clean() -> Iterator[None]:
    """Send what strangers print to stderr meanwhile."""
    with contextlib.redirect_stdout(sys.stderr):
        yield


def slowly(items: Sequence[T], doing: str) -> Iterator[T]:
    """Pass items on; after a second of it, say on stderr how far that has got."""
    until = time.monotonic() + _WORTH_A_WORD
    shown = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    task = shown.add_task(doing, total=len(items))
    with contextlib.ExitStack() as stack:
        for done, item in enumerate(items):
            if time.monotonic() > until and not shown.live.is_started:
                stack.enter_context(shown)
                if not shown.console.is_terminal:
                    remark(f"{doing}: {number(done)} of {number(len(items))} so far")
            shown.update(task, completed=done)
            yield item


def table(*headings: str, right: Iterable[str] = ()) -> Table:
    """An empty table in the house's style; the columns in ``right`` hold numbers."""
    made = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False, show_edge=False)
    for heading in headings:
        if heading in right:
            made.add_column(heading, justify="right", no_wrap=True)
        else:
            made.add_column(heading, overflow="fold")
    return made


def last_column_fills(rows: Table, out: Console) -> None:
    """Give the last column what the others leave, and cut there what is longer."""
    last = rows.columns[-1]
    last.no_wrap, last.overflow = True, "ellipsis"
    if out.width < _PIPED_WIDTH:
        rows.expand, last.ratio = True, 1


def clean(text: str, *, keep: str = "") -> str:
    """A text whose control characters cannot move a terminal's cursor: they are spelled out."""
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() or each in keep else each.encode("unicode_escape").decode()
        for each in text.encode("utf-8", "backslashreplace").decode()
    )


def named(text: str | None, style: str = "") -> Text:
    """A name or an id; a dim sign where there is none."""
    return Text("·", style="dim") if text is None else Text(clean(text), style=style)


def outcome_symbol(event: Event) -> Text:
    """The outcome as one coloured character."""
    symbol, colour = LOOKS[event.outcome]
    return Text(symbol, style=colour)


def duration(ns: int | None) -> str:
    """``850 ns``, ``12.3 µs``, ``4.56 ms``, ``1.23 s``, ``2 min 5 s``, ``3 h 12 min``, ``2 d 4 h``.

    Empty where there is none.
    """
    if ns is None:
        return ""
    if ns < 0:
        return f"-{duration(-ns)}"
    for end, unit in _UNITS:
        if ns < end * 0.9995:
            return f"{_three_digits(ns * 1000 / end)} {unit}"
    return _long(ns)


def _long(ns: int) -> str:
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


def moment(when: datetime, *, today: date | None = None) -> str:
    """A time (UTC) to the millisecond, without its date where that is ``today``."""
    when = when.astimezone(UTC)
    clock = f"{when:%H:%M:%S}.{when.microsecond // 1000:03}"
    return clock if when.date() == today else f"{when:%Y-%m-%d} {clock}"


def time_of(ns: int | None) -> datetime | None:
    """A time that was read from somewhere; None where it is none, or not one of this calendar."""
    try:
        return None if ns is None else from_ns(ns)
    except (OverflowError, ValueError, TypeError):
        return None


def ago(when: datetime) -> str:
    """How long ago that was."""
    passed = (datetime.now(UTC) - when).total_seconds()
    if abs(passed) < 1:
        return "just now"
    ns = round(abs(passed)) * _SECOND
    return f"{duration(ns)} ago" if passed > 0 else f"in {duration(ns)}"


def size(count: int) -> str:
    """Bytes with a unit."""
    value = float(count)
    units = ["bytes", "kB", "MB", "GB"]
    while value >= 999.5 and len(units) > 1:
        value /= 1000
        del units[0]
    return f"{_three_digits(value)} {units[0]}"


def number(count: int) -> str:
    """A count with its thousands apart."""
    return f"{count:,}"


def plural(count: int, noun: str, nouns: str | None = None) -> str:
    """``1 record``, ``12,345 records``."""
    return f"{number(count)} {noun if count == 1 else nouns or f'{noun}s'}"


def attributes(event: Event) -> Text:
    """The attributes in one line, an error's first."""
    shown = Text()
    for name, value in sorted(event.attributes.items(), key=lambda item: item[0] != "error.type"):
        style = "red" if name.startswith("error.") else "dim"
        shown.append(" " if shown else "")
        shown.append(f"{clean(name)}=", style="dim")
        shown.append(clean(_value(value)), style=style)
    return shown


def _value(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
