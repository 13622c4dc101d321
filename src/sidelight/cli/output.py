"""Print answers: consoles, tables, and the text of times, durations, sizes and names."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from sidelight.host import monotonic
from sidelight.store import from_ns

if TYPE_CHECKING:
    from sidelight.store import Event

T = TypeVar("T")

_SHOW_PROGRESS_AFTER: Final = 1.0  # seconds
_PIPED_WIDTH: Final = 10_000  # columns: nothing is cut or folded in a pipe
_SHORTEST_CELL: Final = 24  # columns: what may remain of a cell that is cut
_NONE: Final = "·"
_GAP: Final = 3  # columns between two columns of a table

OUTCOME_LOOKS: Final[Mapping[str, tuple[str, str]]] = {
    "started": ("▸", "blue"),
    "succeeded": ("✓", "green"),
    "failed": ("✗", "red"),
    "closed": ("◂", "yellow"),
    "emitted": ("•", "cyan"),
}
"""Symbol and colour of each outcome."""
_OTHER_LOOK: Final = ("?", "magenta")

_UNITS: Final = ((1_000, "ns"), (1_000_000, "µs"), (1_000_000_000, "ms"))
_SECOND: Final = 1_000_000_000


# -- where text goes -------------------------------------------------------------------------


def console() -> Console:
    """Return the console for answers: stdout."""
    piped = not sys.stdout.isatty() and "COLUMNS" not in os.environ
    return Console(width=_PIPED_WIDTH if piped else None, highlight=False, emoji=False)


def complain(message: object) -> None:
    """Print an error on stderr."""
    _to_stderr(message, "red")


def remark(message: object) -> None:
    """Print a note on stderr, which is neither an answer nor an error."""
    _to_stderr(message, "dim")


def remark_left_out(what: str, left_out: datetime | None) -> None:
    """Tell on stderr what a time limit left out of an answer, if anything."""
    if left_out is not None:
        remark(
            f"{what} before {moment(left_out)} UTC were not examined;"
            " --time-limit SECONDS takes more time"
        )


def _to_stderr(message: object, style: str) -> None:
    Console(stderr=True, highlight=False, emoji=False).print(
        Text(clean(str(message), keep="\n"), style=style), soft_wrap=True
    )


def print_json(items: Iterable[object]) -> None:
    """Print one JSON object per line."""
    for item in items:
        if dump := getattr(item, "model_dump_json", None):
            line = dump()
        else:
            plain = dataclasses.asdict(item) if dataclasses.is_dataclass(item) else item  # type: ignore[arg-type]
            line = _json(plain)
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()


def _json(value: object) -> str:
    return msgspec.json.encode(value, enc_hook=repr).decode()


@contextlib.contextmanager
def stdout_kept_clean() -> Iterator[None]:
    """Send to stderr all that modules print while they are imported."""
    with contextlib.redirect_stdout(sys.stderr):
        yield


def with_progress(
    items: Iterable[T], doing: str, total: int, weight: Callable[[T], int] = lambda _: 1
) -> Iterator[T]:
    """Yield the items; on a terminal, show a bar on stderr after one second.

    Args:
        items: to work on.
        doing: the work, as the bar names it.
        total: the sum of the weights.
        weight: how much an item adds to the bar, after the work on it.
    """
    out = Console(stderr=True)
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=out,
        transient=True,
        disable=not out.is_terminal,
    )
    task = bar.add_task(doing, total=total)
    begun = monotonic()
    try:
        for item in items:
            if not bar.live.is_started and monotonic() - begun > _SHOW_PROGRESS_AFTER:
                bar.start()
            yield item
            bar.advance(task, weight(item))
    finally:
        bar.stop()


# -- tables ----------------------------------------------------------------------------------


def table(*headings: str, right: Iterable[str] = ()) -> Table:
    """Return an empty table; the columns in ``right`` are right-aligned numbers."""
    made = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False, show_edge=False)
    for heading in headings:
        if heading in right:
            made.add_column(heading, justify="right", no_wrap=True)
        else:
            made.add_column(heading, overflow="fold")
    return made


def width_of(columns: Mapping[str, Sequence[Text]]) -> int:
    """Return how many columns of the terminal a table of these columns needs."""
    widest = (
        max([len(head), *(cell.cell_len for cell in cells)]) for head, cells in columns.items()
    )
    return sum(widest) + _GAP * (len(columns) - 1)


def print_table(
    columns: Mapping[str, Sequence[Text]],
    *,
    right: Iterable[str] = (),
    whole: Collection[str] = (),
    optional: Iterable[str] = (),
) -> None:
    """Print columns as a table. A cell that is too wide continues on the next line.

    Args:
        columns: the cells of each column, by heading.
        right: the columns that hold numbers.
        whole: the columns whose cells stay on one line, unless the terminal is narrow.
        optional: the columns to leave out, the first one first, until the others have room; stderr
            says so. The first one may be cut instead, if 24 characters of it remain.
    """
    out = console()
    kept, left_out = dict(columns), []
    for at, name in enumerate(optional):
        if not at and _cut_to_fit(kept, name, out.width):
            break
        if width_of(kept) > out.width and any(cell.plain.strip(_NONE) for cell in kept.pop(name)):
            left_out.append(name)
    rows = table(*kept, right=right)
    for column in rows.columns:
        natural = width_of({(name := str(column.header)): kept[name]})
        if name in whole and natural <= out.width * 3 // 5 and out.width >= 60:
            column.width = natural
    for row in zip(*kept.values(), strict=True):
        rows.add_row(*row)
    out.print(rows)
    if left_out:
        remark(f"no room for {' and '.join(left_out)} at {out.width} columns; --json shows all")


def _cut_to_fit(columns: Mapping[str, Sequence[Text]], name: str, width: int) -> bool:
    """Cut the cells of a column, so that the table fits; False where too little would remain."""
    room = width - width_of({**columns, name: []}) + len(name)
    if room < _SHORTEST_CELL:
        return False
    for cell in columns[name]:
        cell.truncate(room, overflow="ellipsis")
    return True


# -- text ------------------------------------------------------------------------------------


def clean(text: str, *, keep: str = "") -> str:
    """Spell out control characters, because they could move the terminal's cursor."""
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() or each in keep else each.encode("unicode_escape").decode()
        for each in text.encode("utf-8", "backslashreplace").decode()
    )


def named(text: str | None, style: str = "") -> Text:
    """Return a name or an id; a dim dot stands for None."""
    return Text(_NONE, style="dim") if text is None else Text(clean(text), style=style)


def outcome_look(event: Event) -> tuple[str, str]:
    """Return the symbol and the colour of an event's outcome."""
    return OUTCOME_LOOKS.get(event.outcome, _OTHER_LOOK)


def outcome_symbol(event: Event) -> Text:
    """Return the outcome as one coloured character."""
    symbol, colour = outcome_look(event)
    return Text(symbol, style=colour)


def attributes(event: Event) -> Text:
    """Return the attributes in one line; those of an error come first."""
    shown = Text()
    for name, value in sorted(event.attributes.items(), key=lambda item: item[0] != "error.type"):
        style = "red" if name.startswith("error.") else "dim"
        shown.append(" " if shown else "")
        shown.append(f"{clean(name)}=", style="dim")
        shown.append(clean(value if isinstance(value, str) else _json(value)), style=style)
    return shown


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


def whole_seconds(ns: int) -> str:
    """Return a duration without its fraction of a second."""
    return duration(ns // _SECOND * _SECOND)


def moment(when: datetime, *, today: date | None = None) -> str:
    """Return a time (UTC) to the millisecond; the date is left out where it is ``today``."""
    when = when.astimezone(UTC)
    clock = f"{when:%H:%M:%S}.{when.microsecond // 1000:03}"
    return clock if when.date() == today else f"{when:%Y-%m-%d} {clock}"


def time_of(ns: object) -> datetime | None:
    """Convert nanoseconds since 1970 that come from a file; None where they are no time."""
    try:
        return from_ns(ns) if isinstance(ns, int) else None
    except (OverflowError, ValueError):
        return None


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
